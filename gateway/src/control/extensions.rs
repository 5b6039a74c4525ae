//! The extensions of the protocol that work, in Triton's spelling and order.

use super::exposure::{ControlGroup, Port};
use crate::shared::Shared;

/// What server metadata lists on `port`. A caller may rely on each of them, there.
pub(crate) fn extensions(shared: &Shared, port: Port) -> Vec<&'static str> {
    let repository =
        shared.takes_loads() && shared.exposed().answers(ControlGroup::ModelRepository, port);
    let logging = shared.exposed().answers(ControlGroup::Logging, port);
    let trace = shared.tracer.exports() && shared.exposed().answers(ControlGroup::Trace, port);
    let shared_memory =
        shared.regions.is_enabled() && shared.exposed().answers(ControlGroup::SharedMemory, port);
    let all = [
        (true, "classification"),
        (repository, "model_repository"),
        (repository, "model_repository(unload_dependents)"),
        (true, "schedule_policy"),
        (true, "model_configuration"),
        (shared_memory, "system_shared_memory"),
        (true, "binary_tensor_data"),
        (true, "parameters"),
        (true, "statistics"),
        (trace, "trace"),
        (logging, "logging"),
    ];
    all.into_iter().filter(|(works, _)| *works).map(|(_, name)| name).collect()
}
