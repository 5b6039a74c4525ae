//! Certificates of the tests' own authorities, and clients that connect by TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

/// Who signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key in PEM.
pub(crate) struct Signed {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// What a certificate is for.
#[derive(Clone, Copy)]
pub(crate) enum Usage {
    Server,
    Client,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate that is valid now.
    pub(crate) fn sign(&self, usage: Usage) -> Signed {
        self.sign_until(usage, 2100)
    }

    /// One that is valid until a year begins.
    pub(crate) fn sign_until(&self, usage: Usage, year: i32) -> Signed {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages = vec![match usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Signed { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Signed {
    /// Writes both files aside and renames them into place.
    pub(crate) fn write(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let place = |name: &str, text: &str| {
            let (aside, path) = (folder.join(format!(".{name}")), folder.join(name));
            std::fs::write(&aside, text).unwrap();
            std::fs::rename(&aside, &path).unwrap();
            path
        };
        (place("tls.crt", &self.certificate), place("tls.key", &self.key))
    }
}

/// Somebody who connects by TLS.
#[derive(Clone)]
pub(crate) struct TlsClient(ClientConfig);

impl TlsClient {
    /// One who trusts servers of `authorities`, and has a certificate or none.
    pub(crate) fn new(authorities: &[&Authority], own: Option<&Signed>) -> Self {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.0.der().clone()).unwrap();
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Self(match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = CertificateDer::pem_slice_iter(own.certificate.as_bytes());
                let chain = chain.collect::<Result<_, _>>().unwrap();
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        })
    }

    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        protocols: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut config = self.0.clone();
        config.alpn_protocols = protocols.iter().map(|&name| name.into()).collect();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Status and body of one request on a connection of its own.
    pub(crate) async fn ask(
        &self,
        address: SocketAddr,
        request: &str,
        body: &str,
    ) -> std::io::Result<(u16, String)> {
        let mut stream = self.connect(address, &["h2", "http/1.1"]).await?;
        let answer = ask(&mut stream, request, body).await?;
        stream.shutdown().await?;
        Ok(answer)
    }

    pub(crate) async fn get(&self, address: SocketAddr, path: &str) -> (u16, String) {
        self.ask(address, &format!("GET {path}"), "").await.unwrap()
    }

    /// A channel to a gRPC port.
    pub(crate) async fn channel(
        &self,
        address: SocketAddr,
    ) -> Result<Channel, tonic::transport::Error> {
        let client = self.clone();
        let connector = tower::service_fn(move |_| {
            let client = client.clone();
            async move { client.connect(address, &["h2"]).await.map(TokioIo::new) }
        });
        // By the scheme the channel only knows what to write; the connector does the rest.
        let endpoint = Endpoint::from_shared(format!("http://localhost:{}", address.port()));
        endpoint.unwrap().connect_with_connector(connector).await
    }
}

/// Status and body of one request: `GET /path`.
pub(crate) async fn ask(
    stream: &mut TlsStream<TcpStream>,
    request: &str,
    body: &str,
) -> std::io::Result<(u16, String)> {
    let length = body.len();
    let text =
        format!("{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let lower = head.to_ascii_lowercase();
        let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length: usize = length.unwrap_or("0").parse().unwrap();
        if body.len() >= length {
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            return Ok((status, body.to_owned()));
        }
    }
}

/// The body of an answer as JSON.
pub(crate) fn json(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_default()
}
