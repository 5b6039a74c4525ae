//! How requests wait for a run and share it, as `dynamic_batching` says, and how many instances
//! run them.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_protocol::grpc::model_config::SchedulingChoice;
use sluice_protocol::grpc::model_instance_group::Kind;
use sluice_protocol::grpc::model_queue_policy::TimeoutAction as Action;
use sluice_protocol::grpc::{ModelConfig, ModelDynamicBatching, ModelQueuePolicy};

use crate::error::LoadError;
use crate::executor::{QueuePolicy, SchedulePolicy, TimeoutAction};

/// Threads of one version; each has a copy of the weights.
const MOST_INSTANCES: usize = 1024;

/// What a configuration asks of the executor; what is absent is found by measurement.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scheduling {
    /// How long an incomplete batch waits for more rows.
    pub(crate) max_queue_delay: Option<Duration>,
    /// Rows that a run has at most: the largest preferred batch size.
    pub(crate) max_rows: Option<usize>,
    /// How many instances run at a time.
    pub(crate) instances: Option<usize>,
    pub(crate) policy: SchedulePolicy,
}

impl Scheduling {
    /// Reads what `config` says.
    pub(crate) fn read(config: &ModelConfig) -> Result<Self, LoadError> {
        let mut read = Self { instances: instances(config)?, ..Self::default() };
        let Some(SchedulingChoice::DynamicBatching(batching)) = &config.scheduling_choice else {
            return Ok(read);
        };
        let delay = Duration::from_micros(batching.max_queue_delay_microseconds);
        read.max_queue_delay = Some(delay).filter(|delay| !delay.is_zero());
        read.max_rows = preferred_rows(batching, config.max_batch_size)?;
        read.policy = policy(batching)?;
        Ok(read)
    }
}

fn refuse<T>(reason: String) -> Result<T, LoadError> {
    Err(LoadError::Configuration(reason))
}

/// All instances on the CPU. A group without a number is one.
fn instances(config: &ModelConfig) -> Result<Option<usize>, LoadError> {
    let mut sum = None;
    for group in &config.instance_group {
        let Ok(count) = usize::try_from(group.count) else {
            return refuse(format!("instance_group.count is {}, which is below 0", group.count));
        };
        if matches!(group.kind(), Kind::Cpu | Kind::Auto) {
            sum = Some(sum.unwrap_or(0_usize).saturating_add(count.max(1)));
        }
    }
    match sum {
        Some(sum) if sum > MOST_INSTANCES => {
            refuse(format!("instance_group: {sum} instances, at most {MOST_INSTANCES} are served"))
        }
        sum => Ok(sum),
    }
}

fn preferred_rows(
    batching: &ModelDynamicBatching,
    max_batch_size: i32,
) -> Result<Option<usize>, LoadError> {
    let most = usize::try_from(max_batch_size).ok().filter(|&most| most > 0);
    let most = most.unwrap_or(usize::MAX);
    let mut largest = None;
    for &size in &batching.preferred_batch_size {
        match usize::try_from(size) {
            Ok(size) if size > 0 && size <= most => largest = largest.max(Some(size)),
            Ok(size) if size > most => {
                return refuse(format!(
                    "dynamic batching preferred size must be <= max batch size: {size} is above {most}"
                ));
            }
            _ => {
                let text = "dynamic batching preferred size must be positive";
                return refuse(format!("{text}: it is {size}"));
            }
        }
    }
    Ok(largest)
}

fn policy(batching: &ModelDynamicBatching) -> Result<SchedulePolicy, LoadError> {
    let (levels, default) = (batching.priority_levels, batching.default_priority_level);
    if levels > 0 && !(1..=levels).contains(&default) {
        return refuse(format!(
            "default_priority_level must be between 1 and the {levels} priority_levels: it is {default}"
        ));
    }
    let mut by_priority = BTreeMap::new();
    for (&level, policy) in &batching.priority_queue_policy {
        if !(1..=levels).contains(&level) {
            return refuse(format!(
                "priority_queue_policy is for level {level}, and priority_levels is {levels}"
            ));
        }
        by_priority.insert(level, queue_policy(policy));
    }
    Ok(SchedulePolicy {
        priority_levels: levels,
        default_priority: if levels > 0 { default } else { 0 },
        queue: batching.default_queue_policy.as_ref().map(queue_policy).unwrap_or_default(),
        by_priority,
    })
}

