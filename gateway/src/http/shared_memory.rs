//! The shared memory extension over HTTP.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::shared_memory::Regions;
use crate::error::GatewayError;

/// What a register call's body says.
#[derive(Deserialize)]
struct Register {
    key: String,
    #[serde(default)]
    offset: u64,
    byte_size: u64,
}

/// `GET /v2/systemsharedmemory[/region/{region}]/status`: a list of regions.
pub(super) fn status(regions: &Regions, region: Option<&str>) -> Result<Value, GatewayError> {
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
pub(super) fn register(regions: &Regions, region: &str, body: &[u8]) -> Result<(), GatewayError> {
    let Register { key, offset, byte_size } = serde_json::from_slice(body).map_err(|error| {
        GatewayError::Invalid(format!(
            "a region is registered by {{\"key\": TEXT, \"offset\": BYTES, \"byte_size\": BYTES}}: {error}"
        ))
    })?;
    regions.register(region, &key, offset, byte_size)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{register, status};
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
            let error = register(&regions, "r", body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{body}: {error}");
        }
        assert_eq!(status(&regions, None).unwrap(), json!([]));
    }
}
