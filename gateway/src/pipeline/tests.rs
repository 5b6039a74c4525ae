//! Requests through the whole of the pipeline, to an engine that counts what reaches it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluice_engine::{Engine, EngineError, OnnxRuntime};
use sluice_protocol::grpc::ModelConfig;
use sluice_protocol::{
    Code, Datatype, InferRequest, ModelName, ModelVersion, NamedTensor, Parameter, Parameters,
    Tensor, TensorData, TensorSpec,
};
use tokio::task::LocalSet;

use super::infer;
use crate::caller::Caller;
use crate::counters::{Counters, Tallies};
use crate::deployment::{Deployment, DeploymentNumber, Input, Output, idle};
use crate::dialect::{Dialect, OverloadStatus};
use crate::error::GatewayError;
use crate::executor::{
    Core, Executor, Limits, QueuePolicy, SchedulePolicy, TimeoutAction, WorkerSettings,
};
use crate::shared::{Options, Shared};
use crate::trace::Trace;

/// Adds how often it has run, which takes a while. It panics at 13.
struct Counting {
    runs: Arc<AtomicUsize>,
    takes: Duration,
}

impl Engine for Counting {
    fn inputs(&self) -> &[TensorSpec] {
        &[]
    }

    fn outputs(&self) -> &[TensorSpec] {
        &[]
    }

    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        let runs = u16::try_from(self.runs.fetch_add(1, Ordering::Relaxed)).unwrap();
        std::thread::sleep(self.takes);
        let TensorData::Fp32(values) = inputs[0].data() else { panic!("FP32 only") };
        assert!(!values.contains(&13.0));
        let values = values.iter().map(|value| value + f32::from(runs)).collect();
        Ok(vec![Tensor::new(inputs[0].shape().to_vec(), TensorData::Fp32(values)).unwrap()])
    }
}

/// A gateway that serves model "m".
struct Serving {
    shared: Arc<Shared>,
    runs: Arc<AtomicUsize>,
    takes: Duration,
    policy: SchedulePolicy,
}

impl Serving {
    /// With one worker whose runs take so long.
    fn start(takes: Duration, policy: SchedulePolicy, adjust: impl FnOnce(&mut Options)) -> Self {
        let library = std::env::var_os("SLUICE_ONNXRUNTIME").map(PathBuf::from);
        let runtime = OnnxRuntime::load(library.as_deref()).unwrap();
        let mut options = Options { cores: 1, response_cache: 1 << 20, ..Options::default() };
        adjust(&mut options);
        let shared = Arc::new(Shared::new(runtime, None, None, options));
        let serving = Self { shared, runs: Arc::default(), takes, policy };
        serving.load();
        serving
    }

    /// Loads version 1, again if it is there already.
    fn load(&self) {
        let model: ModelName = "m".parse().unwrap();
        let engine = Counting { runs: self.runs.clone(), takes: self.takes };
        let limits = Limits {
            max_rows: 4,
            row_cost: Duration::from_millis(1),
            least_run: Duration::ZERO,
            max_waiting: self.shared.max_waiting.clone(),
        };
        let metrics = self.shared.metrics.deployment(&model, ModelVersion(1), &HashMap::new());
        let counters = Arc::new(Counters::new(1, 1, false, metrics));
        let executor = Executor::workers(
            vec![Box::new(engine)],
            limits,
            self.policy.clone(),
            WorkerSettings::default(),
            counters.clone(),
        );
        let input = Input {
            name: "x".to_owned(),
            datatype: Datatype::Fp32,
            shape: vec![-1],
            reshape: None,
            optional: false,
        };
        let output = Output {
            name: "y".to_owned(),
            datatype: Datatype::Fp32,
            shape: vec![-1],
            reshape: None,
            index: 0,
            labels: None,
        };
        let deployment = Arc::new(Deployment {
            model: model.clone(),
            version: ModelVersion(1),
            number: DeploymentNumber::next(),
            inputs: vec![input],
            outputs: vec![output],
            batches: true,
            max_batch_size: Some(4),
            config: ModelConfig::default(),
            cached: true,
            features: None,
            running: idle::running(),
            executor: executor.unwrap(),
            counters,
            _info: None,
        });
        self.shared.catalog.update(&model, |known| {
            known.versions.insert(ModelVersion(1), deployment.clone());
            known.set_default_version(Some(ModelVersion(1)));
        });
    }

