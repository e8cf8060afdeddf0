//! `pentimento models pull`: fetches models before a request names them.

use super::names::{named, with_parts};
use crate::args::ModelsPullArgs;
use crate::commands::fetch::fetch;
use crate::config::Config;
use crate::{assemble, output};

/// Fetches the named models, one after the other.
pub(crate) async fn run(args: &ModelsPullArgs, config: &Config) -> anyhow::Result<()> {
    let (catalog, hub) = (assemble::catalog(config)?, assemble::hub(config)?);
    // Every name first: a wrong one is not found out after gigabytes.
    let mut entries = Vec::new();
    for name in &args.names {
        for entry in named(&catalog, name)? {
            entries.extend(with_parts(&catalog, &entry));
        }
    }
    for entry in entries {
        let located = fetch(&hub, &entry).await?;
        output::line(format_args!(
            "{} `{}` is ready: {}",
            entry.kind, entry.name, located.source
        ));
    }
    Ok(())
}
