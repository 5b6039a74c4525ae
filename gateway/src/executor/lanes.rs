//! Jobs that wait, in the order in which they run: by level, and in a level as they came.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Job;
use super::schedule::Expiry;

/// How often at most jobs are looked for that nobody waits for any more: each is looked at then.
const SWEEP: Duration = Duration::from_millis(10);
/// How many jobs that nobody waits for may lie among those of a batch that grows. It is looked at
/// with every new job; with more of them it is taken as it is, which clears them.
const MOST_LEFT: usize = 1024;

/// Waiting jobs. Where all are of one level, which is the usual case, it is a plain queue.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// By level. Empty ones stay, with their memory, until a new one comes.
    lanes: Vec<Lane>,
    jobs: usize,
    swept: Option<Instant>,
}

/// The jobs of one level.
#[derive(Debug, Default)]
struct Lane {
    level: u64,
    jobs: VecDeque<Job>,
    /// Those whose time is up and that wait on, behind the others.
    delayed: VecDeque<Job>,
    rows: usize,
}

impl Lanes {
    /// Nothing yet.
    pub(super) const fn new() -> Self {
        Self { lanes: Vec::new(), jobs: 0, swept: None }
    }

    pub(super) const fn len(&self) -> usize {
        self.jobs
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.jobs == 0
    }

    /// The rows of all jobs.
    pub(super) fn rows(&self) -> usize {
        self.lanes.iter().map(|lane| lane.rows).sum()
    }

    /// The rows of the jobs that run before a new one of `level`.
    pub(super) fn rows_before(&self, level: u64) -> usize {
        let before = self.lanes.iter().take_while(|lane| lane.level <= level);
        before.map(|lane| lane.rows).sum()
    }

    /// Until when the jobs may wait for `delay` to become a batch of `max_rows`. Those that nobody
    /// waits for do not count. None when they are a full batch, and when nobody waits.
    pub(super) fn grows_until(
        &self,
        max_rows: usize,
        delay: Duration,
        now: Instant,
    ) -> Option<Instant> {
        if self.jobs > max_rows.saturating_add(MOST_LEFT) {
            return None;
        }
        let (mut rows, mut until) = (0, None);
        let jobs = self.lanes.iter().flat_map(|lane| lane.delayed.iter().chain(&lane.jobs));
        for job in jobs.filter(|job| job.is_wanted(now)) {
            rows += job.rows;
            if rows >= max_rows {
                return None;
            }
            let own = job.waits_until(delay);
            until = Some(until.map_or(own, |until: Instant| until.min(own)));
        }
        until
    }

    pub(super) fn push(&mut self, job: Job) {
        let lane = match self.lanes.binary_search_by_key(&job.level, |lane| lane.level) {
            Ok(found) => found,
            Err(place) => {
                self.lanes.retain(|lane| !lane.is_empty());
                let place = place.min(self.lanes.partition_point(|lane| lane.level < job.level));
                self.lanes.insert(place, Lane { level: job.level, ..Lane::default() });
                place
            }
        };
        self.jobs += 1;
        self.lanes[lane].rows += job.rows;
        self.lanes[lane].jobs.push_back(job);
    }

    /// All jobs as they wait, for somebody else to run.
    pub(super) fn take_all(&mut self) -> Vec<Job> {
        let lanes = std::mem::take(self).lanes;
        lanes.into_iter().flat_map(|lane| lane.jobs.into_iter().chain(lane.delayed)).collect()
    }

    /// The next job that is to run. Those before it that nobody waits for any more go to
    /// `unwanted`, for the caller to drop.
    pub(super) fn pop(&mut self, now: Instant, unwanted: &mut Vec<Job>) -> Option<Job> {
        for lane in &mut self.lanes {
            while let Some(mut job) = lane.pop(now) {
                self.jobs -= 1;
                if job.is_wanted(now) && job.expiry.begin() {
                    return Some(job);
                }
                unwanted.push(job);
            }
        }
        None
    }

