//! What comes out of a good request, and what is refused before anything is stored.

use std::path::Path;

use pentimento_types::{EmbeddingRef, ErrorKind, HasKind as _, JobNote, JobState, LoraRef, ModelId};

use super::*;
use crate::image_codec::{decode, read_metadata};
use crate::{Catalog, ModelRole, finished_images};

#[tokio::test]
async fn a_request_becomes_stored_pictures_behind_links() {
    let test = TestService::start(FakeExecutor::new());
    for format in [ImageFormat::Png, ImageFormat::Webp] {
        let mut request = sample_request("a red house");
        request.recipe.image_count = 3;
        request.delivery.format = format;
        let job = run(&test.service, request.clone()).await;
        assert_eq!((job.state, job.attempt), (JobState::Succeeded, 1));
        assert!(job.started_at.is_some() && test.service.progress(job.id).is_none());
        let images = finished_images(&job).unwrap();
        assert_eq!(images.len(), 3);
        for (index, image) in (0_u32..).zip(images) {
            let link = test.service.link(&job, image);
            let end = format!(
                "/generations/lcm_img2img_{}_{index}.{}",
                job.id.as_uuid(),
                format.extension()
            );
            assert!(
                link.path.starts_with("/files/") && link.path.ends_with(&end),
                "{}",
                link.path
            );
            assert!(link.ttl <= Duration::from_secs(3600) && link.ttl > Duration::from_secs(3590));
            let file = test.service.open_link(&link.path).await.unwrap();
            assert_eq!(file.content_type, format.content_type());
            assert_eq!(file.key, image.key);
            let bytes = test.service.read_linked(&file, 0..file.size).await.unwrap();
            let metadata = read_metadata(&bytes).unwrap();
            assert_eq!(
                (metadata.seed, metadata.prompt.as_str()),
                (7 + u64::from(index), "a red house")
            );
            assert_eq!((image.seed, image.size), (7 + u64::from(index), photo().size()));
            assert_eq!(decode(&bytes, LIMITS).unwrap(), expected(&request, index));
        }
    }
    assert_eq!(
        stored_inputs(&test).await,
        0,
        "inputs are kept until their job ends"
    );
    assert_eq!(stored_outputs(&test).await, 6);
}

#[tokio::test]
async fn strength_zero_gives_the_input_back() {
    let test = TestService::start(FakeExecutor::new());
    let mut request = sample_request("anything");
    request.recipe.strength = 0.0;
    let job = run(&test.service, request).await;
    let image = &finished_images(&job).unwrap()[0];
    let file = test.parts.images.get(&image.key).await.unwrap();
    assert_eq!(decode(&file, LIMITS).unwrap(), photo());
}

#[tokio::test]
async fn a_mask_that_keeps_everything_gives_the_input_back_without_a_look_at_the_device() {
    let executor = FakeExecutor::new();
    let recording = executor.recording();
    let mut config = TestConfig::default();
    config.service.watermark = true;
    let test = TestService::start_with(executor, config);
    for (level, is_change_map, keeps) in [(127, false, true), (0, true, true), (1, true, false)] {
        let mut request = sample_request("anything");
        let mask = RgbImage::new(Size { width: 8, height: 8 }, vec![level; 192]).unwrap();
        let mask = ImageSource::Inline(crate::image_codec::to_file(&mask).unwrap());
        request.inputs = Inputs::inpainting(ImageSource::Inline(photo_file()), mask);
        request.recipe.differential_diffusion = is_change_map;
        let asked = request.recipe.strength;
        let before = recording.acts().len();
        let job = run(&test.service, request).await;
        let image = &finished_images(&job).unwrap()[0];
        let file = test.parts.images.get(&image.key).await.unwrap();
        let what = format!("{level} {is_change_map}");
        assert_eq!(decode(&file, LIMITS).unwrap() == photo(), keeps, "{what}");
        assert_eq!(recording.acts().len() == before, keeps, "{what}");
        let notes: &[JobNote] = if keeps {
            &[JobNote::MaskKeepsEverything]
        } else {
            &[]
        };
        assert_eq!((&job.notes[..], job.recipe.strength), (notes, asked), "{what}");
        // Nothing was generated, so that nothing says so.
        let found = crate::image_codec::read_provenance(&file);
        assert_eq!(found.source_type.is_none(), keeps, "{what}: {found:?}");
    }
}

