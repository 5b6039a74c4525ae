//! Headers that become parameters of their request, as Triton forwards them: those whose names a
//! pattern matches.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, PROXY_AUTHORIZATION, TE};
use http::{HeaderMap, HeaderName, HeaderValue};
use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use sluice_protocol::{Parameter, Parameters};

use crate::access::{Protocol, Restrictions};
use crate::error::{GatewayError, clip};
use crate::tensor_parameters;

/// What the names of gRPC's own metadata begin with.
const GRPC: &str = "grpc-";
/// What the names of metadata end with whose values are bytes, in base64 on their way.
const BINARY: &str = "-bin";
/// Metadata that Triton's clients send for the server, and whose name its parameters have.
const GRPC_ERROR: &str = "triton_grpc_error";
/// What browsers and proxies say of an answer's urgency (RFC 9218): nothing of the request's own
/// priority.
const PRIORITY: &str = "priority";
/// Base64 with its padding or without, as gRPC wants it to be read.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The settings as written. Without them no header is forwarded.
#[derive(Debug, Clone, Default, Args, Deserialize, Serialize)]
#[serde(default)]
pub struct ForwardingSettings {
    /// HTTP headers whose names this regular expression matches somewhere, in any case, become parameters of the request [default: none do]
    #[arg(long, value_name = "REGEX", env = "SLUICE_HTTP_HEADER_FORWARD_PATTERN")]
    pub http_header_forward_pattern: Option<String>,
    /// The same of gRPC's metadata [default: none does]
    #[arg(long, value_name = "REGEX", env = "SLUICE_GRPC_HEADER_FORWARD_PATTERN")]
    pub grpc_header_forward_pattern: Option<String>,
}

/// The patterns in force.
#[derive(Debug, Clone, Default)]
pub(crate) struct Forwarding {
    http: Option<Regex>,
    grpc: Option<Regex>,
}

/// The headers of a call that become parameters of its requests, if there are any. It is as small as
/// can be, since every call holds it, and few have one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Forwarded(Option<Arc<Matching>>);

#[derive(Debug)]
struct Matching {
    protocol: Protocol,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ForwardingSettings {
    /// These, and where they say nothing, `file`.
    pub(crate) fn over(self, file: Self) -> Self {
        Self {
            http_header_forward_pattern: self
                .http_header_forward_pattern
                .or(file.http_header_forward_pattern),
            grpc_header_forward_pattern: self
                .grpc_header_forward_pattern
                .or(file.grpc_header_forward_pattern),
        }
    }

