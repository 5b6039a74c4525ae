//! Jobs against engines that show how they were run.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use sluice_engine::{Engine, EngineError};
use sluice_protocol::{Code, Tensor, TensorData, TensorSpec};
use tokio::sync::oneshot;

use super::Work;
use crate::counters::Shard;
use crate::executor::Entrant;
use crate::executor::waiting::Rows;
use crate::executor::{Answer, Job};
use crate::tenant::Tenant;

/// Doubles its input and notes how many rows each run had.
#[derive(Debug, Default)]
struct Doubler {
    runs: Vec<usize>,
    /// Answers with one row, whatever it is given: the sum.
    sums: bool,
}

impl Engine for Doubler {
    fn inputs(&self) -> &[TensorSpec] {
        &[]
    }

    fn outputs(&self) -> &[TensorSpec] {
        &[]
    }

    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        self.runs.push(inputs[0].rows().unwrap());
        let TensorData::Fp32(values) = inputs[0].data() else { panic!("FP32 only") };
        assert!(!values.contains(&-1.0), "poisoned");
        let (shape, answers) = if self.sums {
            (vec![1], vec![values.iter().sum()])
        } else {
            (inputs[0].shape().to_vec(), values.iter().map(|value| value * 2.0).collect())
        };
        Ok(vec![Tensor::new(shape, TensorData::Fp32(answers)).unwrap()])
    }
}

fn job(values: &[f32], width: usize) -> (Job, oneshot::Receiver<Answer>) {
    let (reply, answer) = oneshot::channel();
    let rows = values.len() / width;
    let shape = vec![i64::try_from(rows).unwrap(), i64::try_from(width).unwrap()];
    let tensor = Tensor::new(shape, TensorData::Fp32(values.to_vec())).unwrap();
    (Job::new(vec![tensor], rows, None, reply), answer)
}

fn run_all(engine: &mut Doubler, jobs: Vec<Job>, max_rows: usize) {
    let mut work = Work::new(max_rows);
    jobs.into_iter().for_each(|job| work.push(job));
    while !work.is_empty() {
        work.run_next(engine, &Shard::default());
    }
}

fn values(mut answer: oneshot::Receiver<Answer>) -> TensorData {
    answer.try_recv().unwrap().unwrap().outputs[0].data().clone()
}

proptest! {
    #[test]
    fn every_job_gets_its_own_rows_and_no_run_is_too_large(
        jobs in prop::collection::vec((1usize..30, 1usize..3), 1..20), max_rows in 1usize..12,
    ) {
        let mut engine = Doubler::default();
        let mut next = 0u16;
        let (jobs, expected): (Vec<_>, Vec<_>) = jobs
            .into_iter()
            .map(|(rows, width)| {
                let values: Vec<f32> =
                    (0..rows * width).map(|_| { next += 1; f32::from(next) }).collect();
                let (job, answer) = job(&values, width);
                (job, (answer, values))
            })
            .unzip();
        run_all(&mut engine, jobs, max_rows);
        for (answer, given) in expected {
            let doubled: Vec<f32> = given.iter().map(|value| value * 2.0).collect();
            prop_assert_eq!(values(answer), TensorData::Fp32(doubled));
        }
        prop_assert!(engine.runs.iter().all(|&rows| rows <= max_rows));
    }
}

#[test]
fn small_jobs_do_not_wait_for_a_whole_large_one() {
    let (mut engine, shard) = (Doubler::default(), Shard::default());
    let mut work = Work::new(4);
    let (large, mut large_answer) = job(&[1.0; 100], 1);
    work.push(large);
    work.run_next(&mut engine, &shard);
    assert_eq!(work.rows_before(of_level(0)), Rows { small: 0, large: 96 });
    let (small, mut small_answer) = job(&[1.0; 3], 1);
    work.push(small);
    work.run_next(&mut engine, &shard);
    assert!(small_answer.try_recv().unwrap().is_ok());
    assert!(large_answer.try_recv().is_err(), "the large one is not done");
    // Nor does it starve.
    for _ in 0..60 {
        let (small, _answer) = job(&[1.0; 4], 1);
        work.push(small);
        work.run_next(&mut engine, &shard);
    }
    assert!(large_answer.try_recv().unwrap().is_ok());
}

#[test]
fn outputs_that_are_not_the_rows_are_never_shared_nor_joined() {
    let mut engine = Doubler { sums: true, ..Doubler::default() };
    let (one, one_answer) = job(&[1.0, 2.0], 1);
    let (two, two_answer) = job(&[3.0], 1);
    let (large, large_answer) = job(&[1.0; 9], 1);
    run_all(&mut engine, vec![one, two, large], 4);
    for (answer, sum) in [(one_answer, 3.0), (two_answer, 3.0), (large_answer, 9.0)] {
        assert_eq!(values(answer), TensorData::Fp32(vec![sum]));
    }
}

