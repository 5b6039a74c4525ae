//! One gRPC call: which service answers it, within which bounds.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use sluice_protocol::codec::Codec as Plain;
use sluice_protocol::grpc::grpc_inference_service_server::GrpcInferenceServiceServer;
use tonic::codec::{Codec, CompressionEncoding};
use tonic::server::Grpc;
use tonic::{Request as Call, Status};
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower::{Service, ServiceExt, service_fn};

use super::body::{Body, Patience};
use super::codec::{InferCodec, LoadCodec};
use super::health::ServerHealth;
use super::taking::{Answer, Untaken};
use super::{InferenceService, access, infer, reflection, repository, stream};
use crate::deadline;
use crate::error::GatewayError;
use crate::shared::Shared;

/// What is sent back, before it is known how much of it is taken.
pub(super) type Reply = Response<tonic::body::Body>;

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const LOAD: &str = "/inference.GRPCInferenceService/RepositoryModelLoad";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.";
/// The longest message of a method that takes neither tensors nor files: a few names, settings or the
/// keys of a region. A list of empty texts takes a dozen times its bytes when it is read.
const SHORT: usize = 64 << 10;

/// Answers one call. Its work is given up when the caller's time is over, and when the future is
/// dropped because the caller has left.
pub(crate) async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    untaken: Untaken,
) -> Response<Answer> {
    let let_in = request.uri().path() == STREAM;
    let reply = reply(shared, request, &untaken).await;
    reply.map(|body| Answer::new(body, untaken, let_in))
}

async fn reply(shared: Arc<Shared>, request: Request<Incoming>, untaken: &Untaken) -> Reply {
    if !is_grpc(&request) {
        return unsupported_media_type();
    }
    if let Err(status) = access::check(&shared, request.uri().path(), request.headers()) {
        return status.into_http();
    }
    let limit = deadline::of_grpc(request.headers());
    // What is spawned for a call is moved about: a pointer is cheaper there than all of its state.
    let mut answered = Box::pin(dispatch(shared, request, untaken));
    let Some(limit) = limit else { return answered.await };
    match tokio::time::timeout(limit, &mut answered).await {
        Ok(reply) => reply,
        Err(_) => Status::from(GatewayError::DeadlineExceeded(limit)).into_http(),
    }
}

async fn dispatch(shared: Arc<Shared>, request: Request<Incoming>, untaken: &Untaken) -> Reply {
    if request.uri().path() == INFER {
        if let Err(error) = untaken.check() {
            shared.metrics.count_unrouted(error.code());
            return Status::from(error).into_http();
        }
        let max_body = shared.limits().max_body;
        let request = with_body(&shared, request, Patience::Body, max_body);
        let arrival = shared.tracer.arrival();
        let method = service_fn(|call| infer::call(&shared, call, arrival));
        return framed(InferCodec::new(max_body), &shared, max_body).unary(method, request).await;
    }
    // The rest is rare, or lasts: it need not make every call's future larger.
    Box::pin(dispatch_others(shared, request, untaken)).await
}

async fn dispatch_others(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    untaken: &Untaken,
) -> Reply {
    let path = request.uri().path();
    let is_stream = path == STREAM || path.starts_with(REFLECTION);
    let patience = if is_stream { Patience::Message } else { Patience::Body };
    let limit = if matches!(path, STREAM | LOAD) { shared.limits().max_body } else { SHORT };
    let request = with_body(&shared, request, patience, limit);
    match request.uri().path() {
        STREAM => {
            let method = service_fn(|call: Call<_>| {
                std::future::ready(stream::answers(&shared, call, untaken))
            });
            framed(InferCodec::new(limit), &shared, limit).streaming(method, request).await
        }
        LOAD => {
            let method = service_fn(|call: Call<_>| repository::load(&shared, call.into_inner()));
            framed(LoadCodec, &shared, limit).unary(method, request).await
        }
        CHECK => {
            let health = ServerHealth(shared.clone());
            let method = service_fn(|call| health.check(call));
            health_calls(limit).unary(method, request).await
        }
        WATCH => {
            let health = ServerHealth(shared.clone());
            let method = service_fn(|call| health.watch(call));
            health_calls(limit).server_streaming(method, request).await
        }
        path if path.starts_with(REFLECTION) => one(reflection::service(), request).await,
        _ => {
            let service = GrpcInferenceServiceServer::new(InferenceService(shared.clone()))
                .max_decoding_message_size(limit)
                .max_encoding_message_size(usize::MAX)
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Deflate);
            one(service, request).await
        }
    }
}

fn with_body(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    patience: Patience,
    limit: usize,
) -> Request<Body<Incoming>> {
    request.map(|incoming| Body::new(incoming, shared.clone(), patience, limit))
}

/// How questions for health are framed. The codec of the service that is generated for them takes a
/// caller's mistake for its own.
fn health_calls(limit: usize) -> Grpc<Plain<HealthCheckResponse, HealthCheckRequest>> {
    Grpc::new(Plain::default()).max_decoding_message_size(limit)
}

/// How messages with tensors or files are framed: their size and compression. What is sent is
/// bounded where it is made.
fn framed<C: Codec>(codec: C, shared: &Shared, limit: usize) -> Grpc<C> {
    let framed = Grpc::new(codec)
        .max_decoding_message_size(limit)
        .max_encoding_message_size(usize::MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate);
    if !shared.transport.compress_replies {
        return framed;
    }
    framed.send_compressed(CompressionEncoding::Gzip).send_compressed(CompressionEncoding::Deflate)
}

async fn one<S>(service: S, request: Request<Body<Incoming>>) -> Reply
where
    S: Service<Request<Body<Incoming>>, Response = Reply, Error = std::convert::Infallible>,
{
    match service.oneshot(request).await {
        Ok(reply) => reply,
        Err(never) => match never {},
    }
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    let content = request.headers().get(CONTENT_TYPE);
    request.method() == Method::POST
        && content.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// What the protocol wants for those who speak something else.
fn unsupported_media_type() -> Reply {
    let mut reply = Reply::default();
    *reply.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    reply
}
