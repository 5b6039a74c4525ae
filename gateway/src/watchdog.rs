//! Ends runs that outlast their bound, so that no graph holds a thread for ever: a loop that does
//! not end would hold up every connection of its core, or take a worker away.
//!
//! Every engine is behind a [`Watched`], which writes down when a run begins and ends; one thread
//! of the process looks at that. It looks at the first moment at which any run, one that begins
//! right now included, could have outlasted its bound, so it finds each on time and wakes a few
//! times a second. What a run costs by it are two stores and a look at the clock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use sluice_engine::{Engine, EngineError, Terminate};
use sluice_protocol::{ModelName, ModelVersion, NamedTensor, Tensor, TensorSpec};

/// Runs are numbered by when they began, from here on.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Of a watch whose engine does not run.
const IDLE: u64 = 0;
/// Of one whose run is being told to end, and of one whose run has been told.
const ENDING: u64 = u64::MAX;
const TOLD: u64 = u64::MAX - 1;

/// Looks after all engines of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    watches: Mutex<Watches>,
    /// Tells of new engines, shorter bounds, and the end.
    news: Condvar,
}

#[derive(Debug, Default)]
struct Watches {
    all: Vec<Weak<Watch>>,
    has_thread: bool,
    over: bool,
}

/// How long runs may take: one bound for all engines of a deployment, which can change.
#[derive(Debug, Clone)]
pub(crate) struct RunBound {
    nanoseconds: Arc<AtomicU64>,
    watchdog: Weak<Inner>,
}

/// Who is watched, and what it is doing.
#[derive(Debug)]
struct Watch {
    /// The number of the run that is under way, or what else is the matter.
    run: AtomicU64,
    bound: RunBound,
    terminator: Option<Arc<dyn Terminate>>,
    /// Whether runs are refused from now on.
    closed: AtomicBool,
    model: ModelName,
    version: ModelVersion,
}

/// An engine whose runs are watched.
#[derive(Debug)]
pub(crate) struct Watched<E> {
    engine: E,
    watch: Arc<Watch>,
}

impl<E> Watched<E> {
    /// The engine itself.
    pub(crate) const fn inner(&self) -> &E {
        &self.engine
    }
}

impl Watchdog {
    /// A bound for a deployment's runs.
    pub(crate) fn bound(&self, most: Duration) -> RunBound {
        let nanoseconds = Arc::new(AtomicU64::new(nanoseconds(most)));
        RunBound { nanoseconds, watchdog: Arc::downgrade(&self.inner) }
    }

    /// Watches an engine of a version from now on.
    pub(crate) fn watch<E: Engine>(
        &self,
        engine: E,
        bound: &RunBound,
        model: &ModelName,
        version: ModelVersion,
    ) -> Watched<E> {
        let watch = Arc::new(Watch {
            run: AtomicU64::new(IDLE),
            bound: bound.clone(),
            terminator: engine.terminator(),
            closed: AtomicBool::new(false),
            model: model.clone(),
            version,
        });
        let mut watches = self.inner.lock();
        watches.all.push(Arc::downgrade(&watch));
        if !watches.has_thread {
            let inner = self.inner.clone();
            let thread = std::thread::Builder::new().name("watchdog".to_owned());
            match thread.spawn(move || inner.look()) {
                Ok(_) => watches.has_thread = true,
                Err(error) => tracing::error!(%error, "no run is watched: there is no thread"),
            }
        }
        self.inner.news.notify_all();
        Watched { engine, watch }
    }

