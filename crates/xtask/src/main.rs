//! `cargo xtask`: the repository's own commands, so that nobody has to remember a tool's options.
//!
//! It depends on no other crate of the workspace, so it works while they do not compile.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool for developers; its report is its output"
)]

mod chaos;
mod check;
mod clients;
mod features;
mod image;
mod parity;
mod shell;
mod sizing;
mod test;
mod tidy;
mod tree;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The repository's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Formatting, clippy with warnings as errors, the tidy rules, and the documentation.
    Check,
    /// All tests, with the real clients of the vendors where Python (and npm) can prepare them.
    Test {
        /// Does not prepare the clients: what is there is used, nothing is fetched.
        #[arg(long)]
        offline: bool,
        /// Passed on to the test runner.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        runner_args: Vec<String>,
    },
    /// Clippy and tests of the features that are off by default.
    Features {
        /// Only clippy, which compiles the tests as well: what `.ci/run` does of it.
        #[arg(long)]
        lint: bool,
    },
    /// Kills and starts the server under load, again and again; nothing may be lost or made twice.
    Chaos(chaos::ChaosArgs),
    /// Builds the container image without a daemon, makes a picture in it, and checks its size and its user.
    Image {
        /// A program that is compiled already, instead of compiling one.
        #[arg(long, value_name = "FILE")]
        binary: Option<std::path::PathBuf>,
        /// The image for NVIDIA cards, which computes on the CPU here.
        #[arg(long)]
        cuda: bool,
        /// A folder with NVIDIA's libraries, instead of fetching them.
        #[arg(long, value_name = "DIR", requires = "cuda")]
        libraries: Option<std::path::PathBuf>,
    },
    /// Runs the comparisons with the references and writes `docs/weights-parity.md`.
    Parity,
    /// Simulates clusters of 1 to 1,000 workers and writes `docs/cluster-sizing.md`.
    Sizing,
    /// The repository's own rules: layers, names, documents, golden files.
    Tidy,
}

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Check => check::run(),
        Command::Test { offline, runner_args } => test::run(offline, &runner_args),
        Command::Features { lint } => features::run(lint),
        Command::Chaos(args) => chaos::run(&args),
        Command::Image {
            binary,
            cuda,
            libraries,
        } => {
            let flavour = if cuda {
                image::Flavour::Cuda
            } else {
                image::Flavour::Cpu
            };
            image::run(binary.as_deref(), flavour, libraries.as_deref())
        }
        Command::Parity => parity::run(),
        Command::Sizing => sizing::run(),
        Command::Tidy => tidy::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
