//! `pentimento models`: what the catalogue says, where the files are, and what is in them.

mod inspect;
mod list;
mod names;
mod pull;
mod verify;
mod warm;

use crate::args::{ModelsAction, ModelsArgs};
use crate::config::Config;

pub(crate) use list::{is_usable, state_of};

/// Runs one of the actions.
pub(crate) async fn run(args: &ModelsArgs, config: &Config) -> anyhow::Result<()> {
    match &args.action {
        ModelsAction::List(list) => list::run(list, config),
        ModelsAction::Pull(pull) => pull::run(pull, config).await,
        ModelsAction::Verify(verify) => verify::run(verify, config).await,
        ModelsAction::Inspect(inspect) => inspect::run(inspect, config),
        ModelsAction::Warm(warm) => warm::run(warm, config).await,
    }
}
