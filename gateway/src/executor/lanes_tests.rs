//! In which order jobs are taken, and which are not.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use sluice_protocol::{Tensor, TensorData};
use tokio::sync::oneshot;

use super::Lanes;
use crate::executor::policy::{QueuePolicy, SchedulePolicy, TimeoutAction};
use crate::executor::schedule::Schedule;
use crate::executor::{Answer, Job, Patience, Refusal, Terms};

const MINUTE: Duration = Duration::from_secs(60);

fn job(rows: usize) -> (Job, oneshot::Receiver<Answer>) {
    let (reply, answer) = oneshot::channel();
    let shape = vec![i64::try_from(rows).unwrap()];
    let tensor = Tensor::new(shape, TensorData::Fp32(vec![0.0; rows])).unwrap();
    (Job::new(vec![tensor], rows, None, reply), answer)
}

fn of_level(level: u64, rows: usize) -> (Job, oneshot::Receiver<Answer>) {
    let (mut job, answer) = job(rows);
    job.level = level;
    (job, answer)
}

/// The rows of what is taken one by one, and of what nobody wanted.
fn pop_all(lanes: &mut Lanes, now: Instant) -> (Vec<usize>, Vec<usize>) {
    let mut unwanted = Vec::new();
    let taken = std::iter::from_fn(|| lanes.pop(now, &mut unwanted).map(|job| job.rows)).collect();
    assert!(lanes.is_empty() && lanes.rows() == 0);
    (taken, unwanted.iter().map(|job| job.rows).collect())
}

proptest! {
    #[test]
    fn jobs_leave_by_level_and_in_a_level_as_they_came(
        levels in prop::collection::vec(0u64..5, 0..60), max_rows in 1usize..9, batches: bool,
    ) {
        let mut lanes = Lanes::new();
        let mut answers = Vec::new();
        for (index, &level) in levels.iter().enumerate() {
            let (mut job, answer) = of_level(level, 1);
            // To be known by.
            job.deadline = Some(Instant::now() + MINUTE * u32::try_from(index + 1).unwrap());
            lanes.push(job);
            answers.push(answer);
        }
        prop_assert_eq!(lanes.rows(), levels.len());
        prop_assert_eq!(lanes.rows_before(2), levels.iter().filter(|&&level| level <= 2).count());
        let (now, mut unwanted, mut taken) = (Instant::now(), Vec::new(), Vec::new());
        while !lanes.is_empty() {
            if batches {
                let batch = lanes.take_batch(max_rows, now, &mut unwanted);
                prop_assert!(!batch.is_empty() && batch.len() <= max_rows);
                taken.extend(batch);
            } else {
                taken.extend(lanes.pop(now, &mut unwanted));
            }
        }
        prop_assert!(unwanted.is_empty());
        let order: Vec<_> = taken.iter().map(|job| (job.level, job.deadline)).collect();
        prop_assert_eq!(order.len(), levels.len());
        prop_assert!(order.is_sorted());
    }
}

/// A job of one row on these terms, under this policy.
fn enter(
    policy: QueuePolicy,
    timeout: Option<Duration>,
) -> (Job, oneshot::Receiver<Answer>, Result<Option<Patience>, Refusal>) {
    let schedule = Schedule::new(SchedulePolicy { queue: policy, ..SchedulePolicy::default() });
    let (mut job, answer) = job(1);
    let entered = schedule.enter(&mut job, Terms { priority: 0, timeout });
    (job, answer, entered)
}

#[test]
fn a_job_whose_time_is_up_does_not_run_and_its_caller_gives_up() {
    let mut lanes = Lanes::new();
    let (late, _answer, patience) = enter(QueuePolicy::default(), Some(MINUTE));
    let patience = patience.unwrap().unwrap();
    let (in_time, _other_answer, other) = enter(QueuePolicy::default(), Some(2 * MINUTE));
    let (plain, _third_answer) = job(3);
    for job in [late, in_time, plain] {
        lanes.push(job);
    }
    let (taken, unwanted) = pop_all(&mut lanes, Instant::now() + MINUTE);
    assert_eq!((taken, unwanted), (vec![1, 3], vec![1]));
    assert!(patience.give_up(), "it did not begin");
    assert!(!other.unwrap().unwrap().give_up(), "it has begun");
}

#[test]
fn a_job_whose_caller_gave_up_does_not_run_even_in_time() {
    let mut lanes = Lanes::new();
    for batch in [true, false] {
        let (job, _answer, patience) = enter(QueuePolicy::default(), Some(MINUTE));
        assert!(patience.unwrap().unwrap().give_up());
        lanes.push(job);
        let (now, mut unwanted) = (Instant::now(), Vec::new());
        if batch {
            assert!(lanes.take_batch(4, now, &mut unwanted).is_empty());
        } else {
            assert!(lanes.pop(now, &mut unwanted).is_none());
        }
        assert_eq!(unwanted.len(), 1);
    }
}

