//! Jobs that wait, in the order in which they run: by level; in a level the tenants share the runs
//! as it is set, and of a tenant's jobs the one that is due first goes first.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::line::Line;
use super::schedule::Expiry;
use super::{Entrant, Job};
use crate::tenant::Tenant;

/// How often at most jobs are looked for that nobody waits for any more: each is looked at then.
const SWEEP: Duration = Duration::from_millis(10);
/// How many jobs that nobody waits for may lie among those of a batch that grows. It is looked at
/// with every new job; with more of them it is taken as it is, which clears them.
const MOST_LEFT: usize = 1024;
/// Tenants that have a line of their own in a level. Those that come when there are so many stand
/// in line with each other: a caller may make up names, and each job looks through the lines.
const MOST_LINES: usize = 256;

/// Waiting jobs. Where all are of one level and one tenant, which is the usual case, it is a plain
/// queue.
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
    /// By tenant, in no order. Empty ones stay, too.
    lines: Vec<Line>,
    /// Those whose time is up and that wait on, behind the others.
    delayed: VecDeque<Job>,
    /// Of all of them.
    rows: usize,
    /// What the line that went last had paid before.
    paid: u64,
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

    /// The rows that run before those of a new job.
    pub(super) fn rows_before(&self, new: Entrant) -> usize {
        let mut before = 0;
        for lane in &self.lanes {
            if lane.level < new.level {
                before += lane.rows;
            } else if lane.level == new.level {
                before += lane.rows_before(new);
            }
        }
        before
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
        let jobs = self.lanes.iter().flat_map(Lane::jobs);
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
        self.lanes[lane].push(job);
    }

    /// All jobs as they wait, for somebody else to run.
    pub(super) fn take_all(&mut self) -> Vec<Job> {
        let lanes = std::mem::take(self).lanes.into_iter();
        lanes.flat_map(Lane::into_jobs).collect()
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

    /// All jobs, where they make a batch as they are: one level, one tenant, one bucket, no more rows
    /// than a run has, and nobody's time is bounded. It is the usual case, and costs no move of a job.
    fn take_whole(&mut self, max_rows: usize, now: Instant) -> Option<Vec<Job>> {
        let [lane] = self.lanes.as_mut_slice() else { return None };
        let [line] = lane.lines.as_mut_slice() else { return None };
        let first = line.jobs().next()?;
        let is_plain = |job: &Job| {
            matches!(job.expiry, Expiry::Never) && job.is_wanted(now) && first.shares_bucket(job)
        };
        let is_whole = lane.rows <= max_rows && lane.delayed.is_empty();
        if !is_whole || !line.jobs().all(is_plain) {
            return None;
        }
        self.jobs = 0;
        lane.rows = 0;
        let all = line.take_all();
        lane.paid = lane.paid.max(line.paid());
        Some(all.into())
    }

    /// Takes out all jobs that nobody waits for any more, unless that was done just now.
    pub(super) fn sweep(&mut self, now: Instant, unwanted: &mut Vec<Job>) {
        if self.swept.is_some_and(|last| now.saturating_duration_since(last) < SWEEP) {
            return;
        }
        self.swept = Some(now);
        self.lanes.iter_mut().for_each(|lane| lane.sweep(now, unwanted));
        self.jobs = self.lanes.iter().map(|lane| lane.jobs().count()).sum();
    }
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.delayed.is_empty() && self.lines.iter().all(Line::is_empty)
    }

    fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.delayed.iter().chain(self.lines.iter().flat_map(Line::jobs))
    }

    fn into_jobs(self) -> impl Iterator<Item = Job> {
        let lines = self.lines.into_iter().flat_map(|mut line| line.take_all());
        lines.chain(self.delayed)
    }

    /// The rows of the tenant's own jobs that are due before, and of the others' as many as their
    /// shares give them until those and the new ones have run.
    fn rows_before(&self, new: Entrant) -> usize {
        let tenant = self.in_line(new.tenant);
        let own = self.lines.iter().find(|line| line.tenant.key() == tenant.key());
        let own = own.map_or(0, |line| line.rows_due_by(new.due));
        let until = (own + new.rows) as u64;
        let others = self.lines.iter().filter(|line| line.tenant.key() != tenant.key());
        let theirs = others.map(|line| {
            let share = until.saturating_mul(u64::from(line.tenant.share()));
            let share = share.div_ceil(u64::from(tenant.share()));
            line.rows().min(usize::try_from(share).unwrap_or(usize::MAX))
        });
        own + theirs.sum::<usize>()
    }

    /// By which name a tenant stands in line: its own, unless there are too many.
    fn in_line(&self, tenant: Tenant) -> Tenant {
        let has_line = || self.lines.iter().any(|line| line.tenant.key() == tenant.key());
        if self.lines.len() < MOST_LINES || has_line() { tenant } else { Tenant::default() }
    }

    fn push(&mut self, mut job: Job) {
        self.rows += job.rows;
        if self.lines.len() >= MOST_LINES {
            self.lines.retain(|line| !line.is_empty());
        }
        // Where it stands is where it is found again.
        job.tenant = self.in_line(job.tenant);
        let paid = self.paid;
        let line = self.line(job.tenant);
        line.catch_up(paid);
        // What its share is may have been set anew.
        line.tenant = job.tenant;
        line.push(job);
    }

    /// A tenant's line, which is made if there is none.
    fn line(&mut self, tenant: Tenant) -> &mut Line {
        let own = self.lines.iter().position(|line| line.tenant.key() == tenant.key());
        let own = own.unwrap_or_else(|| {
            self.lines.retain(|line| !line.is_empty());
            self.lines.push(Line::new(tenant, self.paid));
            self.lines.len() - 1
        });
        &mut self.lines[own]
    }

    /// The next job. One whose time has come goes behind the others first, where that is what
    /// becomes of it.
    fn pop(&mut self, now: Instant) -> Option<Job> {
        while let Some(line) = self.next_line() {
            let paid = line.paid();
            let mut job = line.pop()?;
            if matches!(job.expiry, Expiry::Delay(until) if until <= now) {
                job.expiry = Expiry::Never;
                job.is_delayed = true;
                self.delayed.push_back(job);
                continue;
            }
            self.paid = self.paid.max(paid);
            self.rows -= job.rows;
            return Some(job);
        }
        let job = self.delayed.pop_front()?;
        self.rows -= job.rows;
        Some(job)
    }

    /// Of the lines with jobs the one that has paid least.
    fn next_line(&mut self) -> Option<&mut Line> {
        let waiting = self.lines.iter_mut().filter(|line| !line.is_empty());
        waiting.min_by_key(|line| line.paid())
    }

    /// Undoes the last [`Lane::pop`] that was not undone.
    fn put_back(&mut self, job: Job) {
        self.rows += job.rows;
        if job.is_delayed {
            self.delayed.push_front(job);
        } else {
            self.line(job.tenant).put_back(job);
        }
    }

    fn sweep(&mut self, now: Instant, unwanted: &mut Vec<Job>) {
        let before = unwanted.len();
        for line in &mut self.lines {
            line.retain(|job| job.is_wanted(now), unwanted);
        }
        for job in std::mem::take(&mut self.delayed) {
            if job.is_wanted(now) {
                self.delayed.push_back(job);
            } else {
                unwanted.push(job);
            }
        }
        self.rows -= unwanted[before..].iter().map(|job| job.rows).sum::<usize>();
    }
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
