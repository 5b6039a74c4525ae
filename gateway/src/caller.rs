//! Who asks, as the headers of a request or call say.

use std::time::Duration;

use http::HeaderMap;

use crate::deadline;
use crate::error::GatewayError;
use crate::shared::Shared;
use crate::tenant::Tenant;

/// Who waits for an answer, how long, and on whose behalf.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Caller {
    /// How long it waits, if it says so.
    pub(crate) limit: Option<Duration>,
    /// On whose behalf it asks.
    pub(crate) tenant: Tenant,
    /// The length of what it sent.
    pub(crate) bytes: usize,
}

impl Caller {
    /// Who sent a request of so many bytes with these headers.
    pub(crate) fn of_headers(
        shared: &Shared,
        headers: &HeaderMap,
        bytes: usize,
    ) -> Result<Self, GatewayError> {
        let limit = deadline::of_headers(headers)?;
        Ok(Self { limit, tenant: shared.live().tenants.of(headers), bytes })
    }

    /// The same of a call over gRPC, whose own limit counts, too.
    pub(crate) fn of_call(
        shared: &Shared,
        metadata: &HeaderMap,
        bytes: usize,
    ) -> Result<Self, GatewayError> {
        let limit = deadline::of_call(metadata)?;
        Ok(Self { limit, tenant: shared.live().tenants.of(metadata), bytes })
    }
}