    /// The patterns, or everything that is wrong with them.
    pub(crate) fn resolve(&self) -> Result<Forwarding, Vec<String>> {
        let mut complaints = Vec::new();
        let mut compile = |protocol, written: &Option<String>| {
            let written = written.as_deref().filter(|pattern| !pattern.is_empty())?;
            let pattern = RegexBuilder::new(written).case_insensitive(true).build();
            pattern
                .map_err(|error| {
                    let error = error.to_string();
                    // The lines before show where; the last one says what.
                    let reason = error.lines().last().unwrap_or_default();
                    let reason = reason.trim_start_matches("error: ");
                    let flag = flag(protocol);
                    complaints
                        .push(format!("{flag} {written:?} is no regular expression: {reason}"));
                })
                .ok()
        };
        let http = compile(Protocol::Http, &self.http_header_forward_pattern);
        let grpc = compile(Protocol::Grpc, &self.grpc_header_forward_pattern);
        if complaints.is_empty() { Ok(Forwarding { http, grpc }) } else { Err(complaints) }
    }
}

impl Forwarding {
    /// The headers that match, but for those that are secret. Nothing is done without a pattern.
    pub(crate) fn pick(
        &self,
        protocol: Protocol,
        headers: &HeaderMap,
        restrictions: &Restrictions,
    ) -> Forwarded {
        let pattern = match protocol {
            Protocol::Http => &self.http,
            Protocol::Grpc => &self.grpc,
        };
        let Some(pattern) = pattern else { return Forwarded::default() };
        let stays = |name: &HeaderName| {
            is_secret(name)
                || restrictions.names(name)
                || match protocol {
                    Protocol::Http => name == PRIORITY,
                    Protocol::Grpc => is_grpc_s_own(name),
                }
        };
        let matching = headers
            .iter()
            .filter(|(name, _)| pattern.is_match(name.as_str().as_bytes()) && !stays(name));
        let headers: Vec<_> = matching.map(|(name, value)| (name.clone(), value.clone())).collect();
        Forwarded((!headers.is_empty()).then(|| Arc::new(Matching { protocol, headers })))
    }
}

impl Forwarded {
    /// Adds them to a request's parameters. As in Triton they stand behind the request's own, and
    /// the last of a name counts.
    pub(crate) fn add_to(&self, parameters: &mut Parameters) -> Result<(), GatewayError> {
        let Some(matching) = &self.0 else { return Ok(()) };
        for (name, value) in &matching.headers {
            let name = name.as_str();
            let refuse = |reason: &str| {
                let short = clip(name);
                let flag = flag(matching.protocol);
                Err(GatewayError::Invalid(format!(
                    "header {short:?} matches {flag} and cannot become a parameter: {reason}"
                )))
            };
            if tensor_parameters::has_meaning(name) {
                return refuse("that name is reserved");
            }
            let is_binary = matching.protocol == Protocol::Grpc && name.ends_with(BINARY);
            let text = if is_binary {
                decoded(value.as_bytes()).and_then(|bytes| String::from_utf8(bytes).ok())
            } else {
                std::str::from_utf8(value.as_bytes()).ok().map(str::to_owned)
            };
            let Some(text) = text else { return refuse("its value is no UTF-8 text") };
            parameters.insert(name.to_owned(), Parameter::String(text));
        }
        Ok(())
    }
}

/// The bytes of binary metadata. Several values may stand in one, with commas between them.
fn decoded(value: &[u8]) -> Option<Vec<u8>> {
    let last = value.rsplit(|&byte| byte == b',').next()?;
    BASE64.decode(last.trim_ascii()).ok()
}

/// Whether a header says who somebody is, which is nobody else's business.
fn is_secret(name: &HeaderName) -> bool {
    [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE].contains(name)
}

/// Whether metadata is of the protocol and not of the caller.
fn is_grpc_s_own(name: &HeaderName) -> bool {
    [CONTENT_TYPE, TE].contains(name) || name.as_str().starts_with(GRPC) || name == GRPC_ERROR
}

/// The flag that has the pattern.
const fn flag(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "--http-header-forward-pattern",
        Protocol::Grpc => "--grpc-header-forward-pattern",
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};
    use sluice_protocol::{Parameter, Parameters};

    use super::{Forwarding, ForwardingSettings};
    use crate::access::{Protocol, Restrictions};

    fn forwarding(pattern: &str) -> Forwarding {
        let pattern = Some(pattern.to_owned());
        let settings = ForwardingSettings {
            http_header_forward_pattern: pattern.clone(),
            grpc_header_forward_pattern: pattern,
        };
        settings.resolve().unwrap()
    }

