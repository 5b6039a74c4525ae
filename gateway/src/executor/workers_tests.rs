//! Workers whose runs begin and end when the test says so.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use sluice_engine::{Engine, EngineError};
use sluice_protocol::{ModelName, ModelVersion, NamedTensor, Tensor, TensorData, TensorSpec};
use tokio::sync::oneshot;

use super::{WorkerSettings, Workers};
use crate::counters::{Counters, Shard};
use crate::executor::policy::{QueuePolicy, SchedulePolicy};
use crate::executor::schedule::Schedule;
use crate::executor::waiting::Rows;
use crate::executor::{Answer, Job, Limits, Patience, Refusal, Terms};
use crate::live::MaxWaiting;
use crate::metrics::Metrics;

/// Gives its input back, once the test lets it.
struct Gated {
    begun: Sender<usize>,
    go: Receiver<()>,
}

impl Engine for Gated {
    fn inputs(&self) -> &[TensorSpec] {
        &[]
    }

    fn outputs(&self) -> &[TensorSpec] {
        &[]
    }

    fn run_with(
        &mut self,
        inputs: &[Tensor],
        _: &[NamedTensor],
    ) -> Result<Vec<Tensor>, EngineError> {
        self.run(inputs)
    }

    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        // A test that is over lets everything run.
        let _over = self.begun.send(inputs[0].rows().unwrap());
        let _over = self.go.recv();
        Ok(inputs.to_vec())
    }
}

/// Workers of four rows a run and a millisecond a row, which may wait for 50.
struct Running {
    workers: Workers,
    begun: Receiver<usize>,
    go: Sender<()>,
}

fn start(count: usize, max_queue_delay: Duration) -> Running {
    start_with(count, max_queue_delay, SchedulePolicy::default())
}

fn start_with(count: usize, max_queue_delay: Duration, policy: SchedulePolicy) -> Running {
    let (begun_in, begun) = bounded(1000);
    let (go, go_out) = bounded(1000);
    let engines = (0..count)
        .map(|_| Box::new(Gated { begun: begun_in.clone(), go: go_out.clone() }) as Box<dyn Engine>)
        .collect();
    let row_cost = Duration::from_millis(1);
    let max_waiting = MaxWaiting::new(Duration::from_millis(50));
    let limits = Limits { max_rows: 4, row_cost, least_run: Duration::ZERO, max_waiting };
    let metrics = Metrics::new(&[]).deployment(
        &"m".parse::<ModelName>().unwrap(),
        ModelVersion(1),
        &HashMap::new(),
    );
    let counters = Arc::new(Counters::new(1, count, false, metrics));
    let settings = WorkerSettings { max_queue_delay };
    let schedule = Schedule::new(policy);
    let workers = Workers::start(engines, limits, schedule, settings, counters).unwrap();
    Running { workers, begun, go }
}

impl Running {
    fn submit(&self, rows: usize) -> Result<oneshot::Receiver<Answer>, Refusal> {
        self.submit_on(Terms::default(), rows).map(|(answer, _)| answer)
    }

    fn submit_on(
        &self,
        terms: Terms,
        rows: usize,
    ) -> Result<(oneshot::Receiver<Answer>, Option<Patience>), Refusal> {
        let (job, answer) = job(rows);
        self.workers.submit(job, terms, &Shard::default()).map(|patience| (answer, patience))
    }

    /// Waits until a run begins: its rows.
    fn next_run(&self) -> usize {
        self.begun.recv_timeout(Duration::from_secs(10)).unwrap()
    }
}

fn job(rows: usize) -> (Job, oneshot::Receiver<Answer>) {
    let (reply, answer) = oneshot::channel();
    let shape = vec![i64::try_from(rows).unwrap()];
    let tensor = Tensor::new(shape, TensorData::Fp32(vec![1.0; rows])).unwrap();
    (Job::new(vec![tensor], rows, None, reply), answer)
}

fn is_overloaded<T>(submitted: &Result<T, Refusal>) -> bool {
    matches!(submitted, Err(Refusal::Overloaded(_)))
}

#[test]
fn a_small_job_runs_between_the_pieces_of_a_large_one() {
    let running = start(1, Duration::ZERO);
    let mut large = running.submit(400).unwrap();
    assert_eq!(running.next_run(), 4);
    let small = running.submit(1).unwrap();
    let another = running.submit(2).unwrap();
    running.go.send(()).unwrap();
    assert_eq!(running.next_run(), 3, "both small jobs together, before the next piece");
    running.go.send(()).unwrap();
    assert_eq!(running.next_run(), 4);
    assert_eq!(small.blocking_recv().unwrap().unwrap().outputs[0].rows(), Some(1));
    assert_eq!(another.blocking_recv().unwrap().unwrap().outputs[0].rows(), Some(2));
    assert!(large.try_recv().is_err(), "the large one is not done");
    let Running { workers, go, .. } = running;
    drop(go);
    assert_eq!(large.blocking_recv().unwrap().unwrap().outputs[0].rows(), Some(400));
    drop(workers);
}

