//! The model repository over gRPC: Triton's messages, and KServe's, which number their fields
//! otherwise.

use std::collections::HashMap;

use sluice_protocol::grpc::model_repository_parameter::ParameterChoice;
use sluice_protocol::grpc::repository_index_response::ModelIndex;
use sluice_protocol::grpc::{
    ModelRepositoryParameter, RepositoryIndexRequest, RepositoryIndexResponse,
    RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse,
};
use tonic::{Response, Status};

use crate::control::exposure::{ControlGroup, Port};
use crate::control::repository::{self, Indexed, LoadParameter, LoadParameters, State};
use crate::error::{GatewayError, clip};
use crate::shared::Shared;

pub(super) async fn index(
    shared: &Shared,
    request: RepositoryIndexRequest,
) -> Result<Response<RepositoryIndexResponse>, Status> {
    if !request.repository_name.is_empty() {
        return Err(repository::named().into());
    }
    let indexed = repository::index(shared, request.ready).await;
    let models = indexed.into_iter().map(|Indexed { name, version, state, reason }| ModelIndex {
        name: name.into(),
        version: version.unwrap_or_default(),
        state: state.map(State::as_str).unwrap_or_default().to_owned(),
        reason: reason.unwrap_or_default(),
    });
    Ok(Response::new(RepositoryIndexResponse { models: models.collect() }))
}

pub(super) async fn load(
    shared: &Shared,
    request: RepositoryModelLoadRequest,
) -> Result<Response<RepositoryModelLoadResponse>, Status> {
    shared.exposed().check(ControlGroup::ModelRepository, Port::Serving)?;
    let model = model(request.repository_name, request.model_name)?;
    let model = repository::load(shared, &model, parameters(request.parameters)?).await?;
    let answer = RepositoryModelLoadResponse { model_name: model.into(), is_loaded: true };
    Ok(Response::new(answer))
}

pub(super) async fn unload(
    shared: &Shared,
    request: RepositoryModelUnloadRequest,
) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
    shared.exposed().check(ControlGroup::ModelRepository, Port::Serving)?;
    let model = model(request.repository_name, request.model_name)?;
    let model = repository::unload(shared, &model, parameters(request.parameters)?).await?;
    let answer = RepositoryModelUnloadResponse { model_name: model.into(), is_unloaded: true };
    Ok(Response::new(answer))
}

/// The model's name, which KServe's clients send in the field where Triton's name a repository.
fn model(repository: String, model: String) -> Result<String, GatewayError> {
    match (repository.is_empty(), model.is_empty()) {
        (true, false) => Ok(model),
        (false, true) => Ok(repository),
        (false, false) => Err(repository::named()),
        (true, true) => Err(GatewayError::Invalid("model_name is missing".to_owned())),
    }
}

fn parameters(
    wire: HashMap<String, ModelRepositoryParameter>,
) -> Result<LoadParameters, GatewayError> {
    let parameters = wire.into_iter().map(|(name, parameter)| {
        let parameter = match parameter.parameter_choice {
            Some(ParameterChoice::BoolParam(value)) => LoadParameter::Bool(value),
            Some(ParameterChoice::Int64Param(value)) => LoadParameter::Int64(value),
            Some(ParameterChoice::StringParam(value)) => LoadParameter::Text(value),
            Some(ParameterChoice::BytesParam(value)) => LoadParameter::Bytes(value),
            None => {
                let text = format!("parameter {:?} has no value", clip(&name));
                return Err(GatewayError::Invalid(text));
            }
        };
        Ok((name, parameter))
    });
    parameters.collect()
}
