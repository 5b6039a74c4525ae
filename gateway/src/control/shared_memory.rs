//! System shared memory: regions that clients register by name, out of which inputs are read and
//! into which outputs are written.
//!
//! A region is read and written through its file descriptor and never mapped. A client that cuts
//! its object short after registering it would otherwise end this process with SIGBUS; so it gets
//! an error.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustix::fs::Mode;
use rustix::shm::{self, OFlags};
use sluice_protocol::RegionSlice;

use crate::error::GatewayError;

/// Regions that may be registered at a time: each holds a file open.
const MOST_REGIONS: usize = 1024;
/// What the objects of Triton's own Python processes are called by.
const RESERVED: &str = "triton_python_backend_shm_region_";

/// A registered region.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) name: String,
    /// The name of the POSIX shared memory object.
    pub(crate) key: String,
    /// Where the region begins in the object.
    pub(crate) offset: u64,
    pub(crate) byte_size: u64,
    object: File,
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
        let region = Arc::new(open(name, key, offset, byte_size)?);
        let taken = || {
            GatewayError::AlreadyExists(format!(
                "shared memory region {name:?} already in manager; unregister it first"
            ))
        };
        let mut outcome = Ok(());
        self.by_name.rcu(|regions| {
            outcome = if regions.contains_key(name) {
                Err(taken())
            } else if regions.len() >= MOST_REGIONS {
                Err(invalid(format!("{MOST_REGIONS} shared memory regions are registered already")))
            } else {
                let mut next = BTreeMap::clone(regions);
                next.insert(name.to_owned(), region.clone());
                outcome = Ok(());
                return Arc::new(next);
            };
            regions.clone()
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

    /// The bytes of a part of a region.
    ///
    /// `input` is told of in errors.
    pub(crate) fn read(&self, slice: &RegionSlice, input: &str) -> Result<Vec<u8>, GatewayError> {
        self.read_slice(slice).map_err(|error| error.about("input", input))
    }

    fn read_slice(&self, slice: &RegionSlice) -> Result<Vec<u8>, Fault> {
        let (region, at) = self.locate(slice)?;
        region.check_length(at, slice.byte_size)?;
        let length = usize::try_from(slice.byte_size).map_err(|_| too_large(slice))?;
        let mut bytes = vec![0; length];
        region.object.read_exact_at(&mut bytes, at).map_err(|error| region.broken(&error))?;
        Ok(bytes)
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
        region.object.write_all_at(bytes, at).map_err(|error| region.broken(&error))
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
        let there = self.object.metadata().map_err(|error| self.broken(&error))?.len();
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
        let tensor: String = tensor.chars().take(100).collect();
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
    let object = File::from(object);
    let metadata = object.metadata().map_err(|error| refuse(error.to_string()))?;
    if !metadata.is_file() {
        return Err(refuse(format!("{:?} is no shared memory object", clip(key))));
    }
    let there = metadata.len();
    if offset.checked_add(byte_size).is_none_or(|end| end > there) {
        return Err(refuse(format!(
            "offset {offset} and byte size {byte_size} go past the {there} bytes of {:?}",
            clip(key)
        )));
    }
    Ok(Region { name: name.to_owned(), key: key.to_owned(), offset, byte_size, object })
}

const fn invalid(text: String) -> GatewayError {
    GatewayError::Invalid(text)
}

fn too_large(slice: &RegionSlice) -> Fault {
    Fault::Invalid(format!("{} bytes of shared memory cannot be addressed", slice.byte_size))
}

/// What a caller sent as a name, cut to a length fit for a message.
fn clip(text: &str) -> String {
    text.chars().take(100).collect()
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
