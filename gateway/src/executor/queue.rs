//! The jobs that wait for any of a deployment's workers. A worker takes what it runs next and
//! nothing more, so no job waits for a run of others while a worker is free.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::lanes::Lanes;
use super::waiting::Rows;
use super::{Entrant, Job};

/// Jobs that may wait, whatever their predicted time: it bounds the queue's own memory.
const MOST_JOBS: usize = 65_536;
/// The same for those that are too large for one run.
const MOST_LARGE_JOBS: usize = 1024;

/// Why a job cannot wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotQueued {
    Full,
    Closed,
}

/// What a worker can run next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A batch, since it has a large job under way.
    Batch,
    /// A batch, or else a large job.
    BatchFirst,
    /// A large job, or else a batch.
    LargeFirst,
}

/// What a worker waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Jobs that were there.
    AtOnce,
    /// Jobs that came.
    AfterSleep,
    /// There will be no more.
    End,
}

/// Waiting jobs in the order of their levels, and in a level in which they came.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Tells workers that sleep of jobs, and of the end.
    news: Condvar,
    max_rows: usize,
    /// How long an incomplete batch may wait for more rows.
    delay: Duration,
}

#[derive(Debug)]
struct Waiting {
    /// Those that fit into a run.
    small: Lanes,
    large: Lanes,
    /// Workers that there are, and how many of them wait for news.
    workers: usize,
    sleeping: usize,
    closed: bool,
}

/// What a worker gets: the jobs of one batch, or one large job, or none.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) jobs: Vec<Job>,
    /// Those before them that nobody waited for any more. They are dropped with this, by whoever
    /// took them and outside of the lock.
    pub(super) unwanted: Vec<Job>,
    /// Whether others wait on.
    pub(super) more: bool,
}

impl Queue {
    /// For workers that say when they come and leave.
    pub(super) fn new(max_rows: usize, delay: Duration) -> Self {
        let (small, large) = (Lanes::new(), Lanes::new());
        let waiting = Waiting { small, large, workers: 0, sleeping: 0, closed: false };
        Self { waiting: Mutex::new(waiting), news: Condvar::new(), max_rows, delay }
    }

