//! A request's way, in order: route, decode, look up and transform, admit, batch and run,
//! answer, observe. The only place that knows it; HTTP and gRPC only decode and encode.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_protocol::{
    Code, InferRequest, InferResponse, NamedTensor, Parameter, Parameters, RequestedOutput, Tensor,
};
use tokio::sync::oneshot;

use crate::deployment::Deployment;
use crate::error::GatewayError;
use crate::executor::{Core, Job, Refusal, RunError};
use crate::inputs::{self, Freshness};
use crate::shared::Shared;

/// Response parameter: the day of the oldest features behind an answer.
pub(crate) const FEATURES_AS_OF: &str = "features_as_of";
/// Response parameter: views whose features were past their freshness bound.
pub(crate) const DEGRADED_VIEWS: &str = "degraded_views";

/// Answers one request for `model`. `decode` gets the deployment that was routed to, so that
/// it can parse straight into the datatypes that the model wants.
pub(crate) async fn infer<D>(
    shared: &Shared,
    model: &str,
    version: Option<&str>,
    decode: D,
) -> Result<InferResponse, GatewayError>
where
    D: FnOnce(&Deployment) -> Result<InferRequest, GatewayError>,
{
    let started = Instant::now();
    let routed = shared.catalog.snapshot().resolve(model, version).cloned();
    let deployment = routed.inspect_err(|error| shared.metrics.count_unrouted(error.code()))?;
    let mut count = Count { deployment: &deployment, started, code: Some(Code::Cancelled) };
    let answered = answer(shared, &deployment, decode).await;
    count.code = answered.as_ref().err().map(GatewayError::code);
    answered
}

/// Counts a request when it is over: answered, failed, or given up by its caller.
struct Count<'d> {
    deployment: &'d Deployment,
    started: Instant,
    /// Why there is no answer.
    code: Option<Code>,
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        let shard = self.deployment.counters.shard(Core::index());
        shard.count_request(self.code, self.started.elapsed());
    }
}

async fn answer<D>(
    shared: &Shared,
    deployment: &Arc<Deployment>,
    decode: D,
) -> Result<InferResponse, GatewayError>
where
    D: FnOnce(&Deployment) -> Result<InferRequest, GatewayError>,
{
    let timeout = shared.limits().request_timeout;
    let (request, answer, freshness) = {
        let mut request = decode(deployment)?;
        check_outputs(deployment, &request.outputs)?;
        let given = std::mem::take(&mut request.inputs);
        let prepared = inputs::prepare(deployment, shared.store.as_deref(), given)?;
        let (reply, answer) = oneshot::channel();
        let deadline = Instant::now() + timeout;
        let mut job = Job::new(prepared.inputs, prepared.rows, Some(deadline), reply);
        job.optional = prepared.optional;
        submit(deployment, job)?;
        (request, answer, prepared.freshness)
    };
    let outputs = wait(deployment, answer, timeout).await?;
    if freshness.as_ref().is_some_and(|freshness| !freshness.degraded_views.is_empty()) {
        deployment.counters.shard(Core::index()).count_degraded();
    }
    Ok(InferResponse {
        model: deployment.model.clone(),
        version: deployment.version,
        id: request.id,
        parameters: facts(freshness),
        outputs: select(deployment, deployment.answered(outputs)?, &request.outputs),
    })
}

fn submit(deployment: &Arc<Deployment>, job: Job) -> Result<(), GatewayError> {
    let submitted = Core::with(|core| deployment.executor.submit(core, &deployment.counters, job));
    submitted.map_err(|refusal| match refusal {
        Refusal::Overloaded(waiting) => {
            GatewayError::Overloaded { model: deployment.model.clone(), waiting }
        }
        Refusal::Stopped => GatewayError::Unavailable("taking this model version down"),
    })
}

async fn wait(
    deployment: &Deployment,
    answer: oneshot::Receiver<Result<Vec<Tensor>, RunError>>,
    timeout: Duration,
) -> Result<Vec<Tensor>, GatewayError> {
    match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(Ok(outputs))) => Ok(outputs),
        Ok(Ok(Err(error))) => Err(GatewayError::Engine {
            model: deployment.model.clone(),
            version: deployment.version,
            message: error.message.to_string(),
            code: error.code,
        }),
        // The job was dropped unanswered because its deadline passed while it waited.
        Ok(Err(_)) | Err(_) => Err(GatewayError::DeadlineExceeded(timeout)),
    }
}

fn check_outputs(deployment: &Deployment, wanted: &[RequestedOutput]) -> Result<(), GatewayError> {
    for (index, output) in wanted.iter().enumerate() {
        if !deployment.outputs.iter().any(|spec| spec.name == output.name) {
            let names: Vec<_> = deployment.outputs.iter().map(|spec| spec.name.as_str()).collect();
            return Err(GatewayError::Invalid(format!(
                "output {:?} is no output of model {}; its outputs are {}",
                output.name,
                deployment.model,
                names.join(", ")
            )));
        }
        if wanted[..index].iter().any(|other| other.name == output.name) {
            return Err(GatewayError::Invalid(format!("output {:?} is asked twice", output.name)));
        }
    }
    Ok(())
}

/// The outputs that were asked for, in the model's order; all when none was named.
fn select(
    deployment: &Deployment,
    outputs: Vec<Tensor>,
    wanted: &[RequestedOutput],
) -> Vec<NamedTensor> {
    let named = deployment.outputs.iter().zip(outputs);
    named
        .filter(|(spec, _)| {
            wanted.is_empty() || wanted.iter().any(|output| output.name == spec.name)
        })
        .map(|(spec, tensor)| NamedTensor { name: spec.name.clone(), tensor })
        .collect()
}

/// What an answer says about the features behind it.
fn facts(freshness: Option<Freshness>) -> Parameters {
    let mut parameters = Parameters::new();
    let Some(freshness) = freshness else { return parameters };
    if let Some(as_of) = freshness.as_of {
        parameters.insert(FEATURES_AS_OF.to_owned(), Parameter::String(as_of));
    }
    if !freshness.degraded_views.is_empty() {
        let views = freshness.degraded_views.join(",");
        parameters.insert(DEGRADED_VIEWS.to_owned(), Parameter::String(views));
    }
    parameters
}
