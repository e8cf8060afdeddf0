//! `pentimento verify`: what files say of where their pictures come from.

use std::path::Path;

use anyhow::{Context as _, ensure};
use pentimento_service::InputLimits;
use pentimento_service::image_codec::{FoundManifest, Provenance, read_provenance_and_pixels};
use pentimento_types::read_regular;
use serde_json::json;

use crate::args::VerifyArgs;
use crate::output;

/// What this command reads at most of a file.
const MOST_BYTES: u64 = 512 << 20;

/// Of a picture whose pixels are looked at.
const LIMITS: InputLimits = InputLimits {
    max_side: u32::MAX,
    max_pixels: 256_000_000,
    max_bytes: MOST_BYTES,
};

/// Looks at each file and says what it found.
pub(crate) fn run(args: &VerifyArgs) -> anyhow::Result<()> {
    let mut unmarked = 0;
    for path in &args.files {
        let bytes =
            read_regular(path, MOST_BYTES).with_context(|| format!("cannot read {}", path.display()))?;
        let found = read_provenance_and_pixels(&bytes, LIMITS);
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
        "content_credentials": found.manifest,
        "watermark": found.watermark,
    })
}

fn print_manifest(manifest: &FoundManifest) {
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "nobody that it names".to_owned());
    let state = if manifest.intact {
        "intact".to_owned()
    } else {
        format!("NOT INTACT: {}", manifest.problems.join(", "))
    };
    let signers = [&manifest.signed_by, &manifest.organisation];
    let signers: Vec<String> = signers.into_iter().flatten().cloned().collect();
    let signers = (!signers.is_empty()).then(|| signers.join(", "));
    output::line(format_args!(
        "  content credentials: {state}, signed by {}",
        known(&signers)
    ));
    if let Some(program) = &manifest.generator {
        output::line(format_args!("    claimed by {program}"));
    }
    if let Some(word) = &manifest.digital_source_type {
        output::line(format_args!("    made as {word}"));
    }
    if manifest.has_parent {
        output::line("    with the manifest of the picture that it was made from");
    }
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
    if found.watermark == Some(true) {
        output::line("  watermark in its pixels: pentimento's");
    }
    if let Some(manifest) = &found.manifest {
        print_manifest(manifest);
    }
    if let Some(metadata) = &found.parameters {
        output::line(format_args!("  made by {}", metadata.software));
        for line in metadata.parameters_text().lines() {
            output::line(format_args!("  {line}"));
        }
    }
}
