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

    fn named(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|known| known.name() == name);
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{name:?} is no group; the groups are {names}")
        })
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

/// A restriction as it is written, in our form or in Triton's.
#[derive(Debug, Clone, Copy)]
struct Written<'t> {
    groups: &'t str,
    /// What stands behind the groups: `=`, or `:` in Triton's form.
    mark: char,
    /// The header's name and value.
    header: &'t str,
}

impl<'t> Written<'t> {
    /// The first mark says which form it is; the value may have both.
    fn split(text: &'t str) -> Option<Self> {
        let (groups, header) = text.split_once(['=', ':'])?;
        let mark = if text[groups.len()..].starts_with(':') { ':' } else { '=' };
        Some(Self { groups, mark, header })
    }

    fn restriction(self) -> Result<Restriction, String> {
        let Self { groups, mark, header } = self;
        let (form, mark) = match mark {
            ':' => ("write GROUP[,GROUP...]:HEADER=VALUE", '='),
            _ => ("write GROUP[,GROUP...]=HEADER:VALUE", ':'),
        };
        let (name, value) = header.split_once(mark).ok_or_else(|| format!("{groups}: {form}"))?;
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
        Ok(Restriction { http: header("")?, grpc: header(GRPC_PREFIX)?, value })
    }
}

/// The restrictions in force, by group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Restrictions([Option<Restriction>; ApiGroup::ALL.len()]);

impl Restrictions {
    /// Reads what was written as `GROUP[,GROUP...]=HEADER:VALUE`, or in Triton's form,
    /// `GROUP[,GROUP...]:HEADER=VALUE`. Gives every complaint; none of them repeats a value.
    pub(crate) fn parse<'t>(
        written: impl IntoIterator<Item = &'t str>,
    ) -> Result<Self, Vec<String>> {
        let (mut all, mut complaints) = (Self::default(), Vec::new());
        let written: Vec<_> = written.into_iter().map(str::trim).collect();
        if !written.is_empty() && written.iter().all(|text| text.is_empty()) {
            // A secret that was not filled in would leave everything open.
            let complaint = "--restrict is empty; leave it out where nothing is to be restricted";
            return Err(vec![complaint.to_owned()]);
        }
        // Several in one variable of the environment have a line each.
        for text in written.into_iter().filter(|text| !text.is_empty()) {
            if let Err(complaint) = all.add(text) {
                complaints.push(format!("--restrict: {complaint}"));
            }
        }
        if complaints.is_empty() { Ok(all) } else { Err(complaints) }
    }

    /// What is written in `first`, and of `second` what it says of other groups.
    pub(crate) fn over(first: Vec<String>, second: Vec<String>) -> Vec<String> {
        let named = |groups: &str| -> Vec<String> {
            groups.split(',').map(|group| group.trim().to_owned()).collect()
        };
        let said = first.iter().filter_map(|text| Written::split(text));
        let said: Vec<String> = said.flat_map(|written| named(written.groups)).collect();
        let left = second.into_iter().filter_map(|text| {
            // What is wrong is complained about where it is read.
            let Some(Written { groups, mark, header }) = Written::split(&text) else {
                return Some(text);
            };
            let left: Vec<_> =
                named(groups).into_iter().filter(|group| !said.contains(group)).collect();
            (!left.is_empty()).then(|| format!("{}{mark}{header}", left.join(",")))
        });
        let left: Vec<String> = left.collect();
        first.into_iter().chain(left).collect()
    }

    fn add(&mut self, text: &str) -> Result<(), String> {
        let form = "write GROUP[,GROUP...]=HEADER:VALUE";
        let written = Written::split(text).ok_or_else(|| form.to_owned())?;
        // First: where a value stands in the wrong place, the groups are seldom right either.
        let known = written.groups.split(',').map(|group| ApiGroup::named(group.trim()));
        let known = known.collect::<Result<Vec<_>, _>>()?;
        let restriction = written.restriction()?;
        for group in known {
            let place = &mut self.0[group as usize];
            if place.is_some() {
                return Err(format!("{} is restricted twice", group.name()));
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
    fn triton_s_form_is_read_as_well() {
        let written = ["model-repository, logging:Admin-Key=a:b=c", "health=x:y=1"];
        let all = Restrictions::parse(written).unwrap();
        for (group, name, value) in [
            (ApiGroup::ModelRepository, "admin-key", "a:b=c"),
            (ApiGroup::Logging, "triton-grpc-protocol-admin-key", "a:b=c"),
            (ApiGroup::Health, "x", "y=1"),
        ] {
            let met = all.of(group).unwrap().is_met(&headers(name, value), Protocol::Grpc);
            assert!(met, "{group:?}");
        }
    }

    #[test]
    fn what_is_said_first_wins_by_group() {
        let texts = |all: &[&str]| all.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let over =
            |first: &[&str], second: &[&str]| Restrictions::over(texts(first), texts(second));
        assert_eq!(over(&["health=a:1"], &["logging=b:2"]), ["health=a:1", "logging=b:2"]);
        let (first, second) = (["health, trace=a:1=1"], ["logging,health =b:2=x,y", "trace=c:3"]);
        assert_eq!(over(&first, &second), ["health, trace=a:1=1", "logging=b:2=x,y"]);
        let (first, second) = (["health:a=1:1"], ["logging,health:b=2=x,y", "trace,health=c:3"]);
        assert_eq!(over(&first, &second), ["health:a=1:1", "logging:b=2=x,y", "trace=c:3"]);
        // What is wrong is left for whoever reads it.
        assert_eq!(over(&["health=a:1"], &["logging"]), ["health=a:1", "logging"]);
        assert_eq!(over(&[], &["health=a:1"]), ["health=a:1"]);
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
            "x:hidden=health",
            "health:x",
            "models:x=hidden",
            "trace:a b=hidden",
            "hidden and more",
        ];
        let complaints = Restrictions::parse(written).unwrap_err();
        let says = [
            "write GROUP[,GROUP...]=HEADER:VALUE",
            "health: write GROUP",
            "\"models\" is no group; the groups are health, metadata",
            "\"a b\" is no name of a header",
            "the value of \"x\"",
            "health is restricted twice",
            "\"x\" is no group",
            "health: write GROUP[,GROUP...]:HEADER=VALUE",
            "\"models\" is no group",
            "\"a b\" is no name of a header",
            "write GROUP",
        ];
        assert_eq!(complaints.len(), says.len(), "{complaints:?}");
        for (complaint, says) in complaints.iter().zip(says) {
            assert!(complaint.contains(says) && !complaint.contains("hidden"), "{complaint}");
        }
    }
}
