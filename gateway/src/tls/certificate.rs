//! Certificates and keys out of PEM files, and what is wrong with them in words.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::validity::Validity;

/// What the server is known by.
#[derive(Debug)]
pub(super) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// For messages.
    certificate_file: String,
    key_file: String,
}

impl Identity {
    /// Reads both files. Gives every complaint.
    pub(super) fn read(
        (certificate_path, certificate): (&Path, &[u8]),
        (key_path, key): (&Path, &[u8]),
    ) -> Result<Self, Vec<String>> {
        let certificate_file = format!("--tls-certificate {}", certificate_path.display());
        let key_file = format!("--tls-key {}", key_path.display());
        let chain = certificates(&certificate_file, certificate);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
            if is_encrypted(key) {
                format!("{key_file}: the private key is encrypted; decrypt it for the gateway")
            } else {
                format!("{key_file}: {}", reason("private key", &error))
            }
        });
        match (chain, key) {
            (Ok(chain), Ok(key)) => {
                let identity = Self { chain, key, certificate_file, key_file };
                identity.config(None).map_err(|complaint| vec![complaint])?;
                Ok(identity)
            }
            (chain, key) => Err([chain.err(), key.err()].into_iter().flatten().collect()),
        }
    }

    /// When all certificates of the chain are valid.
    pub(super) fn validity(&self) -> Option<Validity> {
        let validities = self.chain.iter().map(|certificate| Validity::of(certificate));
        validities.reduce(|all, one| Some(all?.and(one?)))?
    }

    /// TLS 1.2 and 1.3 with this certificate, and with a certificate of every client where there
    /// is something to verify it.
    pub(super) fn config(
        &self,
        clients: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Result<ServerConfig, String> {
        let asks_clients = clients.is_some();
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?;
        let builder = match clients {
            Some(clients) => builder.with_client_cert_verifier(clients),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| self.complaint(&error))?;
        if asks_clients {
            // A session that is resumed brings no certificate: one that expires, or whose
            // authority is taken back, would go on.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(config)
    }

    fn complaint(&self, error: &rustls::Error) -> String {
        match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                format!("{}: the key does not fit {}", self.key_file, self.certificate_file)
            }
            rustls::Error::InvalidCertificate(_) => {
                format!("{}: the certificate cannot be used: {error}", self.certificate_file)
            }
            _ => format!("{}: the key cannot be used: {error}", self.key_file),
        }
    }
}

/// Takes clients with a certificate that leads to one in the file, and no others.
pub(super) fn client_verifier(
    (path, pem): (&Path, &[u8]),
) -> Result<Arc<dyn ClientCertVerifier>, Vec<String>> {
    let file = format!("--tls-client-ca {}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&file, pem).map_err(|complaint| vec![complaint])? {
        let added = roots.add(certificate);
        added.map_err(|error| vec![format!("{file}: a certificate cannot be used: {error}")])?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| vec![format!("{file}: {error}")])
}

fn certificates(file: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(none) if none.is_empty() => {
            Err(format!("{file}: {}", reason("certificate", &pem::Error::NoItemsFound)))
        }
        Ok(chain) => Ok(chain),
        Err(error) => Err(format!("{file}: {}", reason("certificate", &error))),
    }
}

fn reason(what: &str, error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => format!("there is no {what} in PEM in it"),
        pem::Error::MissingSectionEnd { end_marker } => {
            let name = String::from_utf8_lossy(end_marker);
            format!("its {what} in PEM is cut off: there is no line -----END {name}-----")
        }
        pem::Error::IllegalSectionStart { .. } => {
            format!(
                "its {what} in PEM is broken: a line that begins a section does not end in dashes"
            )
        }
        error => format!("its {what} in PEM is broken: {error}"),
    }
}

/// Whether a key is encrypted, by a section of that name or, in the traditional form, by a header.
fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
