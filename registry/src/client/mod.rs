//! The client half: what gateway and trainer use.
//!
//! Every call has a time limit and answers [`RegistryError::Unavailable`] when the server is
//! away. Nothing is repeated behind the caller's back: whoever follows the feed has its own
//! pace of retries.

mod blobs;
mod feed;
mod models;
mod transport;
mod versions;

use std::time::Duration;

use reqwest::Url;

pub use models::RegisteredModel;
pub use versions::{PackageFile, VersionInfo};

use crate::{RegistryError, Result, outbound};

/// A connection pool to one registry. Cloning is cheap and shares the pool.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
}

impl Client {
    /// A client of the registry at `url`, such as `http://127.0.0.1:5000`; a path in front of
    /// the API is kept. Checks the address and connects to nothing.
    pub fn new(url: &str) -> Result<Self> {
        let base = base(url).map_err(|why| {
            RegistryError::InvalidArgument(format!("registry address {url:?}: {why}"))
        })?;
        let http = outbound::client(&base)
            .connect_timeout(Duration::from_secs(5))
            // Shorter than the server's own, so that a pooled connection is never a closed one.
            .pool_idle_timeout(Duration::from_secs(20))
            .build()
            .map_err(|error| RegistryError::Internal(format!("HTTP client: {error}")))?;
        Ok(Self { http, base })
    }

    /// The address that the client was made with.
    pub fn url(&self) -> &str {
        self.base.as_str()
    }

    /// Whether the server answers and is healthy.
    pub async fn health(&self) -> Result<()> {
        self.text(self.http.get(self.address(&["health"]))).await.map(drop)
    }
}

fn base(url: &str) -> Result<Url, String> {
    if !url.contains("://") {
        return Err(format!("it must begin with http://, as in http://{}", example(url)));
    }
    let base = Url::parse(url).map_err(|error| error.to_string())?;
    if !matches!(base.scheme(), "http" | "https") {
        return Err(format!("scheme {:?} is not supported, http and https are", base.scheme()));
    }
    if base.query().is_some() || base.fragment().is_some() {
        return Err("it must not have a query or a fragment".into());
    }
    Ok(base)
}

/// What stands behind `http://` in the address that was probably meant.
fn example(url: &str) -> &str {
    if url.is_empty() { "localhost:5000" } else { url }
}

#[cfg(test)]
mod tests {
    use super::Client;

    #[test]
    fn addresses_are_checked_when_the_client_is_made() {
        for good in ["http://127.0.0.1:5000", "https://registry/", "http://[::1]:5000/prefix"] {
            assert!(Client::new(good).is_ok(), "{good}");
        }
        for bad in ["", "127.0.0.1:5000", "file:///x", "http://a?b", "http://"] {
            let error = Client::new(bad).unwrap_err();
            assert!(error.to_string().starts_with("registry address"), "{bad}: {error}");
        }
        for (bad, says) in [
            ("localhost:5000", "as in http://localhost:5000"),
            ("registry", "as in http://registry"),
            ("", "as in http://localhost:5000"),
        ] {
            let error = Client::new(bad).unwrap_err().to_string();
            assert!(error.ends_with(says), "{error}");
        }
    }
}
