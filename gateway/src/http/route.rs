//! Which thing a path names. Queries are ignored; names may be percent-encoded once.

use std::borrow::Cow;

use http::Method;

use super::v1;
use crate::control::exposure::{ControlGroup, Port};
use crate::error::{GatewayError, clip};

/// What a method and a path ask for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    Alive,
    Live,
    Ready,
    Server,
    Models,
    Metadata {
        model: Cow<'p, str>,
        version: Option<Cow<'p, str>>,
    },
    ModelReady {
        model: Cow<'p, str>,
        version: Option<Cow<'p, str>>,
    },
    Config {
        model: Cow<'p, str>,
        version: Option<Cow<'p, str>>,
    },
    Statistics {
        model: Option<Cow<'p, str>>,
        version: Option<Cow<'p, str>>,
    },
    Infer {
        model: Cow<'p, str>,
        version: Option<Cow<'p, str>>,
    },
    V1(v1::Route<'p>),
    Generate {
        model: Cow<'p, str>,
        version: Option<Cow<'p, str>>,
        stream: bool,
    },
    Metrics,
    OpenApi,
    RepositoryIndex,
    RepositoryLoad {
        model: Cow<'p, str>,
    },
    RepositoryUnload {
        model: Cow<'p, str>,
    },
    /// The same of a repository that is named: there is one, which has no name.
    NamedRepository,
    RegionStatus {
        memory: Memory,
        region: Option<Cow<'p, str>>,
    },
    RegionRegister {
        memory: Memory,
        region: Cow<'p, str>,
    },
    RegionUnregister {
        memory: Memory,
        region: Option<Cow<'p, str>>,
    },
    LogSettings,
    LogUpdate,
    /// Of all models, or of one.
    TraceSettings {
        model: Option<Cow<'p, str>>,
    },
    TraceUpdate {
        model: Option<Cow<'p, str>>,
    },
}

/// Whose memory a region is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    System,
    Cuda,
}

impl<'p> Route<'p> {
    /// The route, or 404 for a path that names nothing, 405 for the wrong method.
    pub(super) fn parse(method: &Method, path: &'p str) -> Result<Self, GatewayError> {
        let route =
            Self::of_path(path).ok_or_else(|| GatewayError::NoRoute(clip(path).to_owned()))?;
        let route = match route {
            Self::LogSettings if method == Method::POST => Self::LogUpdate,
            Self::TraceSettings { model } if method == Method::POST => Self::TraceUpdate { model },
            route => route,
        };
        let own = route.method();
        if method != own && !(method == Method::HEAD && own == "GET") {
            let (method, path) = (method.to_string(), clip(path).to_owned());
            let allowed = match route {
                // Two routes have such a path.
                Self::LogSettings | Self::TraceSettings { .. } => "GET, HEAD, POST",
                _ if own == "GET" => "GET, HEAD",
                _ => own,
            };
            return Err(GatewayError::MethodNotAllowed { method, path, allowed });
        }
        Ok(route)
    }

    fn of_path(path: &'p str) -> Option<Self> {
        let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        Some(match *parts.as_slice() {
            [""] => Self::Alive,
            ["v2", "health", "live"] => Self::Live,
            ["v2", "health", "ready"] => Self::Ready,
            ["v2"] => Self::Server,
            ["v2", "models"] => Self::Models,
            // It wins over the metadata of a model of that name.
            ["v2", "models", "stats"] => Self::Statistics { model: None, version: None },
            ["v2", "models", model, ref rest @ ..] => Self::of_v2_model(model, rest)?,
            ["v2", "repository", ref rest @ ..] => Self::of_repository(rest)?,
            ["v2", "systemsharedmemory", ref rest @ ..] => Self::of_memory(Memory::System, rest)?,
            ["v2", "cudasharedmemory", ref rest @ ..] => Self::of_memory(Memory::Cuda, rest)?,
            ["v2", "logging"] => Self::LogSettings,
            ["v2", "trace", "setting"] => Self::TraceSettings { model: None },
            ["metrics"] => Self::Metrics,
            ["openapi.json"] => Self::OpenApi,
            [first, ref rest @ ..] if first.eq_ignore_ascii_case("v1") => {
                Self::V1(v1::Route::parse(rest)?)
            }
            _ => return None,
        })
    }

