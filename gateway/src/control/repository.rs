//! The model repository as clients see it: what is there, and loading and unloading by calls.
//! Calls wait their turn for the thread that loads; none of them holds up a serving core.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use bytes::Bytes;
use serde::Serialize;
use sluice_protocol::ModelName;
use tokio::sync::{oneshot, watch};

use crate::catalog::VersionState;
use crate::error::{GatewayError, clip};
use crate::shared::Shared;
use crate::source::{Given, model_folders};

/// Calls that may wait for their turn.
const MOST_WAITING: usize = 4096;
/// What files and configurations of calls may take while those wait, in bytes. One call of any size
/// is always taken.
const MOST_HELD: usize = 1 << 30;
/// What a file's parameter begins with, before its path.
const FILE: &str = "file:";

/// The way to the thread that loads models from a folder.
#[derive(Debug)]
pub(crate) struct Loader {
    root: PathBuf,
    /// None where models come and go by themselves.
    commands: Option<SyncSender<Command>>,
    stopped: watch::Receiver<bool>,
    /// Bytes of the calls that are not done yet.
    held: Arc<AtomicUsize>,
}

/// Bytes that a call has brought, counted until it is done.
#[derive(Debug)]
pub(crate) struct HeldGuard {
    held: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for HeldGuard {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What a call asks of the thread that loads.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) model: ModelName,
    pub(crate) action: Action,
    pub(crate) held: HeldGuard,
    /// Told when it is done, or cannot be.
    pub(crate) done: oneshot::Sender<Result<(), GatewayError>>,
}

#[derive(Debug)]
pub(crate) enum Action {
    /// Loads the model from its folder, or from what is given instead.
    Load(Option<Box<Given>>),
    Unload,
}

/// A parameter of a load or unload call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LoadParameter {
    Bool(bool),
    Int64(i64),
    Text(String),
    /// A file's contents.
    Bytes(Bytes),
}

/// A call's parameters by name.
pub(crate) type LoadParameters = BTreeMap<String, LoadParameter>;

/// A model's version in the index, or a model of which nothing was ever loaded.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Indexed {
    pub(crate) name: ModelName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// What a version is doing, in Triton's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "&str")]
pub(crate) enum State {
    Ready,
    Unavailable,
    Loading,
    Unloading,
}

impl State {
    /// The word itself.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::Unavailable => "UNAVAILABLE",
            Self::Loading => "LOADING",
            Self::Unloading => "UNLOADING",
        }
    }
}

impl From<State> for &str {
    fn from(state: State) -> Self {
        state.as_str()
    }
}

impl Loader {
    /// A loader of models out of the folder `root`, who takes loads by calls.
    pub(crate) fn taking_loads(
        root: PathBuf,
        stopped: watch::Receiver<bool>,
    ) -> (Self, Receiver<Command>) {
        let (commands, received) = sync_channel(MOST_WAITING);
        (Self { root, commands: Some(commands), stopped, held: Arc::default() }, received)
    }

    /// One who does what the folder says, and nothing else.
    pub(crate) fn of_folder(root: PathBuf, stopped: watch::Receiver<bool>) -> Self {
        Self { root, commands: None, stopped, held: Arc::default() }
    }

    /// Whether calls may load and unload.
    pub(crate) const fn takes_loads(&self) -> bool {
        self.commands.is_some()
    }

    /// Counts the bytes of a call. None when there are too many already.
    fn hold(&self, bytes: usize) -> Option<HeldGuard> {
        let add = |held: usize| {
            let sum = held.checked_add(bytes)?;
            (bytes == 0 || held == 0 || sum <= MOST_HELD).then_some(sum)
        };
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(HeldGuard { held: self.held.clone(), bytes })
    }
}

/// Whether a parameter of this name holds a file.
pub(crate) fn is_file(parameter: &str) -> bool {
    parameter.starts_with(FILE)
}

/// The refusal of a call for a repository by name, in Triton's words.
pub(crate) fn named() -> GatewayError {
    let text = "'repository_name' specification is not supported; there is one repository";
    GatewayError::Unsupported(text.to_owned())
}

