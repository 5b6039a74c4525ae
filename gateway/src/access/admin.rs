//! The admin port's door.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;

use super::origin;
use crate::admin;
use crate::error::GatewayError;
use crate::shared::Shared;
use crate::tls::Tls;

/// `router` behind the admin tokens, if there are any; else out of web pages' reach. With
/// `on_loopback`, only this machine reaches it.
pub(crate) fn guarded(router: Router, shared: Arc<Shared>, on_loopback: bool) -> Router {
    router.layer(from_fn_with_state(Door { shared, on_loopback }, pass))
}

#[derive(Debug, Clone)]
struct Door {
    shared: Arc<Shared>,
    on_loopback: bool,
}

async fn pass(State(door): State<Door>, request: Request, next: Next) -> Response {
    match door.check(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            door.shared.metrics.count_unrouted(error.code());
            admin::refusal(&error)
        }
    }
}

impl Door {
    fn check(&self, request: &Request) -> Result<(), GatewayError> {
        let live = self.shared.live();
        live.access.check_admin(request.uri().path(), request.headers())?;
        let asks_who =
            live.access.admin.is_some() || live.tls.as_ref().is_some_and(Tls::asks_clients);
        if asks_who {
            return Ok(());
        }
        origin::check(request.method(), request.headers(), self.on_loopback)
            .map_err(GatewayError::PermissionDenied)
    }
}
