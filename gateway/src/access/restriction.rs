//! Restricted APIs, as Triton has them: a group of routes that answers only to requests with a
//! certain header.

use http::{HeaderMap, HeaderName, HeaderValue};
use subtle::ConstantTimeEq;

use super::Protocol;

/// What headers are called in gRPC's metadata.
const GRPC_PREFIX: &str = "triton-grpc-protocol-";

/// The groups of routes, by Triton's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApiGroup {
    Health,
    Metadata,
    Inference,
    SharedMemory,
    ModelConfig,
    ModelRepository,
    Statistics,
    Trace,
    Logging,
}

impl ApiGroup {
    pub(crate) const ALL: [Self; 9] = [
        Self::Health,
        Self::Metadata,
        Self::Inference,
        Self::SharedMemory,
        Self::ModelConfig,
        Self::ModelRepository,
        Self::Statistics,
        Self::Trace,
        Self::Logging,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Metadata => "metadata",
            Self::Inference => "inference",
            Self::SharedMemory => "shared-memory",
            Self::ModelConfig => "model-config",
            Self::ModelRepository => "model-repository",
            Self::Statistics => "statistics",
            Self::Trace => "trace",
            Self::Logging => "logging",
        }
    }
}

/// A header that a group of routes is restricted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Restriction {
    http: HeaderName,
    grpc: HeaderName,
    /// A secret, and shown as such.
    value: HeaderValue,
}

impl Restriction {
    /// Whether `headers` hold the one that is wanted. In gRPC's metadata it may go by Triton's
    /// prefix or without.
    pub(super) fn is_met(&self, headers: &HeaderMap, protocol: Protocol) -> bool {
        let names: &[&HeaderName] = match protocol {
            Protocol::Http => &[&self.http],
            Protocol::Grpc => &[&self.grpc, &self.http],
        };
        let mut values = names.iter().flat_map(|&name| headers.get_all(name));
        values.any(|value| value.as_bytes().ct_eq(self.value.as_bytes()).into())
    }

    /// The name of the header that is wanted.
    pub(crate) fn header(&self, protocol: Protocol) -> &str {
        match protocol {
            Protocol::Http => self.http.as_str(),
            Protocol::Grpc => self.grpc.as_str(),
        }
    }
}

/// The restrictions in force, by group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Restrictions([Option<Restriction>; ApiGroup::ALL.len()]);

impl Restrictions {
    /// Reads what was written as `GROUP[,GROUP...]=HEADER:VALUE`. Gives every complaint; none of
    /// them repeats a value.
    pub(crate) fn parse<'t>(
        written: impl IntoIterator<Item = &'t str>,
    ) -> Result<Self, Vec<String>> {
        let (mut all, mut complaints) = (Self::default(), Vec::new());
        // Several in one variable of the environment have a line each.
        for text in written.into_iter().map(str::trim).filter(|text| !text.is_empty()) {
            if let Err(complaint) = all.add(text) {
                complaints.push(format!("--restrict: {complaint}"));
            }
        }
        if complaints.is_empty() { Ok(all) } else { Err(complaints) }
    }

    fn add(&mut self, text: &str) -> Result<(), String> {
        let form = "write GROUP[,GROUP...]=HEADER:VALUE";
        let (groups, header) = text.split_once('=').ok_or_else(|| form.to_owned())?;
        let (name, value) = header.split_once(':').ok_or_else(|| format!("{groups}: {form}"))?;
        let (name, value) = (name.trim(), value.trim());
        let header = |prefix: &str| {
            HeaderName::from_bytes(format!("{prefix}{name}").as_bytes())
                .map_err(|_| format!("{groups}: {name:?} is no name of a header"))
        };
        let mut value = HeaderValue::from_str(value)
            .ok()
            .filter(|value| !value.is_empty())
            .ok_or_else(|| format!("{groups}: the value of {name:?} cannot be a header's"))?;
        value.set_sensitive(true);
        let restriction = Restriction { http: header("")?, grpc: header(GRPC_PREFIX)?, value };
        for group in groups.split(',').map(str::trim) {
            let known = ApiGroup::ALL.into_iter().find(|known| known.name() == group);
            let known = known.ok_or_else(|| {
                let names = ApiGroup::ALL.map(ApiGroup::name).join(", ");
                format!("{group:?} is no group; the groups are {names}")
            })?;
            let place = &mut self.0[known as usize];
            if place.is_some() {
                return Err(format!("{group} is restricted twice"));
            }
            *place = Some(restriction.clone());
        }
        Ok(())
    }

    /// Whether a header of this name may hold the value that some group wants.
    pub(crate) fn names(&self, header: &HeaderName) -> bool {
        self.0.iter().flatten().any(|one| one.http == *header || one.grpc == *header)
    }

    pub(super) fn of(&self, group: ApiGroup) -> Option<&Restriction> {
        self.0[group as usize].as_ref()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::{ApiGroup, Restrictions};
    use crate::access::Protocol;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn groups_are_restricted_to_headers() {
        let written = ["model-repository, logging=Admin-Key: a:b=c", "", "health=x:1"];
        let all = Restrictions::parse(written).unwrap();
        let restricted = ApiGroup::ALL.into_iter().filter(|&group| all.of(group).is_some());
        let restricted: Vec<_> = restricted.map(ApiGroup::name).collect();
        assert_eq!(restricted, ["health", "model-repository", "logging"]);
        let logging = all.of(ApiGroup::Logging).unwrap();
        for (name, value, http, grpc) in [
            ("admin-key", "a:b=c", true, true),
            ("triton-grpc-protocol-admin-key", "a:b=c", false, true),
            ("admin-key", "a:b", false, false),
            ("admin-key", "A:b=c", false, false),
            ("x", "a:b=c", false, false),
        ] {
            let headers = headers(name, value);
            assert_eq!(logging.is_met(&headers, Protocol::Http), http, "{name} {value}");
            assert_eq!(logging.is_met(&headers, Protocol::Grpc), grpc, "{name} {value}");
        }
        assert_eq!(logging.header(Protocol::Grpc), "triton-grpc-protocol-admin-key");
        assert!(!format!("{all:?}").contains("a:b=c"), "{all:?}");
    }

    #[test]
    fn every_complaint_comes_and_none_with_a_value() {
        let written = [
            "health",
            "health=x",
            "models=x:hidden",
            "health=a b:hidden",
            "health=x:",
            "health=x:hidden",
            "metadata,health=y:hidden",
        ];
        let complaints = Restrictions::parse(written).unwrap_err();
        let says = [
            "write GROUP[,GROUP...]=HEADER:VALUE",
            "health: write GROUP",
            "\"models\" is no group; the groups are health, metadata",
            "\"a b\" is no name of a header",
            "the value of \"x\"",
            "health is restricted twice",
        ];
        assert_eq!(complaints.len(), says.len(), "{complaints:?}");
        for (complaint, says) in complaints.iter().zip(says) {
            assert!(complaint.contains(says) && !complaint.contains("hidden"), "{complaint}");
        }
    }
}
