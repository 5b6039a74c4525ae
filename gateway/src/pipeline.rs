//! A request's way, in order: route, decode, look up and transform, admit, batch and run,
//! answer, observe. The only place that knows it; HTTP and gRPC only decode and encode.

mod terms;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_protocol::{
    Code, InferRequest, InferResponse, NamedTensor, Parameter, Parameters, RegionSlice,
    RequestedOutput, Tensor,
};
use tokio::sync::oneshot;

use crate::cache::{Key, ResponseCache};
use crate::caller::Caller;
use crate::classification;
use crate::counters::Nanoseconds;
use crate::deployment::Deployment;
use crate::error::{GatewayError, clip};
use crate::executor::{Answer, Core, Job, Patience, Ran, Refusal, Terms, Times};
use crate::inputs::{self, Freshness, Prepared};
use crate::room::Room;
use crate::shared::Shared;
use crate::trace::Trace;
use terms::terms;

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
    caller: Caller,
    trace: &mut Trace,
    decode: D,
) -> Result<InferResponse, GatewayError>
where
    D: FnOnce(&Deployment) -> Result<InferRequest, GatewayError>,
{
    let routed = shared.catalog.snapshot().resolve(model, version).cloned();
    let deployment = routed.inspect_err(|error| shared.metrics.count_unrouted(error.code()))?;
    infer_on(shared, &deployment, caller, trace, |deployment| decode(deployment).map(Some)).await
}

/// The same, by a deployment that was routed to in another way. `decode` may find that nothing is
/// asked; then nothing is run, and no output is answered.
pub(crate) async fn infer_on<D>(
    shared: &Shared,
    deployment: &Arc<Deployment>,
    caller: Caller,
    trace: &mut Trace,
    decode: D,
) -> Result<InferResponse, GatewayError>
where
    D: FnOnce(&Deployment) -> Result<Option<InferRequest>, GatewayError>,
{
    let started = Instant::now();
    let mut count = Count { deployment, started, marks: None, outcome: Err(Code::Cancelled) };
    trace.routed(deployment);
    let answered = answer(shared, deployment, caller, trace, decode, &mut count.marks).await;
    count.outcome = match &answered {
        Ok((_, ran)) => Ok(*ran),
        Err(error) => Err(error.code()),
    };
    let (response, _) = answered?;
    trace.answered(&response.outputs);
    Ok(response)
}

/// The rows of a request that ran, and where its time went.
type RowsAndTimes = (usize, Times);

/// Counts a request when it is over: answered, failed, or given up by its caller.
struct Count<'d> {
    deployment: &'d Deployment,
    started: Instant,
    /// When its rows were ready to run, and when they had run.
    marks: Option<[Instant; 2]>,
    /// What its run took unless it was known already, or why there is no answer.
    outcome: Result<Option<RowsAndTimes>, Code>,
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        let shard = self.deployment.counters.shard(Core::index());
        let took = self.started.elapsed();
        match &self.outcome {
            Ok(ran) => {
                shard.count_answered(took, ran.as_ref().map(|(rows, times)| (*rows, times)));
                if let Some([ready, ran]) = self.marks {
                    let over = self.started + took;
                    let steps = [(self.started, ready), (ready, ran), (ran, over)];
                    shard.count_stages(steps.map(|(from, to)| Nanoseconds::between(from, to)));
                }
            }
            Err(code) => shard.count_failed(*code, took),
        }
    }
}

/// The answer, and what its run took unless it was known already.
async fn answer<D>(
    shared: &Shared,
    deployment: &Arc<Deployment>,
    caller: Caller,
    trace: &mut Trace,
    decode: D,
    marks: &mut Option<[Instant; 2]>,
) -> Result<(InferResponse, Option<RowsAndTimes>), GatewayError>
where
    D: FnOnce(&Deployment) -> Result<Option<InferRequest>, GatewayError>,
{
    let timeout = shared.limits().request_timeout;
    let timeout = caller.limit.map_or(timeout, |limit| limit.min(timeout));
    let _under_way = shared.under_way.begin(caller.tenant)?;
    refuse_early(shared, deployment, caller, timeout)?;
    let (request, freshness, rows, missed, waiting) = {
        let Some(mut request) = decode(deployment)? else {
            return Ok((respond(deployment, String::new(), None, Delivered::default()), None));
        };
        trace.decoded(&request);
        check_outputs(deployment, &request.outputs)?;
        let terms = terms(&request.parameters, caller.tenant)?;
        let given = std::mem::take(&mut request.inputs);
        let prepared = inputs::prepare(deployment, shared.store.as_deref(), given)?;
        trace.prepared(prepared.freshness.as_ref());
        check_classes(deployment, &request.outputs, prepared.rows)?;
        let missed = match look_up(shared, deployment, &request.outputs, &prepared) {
            Some(Looked::Found(outputs)) => {
                trace.looked_for(true);
                let now = Instant::now();
                *marks = Some([now, now]);
                let delivered = deliver(shared, deployment, outputs, &request.outputs).await?;
                return Ok((respond(deployment, request.id, prepared.freshness, delivered), None));
            }
            Some(Looked::Missed(missed)) => {
                trace.looked_for(false);
                Some(missed)
            }
            None => None,
        };
        let Prepared { inputs, optional, rows, freshness } = prepared;
        let (reply, answer) = oneshot::channel();
        let mut job = Job::new(inputs, rows, Some(timeout), reply);
        job.optional = optional;
        let submitted = job.submitted;
        let patience = submit(shared, deployment, job, terms)?;
        trace.queued(submitted);
        (request, freshness, rows, missed, Waiting { answer, submitted, timeout, patience })
    };
    let submitted = waiting.submitted;
    let Ran { outputs, times } = waiting.answer(deployment).await?;
    trace.ran(&times);
    // A look at the clock that costs nothing where nobody wants to know.
    if deployment.counters.shard(Core::index()).tells_stages() {
        *marks = Some([submitted, Instant::now()]);
    }
    let outputs = select(deployment, deployment.answered(outputs)?, &request.outputs);
    if let Some(missed) = missed {
        missed.keep(deployment, &outputs);
    }
    let delivered = deliver(shared, deployment, outputs, &request.outputs).await?;
    Ok((respond(deployment, request.id, freshness, delivered), Some((rows, times))))
}

