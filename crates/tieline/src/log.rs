//! The server's log, on standard error: a line for each request, never a text or a key.

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

use crate::args::Log;
use crate::output::Output;

/// Starts it: JSON lines where results are JSON.
pub(crate) fn start(level: Log, output: Output) {
    let level = match level {
        Log::Error => LevelFilter::ERROR,
        Log::Warn => LevelFilter::WARN,
        Log::Info => LevelFilter::INFO,
        Log::Debug => LevelFilter::DEBUG,
    };
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(false);
    let lines: Box<dyn Layer<Registry> + Send + Sync> =
        if output.is_json() { lines.json().boxed() } else { lines.boxed() };
    // There is one already only where a test started it.
    let _ = tracing_subscriber::registry().with(lines.with_filter(level)).try_init();
}