    /// The next job, and of those behind it as many as can share its run: the same shapes but for
    /// the rows, and room for them. The others keep their places; no more than a run's rows are
    /// passed over.
    pub(super) fn take_batch(
        &mut self,
        max_rows: usize,
        now: Instant,
        unwanted: &mut Vec<Job>,
    ) -> Vec<Job> {
        if let Some(whole) = self.take_whole(max_rows, now) {
            return whole;
        }
        let mut batch: Vec<Job> = Vec::with_capacity(self.jobs.min(max_rows));
        let (mut rows, mut passed_rows) = (0, 0);
        for lane in &mut self.lanes {
            let mut passed = Vec::new();
            while rows < max_rows
                && passed_rows < max_rows
                && let Some(mut job) = lane.pop(now)
            {
                let fits = rows + job.rows <= max_rows;
                if !job.is_wanted(now) {
                    self.jobs -= 1;
                    unwanted.push(job);
                } else if batch.first().is_some_and(|first| !fits || !first.shares_bucket(&job)) {
                    passed_rows += job.rows;
                    passed.push(job);
                } else if job.expiry.begin() {
                    self.jobs -= 1;
                    rows += job.rows;
                    batch.push(job);
                } else {
                    self.jobs -= 1;
                    unwanted.push(job);
                }
            }
            passed.into_iter().rev().for_each(|job| lane.put_back(job));
        }
        batch
    }

    /// All jobs, where they make a batch as they are: one level, one bucket, no more rows than a run
    /// has, and nobody's time is bounded. It is the usual case, and costs no move of a job.
    fn take_whole(&mut self, max_rows: usize, now: Instant) -> Option<Vec<Job>> {
        let [lane] = self.lanes.as_mut_slice() else { return None };
        let first = lane.jobs.front()?;
        let is_plain = |job: &Job| {
            matches!(job.expiry, Expiry::Never) && job.is_wanted(now) && first.shares_bucket(job)
        };
        let is_whole = lane.rows <= max_rows && lane.delayed.is_empty();
        if !is_whole || !lane.jobs.iter().all(is_plain) {
            return None;
        }
        self.jobs = 0;
        lane.rows = 0;
        Some(std::mem::take(&mut lane.jobs).into())
    }

    /// Takes out all jobs that nobody waits for any more, unless that was done just now.
    pub(super) fn sweep(&mut self, now: Instant, unwanted: &mut Vec<Job>) {
        if self.swept.is_some_and(|last| now.saturating_duration_since(last) < SWEEP) {
            return;
        }
        self.swept = Some(now);
        for lane in &mut self.lanes {
            for jobs in [&mut lane.jobs, &mut lane.delayed] {
                for job in std::mem::take(jobs) {
                    if job.is_wanted(now) {
                        jobs.push_back(job);
                    } else {
                        self.jobs -= 1;
                        lane.rows -= job.rows;
                        unwanted.push(job);
                    }
                }
            }
        }
    }
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.delayed.is_empty()
    }

    /// The next job. One whose time has come goes behind the others first, where that is what
    /// becomes of it.
    fn pop(&mut self, now: Instant) -> Option<Job> {
        while let Some(mut job) = self.jobs.pop_front() {
            if matches!(job.expiry, Expiry::Delay(until) if until <= now) {
                job.expiry = Expiry::Never;
                job.is_delayed = true;
                self.delayed.push_back(job);
                continue;
            }
            self.rows -= job.rows;
            return Some(job);
        }
        let job = self.delayed.pop_front()?;
        self.rows -= job.rows;
        Some(job)
    }

    /// Undoes the last [`Lane::pop`] that was not undone.
    fn put_back(&mut self, job: Job) {
        self.rows += job.rows;
        if job.is_delayed {
            self.delayed.push_front(job);
        } else {
            self.jobs.push_front(job);
        }
    }
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
