//! `pentimento bench`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use pentimento_types::SchedulerKind;

use super::place::{ComputeArgs, bench_side};
use super::values::{guidance_scale, scheduler};

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct BenchArgs {
    /// `demo` is the built-in model; `sd15` has the shapes of Stable Diffusion 1.5 with random weights (4 GB of memory)
    #[arg(long, default_value = "demo")]
    pub(crate) model: BenchModel,

    /// A diffusers folder (model_index.json with text_encoder, unet, vae, tokenizer and scheduler beside it) or a checkpoint in
    /// one file instead
    #[arg(long, value_name = "DIR", conflicts_with = "model")]
    pub(crate) folder: Option<PathBuf>,

    /// Side of the square picture, a multiple of 8 [default: 128 for demo, else 512]
    #[arg(long, value_name = "PIXELS", value_parser = bench_side)]
    pub(crate) size: Option<u32>,

    /// Steps of the schedule, all of which run; some schedulers evaluate the UNet twice in a step
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) steps: u32,

    /// The diffusion scheduler, by its diffusers name: LCMScheduler, DDIM, EulerDiscrete
    #[arg(long, value_name = "NAME", default_value = "LCM", value_parser = scheduler)]
    pub(crate) scheduler: SchedulerKind,

    /// Above 1 the UNet computes every picture twice, with the prompt and without
    #[arg(long, default_value_t = 1.0, value_parser = guidance_scale)]
    pub(crate) guidance: f64,

    /// Merge tokens that are nearly alike, where the picture is large enough for it to be faster
    #[arg(long)]
    pub(crate) merge_tokens: bool,

    /// Runs after the load, of which the median and the fastest are shown
    #[arg(long, value_name = "RUNS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,

    /// Pictures that share every forward of the UNet, as the server batches them
    #[arg(long, value_name = "PICTURES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) rows: u32,

    /// One JSON document instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(super) compute: ComputeArgs,
}

/// What `bench` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchModel {
    Demo,
    Sd15,
}
