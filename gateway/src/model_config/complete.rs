//! What a configuration comes to: what it says, and for the rest what is done.

use sluice_protocol::grpc::model_config::SchedulingChoice;
use sluice_protocol::grpc::model_instance_group::Kind;
use sluice_protocol::grpc::model_version_policy::{All, PolicyChoice};
use sluice_protocol::grpc::{
    ModelConfig, ModelDynamicBatching, ModelInput, ModelInstanceGroup, ModelOutput,
};
use sluice_protocol::{MODEL_FILE, ModelName};

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
    let kind = kind(&deployment.running.providers);
    config.instance_group = instance_group(asked, &deployment.model, instances, kind);
    if deployment.batches && config.scheduling_choice.is_none() {
        let batching = ModelDynamicBatching::default();
        config.scheduling_choice = Some(SchedulingChoice::DynamicBatching(batching));
    }
    config
}

fn inputs(asked: &ModelConfig, deployment: &Deployment) -> Vec<ModelInput> {
    let inputs = deployment.inputs.iter().map(|input| ModelInput {
        name: input.name.clone(),
        data_type: data_type(input.datatype).into(),
        dims: dims(deployment, &input.shape),
        optional: input.optional,
        ..described(&asked.input, |own| own.name == input.name)
    });
    inputs.collect()
}

fn outputs(asked: &ModelConfig, deployment: &Deployment) -> Vec<ModelOutput> {
    let outputs = deployment.outputs.iter().map(|output| ModelOutput {
        name: output.name.clone(),
        data_type: data_type(output.datatype).into(),
        dims: dims(deployment, &output.shape),
        ..described(&asked.output, |own| own.name == output.name)
    });
    outputs.collect()
}

/// What a configuration says of a tensor, if it says anything.
fn described<T: Clone + Default>(all: &[T], is_it: impl Fn(&T) -> bool) -> T {
    all.iter().find(|own| is_it(own)).cloned().unwrap_or_default()
}

/// A shape as a configuration writes it: without the batch, if there is one.
fn dims(deployment: &Deployment, shape: &[i64]) -> Vec<i64> {
    let batch = usize::from(deployment.max_batch_size.is_some());
    shape.iter().skip(batch).copied().collect()
}

/// Where the graph runs, in Triton's words.
fn kind(providers: &[String]) -> Kind {
    const DEVICES: [&str; 3] = ["cuda", "tensorrt", "rocm"];
    let on_device = providers.first().is_some_and(|first| DEVICES.contains(&first.as_str()));
    if on_device { Kind::Gpu } else { Kind::Cpu }
}

/// The groups that were asked for, if they are what runs; else one of all that do. Those without
/// a name are called by the model's and their place, as Triton has it.
fn instance_group(
    asked: &ModelConfig,
    model: &ModelName,
    instances: usize,
    kind: Kind,
) -> Vec<ModelInstanceGroup> {
    let own = |(place, group): (usize, &ModelInstanceGroup)| ModelInstanceGroup {
        name: if group.name.is_empty() { format!("{model}_{place}") } else { group.name.clone() },
        count: group.count.max(1),
        kind: kind.into(),
        ..group.clone()
    };
    let mut groups: Vec<_> = asked.instance_group.iter().enumerate().map(own).collect();
    let counts = groups.iter().map(|group| i64::from(group.count));
    if usize::try_from(counts.sum::<i64>()) == Ok(instances) {
        return groups;
    }
    groups.truncate(1);
    let name = groups.pop().map_or_else(|| format!("{model}_0"), |group| group.name);
    let (count, kind) = (i32::try_from(instances).unwrap_or(i32::MAX), kind.into());
    vec![ModelInstanceGroup { name, count, kind, ..ModelInstanceGroup::default() }]
}
