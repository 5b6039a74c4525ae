//! The settings in force, for all models and for single ones, and who is traced by them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use sluice_protocol::ModelName;

use super::context::Context;
use super::export::{Exporter, Sink, channel};
use super::recording::{Arrival, Call, Trace};
use super::sampler::{Levels, Sampler, Values};
use super::settings::TraceOptions;
use crate::error::GatewayError;
use crate::metrics::Metrics;

/// Who is traced. Requests read it without waiting for anybody.
#[derive(Debug)]
pub(crate) struct Tracer {
    /// Whether any request may be.
    on: AtomicBool,
    samplers: ArcSwap<Samplers>,
    /// What was said of each, by whoever changes something: one after the other.
    said: Mutex<Said>,
    /// What holds where nothing else was said.
    defaults: Values,
    sink: Option<Sink>,
    exporter: Mutex<Option<Exporter>>,
    /// Requests that were traced.
    number: AtomicU64,
}

#[derive(Debug)]
struct Samplers {
    global: Arc<Sampler>,
    /// Of models that have settings of their own.
    models: HashMap<ModelName, Arc<Sampler>>,
}

#[derive(Debug, Default)]
struct Said {
    global: Partial,
    models: HashMap<ModelName, Partial>,
}

/// Settings of which some were given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Partial {
    levels: Option<Levels>,
    rate: Option<u32>,
    count: Option<Option<u32>>,
    log_frequency: Option<u32>,
}

/// What becomes of a setting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Change<T> {
    #[default]
    Keep,
    /// What holds for all models, or from the start, shall hold again.
    Clear,
    Set(T),
}

/// What becomes of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) levels: Change<Levels>,
    pub(crate) rate: Change<u32>,
    /// How many more requests; without bound if there is none.
    pub(crate) count: Change<Option<u32>>,
    pub(crate) log_frequency: Change<u32>,
}

impl Tracer {
    pub(crate) fn new(options: &TraceOptions, metrics: &Metrics) -> Self {
        let (sink, exporter) = options.endpoint.as_ref().map(|to| channel(to, metrics)).unzip();
        let samplers =
            Samplers { global: Arc::new(Sampler::new(options.values)), models: HashMap::new() };
        Self {
            on: AtomicBool::new(sink.is_some() && samplers.trace_any()),
            samplers: ArcSwap::from_pointee(samplers),
            said: Mutex::default(),
            defaults: options.values,
            sink,
            exporter: Mutex::new(exporter),
            number: AtomicU64::new(0),
        }
    }

    /// Whether traces have somewhere to go.
    pub(crate) const fn exports(&self) -> bool {
        self.sink.is_some()
    }