    fn of_v2_model(model: &'p str, rest: &[&'p str]) -> Option<Self> {
        let model = name(model)?;
        let (version, rest) = match *rest {
            ["versions", version, ref rest @ ..] => (Some(digits(version)?), rest),
            _ => (None, rest),
        };
        Some(match *rest {
            [] => Self::Metadata { model, version },
            ["ready"] => Self::ModelReady { model, version },
            ["config"] => Self::Config { model, version },
            ["stats"] => Self::Statistics { model: Some(model), version },
            ["trace", "setting"] if version.is_none() => Self::TraceSettings { model: Some(model) },
            ["infer"] => Self::Infer { model, version },
            ["generate"] => Self::Generate { model, version, stream: false },
            ["generate_stream"] => Self::Generate { model, version, stream: true },
            _ => return None,
        })
    }

    fn of_repository(rest: &[&'p str]) -> Option<Self> {
        Some(match *rest {
            ["index"] => Self::RepositoryIndex,
            ["models", model, "load"] => Self::RepositoryLoad { model: name(model)? },
            ["models", model, "unload"] => Self::RepositoryUnload { model: name(model)? },
            [repository, "index"] => {
                name(repository)?;
                Self::NamedRepository
            }
            [repository, "models", model, "load" | "unload"] => {
                name(repository).and(name(model))?;
                Self::NamedRepository
            }
            _ => return None,
        })
    }

    fn of_memory(memory: Memory, rest: &[&'p str]) -> Option<Self> {
        let (region, verb) = match *rest {
            [verb] => (None, verb),
            ["region", region, verb] => (Some(name(region)?), verb),
            _ => return None,
        };
        Some(match (verb, region) {
            ("status", region) => Self::RegionStatus { memory, region },
            ("register", Some(region)) => Self::RegionRegister { memory, region },
            ("unregister", region) => Self::RegionUnregister { memory, region },
            _ => return None,
        })
    }

    /// Which calls for operators it belongs to, if it is one.
    pub(super) const fn group(&self) -> Option<ControlGroup> {
        match self {
            Self::RepositoryLoad { .. } | Self::RepositoryUnload { .. } => {
                Some(ControlGroup::ModelRepository)
            }
            Self::RegionStatus { .. }
            | Self::RegionRegister { .. }
            | Self::RegionUnregister { .. } => Some(ControlGroup::SharedMemory),
            Self::LogSettings | Self::LogUpdate => Some(ControlGroup::Logging),
            Self::TraceSettings { .. } | Self::TraceUpdate { .. } => Some(ControlGroup::Trace),
            _ => None,
        }
    }

    /// Whether `port` knows it. The administration port has what operators ask for, and what
    /// they look at first.
    pub(super) const fn is_on(&self, port: Port) -> bool {
        matches!(port, Port::Serving)
            || self.group().is_some()
            || matches!(
                self,
                Self::Live
                    | Self::Ready
                    | Self::Server
                    | Self::Metrics
                    | Self::OpenApi
                    | Self::RepositoryIndex
                    | Self::NamedRepository
            )
    }

    const fn method(&self) -> &'static str {
        match self {
            Self::V1(route) => route.method(),
            Self::Infer { .. }
            | Self::Generate { .. }
            | Self::RepositoryIndex
            | Self::RepositoryLoad { .. }
            | Self::RepositoryUnload { .. }
            | Self::NamedRepository
            | Self::RegionRegister { .. }
            | Self::RegionUnregister { .. }
            | Self::LogUpdate
            | Self::TraceUpdate { .. } => "POST",
            Self::Alive
            | Self::Live
            | Self::Ready
            | Self::Server
            | Self::Models
            | Self::Metadata { .. }
            | Self::ModelReady { .. }
            | Self::Config { .. }
            | Self::Statistics { .. }
            | Self::Metrics
            | Self::OpenApi
            | Self::RegionStatus { .. }
            | Self::LogSettings
            | Self::TraceSettings { .. } => "GET",
        }
    }
}

/// What is left of `path` below `base`, and all of it where it is not below.
pub(super) fn below<'p>(base: &str, path: &'p str) -> &'p str {
    let rest = path.strip_prefix(base).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    match rest {
        Some("") => "/",
        rest => rest.unwrap_or(path),
    }
}

/// A version, which is a number. What else stands in its place names nothing.
fn digits(part: &str) -> Option<Cow<'_, str>> {
    let part = decode(part)?;
    (!part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())).then_some(part)
}

/// A name. Dots, which would lead elsewhere if this were a file's path, are none.
fn name(part: &str) -> Option<Cow<'_, str>> {
    decode(part).filter(|name| !matches!(&**name, "" | "." | ".."))
}

/// Whether there are routes whose path begins with this segment.
pub(crate) fn begins_a_route(segment: &str) -> bool {
    segment.eq_ignore_ascii_case("v1") || matches!(segment, "v2" | "metrics" | "openapi.json")
}

