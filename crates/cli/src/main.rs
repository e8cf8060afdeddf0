//! The binary `pentimento`: reads arguments and settings, runs one command, and prints an error with all its causes.
//!
//! Exit codes: 0 done, 1 it failed, 2 the arguments or settings are wrong.

mod admin_server;
mod allocator;
mod args;
mod assemble;
mod commands;
mod config;
mod data_folder;
mod idle;
mod machine;
mod open_files;
mod output;
mod pictures;
mod process;
mod purge;
mod reachable;
mod telemetry;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

use crate::args::{Args, Command};
use crate::config::{Config, ConfigError, Environment};
use crate::telemetry::Telemetry;

/// How long threads get that still read or write when the command is done.
const LAST_WAIT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    // The process is ours; clients that speak TLS name their provider themselves, and others need that there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = Args::parse();
    match run(args) {
        Ok(code) => code,
        Err(error) => {
            output::error_lines(&error).iter().for_each(output::note);
            code_of(&error)
        }
    }
}

/// Settings first, because they say how to log; then the command, whose error goes the way of the log, because nobody may
/// take what stands on the standard error.
fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(
        args.settings(),
        args.config.as_deref(),
        &Environment::of_process(),
    )?;
    let telemetry = Telemetry::start(&config.telemetry)?;
    Ok(match command(args.command, config, &telemetry) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error_lines(&error)
                .iter()
                .for_each(|line| telemetry.note(line));
            code_of(&error)
        }
    })
}

fn code_of(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(if error.is::<ConfigError>() { 2 } else { 1 })
}

fn command(command: Command, config: Config, telemetry: &Telemetry) -> anyhow::Result<()> {
    config.apply_isa()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = match command {
        Command::Serve(_) => runtime.block_on(commands::serve::run(config, telemetry)),
        Command::Demo(demo) => runtime.block_on(commands::demo::run(demo, config, telemetry)),
        Command::Generate(generate) => runtime.block_on(commands::generate::run(*generate, config)),
        Command::Models(models) => runtime.block_on(commands::models::run(&models, &config)),
        Command::Health => runtime.block_on(commands::health::run(&config)),
        Command::Jobs(jobs) => runtime.block_on(commands::jobs::run(&jobs.action, &config)),
        Command::Keys(keys) => commands::keys::run(&keys, &config),
        Command::Doctor(doctor) => runtime.block_on(commands::doctor::run(&doctor, &config)),
        Command::Bench(bench) => commands::bench::run(&bench),
        Command::Verify(verify) => commands::verify::run(&verify),
        Command::Completions(completions) => commands::about::completions(completions.shell),
        Command::Man => commands::about::man(),
    };
    // A thread that reads from a disk which does not answer would be waited for without end.
    runtime.shutdown_timeout(LAST_WAIT);
    done
}