#[test]
fn a_job_that_nobody_waits_for_costs_no_run() {
    let mut engine = Doubler::default();
    for rows in [1, 20] {
        let (left, answer) = job(&vec![1.0; rows], 1);
        drop(answer);
        let (mut late, _answer) = job(&vec![2.0; rows], 1);
        late.begins_by = Some(Instant::now());
        let (mut too_late, _other_answer) = job(&vec![3.0; rows], 1);
        let minute = Duration::from_secs(60);
        too_late.deadline = too_late.submitted.checked_add(minute);
        too_late.leave_time_for(2 * minute);
        run_all(&mut engine, vec![left, late, too_late], 8);
    }
    assert!(engine.runs.is_empty());
}

#[test]
fn a_panic_fails_the_batch_and_nothing_else() {
    let mut engine = Doubler::default();
    for rows in [1, 20] {
        let (bad, mut bad_answer) = job(&vec![-1.0; rows], 1);
        run_all(&mut engine, vec![bad], 8);
        assert_eq!(bad_answer.try_recv().unwrap().unwrap_err().code, Code::Internal);
        let (good, mut good_answer) = job(&vec![3.0; rows], 1);
        run_all(&mut engine, vec![good], 8);
        assert!(good_answer.try_recv().unwrap().is_ok());
    }
}

#[test]
fn a_bad_request_does_not_fail_the_others_of_its_batch() {
    let mut engine = Doubler::default();
    let (bad, mut bad_answer) = job(&[-1.0], 1);
    let (good, good_answer) = job(&[3.0], 1);
    run_all(&mut engine, vec![bad, good], 8);
    assert!(bad_answer.try_recv().unwrap().is_err());
    assert_eq!(values(good_answer), TensorData::Fp32(vec![6.0]));
}

#[test]
fn each_job_is_told_where_its_time_went() {
    let mut engine = Doubler::default();
    let (first, mut first_answer) = job(&[1.0], 1);
    let (second, mut second_answer) = job(&[2.0; 3], 1);
    let (large, mut large_answer) = job(&[3.0; 9], 1);
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(2));
    run_all(&mut engine, vec![first, second, large], 4);
    let most = begun.elapsed() + Duration::from_millis(1);
    let mut times = [&mut first_answer, &mut second_answer, &mut large_answer]
        .map(|answer| answer.try_recv().unwrap().unwrap().times);
    for times in &times {
        assert!(times.queue.0 >= 2_000_000 && times.infer.0 > 0, "{times:?}");
        let mut all = times.queue;
        [times.input, times.infer, times.output].iter().for_each(|&time| all += time);
        assert!(all <= most.into(), "{times:?}");
    }
    // Those of the batch are the same for both, whoever has how many rows of it.
    times[..2].iter_mut().for_each(|times| times.queue.0 = 0);
    assert_eq!(format!("{:?}", times[0]), format!("{:?}", times[1]));
}

#[test]
fn jobs_of_a_lower_level_run_first_and_fill_up_their_run_with_later_ones() {
    let mut engine = Doubler::default();
    let mut work = Work::new(4);
    let answers: Vec<_> = [(2, 1), (2, 2), (1, 2), (2, 9), (1, 20)]
        .map(|(level, rows)| {
            let (mut job, answer) = job(&vec![1.0; rows], 1);
            job.level = level;
            work.push(job);
            answer
        })
        .into();
    assert_eq!(work.rows_before(of_level(1)), Rows { small: 2, large: 20 });
    assert_eq!(work.rows_before(of_level(2)), Rows { small: 5, large: 29 });
    let mut done = Vec::new();
    let mut answers: Vec<_> = answers.into_iter().enumerate().collect();
    while !work.is_empty() {
        work.run_next(&mut engine, &Shard::default());
        answers.retain_mut(|(index, answer)| {
            let is_open = answer.try_recv().is_err();
            if !is_open {
                done.push(*index);
            }
            is_open
        });
    }
    // The third row of the first run is the first that came of the second level.
    assert_eq!(engine.runs[0], 3);
    assert_eq!(done, [0, 2, 1, 4, 3], "the large one of level 1 before that of level 2");
}

/// A new job of one row.
fn of_level(level: u64) -> Entrant {
    Entrant { level, tenant: Tenant::default(), due: None, rows: 1 }
}
