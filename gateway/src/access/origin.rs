//! Web pages and calls that change what is served. A browser lets every page send requests to this
//! machine, with the certificate of whoever sits before it; so where no tokens say who asks, what the
//! browser says of the page decides.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Method};

/// How to be let in all the same.
const WAY_OUT: &str = "; with --admin-token-file, tokens say who may ask";

/// Refuses what a page of another site makes a browser send: a request that changes something and
/// was begun elsewhere than at the address that it is for. With `of_this_machine`, which is for ports
/// on loopback, that address must be one of this machine, also to read: any name can be made to lead
/// here, and then its page may read what it is answered.
pub(crate) fn check(
    method: &Method,
    headers: &HeaderMap,
    of_this_machine: bool,
) -> Result<(), String> {
    let host = headers.get(HOST).map(|value| value.as_bytes());
    if of_this_machine && !host.is_none_or(is_of_this_machine) {
        return Err(format!(
            "this port is on loopback, where the host is localhost or an IP address{WAY_OUT}"
        ));
    }
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let text = |name: &str| headers.get(name).map(|value| value.as_bytes());
    let is_own = |origin: &[u8]| {
        let authority = origin.splitn(2, |&byte| byte == b':').nth(1);
        let authority = authority.and_then(|rest| rest.strip_prefix(b"//"));
        authority.zip(host).is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host))
    };
    let of_another_origin = headers.get_all(ORIGIN).iter().any(|origin| !is_own(origin.as_bytes()));
    let site = text("sec-fetch-site");
    if of_another_origin || site.is_some_and(|site| !matches!(site, b"same-origin" | b"none")) {
        return Err(format!("pages of other origins may not change what is served{WAY_OUT}"));
    }
    Ok(())
}

/// Whether a `Host` leads to loopback whatever a name server says.
fn is_of_this_machine(host: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(host) else { return false };
    let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&name);
    name == "localhost" || name.ends_with(".localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, Method};

    use super::check;

    fn is_let_in(method: &Method, headers: &[(&str, &str)], of_this_machine: bool) -> bool {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
            })
            .collect();
        check(method, &headers, of_this_machine).is_ok()
    }

    #[test]
    fn pages_of_other_origins_change_nothing() {
        let host = ("host", "localhost:8082");
        for (headers, expected) in [
            (vec![host], true),
            (vec![host, ("origin", "http://localhost:8082")], true),
            (vec![host, ("origin", "https://LOCALHOST:8082")], true),
            (vec![host, ("origin", "http://localhost:3000")], false),
            (vec![host, ("origin", "http://evil.example")], false),
            (vec![host, ("origin", "null")], false),
            (vec![host, ("origin", "")], false),
            (vec![("origin", "http://localhost:8082")], false),
            (vec![host, ("sec-fetch-site", "cross-site")], false),
            (vec![host, ("sec-fetch-site", "same-site")], false),
            (vec![host, ("sec-fetch-site", "same-origin")], true),
            (vec![host, ("sec-fetch-site", "none")], true),
        ] {
            for of_this_machine in [true, false] {
                let post = is_let_in(&Method::POST, &headers, of_this_machine);
                assert_eq!(post, expected, "{headers:?}");
                assert!(is_let_in(&Method::GET, &headers, of_this_machine), "{headers:?}");
            }
        }
    }

    #[test]
    fn on_loopback_the_host_is_of_this_machine() {
        for (host, expected) in [
            ("localhost", true),
            ("LocalHost.:8082", true),
            ("gateway.localhost:1", true),
            ("127.0.0.1:8082", true),
            ("[::1]:8082", true),
            ("10.0.0.7", true),
            ("sluice.default.svc:8082", false),
            ("evil.example:8082", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
            ("a b", false),
        ] {
            let headers = [("host", host)];
            assert_eq!(is_let_in(&Method::POST, &headers, true), expected, "{host}");
            // A page of that name, which has come to lead here.
            let origin = format!("http://{host}");
            let page = [("host", host), ("origin", &origin)];
            assert_eq!(is_let_in(&Method::POST, &page, true), expected, "{host}");
            assert!(is_let_in(&Method::POST, &headers, false), "{host}");
            // Such a page reads answers, as one of the very address.
            for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                assert_eq!(is_let_in(&method, &headers, true), expected, "{method} {host}");
                assert!(is_let_in(&method, &headers, false), "{method} {host}");
            }
        }
    }
}
