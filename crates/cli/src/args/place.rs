//! Where the models are, and what computes: for all commands that make pictures or look at models.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::config::DeviceChoice;

/// Where the models and the data are.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct PlaceArgs {
    /// The model catalogue [default: models.toml, where there is one, else the built-in demo model only]
    #[arg(long, value_name = "FILE")]
    pub(super) models: Option<PathBuf>,

    /// What computes [default: auto]
    #[arg(long)]
    pub(super) device: Option<DeviceChoice>,
}
