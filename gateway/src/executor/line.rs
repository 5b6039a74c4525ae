//! The jobs of one tenant that wait in one level: the earliest deadline first.

use std::collections::VecDeque;
use std::time::Instant;

use super::Job;
use crate::tenant::Tenant;

/// What a row of a tenant with a share of 1 costs it. A larger share pays a part of that.
const ROW: u64 = 1 << 20;

/// One tenant's waiting jobs.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) tenant: Tenant,
    /// Sorted by when they are due, and as they came where that is the same. Callers mostly wait
    /// equally long, so that a new job goes to the end, and what runs next is at the beginning.
    jobs: VecDeque<Job>,
    rows: usize,
    /// What its rows have cost so far: of all lines, the one that paid least goes next.
    paid: u64,
}

impl Line {
    /// Nothing yet, by the side of others that have paid so much.
    pub(super) const fn new(tenant: Tenant, paid: u64) -> Self {
        Self { tenant, jobs: VecDeque::new(), rows: 0, paid }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    pub(super) const fn paid(&self) -> u64 {
        self.paid
    }

    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter()
    }

    /// The rows that run before those of a new job that is due then.
    pub(super) fn rows_due_by(&self, due: Option<Instant>) -> usize {
        let place = self.place(due);
        // All of them in the usual case.
        let later: usize = self.jobs.range(place..).map(|job| job.rows).sum();
        self.rows - later
    }

    /// Where lines have come to when this one is not empty: what it did not ask for while it was
    /// is not owed to it.
    pub(super) fn catch_up(&mut self, paid: u64) {
        if self.jobs.is_empty() {
            self.paid = self.paid.max(paid);
        }
    }

    pub(super) fn push(&mut self, job: Job) {
        self.rows += job.rows;
        let place = self.place(job.due());
        self.jobs.insert(place, job);
    }

    /// Behind those that are due by then.
    fn place(&self, due: Option<Instant>) -> usize {
        let is_before = |job: &Job| is_by(job.due(), due);
        if self.jobs.back().is_none_or(is_before) {
            return self.jobs.len();
        }
        self.jobs.partition_point(is_before)
    }

    pub(super) fn pop(&mut self) -> Option<Job> {
        let job = self.jobs.pop_front()?;
        self.rows -= job.rows;
        self.paid += self.price(&job);
        Some(job)
    }

    /// Undoes the last [`Line::pop`] that was not undone.
    pub(super) fn put_back(&mut self, job: Job) {
        self.rows += job.rows;
        self.paid = self.paid.saturating_sub(self.price(&job));
        self.jobs.push_front(job);
    }

    fn price(&self, job: &Job) -> u64 {
        (job.rows as u64).saturating_mul(ROW / u64::from(self.tenant.share()))
    }

    /// All jobs, in their order.
    pub(super) fn take_all(&mut self) -> VecDeque<Job> {
        self.paid += self.jobs.iter().map(|job| self.price(job)).sum::<u64>();
        self.rows = 0;
        std::mem::take(&mut self.jobs)
    }

    /// Keeps only those that `keep` says; the others go to `dropped`.
    pub(super) fn retain(&mut self, keep: impl Fn(&Job) -> bool, dropped: &mut Vec<Job>) {
        for job in std::mem::take(&mut self.jobs) {
            if keep(&job) {
                self.jobs.push_back(job);
            } else {
                self.rows -= job.rows;
                dropped.push(job);
            }
        }
    }
}

/// Whether who is due at `one` goes before who comes later and is due at `other`. Who is due at no
/// time goes last.
fn is_by(one: Option<Instant>, other: Option<Instant>) -> bool {
    match (one, other) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(one), Some(other)) => one <= other,
    }
}
