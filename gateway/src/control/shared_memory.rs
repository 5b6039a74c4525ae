//! System shared memory: regions that clients register by name, out of which inputs are read and
//! into which outputs are written.
//!
//! A region is read and written through its file descriptor and never mapped. A client that cuts
//! its object short after registering it would otherwise end this process with SIGBUS; so it gets
//! an error.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustix::buffer::spare_capacity;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use rustix::shm::{self, OFlags};
use sluice_protocol::RegionSlice;

use crate::error::{GatewayError, clip};

/// Regions that may be registered at a time.
const MOST_REGIONS: usize = 1024;
/// What the objects of Triton's own Python processes are called by.
const RESERVED: &str = "triton_python_backend_shm_region_";

/// A registered region.
#[derive(Debug, Clone)]
pub(crate) struct Region {
    pub(crate) name: String,
    /// The name of the POSIX shared memory object.
    pub(crate) key: String,
    /// Where the region begins in the object.
    pub(crate) offset: u64,
    pub(crate) byte_size: u64,
    object: Arc<Object>,
}

/// A shared memory object, which is open once for all regions of it.
#[derive(Debug)]
struct Object {
    file: File,
    /// The device and the inode: what no other object has while this one is open.
    identity: (u64, u64),
}

/// Refuses a region of a GPU's memory: models run on the CPU here.
pub(crate) fn no_cuda() -> GatewayError {
    let reason = "this server runs models on the CPU; use system shared memory";
    GatewayError::Unsupported(format!("failed to register CUDA shared memory region: {reason}"))
}

/// That there is none, where one is asked for by name.
pub(crate) fn no_cuda_region(name: Option<&str>) -> Result<(), GatewayError> {
    match name.filter(|name| !name.is_empty()) {
        None => Ok(()),
        Some(name) => {
            let name = clip(name);
            let text = format!("Unable to find cuda shared memory region: '{name}'");
            Err(GatewayError::NotFound(text))
        }
    }
}

/// All regions. Requests read a snapshot; a region that is unregistered meanwhile stays open for
/// those that use it.
#[derive(Debug, Default)]
pub(crate) struct Regions {
    enabled: bool,
    by_name: ArcSwap<BTreeMap<String, Arc<Region>>>,
}

impl Regions {
    /// No region yet; none will be taken unless `enabled`.
    pub(crate) fn new(enabled: bool) -> Self {
        Self { enabled, by_name: ArcSwap::default() }
    }

    /// Whether regions may be registered.
    pub(crate) const fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Opens a region of the object `key` under `name`.
    pub(crate) fn register(
        &self,
        name: &str,
        key: &str,
        offset: u64,
        byte_size: u64,
    ) -> Result<(), GatewayError> {
        if !self.enabled {
            return Err(GatewayError::Unsupported(
                "shared memory is turned off; start the server with --shared-memory".to_owned(),
            ));
        }
        let region = open(name, key, offset, byte_size)?;
        let mut outcome = Ok(());
        self.by_name.rcu(|regions| match with(regions, &region) {
            Ok(next) => {
                outcome = Ok(());
                Arc::new(next)
            }
            Err(refused) => {
                outcome = Err(refused);
                regions.clone()
            }
        });
        outcome
    }

    /// Forgets the region `name`, or all of them. One that is not there is forgotten already.
    pub(crate) fn unregister(&self, name: Option<&str>) {
        self.by_name.rcu(|regions| match name {
            None => BTreeMap::new(),
            Some(name) => {
                let mut next = BTreeMap::clone(regions);
                next.remove(name);
                next
            }
        });
    }

    /// The region `name`, or all of them by name.
    pub(crate) fn status(&self, name: Option<&str>) -> Result<Vec<Arc<Region>>, GatewayError> {
        let regions = self.by_name.load();
        match name.filter(|name| !name.is_empty()) {
            None => Ok(regions.values().cloned().collect()),
            Some(name) => regions.get(name).map(|region| vec![region.clone()]).ok_or_else(|| {
                GatewayError::NotFound(format!(
                    "Unable to find system shared memory region: '{}'",
                    clip(name)
                ))
            }),
        }
    }

    /// The bytes of a part of a region. An object may be said to be of any size, so whoever asks
    /// has found that there is room for them.
    ///
    /// `input` is told of in errors.
    pub(crate) fn read(&self, slice: &RegionSlice, input: &str) -> Result<Vec<u8>, GatewayError> {
        self.read_slice(slice).map_err(|error| error.about("input", input))
    }

