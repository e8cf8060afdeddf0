//! What a C2PA manifest in a file says of its picture (Content Credentials, specification 2.2), and whether file and signature
//! still fit together. A build without the feature `c2pa` looks at none.

use serde::Serialize;

/// What was found of a file's latest manifest. Its texts are the file's: shortened, and without control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FoundManifest {
    /// Whether the signature fits the manifest, and the manifest the file. Whose signature it is, is another question: no list
    /// of trusted authorities is asked.
    pub intact: bool,
    /// Whose name is in the certificate.
    pub signed_by: Option<String>,
    /// Which organisation is.
    pub organisation: Option<String>,
    /// The program that made the claim.
    pub generator: Option<String>,
    /// IPTC's word for how the picture was made.
    pub digital_source_type: Option<String>,
    /// Whether the picture that it was made from has a place in it.
    pub has_parent: bool,
    /// What does not fit, in the codes of the specification; the first ten.
    pub problems: Vec<String>,
}

#[cfg(not(feature = "c2pa"))]
pub(super) fn read_manifest(_: &[u8]) -> Option<FoundManifest> {
    None
}

#[cfg(feature = "c2pa")]
pub(super) use with_c2pa::read_manifest;
#[cfg(feature = "c2pa")]
pub(crate) use with_c2pa::{context, manifest_bytes};

#[cfg(feature = "c2pa")]
mod with_c2pa {
    use std::io::Cursor;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::{Arc, LazyLock};

    use super::FoundManifest;
    use crate::image_codec::decode::format_of;
    use c2pa::{Context, Manifest, Reader, ValidationState};

    /// Nothing is fetched, whatever a manifest points to, and none is unpacked beyond eight megabytes.
    const SETTINGS: &str = r#"{
        "verify": {"verify_trust": false, "remote_manifest_fetch": false, "ocsp_fetch": false, "verify_after_sign": false},
        "core": {
            "max_decompressed_manifest_size_in_mb": 8,
            "decode_identity_assertions": false,
            "allowed_network_hosts": []
        }
    }"#;
    const LONGEST_TEXT: usize = 200;
    const MOST_PROBLEMS: usize = 10;

    static CONTEXT: LazyLock<Option<Arc<Context>>> =
        LazyLock::new(|| Some(Context::new().with_settings(SETTINGS).ok()?.into_shared()));

    /// The library's settings. None only where it does not take them, which a test would show.
    pub(crate) fn context() -> Option<Arc<Context>> {
        CONTEXT.clone()
    }

    /// The size of the manifests in the file, of whatever state; None where there are none.
    pub(crate) fn manifest_bytes(bytes: &[u8]) -> Option<u64> {
        let look = || {
            let format = format_of(bytes)?;
            c2pa::jumbf_io::load_jumbf_from_stream(format.content_type(), &mut Cursor::new(bytes)).ok()
        };
        // The library reads what strangers send; a panic of it says no.
        let found = catch_unwind(look).ok().flatten()?;
        Some(found.len() as u64)
    }

    pub(in crate::image_codec) fn read_manifest(bytes: &[u8]) -> Option<FoundManifest> {
        let format = format_of(bytes)?.content_type();
        let context = context()?;
        manifest_bytes(bytes)?;
        let unreadable = |problem: &str| FoundManifest {
            problems: vec![problem.to_owned()],
            ..FoundManifest::default()
        };
        let read = || Reader::from_shared_context(&context).with_stream(format, Cursor::new(bytes));
        Some(match catch_unwind(AssertUnwindSafe(read)) {
            Ok(Ok(reader)) => found(&reader),
            Ok(Err(_)) | Err(_) => unreadable("claim.malformed"),
        })
    }

    fn found(reader: &Reader) -> FoundManifest {
        let problems = reader.validation_status().unwrap_or_default().iter();
        let state = FoundManifest {
            intact: reader.validation_state() != ValidationState::Invalid,
            problems: problems
                .map(|problem| shown(problem.code()))
                .take(MOST_PROBLEMS)
                .collect(),
            ..FoundManifest::default()
        };
        let Some(manifest) = reader.active_manifest() else {
            return state;
        };
        let signature = manifest.signature_info();
        let generator = manifest.claim_generator_info.iter().flatten().next();
        FoundManifest {
            signed_by: signature.and_then(|of| of.common_name.as_deref()).map(shown),
            organisation: signature.and_then(|of| of.issuer.as_deref()).map(shown),
            generator: generator.map(|program| {
                let version = program.version.as_deref().unwrap_or_default();
                shown(format!("{} {version}", program.name).trim())
            }),
            digital_source_type: source_type(manifest),
            has_parent: manifest.ingredients().iter().any(c2pa::Ingredient::is_parent),
            ..state
        }
    }

    /// Of the last action that says one.
    fn source_type(manifest: &Manifest) -> Option<String> {
        let actions = manifest
            .assertions()
            .iter()
            .filter(|assertion| assertion.label().starts_with("c2pa.actions"));
        let said = actions.flat_map(|assertion| {
            let value = assertion.value().ok();
            let actions = value.and_then(|value| value["actions"].as_array().cloned());
            actions.unwrap_or_default().into_iter().filter_map(|action| {
                let address = action["digitalSourceType"].as_str()?;
                address.rsplit('/').next().map(shown)
            })
        });
        said.last()
    }

    fn shown(text: &str) -> String {
        text.chars()
            .filter(|c| !c.is_control())
            .take(LONGEST_TEXT)
            .collect()
    }
}
