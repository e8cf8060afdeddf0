//! Pictures with the operator's signature, through the whole service.

use super::*;
use crate::image_codec::{FoundManifest, ManifestSigner, Origin, SourceType, read_provenance};

fn signing() -> TestConfig {
    let chain = include_bytes!("../../testdata/c2pa/chain.pem");
    let key = include_bytes!("../../testdata/c2pa/key.pem");
    TestConfig {
        signer: Some(Arc::new(ManifestSigner::new(chain, key).unwrap())),
        ..TestConfig::default()
    }
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

    let origin = Origin {
        source_type: SourceType::CompositeWithTrainedAlgorithmicMedia,
        parent: None,
    };
    let signed = signer.sign(&photo_file(), ImageFormat::Png, &origin).unwrap();
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
