//! The admin port's door.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;

use super::{HEALTH_PATHS, origin};
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
        if live.access.admin.is_some() {
            return Ok(());
        }
        // A browser connects by TLS only to a name that the certificate has, so that no page's own
        // name leads here.
        let asks_clients = live.tls.as_ref().is_some_and(Tls::asks_clients);
        let of_this_machine =
            self.on_loopback && !asks_clients && !is_for_everybody(request.uri().path());
        origin::check(request.method(), request.headers(), of_this_machine)
            .map_err(GatewayError::PermissionDenied)
    }
}

/// Whether what a path tells may be read by every page.
fn is_for_everybody(path: &str) -> bool {
    HEALTH_PATHS.contains(&path) || path == "/metrics"
}
