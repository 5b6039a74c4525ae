//! Settings read again while the gateway runs: on SIGHUP, over the admin port, and, of the files
//! that settings name, whenever one changes. What can change is put in force as a whole; a mistake
//! anywhere leaves everything as it was.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, watch};

use crate::config::Written;
use crate::dialect::DialectSettings;
use crate::error::StartError;
use crate::forwarding::ForwardingSettings;
use crate::logs;
use crate::security::{Security, SecuritySettings, Seen};
use crate::settings::Settings;
use crate::shared::Shared;
use crate::tenant::TenantSettings;
use crate::tls::Tls;

/// How often the files of certificates and tokens are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Reads settings again.
#[derive(Debug)]
pub(crate) struct Reloader {
    shared: Arc<Shared>,
    asked: Notify,
    in_force: Mutex<InForce>,
    /// Where the administration listens, once it does.
    admin: OnceLock<SocketAddr>,
}

#[derive(Debug)]
struct InForce {
    /// What flags and the environment said, and the name of the file.
    given: Settings,
    /// What was in force at the start: other settings than those that can change still are.
    started: Settings,
    /// What was put in force last.
    current: Settings,
    /// The files when they were looked at last, whether or not what they held could be used.
    seen: Seen,
}

/// What a reload did.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Reloaded {
    /// Keys whose new values are in force now.
    pub(crate) changed: BTreeSet<String>,
    /// Keys whose new values wait for a restart.
    pub(crate) restart: BTreeSet<String>,
}

impl Reloader {
    /// Of a gateway that runs by `written`.
    pub(crate) fn new(shared: Arc<Shared>, written: Written) -> Self {
        let Written { given, merged, seen } = written;
        let in_force = InForce { given: *given, started: *merged.clone(), current: *merged, seen };
        let reloader = Self {
            shared,
            asked: Notify::new(),
            in_force: Mutex::new(in_force),
            admin: OnceLock::new(),
        };
        reloader.tell_of_certificate();
        reloader
    }

    /// The administration listens at `address` from now on.
    pub(crate) fn administer(&self, address: SocketAddr) {
        let _only_once = self.admin.set(address);
        self.tell_of_open_administration();
    }

    /// Asks for a reload and does not wait for it. What comes of it is logged.
    pub(crate) fn ask(&self) {
        self.asked.notify_one();
    }

    /// Reloads when asked and follows the files, until the stop.
    pub(crate) async fn run(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let work = async {
                tokio::select! {
                    () = self.asked.notified() => drop(self.reload().await),
                    _ = looks.tick() => self.follow_files().await,
                }
            };
            tokio::select! {
                _ = stopped.wait_for(|&stop| stop) => return,
                () = work => {}
            }
        }
    }

    /// Reads the settings again and puts in force what can change.
    async fn reload(self: &Arc<Self>) -> Result<Reloaded, Vec<String>> {
        let this = self.clone();
        let reloaded = tokio::task::spawn_blocking(move || this.reload_now());
        let reloaded = reloaded.await.unwrap_or_else(|_| Err(vec!["reloading failed".to_owned()]));
        match &reloaded {
            Ok(Reloaded { changed, restart }) => {
                tracing::info!(?changed, "settings reloaded");
                if !restart.is_empty() {
                    tracing::warn!(keys = ?restart, "settings that take a restart have changed");
                }
            }
            Err(complaints) => {
                tracing::error!(?complaints, "settings are left as they were");
            }
        }
        reloaded
    }

    fn reload_now(&self) -> Result<Reloaded, Vec<String>> {
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let config = in_force.given.clone().resolve().map_err(|error| match error {
            StartError::Settings(complaints) => complaints,
            other => vec![other.to_string()],
        })?;
        let Written { mut merged, mut seen, .. } = config.written;
        let mut live = config.options.live;
        let tls = self.shared.live().tls.clone();
        // On or off is what the ports are, and takes a restart.
        let tls_waits = tls.is_some() != live.tls.is_some();
        if tls_waits {
            live.tls = tls;
        }
        let mut reloaded = in_force.compare(&merged, &seen, tls_waits);
        if !logs::set_directives(merged.log.as_deref()).map_err(|complaint| vec![complaint])? {
            reloaded.changed.remove("log");
        }
        self.shared.put_in_force(live);
        if tls_waits {
            // What is in force goes on to be followed.
            merged.security = merged.security.with_tls_of(&in_force.current.security);
            seen.retain(|key, _| !is_of_tls(key));
            seen.extend(
                in_force
                    .seen
                    .iter()
                    .filter(|(key, _)| is_of_tls(key))
                    .map(|(&key, file)| (key, file.clone())),
            );
        }
        in_force.current = *merged;
        in_force.seen = seen;
        drop(in_force);
        self.tell_of_certificate();
        self.tell_of_open_administration();
        Ok(reloaded)
    }

    /// Puts in force what is new in the files of certificates and tokens.
    async fn follow_files(self: &Arc<Self>) {
        let this = self.clone();
        let _panicked = tokio::task::spawn_blocking(move || this.follow_files_now()).await;
    }

    fn follow_files_now(&self) {
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        if in_force.current.security.look() == in_force.seen {
            return;
        }
        let (seen, opened) = in_force.current.security.open();
        let changed = |key: &&&str| in_force.seen.get(**key) != seen.get(**key);
        let changed: Vec<&str> = seen.keys().filter(changed).copied().collect();
        match opened {
            Ok(Security { access, tls }) => {
                let mut live = (**self.shared.live()).clone();
                live.access = access;
                // On or off is what the port is, and takes a restart.
                if let (Some(now), Some(next)) = (&mut live.tls, tls) {
                    *now = next;
                }
                self.shared.put_in_force(live);
                tracing::info!(?changed, "files have changed and are in force");
                self.tell_of_certificate();
            }
            // Once for each change, since what was seen is remembered.
            Err(complaints) => {
                tracing::error!(?changed, ?complaints, "files have changed and are not used");
            }
        }
        in_force.seen = seen;
    }

    /// Whoever reaches the admin port may change what is served.
    fn tell_of_open_administration(&self) {
        let (Some(address), live) = (self.admin.get(), self.shared.live()) else { return };
        let asks_clients = live.tls.as_ref().is_some_and(Tls::asks_clients);
        if !address.ip().is_loopback() && live.access.admin.is_none() && !asks_clients {
            tracing::warn!(
                %address,
                "the admin port is open to everybody who reaches this address; set --admin-token-file or --tls-client-ca, or listen on loopback"
            );
        }
    }

    fn tell_of_certificate(&self) {
        let live = self.shared.live();
        let Some(tls) = &live.tls else { return };
        if let Some(expires) = tls.expires() {
            self.shared.metrics.set_certificate_expiry(expires);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        if let Some(warning) = tls.warning(i64::try_from(now).unwrap_or(i64::MAX)) {
            tracing::warn!("{warning}");
        }
    }
}