    fn read_slice(&self, slice: &RegionSlice) -> Result<Vec<u8>, Fault> {
        let (region, at) = self.locate(slice)?;
        region.check_length(at, slice.byte_size)?;
        let length = usize::try_from(slice.byte_size).map_err(|_| too_large(slice))?;
        read_exact_at(&region.object.file, length, at).map_err(|error| region.broken(&error))
    }

    /// Writes to the beginning of a part of a region.
    ///
    /// `output` is told of in errors.
    pub(crate) fn write(
        &self,
        slice: &RegionSlice,
        output: &str,
        bytes: &[u8],
    ) -> Result<(), GatewayError> {
        self.write_slice(slice, bytes).map_err(|error| error.about("output", output))
    }

    fn write_slice(&self, slice: &RegionSlice, bytes: &[u8]) -> Result<(), Fault> {
        let (region, at) = self.locate(slice)?;
        if bytes.len() as u64 > slice.byte_size {
            return Err(Fault::Invalid(format!(
                "shared memory size specified with the request ({} bytes of region {:?}) should be at least {} bytes to hold the results",
                slice.byte_size,
                clip(&slice.region),
                bytes.len()
            )));
        }
        // Writing past the end would make the object larger.
        region.check_length(at, bytes.len() as u64)?;
        region.object.file.write_all_at(bytes, at).map_err(|error| region.broken(&error))
    }

    /// The region of a slice that lies inside it, and where the slice begins in the object.
    fn locate(&self, slice: &RegionSlice) -> Result<(Arc<Region>, u64), Fault> {
        let regions = self.by_name.load();
        let region = regions.get(&slice.region).ok_or_else(|| {
            Fault::NotFound(format!(
                "Unable to find shared memory region: '{}'; register it first",
                clip(&slice.region)
            ))
        })?;
        let end = slice.offset.checked_add(slice.byte_size);
        if end.is_none_or(|end| end > region.byte_size) {
            return Err(Fault::Invalid(format!(
                "Invalid offset + byte size for shared memory region: '{}' has {} bytes, offset {} and byte size {} go past them",
                region.name, region.byte_size, slice.offset, slice.byte_size
            )));
        }
        Ok((region.clone(), region.offset + slice.offset))
    }
}

impl Region {
    /// Whether `length` bytes from `at` on are there at this moment.
    fn check_length(&self, at: u64, length: u64) -> Result<(), Fault> {
        let there = self.object.file.metadata().map_err(|error| self.broken(&error))?.len();
        if at.checked_add(length).is_some_and(|end| end <= there) {
            return Ok(());
        }
        Err(Fault::Invalid(format!(
            "shared memory region '{}' is no longer whole: its object {:?} has only {there} bytes",
            self.name, self.key
        )))
    }

    fn broken(&self, error: &std::io::Error) -> Fault {
        Fault::Invalid(format!("shared memory region '{}' cannot be used: {error}", self.name))
    }
}

/// Why a tensor's part of a region cannot be used.
#[derive(Debug)]
enum Fault {
    NotFound(String),
    Invalid(String),
}

impl Fault {
    /// With the tensor that it is about.
    fn about(self, kind: &str, tensor: &str) -> GatewayError {
        let tensor = clip(tensor);
        match self {
            Self::NotFound(text) => GatewayError::NotFound(format!("{kind} '{tensor}': {text}")),
            Self::Invalid(text) => GatewayError::Invalid(format!("{kind} '{tensor}': {text}")),
        }
    }
}

fn open(name: &str, key: &str, offset: u64, byte_size: u64) -> Result<Region, GatewayError> {
    let refuse = |reason: String| {
        invalid(format!("failed to register shared memory region '{}': {reason}", clip(name)))
    };
    if name.is_empty() || name.len() > 255 {
        return Err(refuse("its name must have 1 to 255 bytes".to_owned()));
    }
    if [name, key.trim_start_matches('/')].iter().any(|text| text.starts_with(RESERVED)) {
        return Err(refuse(format!("names and keys that begin with {RESERVED} are reserved")));
    }
    if byte_size == 0 {
        return Err(refuse("byte_size must be greater than 0".to_owned()));
    }
    let object = shm::open(key, OFlags::RDWR, Mode::empty()).map_err(|error| {
        refuse(format!("Unable to open shared memory region {:?}: {error}", clip(key)))
    })?;
    let file = File::from(object);
    let metadata = file.metadata().map_err(|error| refuse(error.to_string()))?;
    if !metadata.is_file() {
        return Err(refuse(format!("{:?} is no shared memory object", clip(key))));
    }
    let (there, identity) = (metadata.len(), (metadata.dev(), metadata.ino()));
    if offset.checked_add(byte_size).is_none_or(|end| end > there) {
        return Err(refuse(format!(
            "offset {offset} and byte size {byte_size} go past the {there} bytes of {:?}",
            clip(key)
        )));
    }
    let object = Arc::new(Object { file, identity });
    Ok(Region { name: name.to_owned(), key: key.to_owned(), offset, byte_size, object })
}

