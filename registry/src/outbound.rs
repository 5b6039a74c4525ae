//! How this system asks other servers over HTTP.

use reqwest::{ClientBuilder, Url};

/// The beginning of a client for the server at `url`. It speaks TLS where the address begins with
/// `https`, and trusts the authorities that the system does, or those in `SSL_CERT_FILE`. A server on
/// this machine is asked without a proxy, which would look on its own machine.
pub fn client(url: &Url) -> ClientBuilder {
    let mut builder =
        reqwest::Client::builder().user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")));
    if url.scheme() != "https" {
        // A machine without any certificates, as many containers are, can do without them.
        builder = builder.tls_certs_only([]);
    }
    if is_loopback(url) { builder.no_proxy() } else { builder }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn this_machine_is_asked_without_a_proxy() {
        for (url, expected) in [
            ("http://127.0.0.1:8082", true),
            ("https://localhost:8082", true),
            ("http://[::1]:8082", true),
            ("http://gate.example", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), expected, "{url}");
        }
    }
}
