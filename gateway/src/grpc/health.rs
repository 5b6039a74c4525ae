//! grpc.health.v1: whether to send requests here. Which service is asked for is not looked at.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::stream::unfold;
use tokio::time::sleep;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::error::GatewayError;
use crate::shared::Shared;

/// How soon a watcher hears of a change.
const LOOK: Duration = Duration::from_millis(200);

/// The gateway's health, for all of its services.
#[derive(Debug)]
pub(super) struct ServerHealth(pub(super) Arc<Shared>);

type Changes = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Health for ServerHealth {
    type WatchStream = Changes;

    async fn check(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(health(self.0.is_ready())))
    }

    async fn watch(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<Changes>, Status> {
        Ok(Response::new(Box::pin(changes(self.0.clone()))))
    }
}

/// What the health is, and whatever it becomes, until the server ends.
fn changes(shared: Arc<Shared>) -> impl Stream<Item = Result<HealthCheckResponse, Status>> {
    unfold(Watch { shared, told: None, over: false }, |mut watch| async move {
        if watch.over {
            return None;
        }
        loop {
            let now = watch.shared.is_ready();
            if watch.told.replace(now) != Some(now) {
                return Some((Ok(health(now)), watch));
            }
            if watch.shared.is_draining() {
                watch.over = true;
                return Some((Err(GatewayError::Unavailable("draining").into()), watch));
            }
            sleep(LOOK).await;
        }
    })
}

struct Watch {
    shared: Arc<Shared>,
    /// What the watcher was told last.
    told: Option<bool>,
    over: bool,
}

fn health(is_ready: bool) -> HealthCheckResponse {
    let status = if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}
