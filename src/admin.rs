//! The admin address of a running gateway, which owns its online store: rows go in there, and
//! an entity is looked up there.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sluice_features::{ServiceVector, ViewRows, WriteReport};

/// Looking something up.
const CALL: Duration = Duration::from_secs(30);
/// Storing rows.
const WRITE: Duration = Duration::from_secs(600);

/// A client of one gateway's admin address.
#[derive(Debug)]
pub(crate) struct Admin {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

impl Admin {
    /// A client of `address`, a URL or `host:port`. Connects to nothing.
    pub(crate) fn new(address: &str) -> anyhow::Result<Self> {
        let url = base_url(address);
        let parsed: reqwest::Url =
            url.parse().with_context(|| format!("admin address {address:?}"))?;
        if parsed.scheme() != "http" {
            bail!("admin address {address:?} must begin with http://; nothing there speaks TLS");
        }
        let mut builder = reqwest::Client::builder().connect_timeout(Duration::from_secs(5));
        if is_loopback(&parsed) {
            builder = builder.no_proxy();
        }
        Ok(Self { http: builder.build()?, url, token: None })
    }

    /// The same with the first bearer token of a file, as the gateway reads it: one a line, blank
    /// lines and those that begin with `#` ignored.
    pub(crate) fn with_token_of(mut self, file: &Path) -> anyhow::Result<Self> {
        let read = || format!("read admin token {}", file.display());
        let text = std::fs::read_to_string(file).with_context(read)?;
        let token =
            text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        let token = token.context("there is no token in it").with_context(read)?;
        self.token = Some(token.to_owned());
        Ok(self)
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

fn read<T: DeserializeOwned>(body: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(body).context("read the gateway's answer")
}

fn base_url(address: &str) -> String {
    let url = address.trim_end_matches('/');
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

/// A proxy would look on its own machine.
fn is_loopback(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::{Admin, base_url, is_loopback};

    #[test]
    fn an_address_becomes_a_url() {
        assert_eq!(base_url("127.0.0.1:8082"), "http://127.0.0.1:8082");
        assert_eq!(base_url("http://gate.example/"), "http://gate.example");
        assert!(Admin::new("https://gate.example").is_err());
        let error = Admin::new("http://:82").unwrap_err();
        assert!(format!("{error:#}").contains("\"http://:82\""), "{error:#}");
    }

    #[test]
    fn this_machine_is_asked_without_a_proxy() {
        for (url, expected) in [
            ("http://127.0.0.1:8082", true),
            ("http://localhost:8082", true),
            ("http://[::1]:8082", true),
            ("http://gate.example", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), expected, "{url}");
        }
    }
}