#[tokio::test]
async fn the_same_request_gives_the_same_bytes() {
    let test = TestService::start(FakeExecutor::new());
    let mut files = Vec::new();
    for _ in 0..2 {
        let job = run(&test.service, sample_request("a red house")).await;
        let key = &finished_images(&job).unwrap()[0].key;
        files.push(test.parts.images.get(key).await.unwrap());
    }
    assert_eq!(files[0], files[1]);
}

const MODELS: &str = r#"
[[model]]
name = "demo"
kind = "checkpoint"
source = "embedded:demo"

[[model]]
name = "not-there"
kind = "checkpoint"
source = "secret-folder/not-there"

[[model]]
name = "style"
kind = "lora"
source = "style.safetensors"

[[model]]
name = "word"
kind = "embedding"
source = "word.safetensors"

[[model]]
name = "far-away"
kind = "checkpoint"
source = "hf:owner/repo"
"#;

fn with_models() -> TestService {
    let catalog = Catalog::from_text(MODELS, Path::new("/nowhere/models.toml")).unwrap();
    TestService::start_with(
        FakeExecutor::new(),
        TestConfig {
            catalog,
            ..TestConfig::default()
        },
    )
}

#[tokio::test]
async fn unknown_models_are_refused_with_the_nearest_names() {
    let test = with_models();
    let mut request = sample_request("x");
    request.recipe.model = ModelId::new("dmeo.safetensors");
    let refused = refusal(&test, request).await;
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert_eq!(
        refused.to_string(),
        "there is no checkpoint named `dmeo.safetensors`; did you mean `demo`?"
    );

    let mut request = sample_request("x");
    request.recipe.vae = Some(ModelId::new("../../etc/passwd"));
    assert!(matches!(
        refusal(&test, request).await,
        ServiceError::ModelNotFound {
            role: ModelRole::Vae,
            ..
        }
    ));

    let mut request = sample_request("x");
    request.recipe.embeddings = vec![EmbeddingRef {
        model: ModelId::new("style"),
    }];
    let refused = refusal(&test, request).await;
    assert!(
        matches!(
            refused,
            ServiceError::ModelNotFound {
                role: ModelRole::Embedding,
                ..
            }
        ),
        "{refused:?}"
    );

    let mut request = sample_request("x");
    request.recipe.loras = vec![LoraRef {
        model: ModelId::new("stile"),
        strength: 1.0,
    }];
    let refused = refusal(&test, request).await;
    assert!(refused.to_string().contains("did you mean `style`?"), "{refused}");
}

#[tokio::test]
async fn an_embedding_without_its_file_is_refused_where_it_is_named_and_text_where_it_is_written() {
    let test = with_models();
    let mut request = sample_request("x");
    request.recipe.embeddings = vec![EmbeddingRef {
        model: ModelId::new("word.safetensors"),
    }];
    let refused = refusal(&test, request).await;
    assert!(
        matches!(&refused, ServiceError::ModelUnavailable { role: ModelRole::Embedding, name, .. } if name == "word"),
        "{refused:?}"
    );
    let id = submit(&test.service, sample_request("a (word:1.2), please"))
        .await
        .unwrap();
    let job = test.parts.store.get(id).await.unwrap().unwrap();
    assert!(
        matches!(&job.notes[..], [JobNote::EmbeddingLeftOut { embedding, .. }] if embedding == "word"),
        "{:?}",
        job.notes
    );
}

#[tokio::test]
async fn a_lora_without_its_file_is_refused_by_its_role_unless_it_has_no_effect() {
    let test = with_models();
    let styled = |strength| {
        let mut request = sample_request("x");
        request.recipe.loras = vec![LoraRef {
            model: ModelId::new("style.safetensors"),
            strength,
        }];
        request
    };
    let refused = refusal(&test, styled(1.0)).await;
    assert!(
        matches!(
            refused,
            ServiceError::ModelUnavailable {
                role: ModelRole::Lora,
                ..
            }
        ),
        "{refused:?}"
    );
    let job = run(&test.service, styled(0.0)).await;
    assert_eq!(job.state, JobState::Succeeded);
}

