//! The jobs that wait for any of a deployment's workers. A worker takes what it runs next and
//! nothing more, so no job waits for a run of others while a worker is free.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Job;
use super::batch::take_batch;

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

/// Waiting jobs in the order in which they came.
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
    small: VecDeque<Job>,
    small_rows: usize,
    large: VecDeque<Job>,
    /// Workers that there are, and how many of them wait for news.
    workers: usize,
    sleeping: usize,
    closed: bool,
}

impl Queue {
    /// For so many workers, each of which says when it leaves.
    pub(super) fn new(workers: usize, max_rows: usize, delay: Duration) -> Self {
        let (small, large) = Default::default();
        let waiting = Waiting { small, small_rows: 0, large, workers, sleeping: 0, closed: false };
        Self { waiting: Mutex::new(waiting), news: Condvar::new(), max_rows, delay }
    }

    pub(super) fn push(&self, job: Job) -> Result<(), NotQueued> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(NotQueued::Closed);
        }
        let large = job.rows > self.max_rows;
        let (queue, most) = if large {
            (&mut waiting.large, MOST_LARGE_JOBS)
        } else {
            (&mut waiting.small, MOST_JOBS)
        };
        if queue.len() >= most {
            return Err(NotQueued::Full);
        }
        let rows = job.rows;
        queue.push_back(job);
        if !large {
            waiting.small_rows += rows;
        }
        self.tell(&waiting);
        Ok(())
    }

    /// Sleeps until there is a job, and further for an incomplete batch to become a full one
    /// within the delay; false when there will be no more. Another worker may be faster to take
    /// what there is.
    pub(super) fn wait(&self) -> bool {
        let mut waiting = self.lock();
        loop {
            if waiting.is_empty() {
                if waiting.closed {
                    return false;
                }
                waiting = self.sleep(waiting, Duration::MAX);
                continue;
            }
            let until = Instant::now() + self.delay;
            while waiting.is_incomplete(self.max_rows) {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                waiting = self.sleep(waiting, left);
            }
            if !waiting.is_empty() {
                return true;
            }
        }
    }

    /// The jobs of one batch, or one large job, or none when there is nothing that is wanted.
    pub(super) fn take(&self, wanted: Wanted) -> Vec<Job> {
        let mut waiting = self.lock();
        let large_next = match wanted {
            Wanted::Batch => false,
            Wanted::BatchFirst => waiting.small.is_empty(),
            Wanted::LargeFirst => !waiting.large.is_empty(),
        };
        let taken = if large_next {
            waiting.large.pop_front().into_iter().collect()
        } else {
            waiting.take_batch(self.max_rows)
        };
        // Who sleeps may have been told of these only.
        if !waiting.is_empty() {
            self.tell(&waiting);
        }
        taken
    }

    /// Takes no more jobs. Those that wait are still given out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.news.notify_all();
    }

    /// One worker is gone. Behind the last one nothing is left waiting for nobody.
    pub(super) fn leave(&self) {
        let mut waiting = self.lock();
        waiting.workers -= 1;
        if waiting.workers == 0 {
            waiting.closed = true;
            waiting.small.clear();
            waiting.small_rows = 0;
            waiting.large.clear();
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

    /// Whether nothing waits but a batch that may still become larger.
    fn is_incomplete(&self, max_rows: usize) -> bool {
        !self.closed && self.large.is_empty() && (1..max_rows).contains(&self.small_rows)
    }

    /// The first job, and of the next ones as many as can share its run. The others keep their
    /// places.
    fn take_batch(&mut self, max_rows: usize) -> Vec<Job> {
        let (mut next, mut rows) = (Vec::new(), 0);
        while rows < max_rows
            && let Some(job) = self.small.pop_front()
        {
            rows += job.rows;
            next.push(job);
        }
        let batch = take_batch(&mut next, max_rows);
        for job in next.into_iter().rev() {
            self.small.push_front(job);
        }
        self.small_rows -= batch.iter().map(|job| job.rows).sum::<usize>();
        batch
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sluice_protocol::{Tensor, TensorData};
    use tokio::sync::oneshot;

    use super::{NotQueued, Queue, Wanted};
    use crate::executor::{Answer, Job};

    fn job(rows: usize, width: usize) -> (Job, oneshot::Receiver<Answer>) {
        let (reply, answer) = oneshot::channel();
        let shape = [rows, width].map(|size| i64::try_from(size).unwrap());
        let tensor = Tensor::new(shape.to_vec(), TensorData::Fp32(vec![0.0; rows * width]));
        (Job::new(vec![tensor.unwrap()], rows, None, reply), answer)
    }

    /// A queue of runs of four rows with jobs of (rows, columns).
    fn queue(jobs: &[(usize, usize)]) -> Queue {
        let queue = Queue::new(1, 4, Duration::ZERO);
        for &(rows, width) in jobs {
            queue.push(job(rows, width).0).unwrap();
        }
        queue
    }

    /// What is taken one after the other until there is nothing: the rows of the jobs.
    fn check(jobs: &[(usize, usize)], wanted: Wanted, expected: &[&[usize]]) {
        let queue = queue(jobs);
        let take = || {
            let rows: Vec<_> = queue.take(wanted).iter().map(|job| job.rows).collect();
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
            (&[(3, 1), (3, 2), (1, 1), (1, 2)], &[&[3], &[3], &[1], &[1]]),
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
    fn a_closed_queue_gives_out_what_it_has() {
        let queue = queue(&[(1, 1), (9, 1)]);
        queue.close();
        assert_eq!(queue.push(job(1, 1).0), Err(NotQueued::Closed));
        for rows in [1, 9] {
            assert!(queue.wait());
            assert_eq!(queue.take(Wanted::BatchFirst)[0].rows, rows);
        }
        assert!(!queue.wait());
    }

    #[test]
    fn nothing_waits_for_workers_that_are_gone() {
        let queue = queue(&[]);
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
