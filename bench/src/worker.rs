//! One connection's loop: take the next request, wait for its time, send it, record it. The
//! first worker that is free takes the request that is due longest.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::alarm::Alarm;
use crate::check::Check;
use crate::connection::Connection;
use crate::options::Template;
use crate::record::{Recorder, Sending};
use crate::schedule::Schedule;

/// What the workers and the [`Load`](crate::Load) share.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) schedule: Schedule,
    pub(crate) template: Template,
    pub(crate) timeout: Duration,
    pub(crate) check: Check,
    /// No request is sent whose intended time is this or later.
    pub(crate) end: watch::Sender<Option<Instant>>,
    /// Locked for an instant only, never across an await.
    pub(crate) recorder: Mutex<Recorder>,
}

impl Run {
    /// The counts. They are whole even if somebody panicked while holding them.
    pub(crate) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the sending now, or when it was to end anyway if that is earlier.
    pub(crate) fn end_now(&self) {
        let now = Instant::now();
        self.end.send_modify(|end| *end = Some(end.map_or(now, |end| end.min(now))));
    }
}

/// Sends requests over `connection` until the end of the run.
pub(crate) async fn work(run: Arc<Run>, mut connection: Connection, alarm: Alarm) {
    let mut end = run.end.subscribe();
    while let Some((index, intended)) = run.schedule.take() {
        if !is_due(intended, &alarm, &mut end).await {
            return;
        }
        let sent = Instant::now();
        let (question, request) = run.template.request(index);
        if sent.saturating_duration_since(intended) > run.timeout {
            run.recorder().unsent(question, intended, sent);
            // Many may be given up in a row, and the other workers are on this thread too.
            tokio::task::coop::consume_budget().await;
            continue;
        }
        let bytes_sent = request.body().len() as u64;
        let exchange = connection.exchange(request, run.timeout, run.check).await;
        let sending = Sending { question, intended, sent, bytes_sent };
        run.recorder().exchange(sending, &exchange);
    }
}

/// Waits for `intended`, or for the end of the run if that is earlier. False in the latter case.
async fn is_due(
    intended: Instant,
    alarm: &Alarm,
    end: &mut watch::Receiver<Option<Instant>>,
) -> bool {
    loop {
        let end_now = *end.borrow_and_update();
        let moment = end_now.map_or(intended, |end| end.min(intended));
        if moment <= Instant::now() {
            return end_now.is_none_or(|end| intended < end);
        }
        tokio::select! {
            rang = alarm.until(moment) => if rang.is_err() {
                // Without the fine timer a coarse one is late by a millisecond at most.
                tokio::time::sleep_until(moment.into()).await;
            },
            _ = end.changed() => {}
        }
    }
}