#[test]
fn the_rows_of_a_large_job_that_runs_count_until_they_have_run() {
    let running = start(1, Duration::ZERO);
    let first = running.submit(400).unwrap();
    assert_eq!(running.next_run(), 4);
    assert!(is_overloaded(&running.submit(400)), "396 ms of work are waiting");
    assert!(running.submit(1).is_ok(), "which holds up a small job for a piece only");
    (0..200).for_each(|_| running.go.send(()).unwrap());
    assert!(first.blocking_recv().unwrap().is_ok());
    assert!(running.submit(400).is_ok(), "nothing waits any more");
}

/// However few rows it has, it runs by turns with the batches as large jobs do.
#[test]
fn a_job_that_runs_alone_counts_as_a_large_one_until_it_runs() {
    let running = start(1, Duration::ZERO);
    let busy = running.submit(4).unwrap();
    assert_eq!(running.next_run(), 4);
    let (mut alone, answer) = job(3);
    let tensor = Tensor::new(vec![1], TensorData::Fp32(vec![1.0])).unwrap();
    alone.optional = vec![NamedTensor { name: "own".to_owned(), tensor }];
    running.workers.submit(alone, Terms::default(), &Shard::default()).unwrap();
    assert_eq!(running.workers.waiting.now(), Rows { small: 0, large: 3 });
    running.go.send(()).unwrap();
    assert_eq!(running.next_run(), 3);
    assert_eq!(running.workers.waiting.now(), Rows { small: 0, large: 0 });
    running.go.send(()).unwrap();
    assert!(busy.blocking_recv().unwrap().is_ok() && answer.blocking_recv().unwrap().is_ok());
}

#[test]
fn two_large_jobs_run_on_two_workers() {
    let running = start(2, Duration::ZERO);
    let _first = running.submit(30).unwrap();
    let _second = running.submit(30).unwrap();
    assert_eq!((running.next_run(), running.next_run()), (4, 4), "neither was let go on");
}

#[test]
fn a_job_that_does_not_fit_into_a_batch_runs_on_the_worker_that_is_free() {
    let running = start(2, Duration::ZERO);
    let _runs: Vec<_> = [4, 4]
        .map(|rows| {
            let answer = running.submit(rows).unwrap();
            assert_eq!(running.next_run(), rows);
            answer
        })
        .into();
    let _wait: Vec<_> = [3, 2].map(|rows| running.submit(rows).unwrap()).into();
    running.go.send(()).unwrap();
    assert_eq!(running.next_run(), 3);
    running.go.send(()).unwrap();
    assert_eq!(running.next_run(), 2, "the first worker's run does not go on");
}

#[test]
fn a_full_queue_refuses_small_jobs_too() {
    let running = start(1, Duration::ZERO);
    let _runs = running.submit(4).unwrap();
    assert_eq!(running.next_run(), 4);
    let waiting: Vec<_> = (0..20).map_while(|_| running.submit(4).ok()).collect();
    assert_eq!(waiting.len(), 12, "48 rows are 48 ms");
    assert!(is_overloaded(&running.submit(4)));
}

#[test]
fn an_incomplete_batch_waits_as_long_as_it_was_told_and_a_full_one_does_not() {
    let running = start(1, Duration::from_secs(3600));
    let _one = running.submit(1).unwrap();
    let _two = running.submit(2).unwrap();
    assert!(running.begun.recv_timeout(Duration::from_millis(50)).is_err());
    let _full = running.submit(1).unwrap();
    assert_eq!(running.next_run(), 4);
    let running = start(1, Duration::from_millis(20));
    let _one = running.submit(1).unwrap();
    assert_eq!(running.next_run(), 1);
}

/// It has a second left when its run begins, for a machine that is busy.
#[test]
fn a_job_does_not_wait_for_others_until_its_own_time_is_up() {
    let running = start(1, Duration::from_secs(3600));
    let hasty = Terms { timeout: Some(Duration::from_secs(2)), ..Terms::default() };
    let (answer, patience) = running.submit_on(hasty, 1).unwrap();
    assert_eq!(running.next_run(), 1);
    assert!(!patience.unwrap().give_up(), "its run has begun");
    running.go.send(()).unwrap();
    assert!(answer.blocking_recv().unwrap().is_ok());
}

/// Workers that fall asleep and are told of jobs all the time sleep through none.
#[test]
fn every_job_of_many_callers_is_answered() {
    for (count, delay) in [(1, Duration::ZERO), (3, Duration::ZERO), (3, Duration::from_micros(50))]
    {
        let Running { workers, begun, go } = start(count, delay);
        drop((begun, go));
        let running = Arc::new(workers);
        let (say, said) = bounded(8);
        for caller in 0..8 {
            let (running, say) = (running.clone(), say.clone());
            std::thread::spawn(move || {
                for round in 0..500 {
                    let rows = (caller + round) % 9 + 1;
                    let (job, answer) = job(rows);
                    if running.submit(job, Terms::default(), &Shard::default()).is_ok() {
                        assert_eq!(
                            answer.blocking_recv().unwrap().unwrap().outputs[0].rows(),
                            Some(rows)
                        );
                    }
                }
                say.send(()).unwrap();
            });
        }
        for _ in 0..8 {
            said.recv_timeout(Duration::from_secs(20)).expect("a job is never answered");
        }
    }
}

