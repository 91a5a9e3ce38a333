//! `towpath run`

use tokio::runtime::Builder;

use super::{Call, Failure, LogFormat, logging};
use crate::config::Purpose;

pub(super) fn run(call: &Call<'_>) -> Result<(), Failure> {
    logging::start(call)?;
    let config = call.load(Purpose::Run)?;
    for warning in &config.warnings {
        tracing::warn!(key = %warning.problem.path, "{}", warning.problem.message);
    }
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::work(format!("no runtime: {error}"), None))?;
    let done = runtime.block_on(call.engine.run(config));
    // Blocking threads that hang (a dead disk) must not keep the process from ending.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match done {
        // Whoever reads JSON reads this line, too.
        Err(error) if call.global.log_format == LogFormat::Json => {
            tracing::error!(operation = error.operation, help = error.help, "{}", error.message);
            Err(Failure::Said)
        }
        done => Ok(done?),
    }
}