fn queue_policy(policy: &ModelQueuePolicy) -> QueuePolicy {
    let timeout = Duration::from_micros(policy.default_timeout_microseconds);
    let max_queue = usize::try_from(policy.max_queue_size).unwrap_or(usize::MAX);
    QueuePolicy {
        timeout: Some(timeout).filter(|timeout| !timeout.is_zero()),
        allow_override: policy.allow_timeout_override,
        action: match policy.timeout_action() {
            Action::Reject => TimeoutAction::Reject,
            Action::Delay => TimeoutAction::Delay,
        },
        max_queue: Some(max_queue).filter(|&most| most > 0),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use sluice_protocol::grpc::ModelConfig;

    use super::Scheduling;
    use crate::error::LoadError;
    use crate::executor::{QueuePolicy, SchedulePolicy, TimeoutAction};

    fn read(text: &str) -> Result<Scheduling, LoadError> {
        let text = format!("max_batch_size: 8 {text}");
        Scheduling::read(&ModelConfig::parse_text(&text).unwrap())
    }

    #[test]
    fn what_is_not_said_is_left_open() {
        for text in ["", "dynamic_batching { }", "dynamic_batching { preserve_ordering: true }"] {
            let read = read(text).unwrap();
            assert_eq!((read.max_queue_delay, read.max_rows), (None, None), "{text}");
            assert_eq!(read.instances, None);
            assert_eq!(read.policy, SchedulePolicy::default(), "{text}");
        }
    }

    #[test]
    fn dynamic_batching_is_read_whole() {
        let read = read(
            "dynamic_batching {
                preferred_batch_size: [ 2, 8, 4 ]
                max_queue_delay_microseconds: 250
                priority_levels: 3
                default_priority_level: 2
                default_queue_policy { default_timeout_microseconds: 1000 max_queue_size: 7 }
                priority_queue_policy {
                    key: 3
                    value { timeout_action: DELAY allow_timeout_override: true }
                }
            }",
        )
        .unwrap();
        assert_eq!(read.max_queue_delay, Some(Duration::from_micros(250)));
        assert_eq!(read.max_rows, Some(8));
        let queue = QueuePolicy {
            timeout: Some(Duration::from_millis(1)),
            max_queue: Some(7),
            allow_override: false,
            ..QueuePolicy::default()
        };
        let slow = QueuePolicy {
            action: TimeoutAction::Delay,
            allow_override: true,
            ..QueuePolicy::default()
        };
        let by_priority = BTreeMap::from([(3, slow)]);
        let (priority_levels, default_priority) = (3, 2);
        let policy = SchedulePolicy { priority_levels, default_priority, queue, by_priority };
        assert_eq!(read.policy, policy);
    }

    #[test]
    fn instances_of_all_groups_add_up() {
        for (text, expected) in [
            ("instance_group { }", Some(1)),
            ("instance_group [ { count: 2 kind: KIND_CPU }, { count: 3 } ]", Some(5)),
            ("instance_group { count: 4 kind: KIND_MODEL }", None),
        ] {
            assert_eq!(read(text).unwrap().instances, expected, "{text}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (text, says) in [
            ("instance_group { count: -1 }", "count is -1"),
            ("instance_group { count: 2000 }", "2000 instances"),
            ("dynamic_batching { preferred_batch_size: 9 }", "must be <= max batch size"),
            ("dynamic_batching { preferred_batch_size: 0 }", "must be positive: it is 0"),
            ("dynamic_batching { preferred_batch_size: -4 }", "must be positive: it is -4"),
            ("dynamic_batching { priority_levels: 2 }", "default_priority_level must be between"),
            (
                "dynamic_batching { priority_levels: 2 default_priority_level: 3 }",
                "default_priority_level must be between 1 and the 2",
            ),
            ("dynamic_batching { priority_queue_policy { key: 1 } }", "is for level 1"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
