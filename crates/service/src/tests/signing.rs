//! Pictures with the operator's signature, through the whole service.

use super::*;
use pentimento_types::{ImageKey, InputRole, MemoryBudget, MemoryUse};

use crate::image_codec::testing::{CHAIN, KEY, signed_elsewhere};
use crate::image_codec::{FoundManifest, ManifestSigner, Origin, SourceType, read_provenance};
use crate::signing::OriginOnce;

fn signing() -> TestConfig {
    TestConfig {
        signer: Some(Arc::new(ManifestSigner::new(CHAIN, KEY).unwrap())),
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
        Fit::AsSent,
        Fit::To(Size {
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

/// A service with so much room for images, and so many jobs whose pictures are to be made from a file.
async fn made_from(file: &Bytes, images: u64, jobs: u128) -> (TestService, Vec<Job>) {
    let config = TestConfig {
        memory: MemoryBudget {
            images,
            ..MemoryBudget::UNBOUNDED
        },
        ..signing()
    };
    let test = TestService::start_with(FakeExecutor::new(), config);
    let jobs: Vec<Job> = (1..=jobs)
        .map(|number| sample_job(JobId::from_u128(number), SystemTime::UNIX_EPOCH))
        .collect();
    for job in &jobs {
        let key = ImageKey::input(job.id, InputRole::Init);
        test.parts.images.put(&key, file.clone()).await.unwrap();
    }
    (test, jobs)
}

#[tokio::test]
async fn beyond_the_room_one_job_at_a_time_keeps_a_manifest_and_who_waits_for_that_holds_nothing() {
    let signed = signed_photo(signing().signer.as_ref().unwrap());
    let (test, jobs) = made_from(&signed, 1000, 2).await;
    let inner = &test.service.inner;
    let has_parent = |origin: &OriginOnce| origin.found().is_some_and(|origin| origin.parent.is_some());
    let (first, second) = (OriginOnce::default(), OriginOnce::default());
    inner.origin_of(&jobs[0], &first).await.unwrap();
    assert!(has_parent(&first));
    let turns = inner.decoding.available_permits();
    {
        let mut waits = Box::pin(inner.origin_of(&jobs[1], &second));
        let early = tokio::time::timeout(A_MOMENT, &mut waits).await;
        assert!(early.is_err(), "another keeps one beyond the room");
        assert_eq!(inner.decoding.available_permits(), turns, "no turn of decoding");
        assert_eq!(inner.decoding_beyond.available_permits(), 1, "no file");
        assert_eq!(test.parts.memory.held(MemoryUse::Images), 0);
        drop(first);
        in_time(waits).await.unwrap();
    }
    assert!(has_parent(&second));
    assert_eq!(inner.manifests_beyond.available_permits(), 0);
    drop(second);
    assert_eq!(inner.manifests_beyond.available_permits(), 1);
}

#[tokio::test]
async fn a_manifest_of_many_parts_counts_with_all_that_was_found_of_it_and_less_than_it_looked_like() {
    let parts = (0..1000).map(|part| serde_json::json!({"part": part}));
    let file = signed_elsewhere(&photo_file(), parts);
    let signer = signing().signer.unwrap();
    let kept = signer.parent(&file).unwrap().size_bytes();
    let about = signer.about_kept_bytes(&file).unwrap();
    let read = file.len() as u64;
    assert!(
        2 * read < kept && kept < about,
        "{kept} of a file of {read} are kept, and {about} were guessed"
    );
    // With room for the guess and for the file while it is read, twice, and with too little for the guess alone.
    for (images, counted) in [(about + 2 * read, kept), (about - 1, 0)] {
        let (test, jobs) = made_from(&file, images, 1).await;
        let origin = OriginOnce::default();
        in_time(test.service.inner.origin_of(&jobs[0], &origin))
            .await
            .unwrap();
        assert!(origin.found().unwrap().parent.is_some());
        assert_eq!(test.parts.memory.held(MemoryUse::Images), counted);
        let beyond = test.service.inner.manifests_beyond.available_permits();
        assert_eq!(beyond == 0, counted == 0, "{beyond} turns are left");
        drop(origin);
        assert_eq!(test.parts.memory.held(MemoryUse::Images), 0);
    }
}
