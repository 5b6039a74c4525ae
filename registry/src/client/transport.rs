//! One request and its answer: addresses, time limits, errors.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;

use super::Client;
use crate::domain::ErrorMessage;
use crate::{RegistryError, Result};

/// How long a call of the metadata API may take.
const CALL: Duration = Duration::from_secs(30);
/// How long the server may stay silent in the middle of a file.
const SILENCE: Duration = Duration::from_secs(30);
/// The longest JSON answer that is read.
const MAX_ANSWER: u64 = 64 << 20;
/// The most that is reserved on the word of a Content-Length.
const MAX_RESERVE: u64 = 16 << 20;

impl Client {
    /// The address of `segments` under the base; each segment is encoded by itself.
    pub(super) fn address(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    pub(super) fn mlflow(&self, entity: &str, method: &str) -> Url {
        self.address(&["api", "2.0", "mlflow", entity, method])
    }

    pub(super) fn sluice(&self, segments: &[&str]) -> Url {
        let mut url = self.address(&["api", "1.0", "sluice"]);
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend(segments);
        }
        url
    }

    /// Sends a call whose answer is JSON.
    pub(super) async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        self.json_within(request, CALL).await
    }

    /// Sends a call whose answer is JSON and may take up to `limit`.
    pub(super) async fn json_within<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        limit: Duration,
    ) -> Result<T> {
        let body = self.bytes(request.timeout(limit)).await?;
        serde_json::from_slice(&body).map_err(|error| {
            RegistryError::Internal(format!(
                "registry at {} sent no such answer: {error}",
                self.base
            ))
        })
    }

    /// Sends a call whose answer is text or nothing.
    pub(super) async fn text(&self, request: RequestBuilder) -> Result<Bytes> {
        self.bytes(request.timeout(CALL)).await
    }

    async fn bytes(&self, request: RequestBuilder) -> Result<Bytes> {
        let response = self.send(request).await?;
        self.body(response, MAX_ANSWER).await
    }

    /// Sends `request` and turns refusals into errors; the answer's body is still to be read.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|error| self.away(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.body(response, MAX_ANSWER).await?;
        let message = serde_json::from_slice(&body).unwrap_or_else(|_| ErrorMessage {
            error_code: String::new(),
            message: format!("registry at {} answered {status}", self.base),
        });
        Err(message.into_error(status.as_u16()))
    }

    /// Reads a body of at most `limit` bytes, however long it takes while bytes keep coming.
    pub(super) async fn body(&self, mut response: Response, limit: u64) -> Result<Bytes> {
        let announced = response.content_length().unwrap_or(0).min(limit).min(MAX_RESERVE);
        let mut body = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
        loop {
            let chunk = tokio::time::timeout(SILENCE, response.chunk()).await.map_err(|_| {
                RegistryError::Unavailable(format!("registry at {} fell silent", self.base))
            })?;
            let Some(chunk) = chunk.map_err(|error| self.away(&error))? else {
                return Ok(body.freeze());
            };
            if (body.len() + chunk.len()) as u64 > limit {
                return Err(RegistryError::TooLarge(format!(
                    "answer of the registry at {} is longer than {limit} bytes",
                    self.base
                )));
            }
            body.extend_from_slice(&chunk);
        }
    }

    fn away(&self, error: &reqwest::Error) -> RegistryError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        RegistryError::Unavailable(format!("registry at {} does not answer: {cause}", self.base))
    }
}
