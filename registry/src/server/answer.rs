//! Answers: JSON, and errors under MLflow's names.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use crate::RegistryError;
use crate::domain::ErrorMessage;

/// What a call of the metadata API returns.
pub(super) type Answer = Result<Json<Value>, Refusal>;

/// An error on its way to the client.
#[derive(Debug)]
pub(super) struct Refusal(RegistryError);

impl<E: Into<RegistryError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, message) = ErrorMessage::of(&self.0);
        if status >= 500 {
            tracing::error!(status, error = %self.0, "request failed");
        }
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(message)).into_response()
    }
}
