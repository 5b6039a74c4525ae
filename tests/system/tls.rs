//! Registries and admin addresses that speak TLS: the commands and the gateway reach them as they
//! reach others.

use std::net::SocketAddr;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{Registry, anywhere, free_port, package, sluice, source_tree, wait_until};

/// Certificates that one authority of the test has signed, as files.
struct Certificates {
    authority: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("authority.pem"), authority.pem()).unwrap();
        Self { authority, folder }
    }

    /// A certificate for this machine, its key, and both in one file.
    fn sign(&self) {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap().pem();
        let key = key.serialize_pem();
        for (name, text) in [
            ("tls.crt", &certificate),
            ("tls.key", &key),
            ("both.pem", &format!("{certificate}{key}")),
        ] {
            std::fs::write(self.folder.path().join(name), text).unwrap();
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn acceptor(&self) -> TlsAcceptor {
        let read = |name: &str| std::fs::read(self.folder.path().join(name)).unwrap();
        let chain = CertificateDer::pem_slice_iter(&read("tls.crt")).collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_slice(&read("tls.key")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.unwrap(), key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Speaks TLS in front of a server that does not. Gives the port.
async fn stand_before(server: SocketAddr, acceptor: TlsAcceptor) -> u16 {
    let listener = TcpListener::bind(anywhere()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((caller, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let (Ok(mut caller), Ok(mut server)) =
                    (acceptor.accept(caller).await, TcpStream::connect(server).await)
                else {
                    return;
                };
                let _either_has_left =
                    tokio::io::copy_bidirectional(&mut caller, &mut server).await;
            });
        }
    });
    port
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _it_may_have_ended = self.0.kill();
        let _it_may_have_ended = self.0.wait();
    }
}

fn trusting(authority: &str, arguments: &[&str]) -> Command {
    let mut command = sluice(arguments);
    command.env("SSL_CERT_FILE", authority);
    command
}

/// Who trusts the authority, and has a certificate of it.
fn client(certificates: &Certificates) -> reqwest::Client {
    let read = |name: &str| std::fs::read(certificates.path(name)).unwrap();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(20))
        .tls_certs_only([reqwest::Certificate::from_pem(&read("authority.pem")).unwrap()])
        .identity(reqwest::Identity::from_pem(&read("both.pem")).unwrap())
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_and_an_admin_address_are_reached_by_tls() {
    let certificates = Certificates::new();
    certificates.sign();
    let [authority, certificate, key, both] =
        ["authority.pem", "tls.crt", "tls.key", "both.pem"].map(|name| certificates.path(name));
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(&folder.path().join("registry"), anywhere()).await;
    registry.publish(package().await).await;
    let plain = registry.client.url().trim_start_matches("http://").trim_end_matches('/');
    let port = stand_before(plain.parse().unwrap(), certificates.acceptor()).await;

    let (state, features) = (folder.path().join("state"), source_tree().join("demo/features.toml"));
    let (http, admin) = (free_port(), free_port());
    let mut serving = trusting(&authority, &["serve", "--grpc", "127.0.0.1:0"]);
    serving.args(["--registry", &format!("https://localhost:{port}")]);
    serving.arg("--state").arg(state).arg("--features").arg(&features);
    serving.args([
        "--http",
        &format!("127.0.0.1:{http}"),
        "--admin",
        &format!("127.0.0.1:{admin}"),
    ]);
    serving.args(["--tls-certificate", &certificate, "--tls-key", &key]);
    serving.args(["--tls-client-ca", &authority]);
    let _gateway = Running(serving.spawn().unwrap());
    let client = client(&certificates);
    let ready = format!("https://localhost:{http}/v2/models/demand-forecast/ready");
    let is_ready =
        async || client.get(&ready).send().await.is_ok_and(|answer| answer.status() == 200);
    wait_until("the version from behind TLS", is_ready).await;

    let admin = format!("https://localhost:{admin}");
    let with_nothing = ["features", "materialize", "--admin", &admin, "--features"];
    let with_nothing = [&with_nothing[..], &[features.to_str().unwrap()]].concat();
    let with_certificate = [&with_nothing[..], &["--admin-certificate", &both]].concat();
    let output = trusting(&authority, &with_certificate).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Without a certificate, and by one who does not trust the authority.
    for mut refused in [trusting(&authority, &with_nothing), sluice(&with_certificate)] {
        let output = refused.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(&admin), "{error}");
    }
    registry.stop().await;
}