    fn headers(pairs: &[(&str, &[u8])]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value).unwrap())
        });
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        headers
    }

    /// What becomes of headers and parameters, as `name=value`.
    fn forward(
        pattern: &str,
        protocol: Protocol,
        pairs: &[(&str, &[u8])],
        mut parameters: Parameters,
    ) -> Result<Vec<String>, String> {
        let restrictions = Restrictions::parse(["inference=x-key:1"]).unwrap();
        let forwarded = forwarding(pattern).pick(protocol, &headers(pairs), &restrictions);
        forwarded.add_to(&mut parameters).map_err(|error| error.to_string())?;
        let said = parameters.into_iter().map(|(name, value)| match value {
            Parameter::String(text) => format!("{name}={text}"),
            other => format!("{name}={other:?}"),
        });
        Ok(said.collect())
    }

    #[test]
    fn names_match_somewhere_and_in_any_case() {
        let pairs: &[(&str, &[u8])] =
            &[("x-a", b"1"), ("not-x-a-whole", b"2"), ("y", b"3"), ("X-A-B", b"")];
        for (pattern, expected) in [
            ("X-a", vec!["not-x-a-whole=2", "x-a=1", "x-a-b="]),
            ("^x-a$", vec!["x-a=1"]),
            ("^(y|x-a-b)$", vec!["x-a-b=", "y=3"]),
            (r"-\w$", vec!["x-a=1", "x-a-b="]),
            (r"-\p{L}$", vec!["x-a=1", "x-a-b="]),
            (".*", vec!["not-x-a-whole=2", "x-a=1", "x-a-b=", "y=3"]),
            ("^nothing", vec![]),
            ("", vec![]),
        ] {
            for protocol in [Protocol::Http, Protocol::Grpc] {
                let found = forward(pattern, protocol, pairs, Parameters::new());
                assert_eq!(found.unwrap(), expected, "{pattern}");
            }
        }
    }

    #[test]
    fn the_last_of_a_name_counts_and_stands_over_the_request_s_own() {
        let own = Parameters::from([
            ("x-a".to_owned(), Parameter::Int64(5)),
            ("x-b".to_owned(), Parameter::Int64(6)),
        ]);
        let found = forward("x-", Protocol::Http, &[("x-a", b"1"), ("x-a", b"2")], own).unwrap();
        assert_eq!(found, ["x-a=2", "x-b=Int64(6)"]);
    }

    #[test]
    fn secrets_and_what_is_the_protocol_s_own_stay_where_they_are() {
        let secret: &[(&str, &[u8])] = &[
            ("authorization", b"Bearer a"),
            ("proxy-authorization", b"Basic a"),
            ("cookie", b"a=b"),
            ("x-key", b"1"),
        ];
        let grpc: &[(&str, &[u8])] = &[
            ("content-type", b"application/grpc"),
            ("te", b"trailers"),
            ("grpc-timeout", b"1S"),
            ("triton_grpc_error", b"true"),
            ("triton-grpc-protocol-x-key", b"1"),
        ];
        let all = [secret, grpc, &[("user-agent", b"a")]].concat();
        let found = forward(".*", Protocol::Http, secret, Parameters::new()).unwrap();
        assert!(found.is_empty(), "{found:?}");
        let found = forward(".*", Protocol::Grpc, &all, Parameters::new()).unwrap();
        assert_eq!(found, ["user-agent=a"]);
        let urgency: &[(&str, &[u8])] = &[("priority", b"u=1, i"), ("x-a", b"1")];
        let found = forward(".*", Protocol::Http, urgency, Parameters::new()).unwrap();
        assert_eq!(found, ["x-a=1"]);
        let found =
            forward("^(te|grpc-timeout)$", Protocol::Http, &grpc[1..3], Parameters::new()).unwrap();
        assert_eq!(found, ["grpc-timeout=1S", "te=trailers"]);
    }

    #[test]
    fn reserved_names_are_refused() {
        let names = "sequence_id sequence_start sequence_end timeout binary_data_output";
        for name in names.split(' ').chain(["headers", "triton_x"]) {
            let error = forward(".*", Protocol::Http, &[(name, b"1")], Parameters::new());
            let error = error.unwrap_err();
            let says = format!(
                "header {name:?} matches --http-header-forward-pattern and cannot become a parameter: that name is reserved"
            );
            assert_eq!(error, says);
        }
        let error = forward(".*", Protocol::Grpc, &[("priority", b"1")], Parameters::new());
        assert!(error.unwrap_err().contains("that name is reserved"));
    }

    #[test]
    fn values_are_text() {
        let ask = |protocol, name, value: &[u8]| {
            forward("^x-", protocol, &[(name, value)], Parameters::new())
        };
        assert_eq!(ask(Protocol::Http, "x-a", "é".as_bytes()).unwrap(), ["x-a=é"]);
        assert_eq!(ask(Protocol::Http, "x-a-bin", b"w6k=").unwrap(), ["x-a-bin=w6k="]);
        for value in [&b"w6k="[..], b"w6k", b"YQ,w6k", b"YQ==, w6k="] {
            assert_eq!(ask(Protocol::Grpc, "x-a-bin", value).unwrap(), ["x-a-bin=é"]);
        }
        for (protocol, name, value) in [
            (Protocol::Http, "x-a", &b"\xe9"[..]),
            (Protocol::Grpc, "x-a", b"\xe9"),
            (Protocol::Grpc, "x-a-bin", b"/w=="),
            (Protocol::Grpc, "x-a-bin", b"*"),
        ] {
            let error = ask(protocol, name, value).unwrap_err();
            assert!(error.contains(name) && error.contains("no UTF-8 text"), "{error}");
        }
    }

    #[test]
    fn a_pattern_that_is_none_is_complained_about() {
        let settings = ForwardingSettings {
            http_header_forward_pattern: Some("((".to_owned()),
            grpc_header_forward_pattern: Some("x{1,".to_owned()),
        };
        let complaints = settings.resolve().unwrap_err();
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        for (complaint, says) in complaints.iter().zip([
            "--http-header-forward-pattern \"((\" is no regular expression: unclosed group",
            "--grpc-header-forward-pattern \"x{1,\" is no regular expression: ",
        ]) {
            assert!(complaint.starts_with(says) && !complaint.contains('\n'), "{complaint}");
        }
    }
}