    /// Who sends them there. There is one, for the first who asks.
    pub(crate) fn take_exporter(&self) -> Option<Exporter> {
        self.exporter.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Notes when a request comes, unless nothing is traced.
    pub(crate) fn arrival(&self) -> Option<Arrival> {
        self.on.load(Ordering::Relaxed).then(|| Arrival(Instant::now()))
    }

    /// The trace of a request for `model`, if it is one that is traced.
    pub(crate) fn begin(
        &self,
        arrival: Option<Arrival>,
        model: &str,
        call: impl FnOnce() -> Call,
        context: impl FnOnce() -> Option<Context>,
    ) -> Trace {
        let (Some(arrival), Some(sink)) = (arrival, &self.sink) else { return Trace::none() };
        let samplers = self.samplers.load();
        let sampler = samplers.of(model);
        let context = context();
        if !sampler.takes(context.as_ref().is_some_and(|context| context.sampled)) {
            return Trace::none();
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        Trace::begin(sink.clone(), number, sampler.levels(), arrival, model, call(), context)
    }

    /// The settings of a model, or those of all models without their own.
    pub(crate) fn values(&self, model: Option<&str>) -> Values {
        let samplers = self.samplers.load();
        model.map_or(&samplers.global, |model| samplers.of(model)).values()
    }

    /// Changes settings of a model, or of all models without their own.
    pub(crate) fn change(
        &self,
        model: Option<&ModelName>,
        changes: &Changes,
    ) -> Result<(), GatewayError> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.samplers.load();
        let after = match model {
            Some(model) => self.change_model(&mut said, &before, model, changes)?,
            None => self.change_all(&mut said, &before, changes)?,
        };
        self.on.store(self.exports() && after.trace_any(), Ordering::Relaxed);
        self.samplers.store(Arc::new(after));
        Ok(())
    }

    fn change_all(
        &self,
        said: &mut Said,
        before: &Samplers,
        changes: &Changes,
    ) -> Result<Samplers, GatewayError> {
        let recounts = changes.count != Change::Keep;
        let partial = said.global.changed(changes);
        let values = partial.over(self.defaults, &before.global, recounts);
        let global = self.sampler(values)?;
        let models = said.models.iter().map(|(model, partial)| {
            let sampler = match before.models.get(model) {
                Some(own) => partial.over(values, own, recounts && partial.count.is_none()),
                None => partial.over(values, &global, true),
            };
            Ok((model.clone(), Arc::new(self.sampler(sampler)?)))
        });
        let models = models.collect::<Result<_, GatewayError>>()?;
        said.global = partial;
        Ok(Samplers { global: Arc::new(global), models })
    }

    fn change_model(
        &self,
        said: &mut Said,
        before: &Samplers,
        model: &ModelName,
        changes: &Changes,
    ) -> Result<Samplers, GatewayError> {
        let own = before.models.get(model);
        let recounts = own.is_none() || changes.count != Change::Keep;
        let partial = said.models.get(model).copied().unwrap_or_default().changed(changes);
        let global = before.global.values();
        let values = partial.over(global, own.unwrap_or(&before.global), recounts);
        let sampler = self.sampler(values)?;
        let mut models = before.models.clone();
        if partial == Partial::default() {
            said.models.remove(model);
            models.remove(model);
        } else {
            said.models.insert(model.clone(), partial);
            models.insert(model.clone(), Arc::new(sampler));
        }
        Ok(Samplers { global: before.global.clone(), models })
    }

    /// A sampler by these values, unless they turn on what leads nowhere.
    fn sampler(&self, values: Values) -> Result<Sampler, GatewayError> {
        if !values.levels.is_off() && !self.exports() {
            return Err(GatewayError::Invalid(
                "Attempting to set invalid trace setting: there is nowhere to send traces to; start the gateway with --trace-otlp URL".to_owned(),
            ));
        }
        Ok(Sampler::new(values))
    }
}

impl Samplers {
    fn of(&self, model: &str) -> &Arc<Sampler> {
        self.models.get(model).unwrap_or(&self.global)
    }

    /// Whether any request may be traced.
    fn trace_any(&self) -> bool {
        let mut all = std::iter::once(&self.global).chain(self.models.values());
        all.any(|sampler| !sampler.levels().is_off())
    }
}

impl Partial {
    fn changed(self, changes: &Changes) -> Self {
        Self {
            levels: changes.levels.of(self.levels),
            rate: changes.rate.of(self.rate),
            count: changes.count.of(self.count),
            log_frequency: changes.log_frequency.of(self.log_frequency),
        }
    }