#[test]
fn what_was_taken_in_is_answered_when_the_queue_closes() {
    let running = start(1, Duration::ZERO);
    let answers: Vec<_> = [1, 9, 2, 9].map(|rows| running.submit(rows).unwrap()).into();
    let Running { workers, go, .. } = running;
    drop(workers);
    drop(go);
    for (answer, rows) in answers.into_iter().zip([1, 9, 2, 9]) {
        assert_eq!(answer.blocking_recv().unwrap().unwrap().outputs[0].rows(), Some(rows));
    }
}

fn levels(priority_levels: u64, queue: QueuePolicy) -> SchedulePolicy {
    SchedulePolicy {
        priority_levels,
        default_priority: priority_levels,
        queue,
        ..SchedulePolicy::default()
    }
}

fn priority(priority: u64) -> Terms {
    Terms { priority, ..Terms::default() }
}

#[test]
fn what_goes_first_is_taken_first_and_is_not_refused_for_what_waits_behind_it() {
    let policy = levels(2, QueuePolicy::default());
    let running = start_with(1, Duration::ZERO, policy);
    let _runs = running.submit(4).unwrap();
    assert_eq!(running.next_run(), 4);
    // Without a priority they are of the second level.
    let low: Vec<_> = (0..20).map_while(|_| running.submit(4).ok()).collect();
    assert_eq!(low.len(), 12, "48 rows are 48 ms");
    let high = running.submit_on(priority(1), 3).unwrap().0;
    let high_too = running.submit_on(priority(1), 1).unwrap().0;
    assert!(is_overloaded(&running.submit_on(priority(2), 4)));
    for expected in [4, 4] {
        running.go.send(()).unwrap();
        assert_eq!(running.next_run(), expected);
    }
    // The second run was that of the two.
    for (answer, rows) in [(high, 3), (high_too, 1)] {
        assert_eq!(answer.blocking_recv().unwrap().unwrap().outputs[0].rows(), Some(rows));
    }
}

#[test]
fn a_priority_means_nothing_where_there_are_no_levels() {
    let running = start(1, Duration::ZERO);
    let _runs = running.submit(4).unwrap();
    assert_eq!(running.next_run(), 4);
    let first = running.submit(4).unwrap();
    let _second = running.submit_on(priority(1), 3).unwrap();
    running.go.send(()).unwrap();
    assert_eq!(running.next_run(), 4, "as they came");
    running.go.send(()).unwrap();
    assert!(first.blocking_recv().unwrap().is_ok());
}

#[test]
fn a_bounded_queue_refuses_one_more_and_counts_each_level_by_itself() {
    let queue = QueuePolicy { max_queue: Some(2), ..QueuePolicy::default() };
    let running = start_with(1, Duration::ZERO, levels(2, queue));
    let _runs = running.submit(4).unwrap();
    assert_eq!(running.next_run(), 4);
    let is_full =
        |level| matches!(running.submit_on(priority(level), 1), Err(Refusal::QueueFull(2)));
    let waiting: Vec<_> = [1, 1, 2, 2].map(|p| running.submit_on(priority(p), 2).unwrap()).into();
    assert!(is_full(1) && is_full(2));
    // The two of level 1 run.
    running.go.send(()).unwrap();
    assert_eq!(running.next_run(), 4);
    assert!(is_full(2));
    let _first = running.submit_on(priority(1), 1).unwrap();
    let _second = running.submit_on(priority(1), 1).unwrap();
    assert!(is_full(1));
    drop(waiting);
    // Callers that leave take nobody's place, though no worker has looked yet.
    std::thread::sleep(Duration::from_millis(20));
    assert!(running.submit_on(priority(2), 1).is_ok());
}

#[test]
fn a_job_whose_time_is_up_while_it_waits_costs_no_run() {
    let running = start(1, Duration::ZERO);
    let _runs = running.submit(4).unwrap();
    assert_eq!(running.next_run(), 4);
    let short = Terms { timeout: Some(Duration::from_millis(5)), ..Terms::default() };
    let (late, patience) = running.submit_on(short, 1).unwrap();
    let _in_time = running.submit(2).unwrap();
    std::thread::sleep(Duration::from_millis(10));
    running.go.send(()).unwrap();
    assert_eq!(running.next_run(), 2);
    assert!(patience.unwrap().give_up());
    assert!(late.blocking_recv().is_err(), "there is no answer");
}
