//! Signed files keep their pixels, name who signed them, carry the manifest of their input, and no bytes make the reader panic.

use pentimento_types::{ModelId, Recipe, RgbImage, Size, Task};

use super::testing::{CHAIN, KEY, signed_elsewhere};
use super::*;
use crate::InputLimits;
use crate::image_codec::{ImageMetadata, Marks, Provenance, decode, encode, read_provenance};

const LIMITS: InputLimits = InputLimits {
    max_side: 256,
    max_pixels: u64::MAX,
    max_bytes: 1 << 20,
};
const NO_MARKS: Marks = Marks {
    parameters: false,
    source_type: false,
};

fn picture() -> RgbImage {
    let size = Size {
        width: 40,
        height: 24,
    };
    let pixels = (0..40 * 24 * 3).map(|at| (at * 7 % 251) as u8).collect();
    RgbImage::new(size, pixels).unwrap()
}

fn file(format: ImageFormat, marks: Marks) -> Bytes {
    let recipe = Recipe {
        prompt: "a boat".to_owned(),
        ..Recipe::of_model(ModelId::new("demo"))
    };
    let metadata = ImageMetadata::new(&recipe, Task::ImageToImage, 0, picture().size());
    encode(&picture(), format, (&metadata, marks)).unwrap()
}

fn origin(parent: Option<ParentManifest>) -> Origin {
    Origin {
        source_type: SourceType::CompositeWithTrainedAlgorithmicMedia,
        parent,
    }
}

fn signer() -> ManifestSigner {
    ManifestSigner::new(CHAIN, KEY).unwrap()
}

#[test]
fn a_signed_file_has_the_same_pixels_and_marks_and_says_who_signed_it() {
    let signer = signer();
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Webp] {
        let plain = file(format, Marks::ALL);
        let signed = signer.sign(&plain, format, &origin(None)).unwrap();
        assert_eq!(
            decode(&signed, LIMITS).unwrap(),
            decode(&plain, LIMITS).unwrap(),
            "{format:?}"
        );
        assert!(signer.keeps(&signed) && !signer.keeps(&plain), "{format:?}");
        let (before, after) = (read_provenance(&plain), read_provenance(&signed));
        let manifest = after.manifest.clone().unwrap();
        assert_eq!(
            Provenance {
                manifest: None,
                ..after
            },
            before,
            "{format:?}"
        );
        assert_eq!(manifest.problems, Vec::<String>::new(), "{format:?}");
        assert!(manifest.intact && !manifest.has_parent, "{format:?}");
        assert_eq!(manifest.signed_by.as_deref(), Some("pictures.example"));
        assert_eq!(manifest.organisation.as_deref(), Some("Example studio"));
        let word = manifest.digital_source_type.as_deref();
        assert_eq!(word, Some("compositeWithTrainedAlgorithmicMedia"));
        let program = format!("pentimento {}", env!("CARGO_PKG_VERSION"));
        assert_eq!(manifest.generator, Some(program));
        println!("{format:?}: {} bytes of manifest", signed.len() - plain.len());
    }
}

#[test]
fn the_manifest_of_the_picture_that_it_was_made_from_is_kept() {
    let signer = signer();
    let parent = signer
        .sign(
            &file(ImageFormat::Jpeg, NO_MARKS),
            ImageFormat::Jpeg,
            &origin(None),
        )
        .unwrap();
    let child = file(ImageFormat::Png, NO_MARKS);
    let manifest = signer.parent(&parent).unwrap();
    assert!(manifest.size_bytes() > 10_000, "{manifest:?}");
    let of_parent = origin(Some(manifest));
    let signed = signer.sign(&child, ImageFormat::Png, &of_parent).unwrap();
    let found = read_provenance(&signed);
    assert!(found.is_generated());
    let manifest = found.manifest.unwrap();
    assert!(manifest.intact && manifest.has_parent, "{manifest:?}");
    assert!(
        signed.len() > child.len() + parent.len() / 2,
        "it is in there as a whole"
    );
    // It is read once, and goes along as often as it is wanted.
    let again = signer.sign(&child, ImageFormat::Png, &of_parent).unwrap();
    let manifest = read_provenance(&again).manifest.unwrap();
    assert!(manifest.intact && manifest.has_parent, "{manifest:?}");
    // Whatever is left of one that was cut, the picture is signed all the same.
    for part in 1..16 {
        let broken = signer.parent(&parent[..parent.len() * part / 16]);
        let signed = signer.sign(&child, ImageFormat::Png, &origin(broken)).unwrap();
        assert!(read_provenance(&signed).manifest.unwrap().intact, "{part}");
    }
    assert!(signer.parent(&child).is_none(), "there is none in it");
}

#[test]
fn a_manifest_that_would_make_every_picture_large_is_left_out() {
    let signer = signer();
    let with_text = |bytes: usize| {
        let text = serde_json::json!({"text": "x".repeat(bytes)});
        signed_elsewhere(&file(ImageFormat::Png, NO_MARKS), [text])
    };
    let small = with_text(1 << 20);
    assert!(signer.keeps(&small) && signer.parent(&small).is_some());
    let large = with_text(2 << 20);
    assert!(read_provenance(&large).manifest.unwrap().intact);
    assert!(!signer.keeps(&large) && signer.parent(&large).is_none());
}

#[test]
fn a_file_that_was_changed_is_not_intact_and_none_makes_the_reader_panic() {
    let signer = signer();
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Webp] {
        let signed = signer
            .sign(&file(format, NO_MARKS), format, &origin(None))
            .unwrap();
        assert!(read_provenance(&signed).is_generated(), "{format:?}");
        let mut changed = signed.to_vec();
        // In the pixels, which are the last thing of each format, but for its end.
        let at = changed.len() - 40;
        changed[at] ^= 1;
        let found = read_provenance(&changed);
        let manifest = found.manifest.clone().unwrap();
        assert!(
            !manifest.intact && !manifest.problems.is_empty(),
            "{format:?}: {manifest:?}"
        );
        assert!(
            !found.is_generated(),
            "{format:?}: a signature that does not fit says nothing"
        );
        for step in 0..60 {
            let mut broken = signed.to_vec();
            broken.truncate(signed.len() * step / 60);
            let _ = read_provenance(&broken);
            let mut flipped = signed.to_vec();
            let at = signed.len() * step / 60;
            flipped[at] ^= 1 << (step % 8);
            let _ = read_provenance(&flipped);
        }
    }
}

#[test]
fn what_cannot_sign_is_refused_at_once() {
    const OTHER: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    for key in [
        &b""[..],
        b"-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----",
        b"-----BEGIN RSA PRIVATE KEY-----",
    ] {
        assert!(matches!(
            ManifestSigner::new(CHAIN, key),
            Err(ManifestSignerError::Key)
        ));
    }
    for (chain, key) in [(CHAIN, OTHER.as_bytes()), (&b""[..], KEY), (b"nonsense", KEY)] {
        let refused = ManifestSigner::new(chain, key);
        assert!(
            matches!(refused, Err(ManifestSignerError::Unusable { .. })),
            "{refused:?}"
        );
    }
}