    /// Ends every run that is under way, and refuses all later ones: for a gateway whose time to
    /// end has come.
    pub(crate) fn end_runs(&self) {
        let watches = self.inner.lock();
        for watch in watches.all.iter().filter_map(Weak::upgrade) {
            watch.closed.store(true, Ordering::SeqCst);
            let run = watch.run.load(Ordering::SeqCst);
            if is_run(run) && watch.end(run) {
                let Watch { model, version, .. } = &*watch;
                tracing::warn!(%model, %version, "ended a run, since the gateway ends");
            }
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.inner.lock().over = true;
        self.inner.news.notify_all();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's life.
    fn look(&self) {
        let mut watches = self.lock();
        while !watches.over {
            let left = watches.end_late_runs();
            let wait = left.unwrap_or(Duration::MAX);
            let woken = self.news.wait_timeout(watches, wait);
            (watches, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Watches {
    /// Ends what has outlasted its bound. How long until something else can have; none where
    /// there is nobody to look after.
    fn end_late_runs(&mut self) -> Option<Duration> {
        self.all.retain(|watch| watch.strong_count() > 0);
        let now = number(Instant::now());
        let left = self.all.iter().filter_map(Weak::upgrade).map(|watch| {
            let bound = watch.bound.nanoseconds.load(Ordering::Relaxed);
            let run = watch.run.load(Ordering::Acquire);
            if !is_run(run) {
                // One may begin at any moment.
                return bound;
            }
            let left = run.saturating_add(bound).saturating_sub(now);
            if left > 0 {
                return left;
            }
            if watch.end(run) {
                let (model, version) = (&watch.model, watch.version);
                let bound = Duration::from_nanos(bound);
                tracing::warn!(%model, %version, ?bound, "ended a run that outlasted its bound");
            }
            bound
        });
        left.min().map(|left| Duration::from_nanos(left.max(1)))
    }
}

impl RunBound {
    /// Changes it, for a run that is under way too.
    pub(crate) fn set(&self, most: Duration) {
        self.nanoseconds.store(nanoseconds(most), Ordering::Relaxed);
        if let Some(watchdog) = self.watchdog.upgrade() {
            // Whoever looks holds the lock until it waits, so it hears of this.
            drop(watchdog.lock());
            watchdog.news.notify_all();
        }
    }

    #[cfg(test)]
    pub(crate) fn get(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }
}

impl Watch {
    /// Tells run number `run` to end, if it is still under way and can be told.
    fn end(&self, run: u64) -> bool {
        let Some(terminator) = &self.terminator else { return false };
        let (acquire, relaxed) = (Ordering::AcqRel, Ordering::Relaxed);
        if self.run.compare_exchange(run, ENDING, acquire, relaxed).is_err() {
            return false;
        }
        terminator.terminate();
        self.run.store(TOLD, Ordering::Release);
        true
    }

    fn begin(&self) -> Run<'_> {
        let run = number(Instant::now());
        // Before the look at `closed`: who closes looks at the run behind that.
        self.run.swap(run, Ordering::SeqCst);
        Run { watch: self, run }
    }
}

/// A run that is under way.
struct Run<'w> {
    watch: &'w Watch,
    run: u64,
}

impl Drop for Run<'_> {
    /// Also where the engine panics.
    fn drop(&mut self) {
        let Watch { run, terminator, .. } = self.watch;
        let (release, acquire) = (Ordering::Release, Ordering::Acquire);
        if run.compare_exchange(self.run, IDLE, release, acquire).is_ok() {
            return;
        }
        // It is being told to end: the next run must not hear of that.
        while run.load(acquire) == ENDING {
            std::thread::yield_now();
        }
        if let Some(terminator) = terminator {
            terminator.resume();
        }
        run.store(IDLE, release);
    }
}

impl<E: Engine> Watched<E> {
    fn run_watched<T>(
        &mut self,
        run: impl FnOnce(&mut E) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let _under_way = self.watch.begin();
        if self.watch.closed.load(Ordering::SeqCst) {
            return Err(EngineError::Terminated);
        }
        run(&mut self.engine)
    }
}

impl<E: Engine> Engine for Watched<E> {
    fn inputs(&self) -> &[TensorSpec] {
        self.engine.inputs()
    }

    fn outputs(&self) -> &[TensorSpec] {
        self.engine.outputs()
    }

    fn optional_inputs(&self) -> &[TensorSpec] {
        self.engine.optional_inputs()
    }

    fn terminator(&self) -> Option<Arc<dyn Terminate>> {
        self.engine.terminator()
    }

    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        self.run_watched(|engine| engine.run(inputs))
    }

    fn run_with(
        &mut self,
        inputs: &[Tensor],
        optional: &[NamedTensor],
    ) -> Result<Vec<Tensor>, EngineError> {
        self.run_watched(|engine| engine.run_with(inputs, optional))
    }

    fn run_timed(
        &mut self,
        inputs: &[Tensor],
        optional: &[NamedTensor],
    ) -> Result<(Vec<Tensor>, Instant), EngineError> {
        self.run_watched(|engine| engine.run_timed(inputs, optional))
    }
}

/// A run's number: the nanoseconds since the first one, and never one of the other states.
fn number(at: Instant) -> u64 {
    nanoseconds(at.saturating_duration_since(*START)).clamp(1, TOLD - 1)
}

const fn is_run(run: u64) -> bool {
    run != IDLE && run != ENDING && run != TOLD
}

/// Half a millennium at the most.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "watchdog_tests.rs"]
mod tests;
