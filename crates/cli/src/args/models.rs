//! What `pentimento models` takes.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::place::{ComputeArgs, PlaceArgs, bench_side};

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ModelsArgs {
    #[command(subcommand)]
    pub(crate) action: ModelsAction,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ModelsAction {
    /// Fetches models of the catalogue from where their source says, before a request names them
    Pull(ModelsPullArgs),
    /// Compares the files of models with their sha256, and reads all of the checkpoints
    Verify(ModelsVerifyArgs),
    /// Says what a weights file, a folder, or a model of the catalogue is
    Inspect(ModelsInspectArgs),
    /// Makes on a GPU what the first pictures of checkpoints would wait for, and says what they take of its memory
    Warm(ModelsWarmArgs),
    /// Lists every model that a request can name, and whether its files are there
    List(ModelsListArgs),
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ModelsListArgs {
    #[command(flatten)]
    pub(super) place: PlaceArgs,

    /// One JSON document instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ModelsPullArgs {
    /// Names of the catalogue
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,

    #[command(flatten)]
    pub(super) place: ModelPlaceArgs,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ModelsVerifyArgs {
    /// Names of the catalogue [default: all whose files are here]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,

    #[command(flatten)]
    pub(super) place: ModelPlaceArgs,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ModelsInspectArgs {
    /// A file, a folder, or a name of the catalogue
    #[arg(value_name = "FILE|NAME")]
    pub(crate) what: String,

    #[command(flatten)]
    pub(super) place: ModelPlaceArgs,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ModelsWarmArgs {
    /// Names of checkpoints
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,

    /// Side of the square pictures, a multiple of 8
    #[arg(long, value_name = "PIXELS", default_value_t = 512, value_parser = bench_side)]
    pub(crate) size: u32,

    /// Rows of a forward up to which it is looked at
    #[arg(long, value_name = "ROWS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=32))]
    pub(crate) rows: u32,

    #[command(flatten)]
    pub(super) place: ModelPlaceArgs,

    #[command(flatten)]
    pub(super) compute: ComputeArgs,
}

/// Where the catalogue and the files of models are.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct ModelPlaceArgs {
    /// The model catalogue [default: models.toml, where there is one, else the built-in demo model only]
    #[arg(long, value_name = "FILE")]
    pub(super) models: Option<PathBuf>,

    /// The server's folder, where files of https sources are kept [default: pentimento-data]
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
}
