//! TLS on every port: the certificate and key that the settings name, read as a whole and put in
//! force by one pointer swap. Connections keep what they were accepted with.

mod certificate;
mod handshake;
mod stream;
mod validity;

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;

pub(crate) use handshake::{Arrival, Handshakes};
pub(crate) use stream::Stream;

use certificate::Identity;
use validity::Validity;

/// The ports, by what their connections speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Http,
    Grpc,
    Admin,
    /// Metrics alone: scrapers and probes have no certificates of their own.
    Metrics,
}

/// How connections are accepted.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    http: Arc<ServerConfig>,
    grpc: Arc<ServerConfig>,
    metrics: Arc<ServerConfig>,
    validity: Option<Validity>,
    asks_clients: bool,
}

/// The files in PEM.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Files<'f> {
    /// The server's certificate, followed by those that lead to its authority.
    pub(crate) certificate: (&'f Path, &'f [u8]),
    pub(crate) key: (&'f Path, &'f [u8]),
    /// Authorities of which clients must have a certificate.
    pub(crate) client_ca: Option<(&'f Path, &'f [u8])>,
}

impl Tls {
    /// Checks that the files belong together. Gives every complaint, with the name of its file.
    pub(crate) fn new(files: Files<'_>) -> Result<Self, Vec<String>> {
        let identity = Identity::read(files.certificate, files.key);
        let clients = files.client_ca.map(certificate::client_verifier).transpose();
        let (identity, clients) = match (identity, clients) {
            (Ok(identity), Ok(clients)) => (identity, clients),
            (identity, clients) => {
                let complaints = [identity.err(), clients.err()];
                return Err(complaints.into_iter().flatten().flatten().collect());
            }
        };
        let validity = identity.validity();
        let asks_clients = clients.is_some();
        let config = |clients| identity.config(clients).map_err(|complaint| vec![complaint]);
        let http = speaking(config(clients.clone())?, b"http/1.1");
        Ok(Self {
            grpc: speaking(config(clients)?, b"h2"),
            metrics: speaking(config(None)?, b"http/1.1"),
            http,
            validity,
            asks_clients,
        })
    }

    /// How a connection to `port` is accepted.
    pub(crate) const fn config(&self, port: Port) -> &Arc<ServerConfig> {
        match port {
            Port::Http | Port::Admin => &self.http,
            Port::Grpc => &self.grpc,
            Port::Metrics => &self.metrics,
        }
    }

    /// Whether clients must have a certificate.
    pub(crate) const fn asks_clients(&self) -> bool {
        self.asks_clients
    }

    /// When the first of the certificates expires, in seconds since 1970.
    pub(crate) fn expires(&self) -> Option<i64> {
        self.validity.map(|validity| validity.not_after)
    }

    /// What an operator should know of the certificate at `now`, in seconds since 1970.
    pub(crate) fn warning(&self, now: i64) -> Option<&'static str> {
        match self.validity? {
            validity if now > validity.not_after => Some("the TLS certificate has expired"),
            validity if now < validity.not_before => Some("the TLS certificate is not valid yet"),
            _ => None,
        }
    }
}

/// Clients may name what they want to speak; it must be this then.
fn speaking(mut config: ServerConfig, protocol: &[u8]) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}