    pub(super) fn push(&self, job: Job) -> Result<(), NotQueued> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(NotQueued::Closed);
        }
        if job.is_large(self.max_rows) {
            if waiting.large.len() >= MOST_LARGE_JOBS {
                return Err(NotQueued::Full);
            }
            waiting.large.push(job);
        } else {
            if waiting.small.len() >= MOST_JOBS {
                return Err(NotQueued::Full);
            }
            waiting.small.push(job);
        }
        self.tell(&waiting);
        Ok(())
    }

    /// Sleeps until there is a job, and further for an incomplete batch to become a full one
    /// until one of its jobs has waited for the delay, or for half of its own time. Another worker
    /// may be faster to take what there is.
    pub(super) fn wait(&self) -> News {
        let (mut waiting, mut news) = (self.lock(), News::AtOnce);
        loop {
            if waiting.is_empty() {
                if waiting.closed {
                    return News::End;
                }
                (waiting, news) = (self.sleep(waiting, Duration::MAX), News::AfterSleep);
                continue;
            }
            while let Some(left) = waiting.time_to_grow(self.max_rows, self.delay) {
                (waiting, news) = (self.sleep(waiting, left), News::AfterSleep);
            }
            if !waiting.is_empty() {
                return news;
            }
        }
    }

    /// What runs next, if there is something of what is wanted.
    pub(super) fn take(&self, wanted: Wanted) -> Taken {
        let (mut taken, now) = (Taken::default(), Instant::now());
        let mut waiting = self.lock();
        let large_next = match wanted {
            Wanted::Batch => false,
            Wanted::BatchFirst => waiting.small.is_empty(),
            Wanted::LargeFirst => !waiting.large.is_empty(),
        };
        taken.jobs = if large_next {
            waiting.large.pop(now, &mut taken.unwanted).into_iter().collect()
        } else {
            waiting.small.take_batch(self.max_rows, now, &mut taken.unwanted)
        };
        taken.more = !waiting.is_empty();
        // Who sleeps may have been told of these only.
        if taken.more {
            self.tell(&waiting);
        }
        taken
    }

    /// The rows that wait here behind a new job.
    pub(super) fn rows_behind(&self, new: Entrant) -> Rows {
        let waiting = self.lock();
        let [small, large] = [&waiting.small, &waiting.large]
            .map(|lanes| lanes.rows().saturating_sub(lanes.rows_before(new)));
        Rows { small, large }
    }

    /// Drops the jobs that nobody waits for any more: they take the room of others. How many that
    /// were.
    pub(super) fn sweep(&self) -> usize {
        let (now, mut unwanted) = (Instant::now(), Vec::new());
        let mut waiting = self.lock();
        waiting.small.sweep(now, &mut unwanted);
        waiting.large.sweep(now, &mut unwanted);
        // They go behind the lock.
        drop(waiting);
        unwanted.len()
    }

    /// Takes no more jobs. Those that wait are still given out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.news.notify_all();
    }

    /// One worker more.
    pub(super) fn join(&self) {
        self.lock().workers += 1;
    }

    /// One worker is gone. Behind the last one nothing is left waiting for nobody.
    pub(super) fn leave(&self) {
        let mut waiting = self.lock();
        waiting.workers -= 1;
        if waiting.workers == 0 {
            waiting.closed = true;
            waiting.small = Lanes::new();
            waiting.large = Lanes::new();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes a worker that sleeps.
    fn tell(&self, waiting: &Waiting) {
        if waiting.sleeping > 0 {
            self.news.notify_one();
        }
    }

    fn sleep<'a>(
        &self,
        mut waiting: MutexGuard<'a, Waiting>,
        most: Duration,
    ) -> MutexGuard<'a, Waiting> {
        waiting.sleeping += 1;
        let woken = self.news.wait_timeout(waiting, most);
        let (mut waiting, _) = woken.unwrap_or_else(PoisonError::into_inner);
        waiting.sleeping -= 1;
        waiting
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty()
    }

    /// How much longer a batch may wait to become larger, where nothing else waits. The time
    /// counts from the first job's arrival: one that another batch left behind pays it once.
    fn time_to_grow(&self, max_rows: usize, delay: Duration) -> Option<Duration> {
        if delay.is_zero() || self.closed || !self.large.is_empty() {
            return None;
        }
        let now = Instant::now();
        let until = self.small.grows_until(max_rows, delay, now)?;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use sluice_protocol::{Tensor, TensorData};
    use tokio::sync::oneshot;

    use super::{News, NotQueued, Queue, Wanted};
    use crate::executor::{Answer, Job};

    fn job(rows: usize, width: usize) -> (Job, oneshot::Receiver<Answer>) {
        let (reply, answer) = oneshot::channel();
        let shape = [rows, width].map(|size| i64::try_from(size).unwrap());
        let tensor = Tensor::new(shape.to_vec(), TensorData::Fp32(vec![0.0; rows * width]));
        (Job::new(vec![tensor.unwrap()], rows, None, reply), answer)
    }

    /// A queue of runs of four rows with jobs of (rows, columns), and who waits for them.
    fn queue(jobs: &[(usize, usize)]) -> (Queue, Vec<oneshot::Receiver<Answer>>) {
        let queue = Queue::new(4, Duration::ZERO);
        queue.join();
        let answers = jobs.iter().map(|&(rows, width)| {
            let (job, answer) = job(rows, width);
            queue.push(job).unwrap();
            answer
        });
        let answers = answers.collect();
        (queue, answers)
    }

    /// What is taken one after the other until there is nothing: the rows of the jobs.
    fn check(jobs: &[(usize, usize)], wanted: Wanted, expected: &[&[usize]]) {
        let (queue, _answers) = queue(jobs);
        let take = || {
            let rows: Vec<_> = queue.take(wanted).jobs.iter().map(|job| job.rows).collect();
            (!rows.is_empty()).then_some(rows)
        };
        let taken: Vec<_> = std::iter::from_fn(take).collect();
        assert_eq!(taken, expected, "{wanted:?} of {jobs:?}");
    }

    #[test]
    fn a_batch_is_taken_and_what_cannot_share_its_run_keeps_its_place() {
        for (jobs, expected) in [
            (&[(1, 1), (2, 1), (1, 1), (3, 1)][..], &[&[1, 2, 1][..], &[3]][..]),
            (&[(3, 1), (2, 1), (2, 1)], &[&[3], &[2, 2]]),
            (&[(1, 1), (1, 2), (2, 1), (3, 2)], &[&[1, 2], &[1, 3]]),
            (&[(3, 1), (3, 2), (1, 1), (1, 2)], &[&[3, 1], &[3, 1]]),
            // No more than a run's rows are passed over.
            (&[(3, 1), (2, 2), (2, 2), (1, 1)], &[&[3], &[2, 2], &[1]]),
        ] {
            check(jobs, Wanted::Batch, expected);
        }
    }

    #[test]
    fn large_jobs_are_taken_one_at_a_time_when_they_are_wanted() {
        let jobs = [(2, 1), (9, 1), (3, 1), (8, 1)];
        check(&jobs, Wanted::Batch, &[&[2], &[3]]);
        check(&jobs, Wanted::BatchFirst, &[&[2], &[3], &[9], &[8]]);
        check(&jobs, Wanted::LargeFirst, &[&[9], &[8], &[2], &[3]]);
    }

    #[test]
    fn what_a_batch_left_behind_does_not_pay_the_delay_again() {
        let delay = Duration::from_secs(1);
        let queue = Queue::new(4, delay);
        queue.join();
        let _answers: Vec<_> = (1..=3)
            .map(|width| {
                let (job, answer) = job(1, width);
                queue.push(job).unwrap();
                answer
            })
            .collect();
        let began = Instant::now();
        for _ in 0..3 {
            assert_ne!(queue.wait(), News::End);
            assert_eq!(queue.take(Wanted::Batch).jobs.len(), 1);
        }
        let took = began.elapsed();
        assert!(took > delay / 2 && took < 2 * delay, "{took:?}");
    }

    #[test]
    fn a_closed_queue_gives_out_what_it_has() {
        let (queue, _answers) = queue(&[(1, 1), (9, 1)]);
        queue.close();
        assert_eq!(queue.push(job(1, 1).0), Err(NotQueued::Closed));
        for rows in [1, 9] {
            assert_ne!(queue.wait(), News::End);
            assert_eq!(queue.take(Wanted::BatchFirst).jobs[0].rows, rows);
        }
        assert_eq!(queue.wait(), News::End);
    }

    #[test]
    fn nothing_waits_for_workers_that_are_gone() {
        let (queue, _) = queue(&[]);
        let [(small, mut of_small), (large, mut of_large)] = [job(1, 1), job(9, 1)];
        queue.push(small).unwrap();
        queue.push(large).unwrap();
        queue.leave();
        let closed = oneshot::error::TryRecvError::Closed;
        assert_eq!(of_small.try_recv().unwrap_err(), closed);
        assert_eq!(of_large.try_recv().unwrap_err(), closed);
        assert_eq!(queue.push(job(1, 1).0), Err(NotQueued::Closed));
    }
}
