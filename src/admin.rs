//! The admin address of a running gateway, which owns its online store: rows go in there, and
//! an entity is looked up there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sluice_features::{ServiceVector, ViewRows, WriteReport};
use sluice_registry::outbound;

/// Looking something up.
const CALL: Duration = Duration::from_secs(30);
/// Storing rows.
const WRITE: Duration = Duration::from_secs(600);

/// What an admin address asks of who calls it.
#[derive(Debug, Default, Args)]
pub(crate) struct AdminAccess {
    /// Bearer tokens of the admin address, one a line: the first one is sent
    #[arg(long, env = "SLUICE_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// A certificate and its key in PEM, for an admin address that asks its clients for one
    #[arg(long, env = "SLUICE_ADMIN_CERTIFICATE", value_name = "FILE")]
    admin_certificate: Option<PathBuf>,
}

/// A client of one gateway's admin address.
#[derive(Debug)]
pub(crate) struct Admin {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

impl Admin {
    /// A client of `address`, a URL or `host:port`. Connects to nothing.
    pub(crate) fn new(address: &str, access: &AdminAccess) -> anyhow::Result<Self> {
        let url = base_url(address);
        let parsed: reqwest::Url =
            url.parse().with_context(|| format!("admin address {address:?}"))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            bail!("admin address {address:?} must begin with http:// or https://");
        }
        let mut builder = outbound::client(&parsed).connect_timeout(Duration::from_secs(5));
        if let Some(file) = &access.admin_certificate {
            builder = builder.identity(identity_of(file)?);
        }
        let token = access.admin_token_file.as_deref().map(token_of).transpose()?;
        Ok(Self { http: builder.build()?, url, token })
    }

    /// What the gateway serves, as `GET /models` says it.
    pub(crate) async fn models(&self) -> anyhow::Result<serde_json::Value> {
        let request = self.http.get(format!("{}/models", self.url)).timeout(CALL);
        read(&self.answer(request).await?)
    }

    /// Stores the rows of views, all of them or none. Gives a report for each view.
    pub(crate) async fn write(&self, batches: &[ViewRows]) -> anyhow::Result<Vec<WriteReport>> {
        #[derive(Deserialize)]
        struct Answer {
            views: Vec<WriteReport>,
        }
        let request = self
            .http
            .post(format!("{}/features/rows", self.url))
            .header("content-type", "application/octet-stream")
            .timeout(WRITE)
            .body(ViewRows::encode_all(batches));
        Ok(read::<Answer>(&self.answer(request).await?)?.views)
    }

    /// What the store holds for `key`, and the model's inputs where all `fields` are given.
    pub(crate) async fn vector(
        &self,
        service: &str,
        key: &str,
        fields: &[(String, String)],
    ) -> anyhow::Result<ServiceVector> {
        let mut query = vec![("key", key)];
        query.extend(fields.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let url = format!("{}/features/{service}", self.url);
        read(&self.answer(self.http.get(url).query(&query).timeout(CALL)).await?)
    }

    /// The body of a good answer; the gateway's own words for a bad one.
    async fn answer(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Vec<u8>> {
        let ask = || format!("ask the gateway's admin address {}", self.url);
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().await.with_context(ask)?;
        let status = response.status();
        let body = response.bytes().await.with_context(ask)?;
        if status.is_success() {
            return Ok(body.to_vec());
        }
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let reason = json.get("error").and_then(|error| error.as_str()).map(str::to_owned);
        bail!("gateway: {}", reason.unwrap_or_else(|| format!("status {status}")))
    }
}

/// The first bearer token of a file, as the gateway reads it: one a line, blank lines and those that
/// begin with `#` ignored.
fn token_of(file: &Path) -> anyhow::Result<String> {
    let read = || format!("read admin token {}", file.display());
    let text = std::fs::read_to_string(file).with_context(read)?;
    let token = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(token.context("there is no token in it").with_context(read)?.to_owned())
}

/// A certificate with its key.
fn identity_of(file: &Path) -> anyhow::Result<reqwest::Identity> {
    let read = || format!("read client certificate {}", file.display());
    let text = std::fs::read(file).with_context(read)?;
    reqwest::Identity::from_pem(&text)
        .context("it must hold a certificate and its key, both in PEM")
        .with_context(read)
}

fn read<T: DeserializeOwned>(body: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(body).context("read the gateway's answer")
}

fn base_url(address: &str) -> String {
    let url = address.trim_end_matches('/');
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

#[cfg(test)]
mod tests {
    use super::{Admin, AdminAccess, base_url};

    #[test]
    fn an_address_becomes_a_url() {
        assert_eq!(base_url("127.0.0.1:8082"), "http://127.0.0.1:8082");
        assert_eq!(base_url("http://gate.example/"), "http://gate.example");
        let admin = |address| Admin::new(address, &AdminAccess::default());
        assert!(admin("https://gate.example").is_ok());
        assert!(admin("ftp://gate.example").is_err());
        let error = admin("http://:82").unwrap_err();
        assert!(format!("{error:#}").contains("\"http://:82\""), "{error:#}");
    }
}
