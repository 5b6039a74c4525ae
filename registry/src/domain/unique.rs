//! Names that nobody else gives.

use rand::TryRng as _;
use rand::rngs::SysRng;

use crate::{RegistryError, Result};

/// 32 hex digits from the system's random numbers.
pub(crate) fn unique_id() -> Result<String> {
    let mut bytes = [0; 16];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| RegistryError::Internal(format!("system random numbers: {error}")))?;
    Ok(hex::encode(bytes))
}
