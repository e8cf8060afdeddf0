//! The binary `pentimento`: reads arguments and settings, runs one command, and prints an error with all its causes.
//!
//! Exit codes: 0 done, 1 it failed, 2 the arguments or settings are wrong, 75 a restart was asked for and could not be done in
//! place, 76 the device was lost and jobs wait for a process that is started again.

mod admin_server;
mod allocator;
mod args;
mod assemble;
mod cluster;
mod cluster_secrets;
mod commands;
mod config;
mod data_folder;
mod device;
mod idle;
mod machine;
mod open_files;
mod output;
mod pictures;
mod process;
mod purge;
mod reachable;
mod start_again;
mod telemetry;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

use crate::args::{Args, Command};
use crate::commands::serve::Next;
use crate::config::{Config, ConfigError, Environment};
use crate::telemetry::Telemetry;

/// How long threads get that still read or write when the command is done.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// The device was lost; whoever restarts what has failed brings it back.
const DEVICE_LOST: u8 = 76;

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
        Ok(Next::Nothing) => ExitCode::SUCCESS,
        Ok(Next::StartAgain) => {
            // What is still to be written of the log comes first.
            drop(telemetry);
            start_again::start_again(std::env::args_os())
        }
        Ok(Next::DeviceLost) => ExitCode::from(DEVICE_LOST),
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

fn command(command: Command, config: Config, telemetry: &Telemetry) -> anyhow::Result<Next> {
    config.apply_isa()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let nothing = |()| Next::Nothing;
    let done = match command {
        Command::Serve(_) => runtime.block_on(commands::serve::run(config, telemetry)),
        Command::Worker(_) => runtime.block_on(commands::serve::work(config, telemetry)),
        Command::Demo(demo) => runtime
            .block_on(commands::demo::run(demo, config, telemetry))
            .map(nothing),
        Command::Generate(generate) => runtime
            .block_on(commands::generate::run(*generate, config))
            .map(nothing),
        Command::Models(models) => runtime
            .block_on(commands::models::run(&models, &config))
            .map(nothing),
        Command::Health => runtime.block_on(commands::health::run(&config)).map(nothing),
        Command::Jobs(jobs) => runtime
            .block_on(commands::jobs::run(&jobs.action, &config))
            .map(nothing),
        Command::Keys(keys) => commands::keys::run(&keys, &config).map(nothing),
        Command::Doctor(doctor) => runtime
            .block_on(commands::doctor::run(&doctor, &config))
            .map(nothing),
        Command::Bench(bench) => commands::bench::run(&bench, &config).map(nothing),
        Command::Verify(verify) => commands::verify::run(&verify).map(nothing),
        Command::Completions(completions) => commands::about::completions(completions.shell).map(nothing),
        Command::Man => commands::about::man().map(nothing),
    };
    // A thread that reads from a disk which does not answer would be waited for without end.
    runtime.shutdown_timeout(LAST_WAIT);
    done
}