/// Loads a model, anew if it changed or if a configuration is given, and answers when it is
/// ready. What is given is in force until the next load of the model.
pub(crate) async fn load(
    shared: &Shared,
    model: &str,
    parameters: LoadParameters,
) -> Result<ModelName, GatewayError> {
    let commands = commands(shared)?;
    let model = model.parse::<ModelName>().map_err(|error| GatewayError::NothingToLoad {
        model: clip(model).to_owned(),
        reason: error.to_string(),
    })?;
    let bytes = parameters.values().map(|parameter| match parameter {
        LoadParameter::Bytes(bytes) => bytes.len(),
        LoadParameter::Text(text) => text.len(),
        LoadParameter::Bool(_) | LoadParameter::Int64(_) => 0,
    });
    let bytes = bytes.fold(0, usize::saturating_add);
    let given = given(&model, parameters)?;
    order(commands, model, Action::Load(given), bytes).await
}

/// Takes a model out. The requests that it is answering end first.
pub(crate) async fn unload(
    shared: &Shared,
    model: &str,
    parameters: LoadParameters,
) -> Result<ModelName, GatewayError> {
    let commands = commands(shared)?;
    for (name, parameter) in &parameters {
        match (name.as_str(), parameter) {
            // Nothing here depends on another model.
            ("unload_dependents", LoadParameter::Bool(_)) => {}
            ("unload_dependents", _) => return Err(unfit(name, "must be true or false")),
            _ => return Err(unfit(name, "is not known; unload_dependents is")),
        }
    }
    let model = model
        .parse::<ModelName>()
        .map_err(|_| GatewayError::UnknownModel { model: clip(model).to_owned(), reason: None })?;
    order(commands, model, Action::Unload, 0).await
}

/// Every version that is loaded, was refused, is being loaded or was unloaded, and every model
/// that is there and was never loaded, by name. Reads the folder aside.
pub(crate) async fn index(shared: &Shared, ready_only: bool) -> Vec<Indexed> {
    let mut index = Vec::new();
    let mut never_loaded = BTreeMap::new();
    if let Some(loader) = shared.loader.get().filter(|_| !ready_only) {
        let root = loader.root.clone();
        let folders = tokio::task::spawn_blocking(move || model_folders(&root)).await;
        let folders = folders.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        match folders {
            Ok(folders) => never_loaded.extend(folders),
            Err(error) => tracing::warn!(%error, "cannot read model repository"),
        }
    }
    let catalog = shared.catalog.snapshot();
    for (name, model) in catalog.models() {
        let states = model.states();
        if !states.is_empty() {
            never_loaded.remove(name);
        }
        for (version, state) in states {
            let is_ending = || shared.catalog.is_ending(name, version);
            let (state, reason) = told(state, is_ending);
            if state == State::Ready || !ready_only {
                let (name, version) = (name.clone(), Some(version.to_string()));
                index.push(Indexed { name, version, state: Some(state), reason });
            }
        }
    }
    let unknown = |name| Indexed { name, version: None, state: None, reason: None };
    index.extend(never_loaded.into_keys().map(unknown));
    index.sort_by(|a, b| a.name.cmp(&b.name));
    index
}

/// A state in Triton's words, and what there is to say about it.
fn told(state: VersionState<'_>, is_ending: impl FnOnce() -> bool) -> (State, Option<String>) {
    let text = |text: &str| Some(text.to_owned());
    match state {
        VersionState::Ready { refused: None } => (State::Ready, None),
        VersionState::Ready { refused: Some(reason) } => (
            State::Ready,
            Some(format!("as it was loaded before; what is there now was refused: {reason}")),
        ),
        VersionState::Loading => (State::Loading, None),
        VersionState::Refused(reason) => (State::Unavailable, text(reason)),
        VersionState::Unloaded if is_ending() => (State::Unloading, None),
        VersionState::Unloaded => (State::Unavailable, text("unloaded")),
    }
}

/// The way to the thread that loads, if calls may load at all.
fn commands(shared: &Shared) -> Result<&Loader, GatewayError> {
    shared.loader.get().filter(|loader| loader.takes_loads()).ok_or(GatewayError::NoModelControl)
}

