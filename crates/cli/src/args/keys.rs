//! What `pentimento keys` takes.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    pub(crate) action: KeysAction,

    /// The server's folder, where the keys are [default: pentimento-data]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum KeysAction {
    /// Makes a key and shows its secret, this once
    New(KeysNewArgs),
    /// Lists the keys, without their secrets
    List(KeysListArgs),
    /// Takes a key back
    Revoke(KeysRevokeArgs),
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct KeysNewArgs {
    /// A name for the key, which stands in logs and owns its jobs: letters, digits, `-`, `_`, `.`
    #[arg(value_name = "LABEL")]
    pub(crate) label: String,

    /// Time after which it ends by itself, such as `90days` or `12h` [default: never]
    #[arg(long, value_name = "TIME", value_parser = key_life)]
    pub(crate) expires: Option<Duration>,

    /// Jobs of it that may wait or run at once [default: the server's `jobs_at_once`]
    #[arg(long, value_name = "JOBS")]
    pub(crate) jobs_at_once: Option<NonZeroU32>,

    /// Calls of it in a minute [default: the server's `requests_per_minute`]
    #[arg(long, value_name = "CALLS")]
    pub(crate) requests_per_minute: Option<NonZeroU32>,

    /// Lets it do what concerns all callers: metrics, models in memory, the whole queue, a restart
    #[arg(long)]
    pub(crate) admin: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct KeysListArgs {
    /// One JSON document instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct KeysRevokeArgs {
    /// The key's name
    #[arg(value_name = "LABEL")]
    pub(crate) label: String,
}

fn key_life(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
    let life = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if life < Duration::from_secs(1) || life > LONGEST {
        return Err("it must be a second to a hundred years".to_owned());
    }
    Ok(life)
}
