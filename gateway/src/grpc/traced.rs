//! The trace of a question over gRPC: how it came and how it ended.

use http::HeaderMap;
use tonic::Code;

use super::codec::Reply;
use crate::error::GatewayError;
use crate::shared::Shared;
use crate::trace::{Arrival, Call, Context, End, Trace};

/// How a question came.
#[derive(Debug)]
pub(super) struct Origin {
    arrival: Option<Arrival>,
    method: &'static str,
    context: Option<Context>,
}

impl Origin {
    /// By a call of its own, which came at `arrival` if that was noted.
    pub(super) fn unary(arrival: Option<Arrival>, metadata: &HeaderMap) -> Self {
        let context = arrival.and_then(|_| Context::of(metadata));
        Self { arrival, method: "inference.GRPCInferenceService/ModelInfer", context }
    }

    /// Among others on a stream that belongs to `context`.
    pub(super) fn stream(shared: &Shared, context: Option<&Context>) -> Self {
        let arrival = shared.tracer.arrival();
        let context = arrival.and(context).cloned();
        Self { arrival, method: "inference.GRPCInferenceService/ModelStreamInfer", context }
    }

    /// The trace of the question, which is for `model`, if it is traced.
    pub(super) fn begin(self, shared: &Shared, model: &str) -> Trace {
        let Self { arrival, method, context } = self;
        shared.tracer.begin(arrival, model, || Call::Grpc { method }, || context)
    }
}

/// How it ended.
pub(super) fn end(answered: &Result<Reply, GatewayError>) -> End {
    match answered {
        Ok(_) => End::Grpc { status: Code::Ok, error: None },
        Err(error) => {
            let error_and_text = Some((error.code(), error.message()));
            End::Grpc { status: error.code().grpc(), error: error_and_text }
        }
    }
}
