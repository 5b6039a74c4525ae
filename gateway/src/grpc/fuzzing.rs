//! Infer messages over gRPC, as fuzzing has them: from the wire to the graph's inputs.

use bytes::Bytes;

use super::{codec, decode};
use crate::control::shared_memory::Regions;
use crate::fuzzing::{BODY_LIMIT, deployments};
use crate::inputs;

/// A ModelInferRequest.
pub(crate) fn grpc_request(message: &Bytes) {
    let regions = Regions::new(true);
    for deployment in deployments() {
        let Ok(question) = codec::read(message.clone(), BODY_LIMIT) else { return };
        if let Ok(request) = decode::request(deployment, &regions, question.wire, &question.room) {
            drop(inputs::prepare(deployment, None, request.inputs));
        }
    }
}