/// `regions` and one more, which shares its object with those that have it open already.
fn with(
    regions: &BTreeMap<String, Arc<Region>>,
    region: &Region,
) -> Result<BTreeMap<String, Arc<Region>>, GatewayError> {
    if regions.contains_key(&region.name) {
        let name = &region.name;
        return Err(GatewayError::AlreadyExists(format!(
            "shared memory region {name:?} already in manager; unregister it first"
        )));
    }
    if regions.len() >= MOST_REGIONS {
        let text = format!("{MOST_REGIONS} shared memory regions are registered already");
        return Err(invalid(text));
    }
    let objects: BTreeMap<_, _> =
        regions.values().map(|other| (other.object.identity, &other.object)).collect();
    let object = match objects.get(&region.object.identity) {
        Some(&open) => open.clone(),
        None if objects.len() >= most_objects() => {
            let text = format!("{} shared memory objects are in use already", objects.len());
            return Err(invalid(text));
        }
        None => region.object.clone(),
    };
    let mut next = regions.clone();
    next.insert(region.name.clone(), Arc::new(Region { object, ..region.clone() }));
    Ok(next)
}

/// Objects that may be open at a time: half of the files that this process may have open, since
/// connections need some.
fn most_objects() -> usize {
    let files = getrlimit(Resource::Nofile).current;
    files.and_then(|files| usize::try_from(files / 2).ok()).unwrap_or(usize::MAX)
}

/// `length` bytes from `at` on, into memory that is taken once, and not filled before.
fn read_exact_at(file: &File, length: usize, at: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length)?;
    while bytes.len() < length {
        let next = at + bytes.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut bytes), next) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // More may have been taken, and so read.
    bytes.truncate(length);
    Ok(bytes)
}

const fn invalid(text: String) -> GatewayError {
    GatewayError::Invalid(text)
}

