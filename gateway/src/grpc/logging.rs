//! The logging extension over gRPC.

use sluice_protocol::grpc::log_settings_request::setting_value::ParameterChoice as Asked;
use sluice_protocol::grpc::log_settings_response::SettingValue;
use sluice_protocol::grpc::log_settings_response::setting_value::ParameterChoice as Answered;
use sluice_protocol::grpc::{LogSettingsRequest, LogSettingsResponse};
use tonic::{Response, Status};

use crate::control::exposure::{ControlGroup, Port};
use crate::control::logging::{LogValue, settings, update};
use crate::shared::Shared;

/// Changes what the request names, and answers with all settings.
pub(super) fn log_settings(
    shared: &Shared,
    request: LogSettingsRequest,
) -> Result<Response<LogSettingsResponse>, Status> {
    shared.exposed().check(ControlGroup::Logging, Port::Serving)?;
    let changes = request.settings.into_iter().map(|(name, value)| {
        let value = value.parameter_choice.map(|choice| match choice {
            Asked::BoolParam(value) => LogValue::Bool(value),
            Asked::Uint32Param(value) => LogValue::Number(value),
            Asked::StringParam(value) => LogValue::Text(value),
        });
        (name, value)
    });
    update(changes)?;
    let all = settings().into_iter().map(|(name, value)| {
        let choice = match value {
            LogValue::Bool(value) => Answered::BoolParam(value),
            LogValue::Number(value) => Answered::Uint32Param(value),
            LogValue::Text(value) => Answered::StringParam(value),
        };
        (name.to_owned(), SettingValue { parameter_choice: Some(choice) })
    });
    Ok(Response::new(LogSettingsResponse { settings: all.collect() }))
}
