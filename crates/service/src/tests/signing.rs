//! Pictures with the operator's signature, through the whole service.

use super::*;
use pentimento_types::{ImageKey, InputRole, MemoryBudget, MemoryUse};

use crate::image_codec::{FoundManifest, ManifestSigner, Origin, SourceType, read_provenance};

fn signing() -> TestConfig {
    let chain = include_bytes!("../../testdata/c2pa/chain.pem");
    let key = include_bytes!("../../testdata/c2pa/key.pem");
    TestConfig {
        signer: Some(Arc::new(ManifestSigner::new(chain, key).unwrap())),
        ..TestConfig::default()
    }
}

/// The photo with a manifest of its own.
fn signed_photo(signer: &ManifestSigner) -> Bytes {
    let origin = Origin {
        source_type: SourceType::CompositeWithTrainedAlgorithmicMedia,
        parent: None,
    };
    signer.sign(&photo_file(), ImageFormat::Png, &origin).unwrap()
}

async fn manifest_of(test: &TestService, job: &Job) -> FoundManifest {
    let images = crate::finished_images(job).unwrap();
    let file = test.parts.images.get(&images[0].key).await.unwrap();
    let manifest = read_provenance(&file).manifest.unwrap();
    assert!(manifest.intact, "{manifest:?}");
    manifest
}

#[tokio::test]
async fn pictures_are_signed_and_the_manifest_of_their_input_goes_along_also_when_that_is_resized() {
    let config = signing();
    let signer = Arc::clone(config.signer.as_ref().unwrap());
    let test = TestService::start_with(FakeExecutor::new(), config);
    let plain = run(&test.service, sample_request("a")).await;
    assert!(!manifest_of(&test, &plain).await.has_parent);

    let signed = signed_photo(&signer);
    for fit in [
        None,
        Some(Size {
            width: 32,
            height: 16,
        }),
    ] {
        let mut request = sample_request("b");
        request.inputs = Inputs::new(ImageSource::Inline(signed.clone()));
        let submission = Submission {
            fit,
            ..submission(request, LIMITS)
        };
        let id = test.service.submit(submission).await.unwrap();
        let job = in_time(test.service.wait(id)).await.unwrap();
        assert!(manifest_of(&test, &job).await.has_parent, "{fit:?}");
    }
    eventually(async || stored_inputs(&test).await == 0).await;
}

#[tokio::test]
async fn the_file_of_an_input_is_read_once_for_all_pictures_and_its_manifest_counts_as_long_as_it_is_kept() {
    // With room for it, and with none at all beside the pictures.
    for images in [u64::MAX, 13 * 9 * 3 * 3] {
        let mut config = signing();
        config.memory = MemoryBudget {
            images,
            ..MemoryBudget::UNBOUNDED
        };
        let signed = signed_photo(config.signer.as_ref().unwrap());
        let (mut held, executor) = Held::new();
        let test = TestService::start_with(executor, config);
        let mut request = sample_request("hold");
        request.recipe.image_count = 2;
        request.inputs = Inputs::new(ImageSource::Inline(signed));
        let id = submit(&test.service, request).await.unwrap();
        let mut finished = 0;
        while finished < 2 {
            if matches!(held.arrives().await, SeenAct::Finish(_)) {
                finished += 1;
            }
            if finished < 2 {
                held.step();
            }
        }
        eventually(async || stored_outputs(&test).await == 1).await;
        let manifest = test
            .parts
            .memory
            .held(MemoryUse::Images)
            .saturating_sub(13 * 9 * 3 * 3);
        assert_eq!(
            manifest > 10_000,
            images == u64::MAX,
            "{manifest} bytes are counted"
        );
        let key = ImageKey::input(id, InputRole::Init);
        test.parts.images.delete(&key).await.unwrap();
        drop(held);
        let job = in_time(test.service.wait(id)).await.unwrap();
        for image in crate::finished_images(&job).unwrap() {
            let file = test.parts.images.get(&image.key).await.unwrap();
            let manifest = read_provenance(&file).manifest.unwrap();
            assert!(manifest.intact && manifest.has_parent, "{manifest:?}");
        }
        eventually(async || test.parts.memory.held(MemoryUse::Images) == 0).await;
    }
}