    /// What holds with `fallback` for what was not given. What is left of the count of `before`
    /// stays, unless it `recounts`.
    fn over(self, fallback: Values, before: &Sampler, recounts: bool) -> Values {
        Values {
            levels: self.levels.unwrap_or(fallback.levels),
            rate: self.rate.unwrap_or(fallback.rate),
            count: match recounts {
                true => self.count.unwrap_or(fallback.count),
                false => before.values().count,
            },
            log_frequency: self.log_frequency.unwrap_or(fallback.log_frequency),
        }
    }
}

impl<T: Copy> Change<T> {
    fn of(self, before: Option<T>) -> Option<T> {
        match self {
            Self::Keep => before,
            Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_protocol::ModelName;

    use super::{Change, Changes, Levels, TraceOptions, Tracer, Values};
    use crate::metrics::Metrics;

    const ON: Levels = Levels { timestamps: true, tensors: false };

    fn tracer(values: Values) -> Tracer {
        let endpoint = Some("http://127.0.0.1:1/v1/traces".parse().unwrap());
        Tracer::new(&TraceOptions { endpoint, values }, &Metrics::new(&[]))
    }

    fn model(name: &str) -> ModelName {
        name.parse().unwrap()
    }

    #[test]
    fn a_model_has_its_own_settings_and_the_others_those_of_all() {
        let (tracer, m) = (tracer(Values::default()), model("m"));
        let rate = |rate| Changes { rate, ..Changes::default() };
        tracer.change(Some(&m), &rate(Change::Set(12))).unwrap();
        let all = Changes { rate: Change::Set(56), levels: Change::Set(ON), ..Changes::default() };
        tracer.change(None, &all).unwrap();
        let own = tracer.values(Some("m"));
        assert_eq!((own.rate, own.levels), (12, ON));
        assert_eq!(tracer.values(Some("other")), tracer.values(None));
        assert_eq!(tracer.values(None).rate, 56);
        tracer.change(Some(&m), &rate(Change::Clear)).unwrap();
        assert_eq!(tracer.values(Some("m")).rate, 56);
        tracer.change(None, &rate(Change::Clear)).unwrap();
        assert_eq!(tracer.values(Some("m")).rate, 1000);
    }

    #[test]
    fn it_is_on_while_any_model_is() {
        let (tracer, m) = (tracer(Values::default()), model("m"));
        let levels = |levels| Changes { levels, ..Changes::default() };
        assert!(tracer.arrival().is_none());
        tracer.change(Some(&m), &levels(Change::Set(ON))).unwrap();
        assert!(tracer.arrival().is_some());
        tracer.change(None, &levels(Change::Set(Levels::default()))).unwrap();
        assert!(tracer.arrival().is_some(), "the model's own stays");
        tracer.change(Some(&m), &levels(Change::Clear)).unwrap();
        assert!(tracer.arrival().is_none());
    }

    #[test]
    fn what_is_left_of_a_count_outlives_changes_of_the_rest() {
        let values = Values { levels: ON, rate: 1, count: Some(10), ..Values::default() };
        let (tracer, m) = (tracer(values), model("m"));
        let takes = |model: &str| tracer.samplers.load().of(model).takes(false);
        assert!(takes("m") && takes("m"));
        let rate = Changes { rate: Change::Set(1), ..Changes::default() };
        tracer.change(None, &rate).unwrap();
        assert_eq!(tracer.values(None).count, Some(8));
        // A model begins with what is left, and counts by itself from there.
        tracer.change(Some(&m), &rate).unwrap();
        assert!(takes("m"));
        assert_eq!(tracer.values(Some("m")).count, Some(7));
        assert_eq!(tracer.values(None).count, Some(8));
        let count = |count| Changes { count, ..Changes::default() };
        tracer.change(None, &count(Change::Set(Some(3)))).unwrap();
        assert_eq!(tracer.values(Some("m")).count, Some(3));
        tracer.change(None, &count(Change::Clear)).unwrap();
        assert_eq!(tracer.values(None).count, Some(10));
    }

    #[test]
    fn nothing_is_turned_on_that_leads_nowhere() {
        let tracer = Tracer::new(&TraceOptions::default(), &Metrics::new(&[]));
        let on = Changes { levels: Change::Set(ON), ..Changes::default() };
        for model in [None, Some(model("m"))] {
            let error = tracer.change(model.as_ref(), &on).unwrap_err().to_string();
            assert!(error.contains("--trace-otlp"), "{error}");
        }
        let rate = Changes { rate: Change::Set(7), ..Changes::default() };
        tracer.change(None, &rate).unwrap();
        assert_eq!(tracer.values(None).rate, 7);
        assert!(tracer.arrival().is_none());
    }
}
