//! Logs: to the standard error, as text or JSON, through one filter, and never in anybody's way.

mod log_writer;
#[cfg(feature = "otlp")]
mod otlp;

use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Context as _;
use pentimento_service::Traces;
use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, LogFormat, TelemetryConfig};

use log_writer::LogWriter;

/// The log of the process. What is still waiting is written when this goes out of scope.
#[derive(Debug)]
pub(crate) struct Telemetry {
    writer: LogWriter,
    #[cfg(feature = "otlp")]
    exporter: Option<otlp::Exporter>,
}

impl Telemetry {
    /// Installs the log for the whole process; called once.
    pub(crate) fn start(config: &TelemetryConfig) -> anyhow::Result<Self> {
        let filter = EnvFilter::try_new(&config.filter).map_err(|source| ConfigError::LogFilter {
            filter: config.filter.clone(),
            source: source.into(),
        })?;
        let writer = LogWriter::start(std::io::stderr(), |lines| {
            tracing::warn!(lines, "lines of the log were lost, because nobody took them");
        })
        .context("a thread for the log could not be started")?;
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            // Its own complaints go to the standard error directly, and panic where that is closed.
            .log_internal_errors(false)
            .with_writer(writer.clone());
        #[cfg(feature = "otlp")]
        let exporter = config
            .otlp_endpoint
            .as_ref()
            .map(otlp::Exporter::start)
            .transpose()?;
        #[cfg(feature = "otlp")]
        match config.format {
            LogFormat::Text => otlp::install(
                log.with_ansi(std::io::stderr().is_terminal()).finish(),
                exporter.as_ref(),
            ),
            LogFormat::Json => otlp::install(log.json().flatten_event(true).finish(), exporter.as_ref()),
        }
        #[cfg(not(feature = "otlp"))]
        match config.format {
            LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
            LogFormat::Json => log.json().flatten_event(true).init(),
        }
        // The hook of the standard library writes to the standard error itself, and may wait there for ever.
        std::panic::set_hook(Box::new(log_panic));
        Ok(Self {
            writer,
            #[cfg(feature = "otlp")]
            exporter,
        })
    }

    /// How many lines of the log are lost so far.
    pub(crate) fn lost_lines(&self) -> Arc<AtomicU64> {
        self.writer.lost()
    }

    /// Whether spans go to somebody who collects traces.
    #[cfg(feature = "otlp")]
    pub(crate) fn traces(&self) -> Traces {
        self.exporter
            .as_ref()
            .map_or_else(Traces::default, |_| otlp::traces())
    }

    /// Whether spans go to somebody who collects traces.
    #[cfg(not(feature = "otlp"))]
    #[expect(clippy::unused_self, reason = "another build asks its exporter")]
    pub(crate) fn traces(&self) -> Traces {
        Traces::default()
    }

    /// A line that is no log, behind what was logged before.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        self.writer.push(format!("{text}\n").as_bytes());
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        // Before the log, in which it may complain.
        #[cfg(feature = "otlp")]
        drop(self.exporter.take());
        self.writer.flush();
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let text = panic.payload_as_str().unwrap_or("without a text");
    tracing::error!(
        thread = thread.name().unwrap_or("without a name"),
        place = panic.location().map(tracing::field::display),
        "panic: {text}"
    );
}