/// Outputs in the form that was asked for, and where those are that were put elsewhere.
#[derive(Debug, Default)]
struct Delivered {
    outputs: Vec<NamedTensor>,
    regions: Vec<(String, RegionSlice)>,
}

/// Ranks what is wanted as classes, and writes what is wanted in shared memory there.
async fn deliver(
    shared: &Shared,
    deployment: &Deployment,
    mut outputs: Vec<NamedTensor>,
    wanted: &[RequestedOutput],
) -> Result<Delivered, GatewayError> {
    let mut regions = Vec::new();
    for output in &mut outputs {
        let Some(wanted) = wanted.iter().find(|wanted| wanted.name == output.name) else {
            continue;
        };
        if let Some(classes) = wanted.classes {
            let room = Room::new(shared.limits().max_body);
            let spec = deployment.outputs.iter().find(|spec| spec.name == output.name);
            let labels = spec.and_then(|spec| spec.labels.clone());
            let batches = deployment.max_batch_size.is_some();
            let tensor = &mut output.tensor;
            classification::classify(tensor, batches, classes, labels, room)
                .await
                .map_err(|reason| GatewayError::output(&output.name, reason))?;
        }
        if let Some(region) = &wanted.region {
            let mut raw = Vec::with_capacity(output.tensor.data().raw_len());
            output.tensor.data().write_raw(&mut raw);
            shared.regions.write(region, &output.name, &raw)?;
            let byte_size = raw.len() as u64;
            regions.push((output.name.clone(), RegionSlice { byte_size, ..region.clone() }));
        }
    }
    Ok(Delivered { outputs, regions })
}

fn respond(
    deployment: &Deployment,
    id: String,
    freshness: Option<Freshness>,
    delivered: Delivered,
) -> InferResponse {
    if freshness.as_ref().is_some_and(|freshness| !freshness.degraded_views.is_empty()) {
        deployment.counters.shard(Core::index()).count_degraded();
    }
    InferResponse {
        model: deployment.model.clone(),
        version: deployment.version,
        id,
        parameters: facts(freshness),
        outputs: delivered.outputs,
        regions: delivered.regions,
    }
}

/// What a look into the cache gave.
enum Looked<'c> {
    Found(Vec<NamedTensor>),
    Missed(Missed<'c>),
}

/// Where an answer belongs that was not there.
struct Missed<'c> {
    cache: &'c ResponseCache,
    key: Key,
    took: Duration,
}

/// Looks into the cache, if there is one and this deployment uses it.
fn look_up<'c>(
    shared: &'c Shared,
    deployment: &Deployment,
    wanted: &[RequestedOutput],
    asked: &Prepared,
) -> Option<Looked<'c>> {
    let cache = shared.cache.as_ref().filter(|_| deployment.cached)?;
    let started = Instant::now();
    let key = Key::new(deployment, wanted, &asked.inputs, &asked.optional);
    let found = cache.find(&key);
    let took = started.elapsed();
    Some(match found {
        Some(outputs) => {
            deployment.counters.shard(Core::index()).count_cache_hit(took);
            Looked::Found(outputs)
        }
        None => Looked::Missed(Missed { cache, key, took }),
    })
}

impl Missed<'_> {
    fn keep(self, deployment: &Deployment, outputs: &[NamedTensor]) {
        let started = Instant::now();
        self.cache.keep(self.key, outputs);
        let took = self.took + started.elapsed();
        deployment.counters.shard(Core::index()).count_cache_miss(took);
    }
}

/// A request whose rows were handed to the executor.
struct Waiting {
    answer: oneshot::Receiver<Answer>,
    submitted: Instant,
    /// How long the answer may take.
    timeout: Duration,
    /// How long the run's beginning may take, if that is bounded.
    patience: Option<Patience>,
}

