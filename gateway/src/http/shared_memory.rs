//! The shared memory extension over HTTP.

use serde::Deserialize;
use serde_json::{Value, json};

use super::route::Memory;
use crate::control::shared_memory::{Regions, no_cuda, no_cuda_region};
use crate::error::GatewayError;

/// What a register call's body says.
#[derive(Deserialize)]
struct Register {
    key: String,
    #[serde(default)]
    offset: u64,
    byte_size: u64,
}

/// `GET /v2/systemsharedmemory[/region/{region}]/status`: a list of regions. There are none of a
/// GPU's memory.
pub(super) fn status(
    regions: &Regions,
    memory: Memory,
    region: Option<&str>,
) -> Result<Value, GatewayError> {
    if memory == Memory::Cuda {
        return no_cuda_region(region).map(|()| json!([]));
    }
    let listed = regions.status(region)?;
    let list = listed.iter().map(|region| {
        json!({
            "name": region.name,
            "key": region.key,
            "offset": region.offset,
            "byte_size": region.byte_size,
        })
    });
    Ok(list.collect())
}

/// `POST /v2/systemsharedmemory/region/{region}/register`.
pub(super) fn register(
    regions: &Regions,
    memory: Memory,
    region: &str,
    body: &[u8],
) -> Result<(), GatewayError> {
    if memory == Memory::Cuda {
        return Err(no_cuda());
    }
    let Register { key, offset, byte_size } = serde_json::from_slice(body).map_err(|error| {
        GatewayError::Invalid(format!(
            "a region is registered by {{\"key\": TEXT, \"offset\": BYTES, \"byte_size\": BYTES}}: {error}"
        ))
    })?;
    regions.register(region, &key, offset, byte_size)
}

/// `POST /v2/systemsharedmemory[/region/{region}]/unregister`. Clients clear what may be left of an
/// earlier run, also of a GPU's memory, so that there is nothing does not matter.
pub(super) fn unregister(regions: &Regions, memory: Memory, region: Option<&str>) {
    if memory == Memory::System {
        regions.unregister(region);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Memory, register, status, unregister};
    use crate::control::shared_memory::Regions;

    #[test]
    fn a_body_that_is_no_region_is_refused() {
        let regions = Regions::new(true);
        for (body, says) in [
            ("", "registered by"),
            ("[]", "registered by"),
            (r#"{"key": "/k"}"#, "missing field `byte_size`"),
            (r#"{"byte_size": 1}"#, "missing field `key`"),
            (r#"{"key": "/k", "byte_size": -1}"#, "invalid value"),
            (r#"{"key": 1, "byte_size": 1}"#, "invalid type"),
            (r#"{"key": "/k", "byte_size": 1, "offset": 1e30}"#, "invalid type"),
        ] {
            let error =
                register(&regions, Memory::System, "r", body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{body}: {error}");
        }
        assert_eq!(status(&regions, Memory::System, None).unwrap(), json!([]));
    }

    #[test]
    fn there_is_no_memory_of_a_gpu() {
        let regions = Regions::new(true);
        assert_eq!(status(&regions, Memory::Cuda, None).unwrap(), json!([]));
        unregister(&regions, Memory::Cuda, None);
        let unknown = status(&regions, Memory::Cuda, Some("r")).unwrap_err().to_string();
        assert!(unknown.contains("Unable to find cuda shared memory region: 'r'"), "{unknown}");
        let refused = register(&regions, Memory::Cuda, "r", b"{}").unwrap_err().to_string();
        assert!(refused.contains("failed to register"), "{refused}");
    }
}
