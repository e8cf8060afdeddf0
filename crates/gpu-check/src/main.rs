//! `gpu-check`: what is asked of a card on the day that there is one. `scripts/gpu.sh` runs it, and a test rehearses that on the
//! emulated device.
//!
//! Each question is a command, whose answer is a few lines and a JSON document in the folder of results. The exit code is 1 where
//! an answer is no. Nothing here has run on a card yet.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool for developers; its report is its output"
)]

mod company;
mod exactness;
mod place;
mod smoke;
mod speed;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use pentimento_pipeline::seeded;

use crate::place::Place;

/// Questions to a card.
#[derive(Debug, Parser)]
#[command(name = "gpu-check")]
struct Args {
    #[command(subcommand)]
    question: Question,

    /// `cuda:0`, or `emulated` in a build with it
    #[arg(long, default_value = "cuda:0", global = true)]
    device: Place,

    /// The folder of results
    #[arg(long, value_name = "DIR", default_value = ".", global = true)]
    out: PathBuf,

    /// The shapes of the networks
    #[arg(long, default_value = "sd15", global = true)]
    shape: Shape,

    /// Side of the square pictures
    #[arg(long, value_name = "PIXELS", default_value_t = 512, global = true)]
    size: u32,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Question {
    /// Does it open, and what is it?
    Smoke,
    /// Does a picture depend on its company, or on the run?
    Company,
    /// Are its pictures those of the processor?
    Exactness,
    /// How long does it take, and how much of its memory?
    Speed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shape {
    Sd15,
    Tiny,
    Sdxl,
    TinySdxl,
}

impl From<Shape> for seeded::Shape {
    fn from(shape: Shape) -> Self {
        match shape {
            Shape::Sd15 => Self::Sd15,
            Shape::Tiny => Self::Tiny,
            Shape::Sdxl => Self::Sdxl,
            Shape::TinySdxl => Self::TinySdxl,
        }
    }
}

/// What was found: lines for people, the same for programs, and whether it is as it should be.
#[derive(Debug)]
struct Answer {
    lines: Vec<String>,
    json: serde_json::Value,
    good: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match ask(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn ask(args: &Args) -> anyhow::Result<bool> {
    let shape = args.shape.into();
    let (name, answer) = match args.question {
        Question::Smoke => ("smoke", smoke::ask(&args.device)?),
        Question::Company => ("company", company::ask(&args.device, (shape, args.size))?),
        Question::Exactness => ("exactness", exactness::ask(&args.device, (shape, args.size))?),
        Question::Speed => ("speed", speed::ask(&args.device, (shape, args.size))?),
    };
    for line in &answer.lines {
        println!("{line}");
    }
    fs_err::create_dir_all(&args.out)?;
    let text = serde_json::to_string_pretty(&answer.json)?;
    fs_err::write(args.out.join(format!("{name}.json")), text)?;
    Ok(answer.good)
}