#[tokio::test]
async fn a_file_that_is_no_lora_is_refused_with_the_checkpoint_and_without_a_path() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("style.safetensors"), "<html>").unwrap();
    let catalog = Catalog::from_text(MODELS, &folder.path().join("models.toml")).unwrap();
    let config = TestConfig {
        catalog,
        ..TestConfig::default()
    };
    let test = TestService::start_with(FakeExecutor::new(), config);
    let mut request = sample_request("x");
    request.recipe.loras = vec![LoraRef {
        model: ModelId::new("style"),
        strength: 1.0,
    }];
    let refused = refusal(&test, request).await;
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let text = refused.to_string();
    assert!(text.contains("`style`") && text.contains("`demo`"), "{text}");
    assert!(!text.contains(folder.path().to_str().unwrap()), "{text}");
}

#[tokio::test]
async fn models_without_files_are_refused_without_naming_a_path() {
    let test = with_models();
    for name in ["not-there", "far-away"] {
        let mut request = sample_request("x");
        request.recipe.model = ModelId::new(name);
        let refused = refusal(&test, request).await;
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        let text = refused.to_string();
        assert!(text.contains(name) && !text.contains("secret-folder"), "{text}");
    }
}

#[tokio::test]
async fn prompts_are_bounded_in_tokens() {
    let test = TestService::start(FakeExecutor::new());
    let limit = TestConfig::default().service.max_prompt_tokens;
    let words = |count: usize| vec!["house"; count].join(" ");
    let mut request = sample_request(&words(limit));
    let job = run(&test.service, request.clone()).await;
    assert_eq!(job.state, JobState::Succeeded);
    request.recipe.negative_prompt = Some(words(limit + 1));
    let refused = submit(&test.service, request).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert_eq!(
        refused.to_string(),
        "negative_prompt has 301 tokens; at most 300 are taken, so shorten it"
    );
    let refused = refusal(&test, sample_request(&"\u{1F600}".repeat(10_000))).await;
    assert!(
        matches!(refused, ServiceError::PromptTooLong { field: "prompt", found, limit: 300 } if found > 9_000),
        "{refused}"
    );
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_recovers() {
    let (mut held, executor) = Held::new();
    let config = TestConfig {
        unfinished_jobs: 2,
        ..TestConfig::default()
    };
    let test = TestService::start_with(executor, config);
    let first = submit(&test.service, sample_request("hold")).await.unwrap();
    held.arrives().await;
    let second = submit(&test.service, sample_request("b")).await.unwrap();
    let refused = submit(&test.service, sample_request("c")).await.unwrap_err();
    assert!(matches!(refused, ServiceError::Overloaded), "{refused:?}");
    assert_eq!(stored_inputs(&test).await, 2);
    drop(held);
    for id in [first, second] {
        assert_eq!(
            in_time(test.service.wait(id)).await.unwrap().state,
            JobState::Succeeded
        );
    }
    assert_eq!(
        run(&test.service, sample_request("d")).await.state,
        JobState::Succeeded
    );
}

#[tokio::test]
async fn a_caller_who_leaves_during_a_submit_leaves_nothing_behind() {
    let test = TestService::start(FakeExecutor::new());
    for polls in 1..6 {
        let mut submitting = Box::pin(submit(&test.service, sample_request("x")));
        for _ in 0..polls {
            let done = tokio::time::timeout(Duration::from_millis(1), &mut submitting)
                .await
                .is_ok();
            if done {
                submitting = Box::pin(submit(&test.service, sample_request("x")));
            }
        }
        drop(submitting);
    }
    eventually(async || {
        let counts = test.parts.store.counts().await.unwrap();
        counts.queued + counts.running == 0 && stored_inputs(&test).await == 0
    })
    .await;
}

#[tokio::test]
async fn a_store_that_fails_is_a_clear_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let test = TestService::start(FakeExecutor::new());
    let config = pentimento_storage::StorageConfig::Folder(folder.path().to_owned());
    let mut parts = test.parts.clone();
    parts.images = pentimento_storage::ImageStore::open(&config).unwrap();
    fs_err::write(folder.path().join("inputs"), "in the way").unwrap();
    let service = Service::start(parts, TestConfig::default().service);
    let refused = submit(&service, sample_request("x")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert_eq!(
        refused.to_string(),
        "the server could not store the input picture"
    );
    let counts = test.parts.store.counts().await.unwrap();
    assert_eq!(counts.queued + counts.running, 0, "nothing is half accepted");
}
