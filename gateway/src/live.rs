//! The settings that can change while the gateway runs. All of them are behind one pointer, which
//! a reload swaps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderMap;

use crate::access::{Access, Protocol};
use crate::control::exposure::Exposure;
use crate::dialect::Dialect;
use crate::forwarding::{Forwarded, Forwarding};
use crate::shared::RequestLimits;
use crate::tenant::Tenants;
use crate::tls::Tls;

/// What is in force at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Live {
    pub(crate) limits: RequestLimits,
    pub(crate) dialect: Dialect,
    /// What operators may ask of the serving ports.
    pub(crate) exposed: Exposure,
    pub(crate) access: Access,
    pub(crate) forwarding: Forwarding,
    /// On whose behalf requests come.
    pub(crate) tenants: Tenants,
    /// How connections are accepted; plain without.
    pub(crate) tls: Option<Tls>,
}

impl Live {
    /// The headers of a call that become parameters of its requests.
    pub(crate) fn forwarded(&self, protocol: Protocol, headers: &HeaderMap) -> Forwarded {
        self.forwarding.pick(protocol, headers, &self.access.restrictions)
    }
}

/// The bound on predicted waiting, for deployments: they outlive the settings that they were
/// loaded under.
#[derive(Debug, Clone)]
pub(crate) struct MaxWaiting(Arc<AtomicU64>);

impl MaxWaiting {
    pub(crate) fn new(bound: Duration) -> Self {
        Self(Arc::new(AtomicU64::new(nanoseconds(bound))))
    }

    pub(crate) fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// Changes it for all who have it.
    pub(crate) fn set(&self, bound: Duration) {
        self.0.store(nanoseconds(bound), Ordering::Relaxed);
    }
}

/// Half a millennium at the most.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
