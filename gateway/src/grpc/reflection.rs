//! Reflection: what services there are and what their messages look like, for tools such as
//! grpcurl.

use std::convert::Infallible;
use std::sync::OnceLock;

use http::Request;
use hyper::body::Incoming;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::body::Body;
use super::call::Reply;

type Reflection = BoxCloneSyncService<Request<Body<Incoming>>, Reply, Infallible>;

/// Both versions of the service: tools still ask for the older one.
pub(super) fn service() -> Reflection {
    static SERVICE: OnceLock<Reflection> = OnceLock::new();
    SERVICE.get_or_init(build).clone()
}

fn build() -> Reflection {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(sluice_protocol::grpc::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let readable = "descriptors that were built with the program can be read";
    let newer = builder().build_v1().expect(readable);
    let older = builder().build_v1alpha().expect(readable);
    let either = tower::service_fn(move |request: Request<Body<Incoming>>| {
        let (newer, older) = (newer.clone(), older.clone());
        async move {
            match request.uri().path().starts_with("/grpc.reflection.v1alpha.") {
                true => older.oneshot(request).await,
                false => newer.oneshot(request).await,
            }
        }
    });
    BoxCloneSyncService::new(either)
}
