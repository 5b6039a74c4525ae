//! The admin port's door.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;

use crate::admin;
use crate::error::GatewayError;
use crate::shared::Shared;

/// `router` behind the admin tokens, if there are any.
pub(crate) fn guarded(router: Router, shared: Arc<Shared>) -> Router {
    router.layer(from_fn_with_state(shared, check))
}

async fn check(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let checked = shared
        .live()
        .access
        .check_admin(request.uri().path(), request.headers())
        .map_err(GatewayError::from);
    match checked {
        Ok(()) => next.run(request).await,
        Err(error) => {
            shared.metrics.count_unrouted(error.code());
            admin::refusal(&error)
        }
    }
}
