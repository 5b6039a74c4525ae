//! What a core does when there is more to do than it can.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_engine::{Engine, EngineError};
use sluice_protocol::{ModelName, ModelVersion, Tensor, TensorData, TensorSpec};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local, yield_now};

use super::{Core, Refuge};
use crate::counters::Counters;
use crate::executor::{Executor, Job, Limits, SchedulePolicy, Terms};
use crate::live::MaxWaiting;
use crate::metrics::Metrics;
use crate::watchdog::Watchdog;

const SECOND: Duration = Duration::from_secs(1);

/// Gives its input back at once.
struct Echo;

impl Engine for Echo {
    fn inputs(&self) -> &[TensorSpec] {
        &[]
    }

    fn outputs(&self) -> &[TensorSpec] {
        &[]
    }

    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        Ok(inputs.to_vec())
    }
}

/// Requests are read all the time, each time for as long as many runs take.
#[tokio::test]
async fn a_core_that_is_flooded_goes_on_with_what_it_has_taken() {
    const JOBS: usize = 60;
    let counters = {
        let model: ModelName = "m".parse().unwrap();
        let metrics = Metrics::new(&[]).deployment(&model, ModelVersion(1), &HashMap::new());
        Arc::new(Counters::new(1, 0, true, metrics))
    };
    let max_waiting = MaxWaiting::new(SECOND);
    let limits =
        Limits { max_rows: 1, row_cost: Duration::ZERO, least_run: Duration::ZERO, max_waiting };
    let watchdog = Watchdog::default();
    let refuge =
        Refuge { bound: watchdog.bound(SECOND), on_workers: SECOND, name: "m/1".to_owned() };
    let executor = Executor::ticks(vec![Box::new(Echo)], limits, SchedulePolicy::default(), refuge);
    let reads = Rc::new(Cell::new(0));
    let test = async {
        let _core = Core::start(0);
        let answers: Vec<_> = (0..JOBS)
            .map(|_| {
                let (reply, answer) = oneshot::channel();
                let tensor = Tensor::new(vec![1], TensorData::Fp32(vec![0.0])).unwrap();
                let job = Job::new(vec![tensor], 1, None, reply);
                Core::with(|core| executor.submit(core, &counters, job, Terms::default())).unwrap();
                answer
            })
            .collect();
        let counted = reads.clone();
        spawn_local(async move {
            loop {
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_millis(2) {}
                counted.set(counted.get() + 1);
                yield_now().await;
            }
        });
        for answer in answers {
            assert!(answer.await.unwrap().is_ok());
        }
    };
    LocalSet::new().run_until(test).await;
    assert!(reads.get() <= JOBS / 4, "{} reads for {JOBS} runs", reads.get());
}