/// Undoes percent-encoding, once. None when it is broken or not UTF-8.
pub(super) fn decode(part: &str) -> Option<Cow<'_, str>> {
    if !part.contains('%') {
        return Some(part.into());
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = tail.split_at_checked(2)?;
        // A sign would pass as a digit otherwise.
        let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
        let digits = std::str::from_utf8(digits).ok().filter(|_| is_hex)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::{Route, below};
    use crate::error::GatewayError;

    #[test]
    fn paths_name_routes() {
        let get = |path| Route::parse(&Method::GET, path);
        let post = |path| Route::parse(&Method::POST, path);
        assert_eq!(get("/v2").unwrap(), Route::Server);
        assert_eq!(get("/v2/health/ready").unwrap(), Route::Ready);
        let config = Route::Config { model: "a".into(), version: Some("3".into()) };
        assert_eq!(get("/v2/models/a/versions/3/config").unwrap(), config);
        let infer = |model: &'static str, version: Option<&'static str>| Route::Infer {
            model: model.into(),
            version: version.map(Into::into),
        };
        assert_eq!(post("/v2/models/a/infer").unwrap(), infer("a", None));
        assert_eq!(post("/v2/models/a%20b/versions/3/infer").unwrap(), infer("a b", Some("3")));
        let stream = |stream| Route::Generate { model: "a".into(), version: None, stream };
        assert_eq!(post("/v2/models/a/generate").unwrap(), stream(false));
        assert_eq!(post("/v2/models/a/generate_stream").unwrap(), stream(true));
        let settings =
            |model: Option<&'static str>| Route::TraceSettings { model: model.map(Into::into) };
        assert_eq!(get("/v2/trace/setting").unwrap(), settings(None));
        assert_eq!(get("/v2/models/a/trace/setting").unwrap(), settings(Some("a")));
        let update = Route::TraceUpdate { model: Some("a".into()) };
        assert_eq!(post("/v2/models/a/trace/setting").unwrap(), update);
        assert!(matches!(post("/V1/models/a:predict").unwrap(), Route::V1(_)));
        assert!(matches!(get("/v1/models/a").unwrap(), Route::V1(_)));
        let statistics = |model: Option<&'static str>, version: Option<&'static str>| {
            let (model, version) = (model.map(Into::into), version.map(Into::into));
            Route::Statistics { model, version }
        };
        assert_eq!(get("/v2/models/stats").unwrap(), statistics(None, None));
        assert_eq!(get("/v2/models/stats/stats").unwrap(), statistics(Some("stats"), None));
        assert_eq!(get("/v2/models/a/versions/3/stats").unwrap(), statistics(Some("a"), Some("3")));
        assert_eq!(post("/v2/repository/index").unwrap(), Route::RepositoryIndex);
        for (path, expected) in [
            ("models/a%20b/load", Route::RepositoryLoad { model: "a b".into() }),
            ("models/a/unload", Route::RepositoryUnload { model: "a".into() }),
            ("r/index", Route::NamedRepository),
            ("models/index", Route::NamedRepository),
            ("r/models/a/unload", Route::NamedRepository),
        ] {
            assert_eq!(post(format!("/v2/repository/{path}").leak()).unwrap(), expected);
        }
    }

    #[test]
    fn a_base_path_is_cut_off() {
        for (base, path, rest) in [
            ("", "/v2", "/v2"),
            ("/a", "/a/v2", "/v2"),
            ("/a", "/v2", "/v2"),
            ("/a", "/a", "/"),
            ("/a", "/ab/v2", "/ab/v2"),
            ("/a/b", "/a/b/a/b", "/a/b"),
        ] {
            assert_eq!(below(base, path), rest, "{base} {path}");
        }
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        for path in [
            "/v3",
            "/v2/",
            "/v2/models/a/b",
            "//v2",
            "/v2/models/%zz/infer",
            "/v2/models/%+5",
            "/v2/models/%2",
            "/v1/models/a:x",
            "*",
            "",
            "/V2",
            "/v2/models/a/versions/x",
            "/v2/models/a/versions/-1/ready",
            "/v2/models/a/versions//infer",
            "/v2/models/a/versions/%ff/infer",
            "/v2/./health/live",
            "/v2/repository",
            "/v2/repository/models/a",
            "/v2/repository//index",
            "/v2/repository/../index",
            "/v2/repository/%2e%2E/index",
            "/v2/repository/%zz/index",
            "/v2/repository/r/models//load",
            "/v2/repository/./models/a/load",
            "/v2/repository/models/%2e%2e/load",
            "/v2/models/../infer",
            "/v2/systemsharedmemory/region//status",
            "/v2/systemsharedmemory/region/../register",
            "/v2/trace",
            "/v2/models/a/versions/1/trace/setting",
        ] {
            let error = Route::parse(&Method::GET, path).unwrap_err();
            assert!(matches!(error, GatewayError::NoRoute(_)), "{path}");
        }
        let error = Route::parse(&Method::GET, "/v2/models/a/infer").unwrap_err();
        assert!(matches!(error, GatewayError::MethodNotAllowed { allowed: "POST", .. }));
    }
}