    /// What comes of a request for rows of `value`.
    async fn ask(
        &self,
        value: f32,
        rows: usize,
        parameters: &[(&str, i64)],
    ) -> Result<Vec<f32>, GatewayError> {
        let parameters: Parameters =
            parameters.iter().map(|(name, n)| ((*name).to_owned(), Parameter::Int64(*n))).collect();
        let mut trace = Trace::none();
        let response =
            infer(&self.shared, "m", None, Caller::default(), &mut trace, |deployment| {
                let shape = vec![i64::try_from(rows).unwrap()];
                let tensor = Tensor::new(shape, TensorData::Fp32(vec![value; rows])).unwrap();
                Ok(InferRequest {
                    model: deployment.model.clone(),
                    version: None,
                    id: String::new(),
                    parameters,
                    inputs: vec![NamedTensor { name: "x".to_owned(), tensor }],
                    outputs: Vec::new(),
                })
            });
        let response = Box::pin(response).await?;
        assert!(response.parameters.is_empty(), "nothing is echoed");
        let TensorData::Fp32(values) = response.outputs[0].tensor.data() else { panic!() };
        Ok(values.clone())
    }

    fn tallies(&self) -> Tallies {
        let catalog = self.shared.catalog.snapshot();
        catalog.resolve("m", None).unwrap().counters.statistics().tallies
    }
}

/// Runs `test` on a thread that is a serving core.
async fn on_a_core(test: impl Future<Output = ()>) {
    let local = LocalSet::new();
    local
        .run_until(async {
            let _core = Core::start(0);
            test.await;
        })
        .await;
}

fn start(takes: Duration, policy: SchedulePolicy) -> Serving {
    Serving::start(takes, policy, |_| {})
}

const MILLISECOND: Duration = Duration::from_millis(1);

#[tokio::test]
async fn the_same_question_is_answered_out_of_the_cache() {
    on_a_core(async {
        let serving = start(MILLISECOND, SchedulePolicy::default());
        assert_eq!(serving.ask(5.0, 2, &[]).await.unwrap(), [5.0, 5.0]);
        // A run would give another answer. How it is scheduled is not part of the question.
        assert_eq!(serving.ask(5.0, 2, &[("priority", 1)]).await.unwrap(), [5.0, 5.0]);
        assert_eq!(serving.ask(5.0, 2, &[("timeout", 60_000_000)]).await.unwrap(), [5.0, 5.0]);
        assert_eq!(serving.ask(6.0, 2, &[]).await.unwrap(), [7.0, 7.0]);
        assert_eq!(serving.runs.load(Ordering::Relaxed), 2);
        let tallies = serving.tallies();
        assert_eq!((tallies.cache_hit.count, tallies.cache_miss.count), (2, 2));
        assert!(tallies.cache_hit.nanoseconds > 0 && tallies.cache_miss.nanoseconds > 0);
        assert_eq!((tallies.success.count, tallies.queue.count, tallies.infer.count), (4, 4, 2));
        assert_eq!((tallies.inferences, tallies.executions), (4, 2));
    })
    .await;
}

#[tokio::test]
async fn a_version_that_is_loaded_again_answers_anew() {
    on_a_core(async {
        let serving = start(MILLISECOND, SchedulePolicy::default());
        assert_eq!(serving.ask(5.0, 1, &[]).await.unwrap(), [5.0]);
        serving.load();
        assert_eq!(serving.ask(5.0, 1, &[]).await.unwrap(), [6.0]);
    })
    .await;
}

#[tokio::test]
async fn failures_are_not_kept() {
    on_a_core(async {
        let serving = start(MILLISECOND, SchedulePolicy::default());
        for runs in 1..3 {
            assert_eq!(serving.ask(13.0, 1, &[]).await.unwrap_err().code(), Code::Internal);
            assert_eq!(serving.runs.load(Ordering::Relaxed), runs);
        }
        let tallies = serving.tallies();
        assert_eq!((tallies.fail.count, tallies.cache_hit.count), (2, 0));
        assert_eq!((tallies.inferences, tallies.executions, tallies.infer.count), (0, 0, 0));
    })
    .await;
}

#[tokio::test]
async fn parameters_that_are_no_whole_numbers_are_refused() {
    on_a_core(async {
        let serving = start(MILLISECOND, SchedulePolicy::default());
        for name in ["priority", "timeout"] {
            let error = serving.ask(1.0, 1, &[(name, -1)]).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
            assert!(error.to_string().contains(name), "{error}");
        }
    })
    .await;
}

