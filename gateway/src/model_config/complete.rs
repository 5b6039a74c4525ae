//! What a configuration comes to: what it says, and for the rest what is done.

use std::collections::BTreeMap;

use sluice_protocol::MODEL_FILE;
use sluice_protocol::grpc::model_config::SchedulingChoice;
use sluice_protocol::grpc::model_instance_group::Kind;
use sluice_protocol::grpc::model_version_policy::{All, PolicyChoice};
use sluice_protocol::grpc::{
    ModelConfig, ModelDynamicBatching, ModelInput, ModelInstanceGroup, ModelOutput,
};

use super::signature::data_type;
use super::{BACKEND, PLATFORM};
use crate::deployment::Deployment;

/// What clients are told where nobody set a bound: no request that they may send is above it.
const NO_BOUND: i32 = i32::MAX;

/// Completes `asked` with what `deployment` does, whose own `config` is not looked at.
pub(crate) fn complete(
    asked: &ModelConfig,
    deployment: &Deployment,
    instances: usize,
) -> ModelConfig {
    let mut config = asked.clone();
    config.name = deployment.model.to_string();
    config.platform = PLATFORM.to_owned();
    config.backend = BACKEND.to_owned();
    if config.default_model_filename.is_empty() {
        config.default_model_filename = MODEL_FILE.to_owned();
    }
    config.max_batch_size =
        deployment.max_batch_size.map_or(0, |most| i32::try_from(most).unwrap_or(NO_BOUND));
    config.input = inputs(asked, deployment);
    config.output = outputs(asked, deployment);
    config
        .version_policy
        .get_or_insert_default()
        .policy_choice
        .get_or_insert(PolicyChoice::All(All {}));
    config.instance_group = instance_group(asked, instances);
    if deployment.batches && config.scheduling_choice.is_none() {
        let batching = ModelDynamicBatching::default();
        config.scheduling_choice = Some(SchedulingChoice::DynamicBatching(batching));
    }
    config
}

fn inputs(asked: &ModelConfig, deployment: &Deployment) -> Vec<ModelInput> {
    let described: BTreeMap<_, _> =
        asked.input.iter().map(|own| (own.name.as_str(), own)).collect();
    let inputs = deployment.inputs.iter().map(|input| {
        let own = described.get(input.name.as_str()).copied().cloned().unwrap_or_default();
        ModelInput {
            name: input.name.clone(),
            data_type: data_type(input.datatype).into(),
            dims: dims(deployment, &input.shape),
            optional: input.optional,
            ..own
        }
    });
    inputs.collect()
}

fn outputs(asked: &ModelConfig, deployment: &Deployment) -> Vec<ModelOutput> {
    let described: BTreeMap<_, _> =
        asked.output.iter().map(|own| (own.name.as_str(), own)).collect();
    let outputs = deployment.outputs.iter().map(|output| {
        let own = described.get(output.name.as_str()).copied().cloned().unwrap_or_default();
        ModelOutput {
            name: output.name.clone(),
            data_type: data_type(output.datatype).into(),
            dims: dims(deployment, &output.shape),
            ..own
        }
    });
    outputs.collect()
}

/// A shape as a configuration writes it: without the batch, if there is one.
fn dims(deployment: &Deployment, shape: &[i64]) -> Vec<i64> {
    let batch = usize::from(deployment.max_batch_size.is_some());
    shape.iter().skip(batch).copied().collect()
}

/// The groups that were asked for, if they are what runs; else one of all that do.
fn instance_group(asked: &ModelConfig, instances: usize) -> Vec<ModelInstanceGroup> {
    let on_cpu = |group: &ModelInstanceGroup| ModelInstanceGroup {
        count: group.count.max(1),
        kind: Kind::Cpu.into(),
        ..group.clone()
    };
    let groups: Vec<_> = asked.instance_group.iter().map(on_cpu).collect();
    let counts = groups.iter().map(|group| i64::from(group.count));
    if usize::try_from(counts.sum::<i64>()) == Ok(instances) {
        return groups;
    }
    let name = groups.first().map(|group| group.name.clone()).unwrap_or_default();
    let (count, kind) = (i32::try_from(instances).unwrap_or(i32::MAX), Kind::Cpu.into());
    vec![ModelInstanceGroup { name, count, kind, ..ModelInstanceGroup::default() }]
}