#[test]
fn a_job_that_was_passed_over_has_not_begun() {
    let mut lanes = Lanes::new();
    let (first, _answer) = job(3);
    let (mut wide, _wide_answer, patience) = enter(QueuePolicy::default(), Some(MINUTE));
    wide.rows = 2;
    lanes.push(first);
    lanes.push(wide);
    assert_eq!(lanes.take_batch(4, Instant::now(), &mut Vec::new()).len(), 1);
    assert_eq!((lanes.len(), lanes.rows()), (1, 2));
    assert!(patience.unwrap().unwrap().give_up());
}

#[test]
fn delayed_jobs_go_behind_the_others_of_their_level() {
    let delay = QueuePolicy { action: TimeoutAction::Delay, ..QueuePolicy::default() };
    let mut lanes = Lanes::new();
    let mut answers = Vec::new();
    for (rows, level, timeout) in
        [(1, 1, Some(MINUTE)), (2, 1, None), (3, 1, Some(MINUTE)), (4, 1, None), (5, 2, None)]
    {
        let (mut job, answer, patience) = enter(delay.clone(), timeout);
        assert!(patience.unwrap().is_none(), "nobody has to be told");
        (job.rows, job.level) = (rows, level);
        lanes.push(job);
        answers.push(answer);
    }
    let (taken, unwanted) = pop_all(&mut lanes, Instant::now() + MINUTE);
    assert_eq!((taken, unwanted), (vec![2, 4, 1, 3, 5], vec![]));
}

/// A batch that passes jobs over puts delayed ones back where they were.
#[test]
fn delayed_jobs_that_are_passed_over_keep_their_places() {
    let delay = QueuePolicy { action: TimeoutAction::Delay, ..QueuePolicy::default() };
    let mut lanes = Lanes::new();
    let mut answers = Vec::new();
    for (rows, timeout) in [(3, Some(MINUTE)), (4, None), (2, Some(MINUTE))] {
        let (mut job, answer, _) = enter(delay.clone(), timeout);
        job.rows = rows;
        lanes.push(job);
        answers.push(answer);
    }
    let late = Instant::now() + MINUTE;
    let take = |lanes: &mut Lanes| -> Vec<usize> {
        lanes.take_batch(5, late, &mut Vec::new()).iter().map(|job| job.rows).collect()
    };
    assert_eq!(take(&mut lanes), [4]);
    // Who comes now goes before them.
    let (new, _answer) = job(1);
    lanes.push(new);
    assert_eq!([take(&mut lanes), take(&mut lanes)], [vec![1, 3], vec![2]]);
}

#[test]
fn sweeping_drops_what_nobody_waits_for_and_nothing_else() {
    let mut lanes = Lanes::new();
    let (kept, _answer) = of_level(2, 4);
    let (left, answer) = of_level(1, 2);
    let (late, _late_answer, _) = enter(QueuePolicy::default(), Some(Duration::from_nanos(1)));
    for job in [kept, left, late] {
        lanes.push(job);
    }
    drop(answer);
    let (now, mut unwanted) = (Instant::now(), Vec::new());
    lanes.sweep(now, &mut unwanted);
    assert_eq!((unwanted.len(), lanes.len(), lanes.rows()), (2, 1, 4));
    let (gone, answer) = of_level(1, 2);
    lanes.push(gone);
    drop(answer);
    lanes.sweep(now, &mut unwanted);
    assert_eq!(unwanted.len(), 2, "not again at once");
    lanes.sweep(now + MINUTE, &mut unwanted);
    assert_eq!(unwanted.len(), 3);
}

#[test]
fn a_batch_grows_until_one_of_those_who_wait_for_it_cannot() {
    let mut lanes = Lanes::new();
    let (first, _answer) = of_level(1, 1);
    let (came, delay) = (first.submitted, 10 * MINUTE);
    lanes.push(first);
    let until = |lanes: &Lanes| lanes.grows_until(4, delay, came);
    assert_eq!(until(&lanes), Some(came + delay));
    let (hasty, _hasty_answer, _) = enter(QueuePolicy::default(), Some(MINUTE));
    let (hasty_came, hasty_rows) = (hasty.submitted, hasty.rows);
    lanes.push(hasty);
    assert_eq!((hasty_rows, until(&lanes)), (1, Some(hasty_came + MINUTE / 2)));
    // Who has left makes no batch full, nor does one whose time is up.
    let (left, answer) = of_level(2, 2);
    drop(answer);
    lanes.push(left);
    assert!(until(&lanes).is_some());
    let late = lanes.grows_until(4, delay, hasty_came + MINUTE);
    assert_eq!(late, Some(came + delay));
    let (last, _last_answer) = of_level(1, 2);
    lanes.push(last);
    assert_eq!(until(&lanes), None, "it is full");
    assert_eq!(Lanes::new().grows_until(4, delay, came), None);
}

#[test]
fn lanes_that_are_empty_do_not_pile_up() {
    let mut lanes = Lanes::new();
    for level in 0..1000 {
        let (job, _answer) = of_level(level, 1);
        lanes.push(job);
        assert!(lanes.pop(Instant::now(), &mut Vec::new()).is_some());
        assert!(lanes.lanes.len() <= 2);
    }
}
