//! The device that is asked, and the work that it is given.

use std::str::FromStr;

use anyhow::Context as _;
use pentimento_gpu::Gpu;
use pentimento_pipeline::{Device, GpuDevice, Precision, StableDiffusion, seeded};
use pentimento_types::{ModelId, Recipe, RgbImage, SchedulerChoice, SchedulerKind, Size};

/// Weights and pictures are the same in every run.
const SEED: u64 = 1;

/// Which device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Cuda(usize),
    Emulated,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "emulated" {
            return Ok(Self::Emulated);
        }
        let number = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
        number
            .map(Self::Cuda)
            .ok_or_else(|| "write cuda:0, or emulated".to_owned())
    }
}

impl Place {
    pub(crate) fn open(&self) -> anyhow::Result<Gpu> {
        Ok(match self {
            Self::Cuda(number) => Gpu::open(*number, None)?,
            Self::Emulated => Gpu::open_emulated(None)?,
        })
    }
}

/// Networks of seeded weights there.
pub(crate) fn model(
    shape: seeded::Shape,
    gpu: &Gpu,
    precision: Precision,
) -> anyhow::Result<StableDiffusion> {
    let device = Device::Gpu(GpuDevice::new(gpu.clone(), precision));
    Ok(seeded::stable_diffusion(shape, SEED, &device)?)
}

/// The same on the processor.
pub(crate) fn model_on_cpu(shape: seeded::Shape) -> anyhow::Result<StableDiffusion> {
    Ok(seeded::stable_diffusion(shape, SEED, &Device::Cpu)?)
}

/// Pictures of `steps` evaluations, each of two rows where they are guided.
pub(crate) fn recipe(image_count: u32, steps: u32, guidance_scale: f64) -> Recipe {
    Recipe {
        prompt: "a photograph of a cup of coffee on a wooden table".to_owned(),
        image_count,
        steps,
        guidance_scale,
        seed: SEED,
        scheduler: SchedulerChoice {
            kind: Some(SchedulerKind::DDIM),
            ..SchedulerChoice::default()
        },
        ..Recipe::of_model(ModelId::new("seeded"))
    }
}

/// Colours that change over both axes.
pub(crate) fn picture(side: u32) -> anyhow::Result<RgbImage> {
    let byte = |value: u32| u8::try_from(value * 255 / side).unwrap_or(u8::MAX);
    let pixels = (0..side * side).flat_map(|at| [byte(at % side), byte(at / side), 128]);
    let size = Size {
        width: side,
        height: side,
    };
    RgbImage::new(size, pixels.collect()).context("a square has side * side pixels")
}