fn too_large(slice: &RegionSlice) -> Fault {
    Fault::Invalid(format!("{} bytes of shared memory cannot be addressed", slice.byte_size))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::fs::Mode;
    use rustix::shm::{self, OFlags};
    use sluice_protocol::RegionSlice;

    use super::Regions;
    use crate::error::GatewayError;

    /// An object of `size` bytes that is gone after the test.
    struct Object {
        key: String,
        file: File,
    }

    impl Object {
        fn new(name: &str, size: u64) -> Self {
            let key = format!("/sluice-test-{name}-{}", std::process::id());
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
            let file = File::from(shm::open(&*key, flags, Mode::RUSR | Mode::WUSR).unwrap());
            file.set_len(size).unwrap();
            Self { key, file }
        }
    }

    impl Drop for Object {
        fn drop(&mut self) {
            shm::unlink(&*self.key).unwrap();
        }
    }

    fn slice(offset: u64, byte_size: u64) -> RegionSlice {
        RegionSlice { region: "r".to_owned(), offset, byte_size }
    }

    fn text<T: std::fmt::Debug>(result: Result<T, GatewayError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_read() {
        let object = Object::new("round", 64);
        let regions = Regions::new(true);
        regions.register("r", &object.key, 16, 32).unwrap();
        regions.write(&slice(8, 24), "y", &[7; 20]).unwrap();
        assert_eq!(regions.read(&slice(4, 8), "x").unwrap(), [0, 0, 0, 0, 7, 7, 7, 7]);
        assert_eq!(regions.read(&slice(24, 8), "x").unwrap(), [7, 7, 7, 7, 0, 0, 0, 0]);
        assert_eq!(regions.status(None).unwrap()[0].offset, 16);
        regions.unregister(Some("r"));
        assert!(
            text(regions.read(&slice(0, 1), "x")).contains("Unable to find shared memory region")
        );
        assert!(regions.status(None).unwrap().is_empty());
    }

    #[test]
    fn what_lies_outside_is_refused() {
        let object = Object::new("outside", 64);
        let regions = Regions::new(true);
        for (offset, size) in [(0, 65), (64, 1), (u64::MAX, 2), (1, u64::MAX)] {
            let said = text(regions.register("r", &object.key, offset, size));
            assert!(said.contains("go past the 64 bytes"), "{offset} {size}: {said}");
        }
        assert!(text(regions.register("r", &object.key, 0, 0)).contains("greater than 0"));
        regions.register("r", &object.key, 32, 32).unwrap();
        for (offset, size) in [(0, 33), (32, 1), (u64::MAX, 2), (2, u64::MAX)] {
            let said = text(regions.read(&slice(offset, size), "x"));
            assert!(said.contains("Invalid offset + byte size"), "{offset} {size}: {said}");
        }
        let said = text(regions.write(&slice(0, 4), "y", &[0; 5]));
        assert!(said.contains("should be at least 5 bytes"), "{said}");
    }

    #[test]
    fn an_object_that_was_cut_short_is_an_error_and_does_not_grow() {
        let object = Object::new("short", 4096);
        let regions = Regions::new(true);
        regions.register("r", &object.key, 0, 4096).unwrap();
        object.file.set_len(100).unwrap();
        for said in [
            text(regions.read(&slice(0, 4096), "x")),
            text(regions.read(&slice(99, 2), "x")),
            text(regions.write(&slice(0, 4096), "y", &[1; 101])),
        ] {
            assert!(said.contains("no longer whole"), "{said}");
        }
        assert_eq!(object.file.metadata().unwrap().len(), 100);
        assert_eq!(regions.read(&slice(0, 100), "x").unwrap(), [0; 100]);
    }

    #[test]
    fn regions_of_one_object_have_it_open_once() {
        let (object, other) = (Object::new("shared", 4096), Object::new("own", 4096));
        let regions = Regions::new(true);
        let open = |object: &Object| {
            let files = std::fs::read_dir("/proc/self/fd").unwrap();
            let name = format!("/dev/shm{}", object.key);
            let links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
            links.filter(|link| link.as_os_str() == name.as_str()).count()
        };
        for number in 0..20 {
            regions.register(&format!("r{number}"), &object.key, number, 8).unwrap();
        }
        regions.register("other", &other.key, 0, 8).unwrap();
        // Each is open once more by this test.
        assert_eq!((open(&object), open(&other)), (2, 2));
        let of =
            |region: &str, offset| RegionSlice { region: region.to_owned(), ..slice(offset, 1) };
        regions.write(&of("r5", 0), "y", &[7]).unwrap();
        assert_eq!(regions.read(&of("r0", 5), "x").unwrap(), [7]);
        regions.unregister(Some("r0"));
        assert_eq!(open(&object), 2, "others still have it");
        regions.unregister(None);
        assert_eq!((open(&object), open(&other)), (1, 1));
    }

    /// Only what is said of it is large: a hundred terabytes of nothing.
    #[test]
    fn memory_that_is_not_there_is_an_error() {
        let (object, size) = (Object::new("vast", 100 << 40), 100 << 40);
        let regions = Regions::new(true);
        regions.register("r", &object.key, 0, size).unwrap();
        assert!(text(regions.read(&slice(0, size), "x")).contains("cannot be used"));
        assert_eq!(regions.read(&slice(size - 8, 8), "x").unwrap(), [0; 8]);
    }

    #[test]
    fn names_and_keys_that_cannot_be_are_refused() {
        let object = Object::new("names", 8);
        let regions = Regions::new(true);
        for key in ["", "/", "../etc/passwd", "/a/b", "/not-there", "a\0b", &"x".repeat(300)] {
            let said = text(regions.register("r", key, 0, 8));
            assert!(said.contains("failed to register shared memory region"), "{key}: {said}");
        }
        let reserved = "/triton_python_backend_shm_region_1";
        assert!(text(regions.register("r", reserved, 0, 8)).contains("reserved"));
        assert!(text(regions.register("", &object.key, 0, 8)).contains("1 to 255"));
        regions.register("r", &object.key, 0, 8).unwrap();
        let twice = regions.register("r", &object.key, 0, 8).unwrap_err();
        assert!(matches!(twice, GatewayError::AlreadyExists(_)), "{twice}");
        let unknown = regions.status(Some("other")).unwrap_err();
        assert!(unknown.to_string().contains("Unable to find system shared memory region"));
        regions.unregister(None);
        regions.register("r", &object.key, 0, 8).unwrap();
        let off = Regions::new(false).register("r", &object.key, 0, 8).unwrap_err();
        assert!(off.to_string().contains("--shared-memory"), "{off}");
    }
}
