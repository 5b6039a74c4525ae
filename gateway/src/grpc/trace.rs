//! TraceSetting: the trace extension over gRPC.

use sluice_protocol::grpc::trace_setting_response::SettingValue;
use sluice_protocol::grpc::{TraceSettingRequest, TraceSettingResponse};
use tonic::Status;

use crate::control::exposure::{ControlGroup, Port};
use crate::control::trace::{Asked, LEVEL, TraceValue, settings, update};
use crate::shared::Shared;

/// Changes what the request names, and answers with all settings.
pub(super) fn trace_setting(
    shared: &Shared,
    request: TraceSettingRequest,
) -> Result<TraceSettingResponse, Status> {
    shared.exposed().check(ControlGroup::Trace, Port::Serving)?;
    let TraceSettingRequest { settings: asked, model_name } = request;
    let model = Some(model_name.as_str()).filter(|model| !model.is_empty());
    if !asked.is_empty() {
        let asked = asked.into_iter().map(|(name, setting)| {
            let value = value(&name, setting.value);
            (name, value)
        });
        update(shared, model, asked)?;
    }
    let all = settings(shared, model)?.into_iter().map(|(name, value)| {
        let value = match value {
            TraceValue::One(text) => vec![text],
            TraceValue::Many(texts) => texts,
        };
        (name.to_owned(), SettingValue { value })
    });
    Ok(TraceSettingResponse { settings: all.collect() })
}

/// A value that is a list here whatever it is.
fn value(name: &str, mut texts: Vec<String>) -> Asked {
    match texts.len() {
        0 => Asked::Clear,
        1 if name != LEVEL => Asked::One(texts.remove(0)),
        _ => Asked::Many(texts),
    }
}
