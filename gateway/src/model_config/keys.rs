//! The keys that are not honoured: those that would change answers are refused, those that only
//! say how another server should run the model are told of once.

use sluice_protocol::ModelName;
use sluice_protocol::grpc::model_config::SchedulingChoice;
use sluice_protocol::grpc::model_instance_group::Kind;
use sluice_protocol::grpc::{ModelConfig, ModelInput, ModelInstanceGroup, ModelOutput};

use crate::error::{LoadError, clip};
use crate::metrics::OWN_LABELS;

/// A key, whether a configuration has it, and why that is refused.
type Refused = (&'static str, fn(&ModelConfig) -> bool, &'static str);

/// Keys that a model cannot be served with.
pub(super) const REFUSED: [Refused; 13] = [
    (
        "sequence_batching",
        |config| matches!(config.scheduling_choice, Some(SchedulingChoice::SequenceBatching(_))),
        "models that keep a state between requests are not served here",
    ),
    (
        "ensemble_scheduling",
        |config| matches!(config.scheduling_choice, Some(SchedulingChoice::EnsembleScheduling(_))),
        "models that are made of others are not served here; join them in one graph",
    ),
    (
        "model_transaction_policy.decoupled",
        |config| config.model_transaction_policy.is_some_and(|policy| policy.decoupled),
        "every request has exactly one answer here",
    ),
    ("batch_input", |config| !config.batch_input.is_empty(), "graphs get no inputs but requests'"),
    (
        "batch_output",
        |config| !config.batch_output.is_empty(),
        "outputs are split by their first dimension only",
    ),
    (
        "model_operations.op_library_filename",
        |config| {
            let operations = config.model_operations.as_ref();
            operations.is_some_and(|operations| !operations.op_library_filename.is_empty())
        },
        "libraries of operators are not loaded, since they could do anything",
    ),
    (
        "model_repository_agents",
        |config| config.model_repository_agents.as_ref().is_some_and(|all| !all.agents.is_empty()),
        "agents that change a model's files are not run here",
    ),
    (
        "input.is_shape_tensor",
        |config| any_input(config, |input| input.is_shape_tensor),
        "shape tensors are TensorRT's",
    ),
    (
        "output.is_shape_tensor",
        |config| any_output(config, |output| output.is_shape_tensor),
        "shape tensors are TensorRT's",
    ),
    (
        "input.allow_ragged_batch",
        |config| any_input(config, |input| input.allow_ragged_batch),
        "requests of different shapes do not share a run here, so the graph gets no ragged batch",
    ),
    (
        "input.is_non_linear_format_io",
        |config| any_input(config, |input| input.is_non_linear_format_io),
        "tensors are row-major here",
    ),
    (
        "output.is_non_linear_format_io",
        |config| any_output(config, |output| output.is_non_linear_format_io),
        "tensors are row-major here",
    ),
    (
        "instance_group.kind: KIND_GPU",
        |config| any_group(config, |group| group.kind() == Kind::Gpu),
        "say which device in deployment.toml, by providers = [{ name = \"cuda\" }], and KIND_AUTO here",
    ),
];

