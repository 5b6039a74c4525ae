//! Where the load goes: the URL taken apart, its host resolved once, and refused when it is
//! another machine and nobody allowed that.

use std::net::{SocketAddr, ToSocketAddrs as _};

use http::Uri;
use http::header::HeaderValue;

use crate::error::BenchError;

/// A resolved target.
#[derive(Debug)]
pub(crate) struct Target {
    /// What connections are opened to; the first that accepts.
    pub(crate) addresses: Vec<SocketAddr>,
    /// The value of the `host` header.
    pub(crate) host_header: HeaderValue,
}

impl Target {
    /// Resolves `url`, which blocks when its host is a name. Resolving once means that what was
    /// checked is what is connected to.
    pub(crate) fn resolve(url: &Uri, allow_remote: bool) -> Result<Self, BenchError> {
        let (host, port) = host_and_port(url)?;
        // An IPv6 literal stands in brackets in a URL and without them in the resolver.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = format!("{host}:{port}");
        let failed = |reason: String| BenchError::Connect { target: name.clone(), reason };
        let addresses: Vec<SocketAddr> =
            (bare, port).to_socket_addrs().map_err(|error| failed(error.to_string()))?.collect();
        if addresses.is_empty() {
            return Err(failed("the name has no address".into()));
        }
        let remote = addresses.iter().map(|a| a.ip()).find(|ip| !ip.to_canonical().is_loopback());
        if let (Some(address), false) = (remote, allow_remote) {
            return Err(BenchError::Remote { host: host.into(), address });
        }
        let authority = if url.port().is_some() { &name } else { host };
        let invalid = |_| BenchError::Options(format!("url {url} has no usable host"));
        Ok(Self { addresses, host_header: HeaderValue::from_str(authority).map_err(invalid)? })
    }
}

/// The host as written, and the port, 80 by default.
fn host_and_port(url: &Uri) -> Result<(&str, u16), BenchError> {
    let refuse = |why: &str| Err(BenchError::Options(format!("url {url} {why}")));
    match url.scheme_str() {
        Some("http") => {}
        Some("https") => return refuse("wants TLS; the load generator speaks plain http"),
        _ => return refuse("must start with http://"),
    }
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return refuse("holds a user name; pass an authorization header instead");
    }
    match (url.host(), url.port()) {
        (None | Some(""), _) => refuse("names no host"),
        (Some(host), None) => Ok((host, 80)),
        (Some(host), Some(port)) => Ok((host, port.as_u16())),
    }
}

/// Path and query, as they stand in the request line.
pub(crate) fn path_of(url: &Uri) -> Uri {
    url.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()))
}

#[cfg(test)]
mod tests {
    use super::{Target, path_of};
    use crate::error::BenchError;

    fn resolve(url: &str, allow_remote: bool) -> Result<Target, BenchError> {
        Target::resolve(&url.parse().unwrap(), allow_remote)
    }

    #[test]
    fn loopback_targets_are_welcome() {
        for (url, host, path) in [
            ("http://127.0.0.1:8080/v2/x?y=1", "127.0.0.1:8080", "/v2/x?y=1"),
            ("http://127.8.8.8", "127.8.8.8", "/"),
            ("http://[::1]:8080/", "[::1]:8080", "/"),
            ("http://[::ffff:127.0.0.1]:1/", "[::ffff:127.0.0.1]:1", "/"),
            ("http://localhost:8080?a", "localhost:8080", "/?a"),
        ] {
            let target = resolve(url, false).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(target.host_header, host);
            assert_eq!(path_of(&url.parse().unwrap()).to_string(), path);
        }
    }

    #[test]
    fn other_machines_need_leave() {
        for url in ["http://192.0.2.7/", "http://[2001:db8::1]:80/", "http://0.0.0.0/"] {
            let error = resolve(url, false).unwrap_err();
            assert!(matches!(error, BenchError::Remote { .. }), "{url}: {error}");
            assert!(error.to_string().contains("--allow-remote"));
            assert!(resolve(url, true).is_ok());
        }
    }

    #[test]
    fn urls_that_cannot_be_used_are_named() {
        for (url, says) in [
            ("https://127.0.0.1/", "TLS"),
            ("ftp://127.0.0.1/", "http://"),
            ("/v2/models", "http://"),
            ("http://me:secret@127.0.0.1/", "user name"),
        ] {
            let error = resolve(url, false).unwrap_err().to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
    }
}
