//! In which order jobs are taken, and which are not.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use sluice_protocol::{Tensor, TensorData};
use tokio::sync::oneshot;

use super::Lanes;
use crate::executor::policy::{QueuePolicy, SchedulePolicy, TimeoutAction};
use crate::executor::schedule::Schedule;
use crate::executor::{Answer, Entrant, Job, Patience, Refusal, Terms};
use crate::tenant::Tenant;

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

/// A new job of one row in no hurry.
fn entrant(level: u64) -> Entrant {
    Entrant { level, tenant: Tenant::default(), due: None, rows: 1 }
}

proptest! {
    #[test]
    fn jobs_leave_by_level_and_in_a_level_as_they_are_due(
        jobs in prop::collection::vec((0u64..5, 1u32..9), 0..60), max_rows in 1usize..9, batches: bool,
    ) {
        let mut lanes = Lanes::new();
        let mut answers = Vec::new();
        let start = Instant::now() + MINUTE;
        for (index, &(level, minutes)) in jobs.iter().enumerate() {
            let (mut job, answer) = of_level(level, 1);
            job.begins_by = Some(start + MINUTE * minutes);
            // To be known by.
            job.submitted = start + Duration::from_secs(index as u64);
            lanes.push(job);
            answers.push(answer);
        }
        let due = Some(start + MINUTE * 4);
        prop_assert_eq!(lanes.rows(), jobs.len());
        let before = |is_before: fn(u64, u32) -> bool| {
            jobs.iter().filter(|(level, minutes)| is_before(*level, *minutes)).count()
        };
        prop_assert_eq!(lanes.rows_before(entrant(2)), before(|level, _| level <= 2));
        let in_hurry = lanes.rows_before(Entrant { due, ..entrant(2) });
        prop_assert_eq!(in_hurry, before(|level, minutes| level < 2 || level == 2 && minutes <= 4));
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
        let order: Vec<_> =
            taken.iter().map(|job| (job.level, job.begins_by, job.submitted)).collect();
        prop_assert_eq!(order.len(), jobs.len());
        prop_assert!(order.is_sorted());
    }

    /// However many of its jobs wait, a tenant whose jobs wait too gets its share of what is taken,
    /// to within a job of each; and no more rows go before a new job than was said.
    #[test]
    fn tenants_share_what_is_taken(
        shares in prop::collection::vec(1u32..5, 2..5), rows in 1usize..4, max_rows in 4usize..9,
    ) {
        const JOBS: usize = 400;
        let mut lanes = Lanes::new();
        let mut answers = Vec::new();
        for (key, &share) in (1..).zip(&shares) {
            // One after the other: who floods the queue is there first.
            for _ in 0..JOBS {
                let (mut job, answer) = job(rows);
                job.tenant = Tenant::numbered(key, share);
                lanes.push(job);
                answers.push(answer);
            }
        }
        let late = Entrant { tenant: Tenant::numbered(99, 1), rows, ..entrant(0) };
        let total: usize = shares.iter().map(|&share| share as usize).sum();
        prop_assert_eq!(lanes.rows_before(late), rows * total);
        let (now, mut unwanted, mut taken) = (Instant::now(), Vec::new(), vec![0; shares.len()]);
        while taken.iter().sum::<usize>() < JOBS * rows / 2 {
            for job in lanes.take_batch(max_rows, now, &mut unwanted) {
                taken[usize::try_from(job.tenant.key()).unwrap() - 1] += job.rows;
            }
        }
        let all: usize = taken.iter().sum();
        for (&share, &taken) in shares.iter().zip(&taken) {
            let fair = all * share as usize / total;
            prop_assert!(taken.abs_diff(fair) <= rows * (total + 1), "{taken} for {fair}");
        }
    }
}

#[test]
fn who_was_alone_for_long_owes_nothing_to_who_comes() {
    let mut lanes = Lanes::new();
    let mut answers = Vec::new();
    let mut push = |lanes: &mut Lanes, key, count| {
        for _ in 0..count {
            let (mut job, answer) = job(1);
            job.tenant = Tenant::numbered(key, 1);
            lanes.push(job);
            answers.push(answer);
        }
    };
    let (now, mut unwanted) = (Instant::now(), Vec::new());
    for batches in [true, false] {
        for _ in 0..100 {
            push(&mut lanes, 1, 4);
            if batches {
                assert_eq!(lanes.take_batch(8, now, &mut unwanted).len(), 4);
            } else {
                assert_eq!(pop_all(&mut lanes, now).0.len(), 4);
            }
        }
        push(&mut lanes, 1, 20);
        push(&mut lanes, 2, 20);
        let batch = lanes.take_batch(8, now, &mut unwanted);
        let of_first = batch.iter().filter(|job| job.tenant.key() == 1).count();
        assert!((3..=5).contains(&of_first), "{of_first} of 8");
        pop_all(&mut lanes, now);
    }
}

#[test]
fn made_up_tenants_do_not_pile_up_and_lose_nothing() {
    let mut lanes = Lanes::new();
    let mut answers = Vec::new();
    for key in 1..=1000_usize {
        // Every other one is too wide to share a run with the first.
        let (mut job, answer) = job(1 + key % 2);
        job.tenant = Tenant::numbered(key as u64, 1);
        lanes.push(job);
        answers.push(answer);
        assert!(lanes.lanes[0].lines.len() <= 257);
    }
    assert_eq!(lanes.rows(), 1500);
    let (now, mut unwanted, mut rows) = (Instant::now(), Vec::new(), 0);
    while !lanes.is_empty() {
        rows += lanes.take_batch(3, now, &mut unwanted).iter().map(|job| job.rows).sum::<usize>();
        // A new one gets a line again when others have gone.
        if rows < 1500 {
            assert!(lanes.lanes[0].lines.len() <= 257);
        }
    }
    assert_eq!((rows, unwanted.len(), lanes.rows()), (1500, 0, 0));
}

/// A job of one row on these terms, under this policy.
fn enter(
    policy: QueuePolicy,
    timeout: Option<Duration>,
) -> (Job, oneshot::Receiver<Answer>, Result<Option<Patience>, Refusal>) {
    let schedule = Schedule::new(SchedulePolicy { queue: policy, ..SchedulePolicy::default() });
    let (mut job, answer) = job(1);
    let entered = schedule.enter(&mut job, Terms { timeout, ..Terms::default() });
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
    let (mut first, _answer) = job(3);
    first.begins_by = Some(first.submitted + MINUTE / 2);
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