/// A key, and whether a configuration has it.
type Ignored = (&'static str, fn(&ModelConfig) -> bool);

/// Keys without effect here.
pub(super) const IGNORED: [Ignored; 12] = [
    ("runtime", |config| !config.runtime.is_empty()),
    ("optimization", |config| config.optimization.is_some()),
    ("dynamic_batching.preserve_ordering", |config| match &config.scheduling_choice {
        Some(SchedulingChoice::DynamicBatching(batching)) => batching.preserve_ordering,
        _ => false,
    }),
    ("cc_model_filenames", |config| !config.cc_model_filenames.is_empty()),
    ("model_metrics", |config| config.model_metrics.is_some()),
    ("instance_group.kind: KIND_MODEL", |config| {
        any_group(config, |group| group.kind() == Kind::Model)
    }),
    ("instance_group.rate_limiter", |config| any_group(config, |g| g.rate_limiter.is_some())),
    ("instance_group.gpus", |config| any_group(config, |group| !group.gpus.is_empty())),
    ("instance_group.secondary_devices", |config| {
        any_group(config, |group| !group.secondary_devices.is_empty())
    }),
    ("instance_group.profile", |config| any_group(config, |group| !group.profile.is_empty())),
    ("instance_group.passive", |config| any_group(config, |group| group.passive)),
    ("instance_group.host_policy", |config| {
        any_group(config, |group| !group.host_policy.is_empty())
    }),
];

fn any_input(config: &ModelConfig, is: impl Fn(&ModelInput) -> bool) -> bool {
    config.input.iter().any(is)
}

fn any_output(config: &ModelConfig, is: impl Fn(&ModelOutput) -> bool) -> bool {
    config.output.iter().any(is)
}

fn any_group(config: &ModelConfig, is: impl Fn(&ModelInstanceGroup) -> bool) -> bool {
    config.instance_group.iter().any(is)
}

/// A configuration may leave the name out, but not give another one.
pub(crate) fn check_name(config: &ModelConfig, model: &ModelName) -> Result<(), String> {
    if config.name.is_empty() || config.name == model.as_str() {
        return Ok(());
    }
    let name = clip(&config.name);
    Err(format!("name is {name:?}, but the model is called {:?}", model.as_str()))
}

/// Refuses a configuration that is of another model or another kind of model, or that asks for
/// what would change answers and is not done here.
pub(super) fn check(config: &ModelConfig, model: &ModelName) -> Result<(), LoadError> {
    check_name(config, model).map_err(LoadError::Configuration)?;
    for (key, value, served) in [
        ("platform", &config.platform, super::PLATFORM),
        ("backend", &config.backend, super::BACKEND),
    ] {
        if !value.is_empty() && value != served {
            return Err(LoadError::Configuration(format!(
                "{key} is {value:?}, and only {served:?} is served here: export the model to ONNX"
            )));
        }
    }
    check_tags(config)?;
    match REFUSED.iter().find(|(_, is_set, _)| is_set(config)) {
        None => Ok(()),
        Some((key, _, reason)) => {
            Err(LoadError::Configuration(format!("{key} cannot be served: {reason}")))
        }
    }
}

/// Metric tags become labels, so they have names that labels may have, and none of ours.
fn check_tags(config: &ModelConfig) -> Result<(), LoadError> {
    let is_name = |tag: &str| {
        tag.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && tag.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let can_be = |tag: &str| is_name(tag) && !tag.starts_with("__") && !OWN_LABELS.contains(&tag);
    match config.metric_tags.keys().find(|tag| !can_be(tag)) {
        None => Ok(()),
        Some(tag) => Err(LoadError::Configuration(format!(
            "metric_tags: {tag:?} cannot be a label: it needs letters, digits and underscores, \
             and may be none of {}",
            OWN_LABELS.join(", ")
        ))),
    }
}

/// The keys of a configuration that have no effect.
pub(super) fn ignored(config: &ModelConfig) -> Vec<&'static str> {
    let set = IGNORED.iter().filter(|(_, is_set)| is_set(config));
    set.map(|(key, _)| *key).collect()
}

#[cfg(test)]
mod tests {
    use sluice_protocol::grpc::ModelConfig;

    use super::{IGNORED, REFUSED, check, ignored};

    fn config(text: &str) -> ModelConfig {
        ModelConfig::parse_text(text).unwrap()
    }

    #[test]
    fn what_would_change_answers_is_refused() {
        let cases = [
            ("sequence_batching", "sequence_batching { }"),
            ("ensemble_scheduling", "ensemble_scheduling { }"),
            ("model_transaction_policy.decoupled", "model_transaction_policy { decoupled: true }"),
            ("batch_input", "batch_input { kind: BATCH_ELEMENT_COUNT }"),
            ("batch_output", "batch_output { target_name: \"y\" }"),
            (
                "model_operations.op_library_filename",
                "model_operations { op_library_filename: \"a.so\" }",
            ),
            ("model_repository_agents", "model_repository_agents { agents { name: \"a\" } }"),
            ("input.is_shape_tensor", "input { is_shape_tensor: true }"),
            ("output.is_shape_tensor", "output { is_shape_tensor: true }"),
            ("input.allow_ragged_batch", "input { allow_ragged_batch: true }"),
            ("input.is_non_linear_format_io", "input { is_non_linear_format_io: true }"),
            ("output.is_non_linear_format_io", "output { is_non_linear_format_io: true }"),
            ("instance_group.kind: KIND_GPU", "instance_group { kind: KIND_GPU }"),
        ];
        assert_eq!(cases.map(|(key, _)| key), REFUSED.map(|(key, ..)| key));
        for (key, text) in cases {
            let error = check(&config(text), &"m".parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(&format!("{key} cannot be served: ")), "{text}: {error}");
            assert!(ignored(&config(text)).is_empty(), "{text}");
        }
    }

    #[test]
    fn another_models_configuration_is_refused() {
        for (text, says) in [
            ("name: \"n\"", "name is \"n\", but the model is called \"m\""),
            ("platform: \"tensorrt_plan\"", "platform is \"tensorrt_plan\""),
            ("backend: \"python\"", "backend is \"python\""),
            ("metric_tags { key: \"le\" value: \"1\" }", "\"le\" cannot be a label"),
            ("metric_tags { key: \"reason\" value: \"1\" }", "\"reason\" cannot be a label"),
            ("metric_tags { key: \"__a\" value: \"1\" }", "\"__a\" cannot be a label"),
            ("metric_tags { key: \"a-b\" value: \"1\" }", "\"a-b\" cannot be a label"),
            ("metric_tags { key: \"1a\" value: \"1\" }", "\"1a\" cannot be a label"),
        ] {
            let error = check(&config(text), &"m".parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        let own = "name: \"m\" platform: \"onnxruntime_onnx\" backend: \"onnxruntime\"";
        check(&config(own), &"m".parse().unwrap()).unwrap();
    }

    #[test]
    fn what_has_no_effect_is_named() {
        let cases = [
            ("runtime", "runtime: \"a\""),
            ("optimization", "optimization { graph { level: 1 } }"),
            ("dynamic_batching.preserve_ordering", "dynamic_batching { preserve_ordering: true }"),
            ("cc_model_filenames", "cc_model_filenames { key: \"a\" value: \"b\" }"),
            ("model_metrics", "model_metrics { }"),
            ("instance_group.kind: KIND_MODEL", "instance_group { kind: KIND_MODEL }"),
            ("instance_group.rate_limiter", "instance_group { rate_limiter { } }"),
            ("instance_group.gpus", "instance_group { gpus: 0 }"),
            ("instance_group.secondary_devices", "instance_group { secondary_devices { } }"),
            ("instance_group.profile", "instance_group { profile: \"a\" }"),
            ("instance_group.passive", "instance_group { passive: true }"),
            ("instance_group.host_policy", "instance_group { host_policy: \"a\" }"),
        ];
        assert_eq!(cases.map(|(key, _)| key), IGNORED.map(|(key, _)| key));
        for (key, text) in cases {
            assert_eq!(ignored(&config(text)), [key], "{text}");
            check(&config(text), &"m".parse().unwrap()).unwrap();
        }
        assert!(ignored(&config("max_batch_size: 8 instance_group { count: 2 }")).is_empty());
    }
}
