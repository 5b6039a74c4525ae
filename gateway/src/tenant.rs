//! On whose behalf requests come, and what part of a model's time is theirs.
//!
//! A header names the tenant. Where jobs wait, tenants take turns by their shares, so that one who
//! asks for more than there is waits behind itself and not in front of the others.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};

use crate::error::GatewayError;
use crate::settings::list;

/// For whom there is no entry of their own.
const OTHERS: &str = "*";
/// The largest share.
const MOST_SHARE: u32 = 1000;

/// The settings as written. Without a header everybody is one tenant.
#[derive(Debug, Clone, Default, Args, Deserialize, Serialize)]
#[serde(default)]
pub struct TenantSettings {
    /// Header whose value says on whose behalf a request comes: tenants share each model's time fairly [default: none]
    #[arg(long, value_name = "NAME", env = "SLUICE_TENANT_HEADER")]
    pub tenant_header: Option<String>,
    /// A tenant's share of a model's time when there is not enough, `gold=4`; * for each of the others; may be repeated [default: *=1]
    #[arg(long, value_name = "TENANT=SHARE", env = "SLUICE_TENANT_SHARE", value_delimiter = ',')]
    #[serde(deserialize_with = "list::deserialize")]
    pub tenant_share: Vec<String>,
    /// Requests that a tenant may have under way at once, `free=50`; * for each of the others; may be repeated [default: no bound]
    #[arg(
        long,
        value_name = "TENANT=N",
        env = "SLUICE_TENANT_MAX_REQUESTS",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "list::deserialize")]
    pub tenant_max_requests: Vec<String>,
}

impl TenantSettings {
    /// These, and where they say nothing, `file`.
    pub(crate) fn over(self, file: Self) -> Self {
        let first = |own: Vec<String>, other| if own.is_empty() { other } else { own };
        Self {
            tenant_header: self.tenant_header.or(file.tenant_header),
            tenant_share: first(self.tenant_share, file.tenant_share),
            tenant_max_requests: first(self.tenant_max_requests, file.tenant_max_requests),
        }
    }

    /// The tenants, or everything that is wrong with them.
    pub(crate) fn resolve(&self) -> Result<Tenants, Vec<String>> {
        let mut complaints = Vec::new();
        let written = self.tenant_header.as_deref().filter(|name| !name.is_empty());
        let header = written.and_then(|name| {
            let header = name.to_ascii_lowercase().parse::<HeaderName>();
            header
                .map_err(|_| complaints.push(format!("--tenant-header {name:?} is no header name")))
                .ok()
        });
        let shares = Table::read("--tenant-share", &self.tenant_share, 1, MOST_SHARE);
        let most = Table::read("--tenant-max-requests", &self.tenant_max_requests, 1, u32::MAX);
        let mut take = |table: Result<Table, Vec<String>>| {
            table.map_err(|found| complaints.extend(found)).unwrap_or_default()
        };
        let (shares, most) = (take(shares), take(most));
        if written.is_none() && !(shares.is_empty() && most.is_empty()) {
            complaints.push(
                "--tenant-share and --tenant-max-requests need --tenant-header: without one, nobody is told apart".to_owned(),
            );
        }
        if complaints.is_empty() { Ok(Tenants { header, shares, most }) } else { Err(complaints) }
    }
}

/// Numbers by tenant.
#[derive(Debug, Clone, Default)]
struct Table {
    by_name: HashMap<Box<[u8]>, u32>,
    others: Option<u32>,
}

impl Table {
    fn read(flag: &str, written: &[String], least: u32, most: u32) -> Result<Self, Vec<String>> {
        let (mut table, mut complaints) = (Self::default(), Vec::new());
        for entry in written.iter().map(|entry| entry.trim()).filter(|entry| !entry.is_empty()) {
            let pair = entry.rsplit_once('=');
            let number = pair.and_then(|(name, number)| Some((name, number.parse().ok()?)));
            let Some((name, number)) = number.filter(|(_, number)| (least..=most).contains(number))
            else {
                let bounds = if most == u32::MAX {
                    format!("{least} or more")
                } else {
                    format!("{least} to {most}")
                };
                complaints.push(format!(
                    "{flag} {entry:?}: expected TENANT=NUMBER, a whole number of {bounds}"
                ));
                continue;
            };
            let before = if name == OTHERS {
                table.others.replace(number)
            } else {
                table.by_name.insert(name.as_bytes().into(), number)
            };
            if before.is_some() {
                complaints.push(format!("{flag} names {name:?} twice"));
            }
        }
        if complaints.is_empty() { Ok(table) } else { Err(complaints) }
    }

    fn is_empty(&self) -> bool {
        self.by_name.is_empty() && self.others.is_none()
    }

    fn of(&self, name: &[u8]) -> Option<u32> {
        self.by_name.get(name).copied().or(self.others)
    }
}

/// Who is who, and what is theirs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tenants {
    header: Option<HeaderName>,
    shares: Table,
    most: Table,
}

/// On whose behalf a request comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tenant {
    /// Its name's number. Names are made up by callers, and are not kept.
    key: u64,
    share: u32,
    /// How many requests it may have under way.
    most: Option<u32>,
}

