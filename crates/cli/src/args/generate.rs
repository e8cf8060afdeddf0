//! `pentimento generate`.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use pentimento_types::{ImageFormat, LoraRef, SchedulerKind};

use super::place::PlaceArgs;
use super::values::{guidance_scale, image_format, lora, scheduler, side, unit_interval};
use crate::config::Compliance;

/// Where `generate` writes when nobody says.
pub(crate) const DEFAULT_OUT: &str = "out.png";

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct GenerateArgs {
    /// The picture to start from: PNG, JPEG or WebP; `-` reads it from the standard input. Several, or a folder of them, are
    /// made together, each with the same seed [default: none, and the picture is made from the prompt alone]
    #[arg(long = "image", value_name = "FILE", num_args = 1..)]
    pub(crate) images: Vec<PathBuf>,

    /// White is painted anew and black is kept; of any size
    #[arg(long, value_name = "FILE", requires = "images")]
    pub(crate) mask: Option<PathBuf>,

    /// Takes the mask's grey for how much each pixel may change, from black, which stays, to white
    #[arg(long, requires = "mask")]
    pub(crate) differential_diffusion: bool,

    /// Pixels per line of a picture that is made from the prompt alone, a multiple of 8 [default: what the checkpoint was trained
    /// on]
    #[arg(long, value_name = "PIXELS", conflicts_with = "images", value_parser = side)]
    pub(crate) width: Option<u32>,

    /// Lines of such a picture, a multiple of 8 [default: what the checkpoint was trained on]
    #[arg(long, value_name = "PIXELS", conflicts_with = "images", value_parser = side)]
    pub(crate) height: Option<u32>,

    /// Pixels over which the new part fades in at the mask's edge
    #[arg(long, value_name = "PIXELS", default_value_t = 0, requires = "mask", value_parser = clap::value_parser!(u32).range(0..=256))]
    pub(crate) soft_edge: u32,

    /// What the picture should show
    #[arg(long)]
    pub(crate) prompt: String,

    /// What it should not show; counts when guidance is above 1
    #[arg(long)]
    pub(crate) negative: Option<String>,

    /// A checkpoint of the catalogue
    #[arg(long, default_value = "demo")]
    pub(crate) model: String,

    /// A VAE of the catalogue [default: the checkpoint's own]
    #[arg(long, value_name = "NAME")]
    pub(crate) vae: Option<String>,

    /// A LoRA of the catalogue, with its strength where that is not 1; may be repeated
    #[arg(long = "lora", value_name = "NAME[:STRENGTH]", value_parser = lora)]
    pub(crate) loras: Vec<LoraRef>,

    /// An IP-Adapter of the catalogue, which shows the model a picture beside the prompt
    #[arg(long, value_name = "NAME", requires = "ip_adapter_image")]
    pub(crate) ip_adapter: Option<String>,

    /// The picture that it shows; a square one is seen whole
    #[arg(long, value_name = "FILE", requires = "ip_adapter")]
    pub(crate) ip_adapter_image: Option<PathBuf>,

    /// How much that picture counts: 1 as the adapter was trained, 0 not at all
    #[arg(long, value_name = "SCALE", default_value_t = 1.0, requires = "ip_adapter", value_parser = unit_interval)]
    pub(crate) ip_adapter_scale: f64,

    /// Steps of the whole schedule; strength decides how many of them run
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) steps: u32,

    /// 0 gives the picture back, 1 ignores it
    #[arg(long, default_value_t = 0.6, requires = "images", value_parser = unit_interval)]
    pub(crate) strength: f64,

    /// How closely to follow the prompt; up to 1 there is no guidance
    #[arg(long, default_value_t = 2.0, value_parser = guidance_scale)]
    pub(crate) guidance: f64,

    /// The same seed gives the same picture [default: a random one, which is printed]
    #[arg(long)]
    pub(crate) seed: Option<u64>,

    /// The diffusion scheduler, by its diffusers name: LCMScheduler, DDIM, EulerDiscrete [default: the checkpoint's]
    #[arg(long, value_name = "NAME", value_parser = scheduler)]
    pub(crate) scheduler: Option<SchedulerKind>,

    /// 1 uses the text encoder's last layer, 2 the one before it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=12))]
    pub(crate) clip_skip: u32,

    /// Faster for large pictures, by merging tokens that are nearly alike; changes the picture a little
    #[arg(long)]
    pub(crate) merge_tokens: bool,

    /// How many pictures; picture k uses seed + k
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) count: u32,

    /// Where to; further pictures get `-1`, `-2` before the ending. `-` writes to the standard output. For several inputs it is a
    /// folder, and the pictures have their names
    #[arg(long, value_name = "FILE", default_value = DEFAULT_OUT)]
    pub(crate) out: PathBuf,

    /// png, jpeg or webp [default: what the ending of --out says, else png]
    #[arg(long, value_parser = image_format)]
    pub(crate) format: Option<ImageFormat>,

    /// Shows no picture in the terminal
    #[arg(long)]
    pub(crate) no_preview: bool,

    /// Marks pictures beyond what their files say [default: none]
    #[arg(long, value_name = "RULES")]
    pub(super) compliance: Option<Compliance>,

    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

impl GenerateArgs {
    /// Where the pictures of several inputs go.
    pub(crate) fn out_folder(&self) -> &Path {
        if self.out == Path::new(DEFAULT_OUT) {
            Path::new(".")
        } else {
            &self.out
        }
    }
}