/// It is told when its time is up, not when the worker is free again.
#[tokio::test]
async fn a_request_that_waits_for_too_long_is_told_at_once() {
    on_a_core(async {
        let takes = Duration::from_secs(2);
        let serving = start(takes, SchedulePolicy::default());
        let begun = Instant::now();
        let late = async {
            // The worker is busy with the first by then.
            tokio::time::sleep(100 * MILLISECOND).await;
            let late = serving.ask(2.0, 1, &[("timeout", 50_000)]).await.unwrap_err();
            (late, begun.elapsed())
        };
        let (first, (late, told)) = tokio::join!(serving.ask(1.0, 1, &[("timeout", 50_000)]), late);
        assert!(first.is_ok(), "its run had begun in time: {first:?}");
        assert!(told >= 150 * MILLISECOND && told < takes, "{told:?}");
        assert_eq!(late.code(), Code::Unavailable);
        assert!(late.to_string().starts_with("Request timeout expired"), "{late}");
        assert_eq!(serving.runs.load(Ordering::Relaxed), 1, "it cost no run");
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_to_be_delayed_is_answered_after_the_others() {
    on_a_core(async {
        let queue = QueuePolicy { action: TimeoutAction::Delay, ..QueuePolicy::default() };
        let serving = start(200 * MILLISECOND, SchedulePolicy { queue, ..Default::default() });
        let behind = async |delay: u32, value: f32, time: i64| {
            tokio::time::sleep(delay * MILLISECOND).await;
            // A run of its own for each.
            serving.ask(value, 4, &[("timeout", time)]).await.unwrap()[0]
        };
        let (first, delayed, in_time) =
            tokio::join!(behind(0, 1.0, 0), behind(50, 2.0, 50_000), behind(100, 3.0, 0));
        // Each run adds its number.
        assert_eq!((first, in_time, delayed), (1.0, 4.0, 4.0));
    })
    .await;
}

#[tokio::test]
async fn a_full_queue_is_told_in_the_words_that_clients_look_for() {
    on_a_core(async {
        let queue = QueuePolicy { max_queue: Some(1), ..QueuePolicy::default() };
        let serving = start(200 * MILLISECOND, SchedulePolicy { queue, ..Default::default() });
        let later = async |delay: u32, value: f32| {
            tokio::time::sleep(delay * MILLISECOND).await;
            serving.ask(value, 1, &[]).await
        };
        let (first, second, third) = tokio::join!(later(0, 1.0), later(50, 2.0), later(100, 3.0));
        assert!(first.is_ok() && second.is_ok());
        let third = third.unwrap_err();
        assert_eq!(third.code(), Code::Unavailable);
        assert!(third.to_string().starts_with("Exceeds maximum queue size"), "{third}");
    })
    .await;
}

#[tokio::test]
async fn overload_is_told_with_the_status_that_was_chosen() {
    for (overload, code) in [
        (OverloadStatus::Exhausted, Code::Overloaded),
        (OverloadStatus::Unavailable, Code::Unavailable),
    ] {
        on_a_core(async move {
            let serving = Serving::start(200 * MILLISECOND, SchedulePolicy::default(), |options| {
                options.live.dialect = Dialect { overload, ..Dialect::default() };
                options.live.limits.max_waiting = MILLISECOND;
            });
            let later = async |delay: u32, value: f32| {
                tokio::time::sleep(delay * MILLISECOND).await;
                serving.ask(value, 4, &[]).await
            };
            let (_, _, third) = tokio::join!(later(0, 1.0), later(50, 2.0), later(100, 3.0));
            let third = third.unwrap_err();
            assert_eq!(third.code(), code);
            assert!(third.to_string().contains("model m is overloaded"), "{third}");
        })
        .await;
    }
}

/// Levels have policies of their own, and go one before the other.
#[tokio::test]
async fn each_level_follows_its_own_policy() {
    on_a_core(async {
        let strict = QueuePolicy { max_queue: Some(1), ..QueuePolicy::default() };
        let policy = SchedulePolicy {
            priority_levels: 2,
            default_priority: 2,
            queue: QueuePolicy::default(),
            by_priority: BTreeMap::from([(2, strict)]),
        };
        let serving = start(200 * MILLISECOND, policy);
        let later = async |delay: u32, value: f32, priority: i64| {
            tokio::time::sleep(delay * MILLISECOND).await;
            serving.ask(value, 4, &[("priority", priority)]).await.map(|values| values[0])
        };
        let (first, low, refused, high) = tokio::join!(
            later(0, 0.0, 0),
            later(50, 0.0, 0),
            later(80, 1.0, 2),
            later(100, 2.0, 1)
        );
        assert_eq!((first.unwrap(), high.unwrap(), low.unwrap()), (0.0, 3.0, 2.0));
        assert!(refused.unwrap_err().to_string().starts_with("Exceeds maximum queue size"));
    })
    .await;
}