impl Default for Tenant {
    /// Everybody, where they are not told apart.
    fn default() -> Self {
        Self { key: 0, share: 1, most: None }
    }
}

impl Tenant {
    pub(crate) const fn key(self) -> u64 {
        self.key
    }

    /// Its part of a model's time, next to those of the others: 1 or more.
    pub(crate) const fn share(self) -> u32 {
        self.share
    }

    #[cfg(test)]
    pub(crate) const fn numbered(key: u64, share: u32) -> Self {
        Self { key, share, most: None }
    }
}

impl Tenants {
    /// On whose behalf a request with these headers comes. Those without the header are one tenant,
    /// whose name is empty.
    pub(crate) fn of(&self, headers: &HeaderMap) -> Tenant {
        let Some(header) = &self.header else { return Tenant::default() };
        let name = headers.get(header).map_or(&b""[..], |value| value.as_bytes());
        Tenant {
            key: number(name),
            share: self.shares.of(name).unwrap_or(1),
            most: self.most.of(name),
        }
    }
}

/// A number of a name's own, which nobody can foresee.
fn number(name: &[u8]) -> u64 {
    static STATE: std::sync::LazyLock<RandomState> = std::sync::LazyLock::new(RandomState::new);
    // 0 is everybody's.
    if name.is_empty() { 0 } else { STATE.hash_one(name).max(1) }
}

/// The requests that tenants have under way, of those who may not have as many as they like.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(Arc<Mutex<HashMap<u64, u32>>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWayGuard {
    all: Arc<Mutex<HashMap<u64, u32>>>,
    key: u64,
}

impl UnderWay {
    /// Counts a request, or refuses it since there are as many as there may be. Costs nothing where
    /// the tenant is not bounded.
    pub(crate) fn begin(&self, tenant: Tenant) -> Result<Option<UnderWayGuard>, GatewayError> {
        let Some(most) = tenant.most else { return Ok(None) };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(tenant.key).or_insert(0);
        if *count >= most {
            return Err(GatewayError::TenantFull { most });
        }
        *count += 1;
        Ok(Some(UnderWayGuard { all: self.0.clone(), key: tenant.key }))
    }
}

impl Drop for UnderWayGuard {
    fn drop(&mut self) {
        let mut counts = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            // Names that callers made up are not kept.
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{Tenant, TenantSettings, Tenants, UnderWay};

    fn settings(header: &str, shares: &[&str], most: &[&str]) -> TenantSettings {
        let texts = |all: &[&str]| all.iter().map(|&text| text.to_owned()).collect();
        let tenant_header = (!header.is_empty()).then(|| header.to_owned());
        TenantSettings {
            tenant_header,
            tenant_share: texts(shares),
            tenant_max_requests: texts(most),
        }
    }

    fn of(tenants: &Tenants, name: Option<&'static str>) -> Tenant {
        let header = |name| (HeaderName::from_static("x-tenant"), HeaderValue::from_static(name));
        tenants.of(&name.map(header).into_iter().collect::<HeaderMap>())
    }

    #[test]
    fn a_header_tells_tenants_apart_and_settings_say_what_is_theirs() {
        let tenants = settings("X-Tenant", &["gold=4", "*=2", "a=b=3"], &["free=1"]).resolve();
        let tenants = tenants.unwrap();
        let [gold, free, odd, nobody] =
            [Some("gold"), Some("free"), Some("a=b"), None].map(|name| of(&tenants, name));
        assert_eq!([gold, free, odd, nobody].map(Tenant::share), [4, 2, 3, 2]);
        assert_eq!([gold.most, free.most], [None, Some(1)]);
        assert_eq!(gold.key(), of(&tenants, Some("gold")).key());
        assert!(gold.key() != free.key() && gold.key() != nobody.key());
        assert_eq!(of(&Tenants::default(), Some("gold")), Tenant::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (settings, expected) in [
            (settings("no header", &[], &[]), "is no header name"),
            (settings("", &["a=1"], &[]), "need --tenant-header"),
            (settings("t", &["a"], &[]), "TENANT=NUMBER"),
            (settings("t", &["a=0"], &[]), "1 to 1000"),
            (settings("t", &["a=1001"], &[]), "1 to 1000"),
            (settings("t", &["a=1", "a=2"], &[]), "twice"),
            (settings("t", &[], &["*=0"]), "1 or more"),
        ] {
            let complaints = settings.resolve().unwrap_err();
            assert!(complaints[0].contains(expected), "{complaints:?}");
        }
    }

    #[test]
    fn a_tenant_has_no_more_requests_under_way_than_it_may() {
        let tenants = settings("x-tenant", &[], &["*=2", "gold=3"]).resolve().unwrap();
        let (under_way, free) = (UnderWay::default(), of(&tenants, Some("free")));
        let first = under_way.begin(free).unwrap();
        let _second = under_way.begin(free).unwrap().unwrap();
        let refused = under_way.begin(free).unwrap_err().to_string();
        assert!(refused.contains('2'), "{refused}");
        assert!(under_way.begin(of(&tenants, Some("other"))).is_ok());
        drop(first);
        let again = under_way.begin(free).unwrap();
        drop((again, _second));
        assert!(under_way.0.lock().unwrap().is_empty());
        assert!(under_way.begin(Tenant::default()).unwrap().is_none());
    }
}
