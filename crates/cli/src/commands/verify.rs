//! `pentimento verify`: what files say of where their pictures come from.

use std::path::Path;

use anyhow::{Context as _, ensure};
use pentimento_service::image_codec::{Provenance, read_provenance};
use pentimento_types::read_regular;
use serde_json::json;

use crate::args::VerifyArgs;
use crate::output;

/// What this command reads at most of a file.
const MOST_BYTES: u64 = 512 << 20;

/// Looks at each file and says what it found.
pub(crate) fn run(args: &VerifyArgs) -> anyhow::Result<()> {
    let mut unmarked = 0;
    for path in &args.files {
        let bytes =
            read_regular(path, MOST_BYTES).with_context(|| format!("cannot read {}", path.display()))?;
        let found = read_provenance(&bytes);
        unmarked += usize::from(!found.is_generated());
        if args.json {
            output::line(as_json(path, &found));
        } else {
            print(path, &found);
        }
    }
    ensure!(
        unmarked == 0,
        "{unmarked} of {} files do not say that they are generated",
        args.files.len()
    );
    Ok(())
}

fn as_json(path: &Path, found: &Provenance) -> serde_json::Value {
    json!({
        "file": path.display().to_string(),
        "generated": found.is_generated(),
        "digital_source_type": found.source_type,
        "parameters": found.parameters,
    })
}

fn print(path: &Path, found: &Provenance) {
    let verdict = if found.is_generated() {
        "is marked as generated"
    } else {
        "has no mark of a generated picture"
    };
    output::line(format_args!("{} {verdict}", path.display()));
    if let Some(word) = &found.source_type {
        output::line(format_args!("  IPTC DigitalSourceType: {word}"));
    }
    if let Some(metadata) = &found.parameters {
        output::line(format_args!("  made by {}", metadata.software));
        for line in metadata.parameters_text().lines() {
            output::line(format_args!("  {line}"));
        }
    }
}
