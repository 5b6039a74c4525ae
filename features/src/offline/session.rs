//! The DataFusion session. A file is read by one task and its rows keep their order, which
//! their position (the last tie-breaker) rests on; windows over entities run in parallel.

use datafusion::common::Column;
use datafusion::prelude::{Expr, SessionConfig, SessionContext};

pub(super) fn new() -> SessionContext {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut config = SessionConfig::new()
        .with_target_partitions(threads)
        .with_repartition_file_scans(false)
        .with_round_robin_repartition(false);
    config.options_mut().execution.collect_statistics = false;
    SessionContext::new_with_config(config)
}

/// A column by its exact name; `col` would read dots and capitals in it.
pub(super) fn column(name: impl Into<String>) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}
