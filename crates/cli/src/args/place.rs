//! Where the models are, and what computes: for all commands that make pictures or look at models.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::config::{DeviceChoice, GpuMemory, PrecisionChoice};

/// Where the models and the data are.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct PlaceArgs {
    /// The model catalogue [default: models.toml, where there is one, else the built-in demo model only]
    #[arg(long, value_name = "FILE")]
    pub(super) models: Option<PathBuf>,

    #[command(flatten)]
    pub(super) compute: ComputeArgs,
}

/// What computes, and how.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct ComputeArgs {
    /// What computes: auto, cpu, cuda for all GPUs, or cuda:N for some of them, as in cuda:0,1 [default: auto]
    #[arg(long)]
    pub(super) device: Option<DeviceChoice>,

    /// The numbers in which networks compute [default: f16 on a GPU, f32 on the processor]
    #[arg(long)]
    pub(super) precision: Option<PrecisionChoice>,

    /// What may be used of each GPU's memory: bytes, as in 20GiB, or a share of what is free, as in 50% [default: 90%]
    #[arg(long, value_name = "SIZE")]
    pub(super) gpu_memory: Option<GpuMemory>,
}

/// The side of a picture that a measurement makes.
pub(super) fn bench_side(text: &str) -> Result<u32, String> {
    let side: u32 = text.parse().map_err(|_| "not a whole number".to_owned())?;
    if (8..=2048).contains(&side) && side.is_multiple_of(8) {
        Ok(side)
    } else {
        Err("not a multiple of 8 in 8..=2048".to_owned())
    }
}
