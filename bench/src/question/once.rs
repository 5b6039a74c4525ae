//! Single questions, outside of any load.

use std::time::Duration;

use crate::check::{Failure, Fault};
use crate::connection::{Answer, Connection};
use crate::error::BenchError;
use crate::options::{LoadOptions, Question, Template, Transport};
use crate::target::Target;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks once, on a connection of its own. This blocks, outside of any runtime.
pub(crate) fn once(
    question: Question,
    transport: Transport,
    allow_remote: bool,
) -> Result<Result<Answer, Fault>, BenchError> {
    let target = Target::resolve(&question.url, allow_remote)?;
    let options = LoadOptions::new(question.url.clone());
    let options = LoadOptions { questions: vec![question], transport, ..options };
    let (_, request) = Template::new(options, &target).request(0);
    let mut connection = Connection::new(target.addresses.as_slice().into(), transport);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(BenchError::Start)?.block_on(async {
        let asked = tokio::time::timeout(PATIENCE, connection.ask(request)).await;
        // Closed in here, by the runtime that drives it.
        drop(connection);
        let detail = format!("no answer in {PATIENCE:?}");
        asked.unwrap_or(Err(Fault { failure: Failure::Timeout, detail }))
    }))
}
