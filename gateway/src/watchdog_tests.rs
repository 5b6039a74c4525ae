//! The watchdog over engines that run until they are told to end.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use sluice_engine::{Engine, EngineError, Terminate};
use sluice_protocol::{ModelName, ModelVersion, Tensor, TensorSpec};

use super::{RunBound, Watchdog, Watched};

const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(3600);

/// Whether runs have to end, and a place to wait for that.
#[derive(Debug, Default)]
struct Word {
    told: Mutex<bool>,
    news: Condvar,
    /// How often that was said.
    times: AtomicUsize,
}

impl Terminate for Word {
    fn terminate(&self) {
        self.times.fetch_add(1, Ordering::SeqCst);
        *self.told.lock().unwrap() = true;
        self.news.notify_all();
    }

    fn resume(&self) {
        *self.told.lock().unwrap() = false;
    }
}

/// Ends at once while `quick`, and else when it is told to.
#[derive(Debug, Default)]
struct Hanging {
    word: Arc<Word>,
    quick: Arc<AtomicBool>,
}

impl Engine for Hanging {
    fn inputs(&self) -> &[TensorSpec] {
        &[]
    }

    fn outputs(&self) -> &[TensorSpec] {
        &[]
    }

    fn terminator(&self) -> Option<Arc<dyn Terminate>> {
        Some(self.word.clone())
    }

    fn run(&mut self, _inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        let mut told = self.word.told.lock().unwrap();
        while !*told && !self.quick.load(Ordering::SeqCst) {
            told = self.word.news.wait(told).unwrap();
        }
        if *told { Err(EngineError::Terminated) } else { Ok(Vec::new()) }
    }
}

fn watched(
    watchdog: &Watchdog,
    bound: &RunBound,
) -> (Watched<Hanging>, Arc<Word>, Arc<AtomicBool>) {
    let engine = Hanging::default();
    let (word, quick) = (engine.word.clone(), engine.quick.clone());
    let model = "m".parse::<ModelName>().unwrap();
    (watchdog.watch(engine, bound, &model, ModelVersion(1)), word, quick)
}

#[test]
fn a_run_is_ended_after_its_bound_and_the_next_one_runs() {
    let watchdog = Watchdog::default();
    let (mut engine, word, quick) = watched(&watchdog, &watchdog.bound(SHORT));
    for _ in 0..3 {
        quick.store(false, Ordering::SeqCst);
        let began = Instant::now();
        assert!(matches!(engine.run(&[]), Err(EngineError::Terminated)));
        assert!(began.elapsed() >= SHORT);
        quick.store(true, Ordering::SeqCst);
        assert!(engine.run(&[]).is_ok());
    }
    assert_eq!(word.times.load(Ordering::SeqCst), 3);
}

#[test]
fn a_shorter_bound_holds_for_the_run_that_is_under_way() {
    let watchdog = Watchdog::default();
    let bound = watchdog.bound(LONG);
    let (mut engine, _, _) = watched(&watchdog, &bound);
    let running = std::thread::spawn(move || engine.run(&[]).is_err());
    bound.set(SHORT);
    assert!(running.join().unwrap());
    assert_eq!(bound.get(), SHORT);
}

#[test]
fn one_engine_does_not_hide_another() {
    let watchdog = Watchdog::default();
    let (mut slow, word, _) = watched(&watchdog, &watchdog.bound(LONG));
    let under_way = std::thread::spawn(move || slow.run(&[]).is_err());
    let (mut quick, _, _) = watched(&watchdog, &watchdog.bound(SHORT));
    assert!(quick.run(&[]).is_err());
    assert_eq!(word.times.load(Ordering::SeqCst), 0, "its bound is another");
    watchdog.end_runs();
    assert!(under_way.join().unwrap());
}

#[test]
fn a_gateway_that_ends_ends_its_runs_and_begins_none() {
    let watchdog = Watchdog::default();
    let (mut engine, _, quick) = watched(&watchdog, &watchdog.bound(LONG));
    let running = std::thread::spawn(move || {
        let first = engine.run(&[]).is_err();
        quick.store(true, Ordering::SeqCst);
        (first, engine.run(&[]).is_err())
    });
    std::thread::sleep(SHORT);
    watchdog.end_runs();
    assert_eq!(running.join().unwrap(), (true, true));
}

/// The word to end and the end of a run may fall together; the next run must never hear of it.
#[test]
fn no_run_hears_what_was_said_to_another() {
    let watchdog = Watchdog::default();
    let bound = watchdog.bound(Duration::from_micros(50));
    let (mut engine, word, quick) = watched(&watchdog, &bound);
    quick.store(true, Ordering::SeqCst);
    let mut ended = 0;
    for _ in 0..20_000 {
        let began = Instant::now();
        let ran = engine.run(&[]);
        // One that was ended had been late.
        assert!(ran.is_ok() || began.elapsed() >= Duration::from_micros(50));
        ended += usize::from(ran.is_err());
    }
    assert!(ended <= word.times.load(Ordering::SeqCst));
    assert!(!*word.told.lock().unwrap(), "the last word is taken back");
}