/// Hands a request's rows to the executor: how long the run's beginning may take, if that is
/// bounded.
fn submit(
    shared: &Shared,
    deployment: &Arc<Deployment>,
    job: Job,
    terms: Terms,
) -> Result<Option<Patience>, GatewayError> {
    let submitted =
        Core::with(|core| deployment.executor.submit(core, &deployment.counters, job, terms));
    submitted.map_err(|refusal| told(shared, deployment, refusal))
}

/// Refuses a request before it is read, where its rows would be refused afterwards however few they
/// are: what is refused should cost as little as can be.
fn refuse_early(
    shared: &Shared,
    deployment: &Deployment,
    caller: Caller,
    timeout: Duration,
) -> Result<(), GatewayError> {
    // A kept answer costs no run.
    if shared.cache.is_some() && deployment.cached {
        return Ok(());
    }
    // What is in shared memory is in no body.
    let fits = || {
        !shared.regions.is_enabled()
            && deployment.most_rows(caller.bytes) <= deployment.running.max_rows
    };
    let refusal = Core::with(|core| {
        deployment.executor.refusal(core, &deployment.counters, caller.tenant, timeout, fits)
    });
    refusal.map_or(Ok(()), |refusal| Err(told(shared, deployment, refusal)))
}

/// What the caller is told of a refusal.
fn told(shared: &Shared, deployment: &Deployment, refusal: Refusal) -> GatewayError {
    let model = deployment.model.clone();
    match refusal {
        Refusal::Overloaded(waiting) => {
            let retry = deployment.counters.shard(Core::index()).retry_hint(waiting);
            let status = shared.dialect().overload;
            GatewayError::Overloaded { model, waiting, status, retry }
        }
        Refusal::QueueFull(most) => GatewayError::QueueFull { model, most },
        Refusal::Stopped => GatewayError::Unavailable("taking this model version down"),
    }
}

impl Waiting {
    async fn answer(mut self, deployment: &Deployment) -> Result<Ran, GatewayError> {
        let mut left = self.timeout;
        if let Some(patience) = &self.patience {
            let wait = patience.until.saturating_duration_since(self.submitted);
            if wait < left {
                match tokio::time::timeout(wait, &mut self.answer).await {
                    Ok(answer) => return self.outcome(deployment, answer.ok()),
                    Err(_) if patience.give_up() => return Err(self.too_late(deployment)),
                    // Its run has begun.
                    Err(_) => left = left.saturating_sub(wait),
                }
            }
        }
        let answer = tokio::time::timeout(left, &mut self.answer).await;
        self.outcome(deployment, answer.ok().and_then(Result::ok))
    }

    /// The answer, if there is one. A job without was dropped because its time was up.
    fn outcome(
        &self,
        deployment: &Deployment,
        answer: Option<Answer>,
    ) -> Result<Ran, GatewayError> {
        let has_expired =
            |patience: &Patience| patience.until <= Instant::now() && patience.give_up();
        match answer {
            Some(Ok(ran)) => Ok(ran),
            Some(Err(error)) => Err(GatewayError::Engine {
                model: deployment.model.clone(),
                version: deployment.version,
                message: error.message.to_string(),
                code: error.code,
            }),
            None if self.patience.as_ref().is_some_and(has_expired) => {
                Err(self.too_late(deployment))
            }
            None => Err(GatewayError::DeadlineExceeded(self.timeout)),
        }
    }

    fn too_late(&self, deployment: &Deployment) -> GatewayError {
        let (model, waited) = (deployment.model.clone(), self.submitted.elapsed());
        GatewayError::QueueTimeout { model, waited }
    }
}

fn check_outputs(deployment: &Deployment, wanted: &[RequestedOutput]) -> Result<(), GatewayError> {
    for (index, output) in wanted.iter().enumerate() {
        if !deployment.outputs.iter().any(|spec| spec.name == output.name) {
            let names: Vec<_> = deployment.outputs.iter().map(|spec| spec.name.as_str()).collect();
            return Err(GatewayError::Invalid(format!(
                "output {:?} is no output of model {}; its outputs are {}",
                clip(&output.name),
                deployment.model,
                names.join(", ")
            )));
        }
        if wanted[..index].iter().any(|other| other.name == output.name) {
            let text = format!("output {:?} is asked twice", clip(&output.name));
            return Err(GatewayError::Invalid(text));
        }
    }
    Ok(())
}

/// Refuses classes that cannot be had of `rows` rows, as far as that is known before they are run.
fn check_classes(
    deployment: &Deployment,
    wanted: &[RequestedOutput],
    rows: usize,
) -> Result<(), GatewayError> {
    let has_batch = deployment.max_batch_size.is_some();
    for output in wanted {
        let Some(classes) = output.classes else { continue };
        let Some(spec) = deployment.outputs.iter().find(|spec| spec.name == output.name) else {
            continue;
        };
        classification::check(spec, has_batch, rows, classes)
            .map_err(|reason| GatewayError::output(&output.name, reason))?;
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

#[cfg(test)]
mod tests;
