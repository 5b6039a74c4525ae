//! Which API a gRPC method belongs to, and whether a request may ask for it.

use http::HeaderMap;
use sluice_protocol::Code;
use tonic::Status;

use crate::access::{Api, ApiGroup, Demand, Protocol, Refusal};
use crate::control::exposure::{ControlGroup, Port};
use crate::error::{GatewayError, clip};
use crate::shared::Shared;

/// Whether whoever sent `headers` may ask for `path`.
pub(super) fn check(shared: &Shared, path: &str, headers: &HeaderMap) -> Result<(), Status> {
    let refuse = |code, status| {
        shared.metrics.count_unrouted(code);
        Err(status)
    };
    let Some(api) = api(path) else {
        let text = format!("no method {}", clip(path));
        return refuse(Code::Unimplemented, Status::unimplemented(text));
    };
    let live = shared.live();
    match live.access.check(api, headers, Protocol::Grpc) {
        // Refused by its path, a message is not read.
        Ok(()) => match control_group(api).map(|group| live.exposed.check(group, Port::Serving)) {
            Some(Err(error)) => refuse(error.code(), error.into()),
            Some(Ok(())) | None => Ok(()),
        },
        Err(Refusal::Restricted(restriction)) => {
            let header = restriction.header(Protocol::Grpc);
            let text = format!("This protocol is restricted, expecting header '{header}'");
            refuse(Code::PermissionDenied, Status::unavailable(text))
        }
        Err(refusal) => {
            let error = GatewayError::from(refusal);
            refuse(error.code(), error.into())
        }
    }
}

/// The calls for operators that a method is one of.
const fn control_group(api: Api) -> Option<ControlGroup> {
    if !matches!(api.demand, Demand::Control) {
        return None;
    }
    match api.group {
        ApiGroup::ModelRepository => Some(ControlGroup::ModelRepository),
        ApiGroup::SharedMemory => Some(ControlGroup::SharedMemory),
        ApiGroup::Trace => Some(ControlGroup::Trace),
        ApiGroup::Logging => Some(ControlGroup::Logging),
        ApiGroup::Health
        | ApiGroup::Metadata
        | ApiGroup::Inference
        | ApiGroup::ModelConfig
        | ApiGroup::Statistics => None,
    }
}

/// Every method belongs to one group. One that is not here is not answered, so that none is
/// answered unguarded.
fn api(path: &str) -> Option<Api> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let (group, demand) = match service {
        "inference.GRPCInferenceService" => return inference_api(method),
        "grpc.health.v1.Health" if matches!(method, "Check" | "Watch") => {
            (ApiGroup::Health, Demand::Nothing)
        }
        "grpc.reflection.v1.ServerReflection" | "grpc.reflection.v1alpha.ServerReflection" => {
            (ApiGroup::Metadata, Demand::Use)
        }
        _ => return None,
    };
    Some(Api::new(group, demand))
}

fn inference_api(method: &str) -> Option<Api> {
    let (group, demand) = match method {
        "ServerLive" | "ServerReady" | "ModelReady" => (ApiGroup::Health, Demand::Nothing),
        "ServerMetadata" | "ModelMetadata" => (ApiGroup::Metadata, Demand::Use),
        "ModelInfer" | "ModelStreamInfer" => (ApiGroup::Inference, Demand::Use),
        "ModelConfig" => (ApiGroup::ModelConfig, Demand::Use),
        "ModelStatistics" => (ApiGroup::Statistics, Demand::Use),
        "RepositoryIndex" => (ApiGroup::ModelRepository, Demand::Use),
        "RepositoryModelLoad" | "RepositoryModelUnload" => {
            (ApiGroup::ModelRepository, Demand::Control)
        }
        "SystemSharedMemoryStatus"
        | "SystemSharedMemoryRegister"
        | "SystemSharedMemoryUnregister"
        | "CudaSharedMemoryStatus"
        | "CudaSharedMemoryRegister"
        | "CudaSharedMemoryUnregister" => (ApiGroup::SharedMemory, Demand::Control),
        "TraceSetting" => (ApiGroup::Trace, Demand::Control),
        "LogSettings" => (ApiGroup::Logging, Demand::Control),
        _ => return None,
    };
    Some(Api::new(group, demand))
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use sluice_protocol::grpc::DESCRIPTORS;

    use super::api;
    use crate::access::{Api, ApiGroup, Demand};

    /// As much of a file descriptor set as names its methods.
    #[derive(Clone, PartialEq, Message)]
    struct Descriptors {
        #[prost(message, repeated, tag = "1")]
        files: Vec<File>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct File {
        #[prost(string, tag = "2")]
        package: String,
        #[prost(message, repeated, tag = "6")]
        services: Vec<Named>,
    }

    /// A service and its methods, and a method.
    #[derive(Clone, PartialEq, Message)]
    struct Named {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, repeated, tag = "2")]
        methods: Vec<Method>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Method {
        #[prost(string, tag = "1")]
        name: String,
    }

    #[test]
    fn every_method_of_the_protocol_has_a_group() {
        let mut methods = 0;
        for file in Descriptors::decode(DESCRIPTORS).unwrap().files {
            for service in file.services {
                for method in service.methods {
                    let path = format!("/{}.{}/{}", file.package, service.name, method.name);
                    assert!(api(&path).is_some(), "{path} has no group");
                    methods += 1;
                }
            }
        }
        assert!(methods >= 20, "{methods} methods");
    }

    #[test]
    fn paths_name_apis_and_nothing_else_does() {
        let load = Api::new(ApiGroup::ModelRepository, Demand::Control);
        let service = "/inference.GRPCInferenceService";
        assert_eq!(api(&format!("{service}/RepositoryModelLoad")), Some(load));
        for path in [
            "",
            "/",
            service,
            "//inference.GRPCInferenceService/ModelInfer",
            "/inference.GRPCInferenceService//ModelInfer",
            "/inference.GRPCInferenceService/ModelInfer/",
            "/inference.GRPCInferenceService/modelinfer",
            "/inference.GRPCInferenceService/%4dodelInfer",
            "/inference.GRPCInferenceService/../inference.GRPCInferenceService/ModelInfer",
            "/Inference.GRPCInferenceService/ModelInfer",
            "/other.Service/ModelInfer",
        ] {
            assert_eq!(api(path), None, "{path}");
        }
    }
}