/// Has the loader do it, and waits until it is done. The call has brought so many `bytes`.
async fn order(
    loader: &Loader,
    model: ModelName,
    action: Action,
    bytes: usize,
) -> Result<ModelName, GatewayError> {
    const STOPPING: GatewayError = GatewayError::Unavailable("shutting down");
    let (done, answer) = oneshot::channel();
    let held = loader.hold(bytes).ok_or_else(|| {
        let reason = format!("loads with {MOST_HELD} bytes of files are waiting already");
        GatewayError::TooManyLoads(reason)
    })?;
    let command = Command { model: model.clone(), action, held, done };
    match loader.commands.as_ref().map(|commands| commands.try_send(command)) {
        Some(Ok(())) => {}
        Some(Err(TrySendError::Full(_))) => {
            let reason = format!("{MOST_WAITING} loads and unloads are waiting already");
            return Err(GatewayError::TooManyLoads(reason));
        }
        Some(Err(TrySendError::Disconnected(_))) => return Err(STOPPING),
        None => return Err(GatewayError::NoModelControl),
    }
    let mut stopped = loader.stopped.clone();
    tokio::select! {
        biased;
        answered = answer => answered.unwrap_or(Err(STOPPING)).map(|()| model),
        _ = stopped.wait_for(|&stop| stop) => Err(STOPPING),
    }
}

/// What a load call brings, if it brings anything.
fn given(
    model: &ModelName,
    parameters: LoadParameters,
) -> Result<Option<Box<Given>>, GatewayError> {
    let (mut config, mut files) = (None, BTreeMap::new());
    for (name, parameter) in parameters {
        match (name.strip_prefix(FILE), parameter) {
            (Some(path), LoadParameter::Bytes(bytes)) => drop(files.insert(path.to_owned(), bytes)),
            (Some(_), _) => return Err(unfit(&name, "must hold the file's bytes")),
            (None, LoadParameter::Text(text)) if name == "config" => config = Some(text),
            (None, _) if name == "config" => {
                return Err(unfit(&name, "must be a text, the configuration as JSON"));
            }
            (None, _) => {
                return Err(unfit(&name, "is not known; config and file:VERSION/PATH are"));
            }
        }
    }
    match config {
        Some(config) => Given::new(model, &config, files).map(|given| Some(given.into())),
        None if files.is_empty() => Ok(None),
        None => Err(GatewayError::Invalid(format!(
            "failed to load '{model}', failed to poll from model repository: files come with the call, so its parameter \"config\" must too"
        ))),
    }
}

fn unfit(name: &str, reason: &str) -> GatewayError {
    let name = clip(name);
    GatewayError::Invalid(format!("unexpected parameter {name:?}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::{Action, Loader, MOST_HELD, MOST_WAITING, order, watch};

    #[test]
    fn bytes_of_waiting_calls_are_bounded_and_one_call_always_goes() {
        let stop = watch::Sender::new(false);
        let (loader, _commands) = Loader::taking_loads("models".into(), stop.subscribe());
        let first = loader.hold(MOST_HELD + 1).unwrap();
        assert!(loader.hold(1).is_none());
        assert!(loader.hold(0).is_some(), "it brings nothing");
        drop(first);
        let first = loader.hold(MOST_HELD - 1).unwrap();
        let second = loader.hold(1).unwrap();
        assert!(loader.hold(1).is_none());
        drop((first, second));
        assert!(loader.hold(MOST_HELD).is_some());
    }

    #[tokio::test]
    async fn more_calls_than_may_wait_are_told_so() {
        let stop = watch::Sender::new(false);
        let (loader, _nobody_takes_them) = Loader::taking_loads("models".into(), stop.subscribe());
        let model = || "m".parse().unwrap();
        let mut waiting: Vec<_> = (0..MOST_WAITING)
            .map(|_| Box::pin(order(&loader, model(), Action::Unload, 0)))
            .collect();
        for asked in &mut waiting {
            assert!(futures::poll!(asked).is_pending());
        }
        let error = order(&loader, model(), Action::Unload, 0).await.unwrap_err();
        assert!(error.to_string().starts_with("4096 loads and unloads are waiting already"));
        drop(waiting);
        let error = order(&loader, model(), Action::Load(None), MOST_HELD).await.unwrap_err();
        assert_eq!(error.code(), sluice_protocol::Code::Overloaded);
    }
}
