//! ModelInfer: one question, one answer.

use sluice_protocol::Code;
use tonic::{Request, Response, Status};

use super::codec::{Question, Reply, Written};
use super::encode::Form;
use super::traced::{self, Origin};
use super::{decode, encode};
use crate::access::Protocol;
use crate::caller::Caller;
use crate::dialect::OverloadStatus;
use crate::error::{GatewayError, clip};
use crate::forwarding::Forwarded;
use crate::pipeline;
use crate::shared::Shared;
use crate::trace::{Arrival, Trace};

/// The longest message that any client can read.
const LONGEST_REPLY: usize = i32::MAX as usize;
/// Tells a client that retries by itself when to do so.
const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";
/// The same, that it is not to.
const DO_NOT_RETRY: &str = "-1";

/// Answers one call.
pub(super) async fn call(
    shared: &Shared,
    request: Request<Question>,
    arrival: Option<Arrival>,
) -> Result<Response<Reply>, Status> {
    let metadata = request.metadata().as_ref();
    let caller = Caller::of_call(shared, metadata, request.get_ref().length);
    let origin = Origin::unary(arrival, metadata);
    let forwarded = shared.live().forwarded(Protocol::Grpc, metadata);
    let answered = async { answer(shared, request.into_inner(), origin, forwarded, caller?).await };
    answered.await.map(Response::new).map_err(|error| status(shared, &error))
}

/// Answers one message, with the metadata of its call that becomes parameters.
pub(super) async fn answer(
    shared: &Shared,
    question: Question,
    origin: Origin,
    forwarded: Forwarded,
    caller: Caller,
) -> Result<Reply, GatewayError> {
    let mut trace = origin.begin(shared, &question.wire.model_name);
    let answered = reply(shared, question, forwarded, caller, &mut trace).await;
    trace.end(|| traced::end(&answered));
    answered
}

async fn reply(
    shared: &Shared,
    question: Question,
    forwarded: Forwarded,
    caller: Caller,
    trace: &mut Trace,
) -> Result<Reply, GatewayError> {
    let Question { mut wire, room, .. } = question;
    let model = std::mem::take(&mut wire.model_name);
    let version = std::mem::take(&mut wire.model_version);
    check_version(shared, &version)?;
    let form = Form::of(shared.dialect().grpc_output, &wire);
    let answered = pipeline::infer(shared, &model, Some(&version), caller, trace, move |to| {
        let mut request = decode::request(to, &shared.regions, wire, &room)?;
        forwarded.add_to(&mut request.parameters)?;
        Ok(request)
    })
    .await?;
    let reply = encode::reply(answered, form);
    match reply.length() {
        0..=LONGEST_REPLY => Ok(reply),
        length => Err(GatewayError::MessageTooLarge { length, limit: LONGEST_REPLY }),
    }
}

/// A version that is no number is a mistake, where one that is not there is not found.
pub(super) fn check_version(shared: &Shared, version: &str) -> Result<(), GatewayError> {
    if version.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(());
    }
    shared.metrics.count_unrouted(Code::InvalidArgument);
    Err(GatewayError::Invalid(format!("model version {:?} is no number", clip(version))))
}

/// The status for a refused question, overload as the dialect has it.
pub(super) fn status(shared: &Shared, error: &GatewayError) -> Status {
    let mut status = Status::from(error);
    if let GatewayError::Overloaded { retry, .. } = error {
        if shared.dialect().overload == OverloadStatus::Unavailable {
            status = Status::unavailable(status.message());
        }
        let pushback = match retry.welcome {
            true => retry.after.as_millis().clamp(1, 60_000).to_string(),
            false => DO_NOT_RETRY.to_owned(),
        };
        if let Ok(pushback) = pushback.parse() {
            status.metadata_mut().insert(RETRY_PUSHBACK, pushback);
        }
    }
    status
}

impl From<GatewayError> for Status {
    fn from(error: GatewayError) -> Self {
        Self::from(&error)
    }
}

impl From<&GatewayError> for Status {
    fn from(error: &GatewayError) -> Self {
        error.log();
        Self::new(error.code().grpc(), error.message())
    }
}
