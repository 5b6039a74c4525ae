//! The change feed and the snapshot.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::Registry;
use super::answer::Answer;
use super::params::Params;
use crate::{RegistryError, Result};

/// The longest wait that is granted; proxies give up on quieter ones.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

pub(super) async fn snapshot(State(registry): State<Arc<Registry>>) -> Answer {
    Ok(Json(json!(registry.store.snapshot().await?)))
}

/// The changes after a cursor. When there are none, waits for the next one, for the asked time
/// or for the server's end, whichever comes first.
pub(super) async fn changes(State(registry): State<Arc<Registry>>, params: Params) -> Answer {
    let after = match params.optional_text("after")? {
        None => 0,
        Some(text) => text.parse().map_err(|_| invalid("after", text))?,
    };
    let limit = params.number("limit", 100, 1000)?.max(1);
    let until = Instant::now() + params.optional_text("wait")?.map_or(Ok(Duration::ZERO), wait)?;
    // Subscribed before looking, so that no change slips in between.
    let mut changed = registry.store.watch();
    loop {
        changed.mark_unchanged();
        let changes = registry.store.changes(after, limit).await?;
        if !changes.events.is_empty() {
            return Ok(Json(json!(changes)));
        }
        tokio::select! {
            woken = timeout_at(until, changed.changed()) => match woken {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Ok(Json(json!(changes))),
            },
            () = registry.stopping.cancelled() => return Ok(Json(json!(changes))),
        }
    }
}

/// `30s`, `250ms` or a plain number of seconds.
fn wait(text: &str) -> Result<Duration> {
    let (number, unit): (&str, fn(u64) -> Duration) = if let Some(number) = text.strip_suffix("ms")
    {
        (number, Duration::from_millis)
    } else {
        (text.strip_suffix('s').unwrap_or(text), Duration::from_secs)
    };
    let number = number.parse().map_err(|_| invalid("wait", text))?;
    Ok(unit(number).min(LONGEST_WAIT))
}

fn invalid(name: &str, text: &str) -> RegistryError {
    let shown: String = text.chars().take(100).collect();
    RegistryError::InvalidArgument(format!(
        "Invalid value '{shown}' for parameter '{name}' supplied"
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::wait;

    #[test]
    fn waits_have_a_unit_and_a_bound() {
        assert_eq!(wait("30s").unwrap(), Duration::from_secs(30));
        assert_eq!(wait("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(wait("5").unwrap(), Duration::from_secs(5));
        assert_eq!(wait("9999999s").unwrap(), Duration::from_secs(60));
        for bad in ["", "s", "-1s", "1m", "1.5s"] {
            assert!(wait(bad).is_err(), "{bad}");
        }
    }
}