impl InForce {
    /// What is new in `merged` and in the files, against what is in force. With `tls_waits`, TLS waits
    /// for a restart like an address does.
    fn compare(&self, merged: &Settings, seen: &Seen, tls_waits: bool) -> Reloaded {
        let (started, current, new) = (table(&self.started), table(&self.current), table(merged));
        let mut live = live_keys();
        live.retain(|key| !(tls_waits && is_of_tls(key)));
        let mut reloaded = Reloaded::default();
        for key in new.keys() {
            let is_new = |old: &Map<String, Value>| old.get(key) != new.get(key);
            if !live.contains(key) {
                if is_new(&started) {
                    reloaded.restart.insert(key.clone());
                }
            } else if is_new(&current) || self.seen.get(key.as_str()) != seen.get(key.as_str()) {
                reloaded.changed.insert(key.clone());
            }
        }
        reloaded
    }
}

/// `POST /reload` of the admin port.
pub(crate) fn routes(reloader: Arc<Reloader>) -> Router {
    Router::new().route("/reload", post(reload)).with_state(reloader)
}

async fn reload(State(reloader): State<Arc<Reloader>>) -> Response {
    match reloader.reload().await {
        Ok(reloaded) => axum::Json(reloaded).into_response(),
        Err(complaints) => {
            let error = format!("settings are left as they were: {}", complaints.join("; "));
            let body = json!({"error": error, "complaints": complaints});
            (StatusCode::BAD_REQUEST, axum::Json(body)).into_response()
        }
    }
}

/// The settings that can change while the gateway runs. All others take a restart.
fn live_keys() -> BTreeSet<String> {
    let mut keys: BTreeSet<String> =
        ["max_body", "request_timeout", "max_waiting", "serve_control", "log"]
            .map(str::to_owned)
            .into();
    keys.extend(table(&DialectSettings::default()).into_iter().map(|(key, _)| key));
    keys.extend(table(&ForwardingSettings::default()).into_iter().map(|(key, _)| key));
    keys.extend(table(&TenantSettings::default()).into_iter().map(|(key, _)| key));
    keys.extend(table(&SecuritySettings::default()).into_iter().map(|(key, _)| key));
    keys
}

fn is_of_tls(key: &str) -> bool {
    key.starts_with("tls_")
}

/// Settings by key, as the file has them.
fn table(settings: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(table)) => table,
        _ => Map::new(),
    }
}
