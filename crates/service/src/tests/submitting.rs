//! What comes out of a good request, and what is refused before anything is stored.

use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder as _};
use pentimento_types::{
    EmbeddingRef, ErrorKind, HasKind as _, ImageKey, InputRole, JobNote, JobOutcome, JobState, LoraRef,
    ModelId,
};

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

async fn refusal(test: &TestService, request: Request) -> ServiceError {
    let refused = submit(&test.service, request).await.unwrap_err();
    let counts = test.parts.store.counts().await.unwrap();
    assert_eq!((counts.queued, counts.running), (0, 0), "nothing is queued");
    assert_eq!(stored_inputs(test).await, 0, "nothing is stored");
    refused
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
async fn bad_pictures_are_refused() {
    let test = TestService::start(FakeExecutor::new());
    let with = |source| Request {
        inputs: Inputs::new(source),
        ..sample_request("x")
    };
    assert!(matches!(
        refusal(&test, with(inline(b""))).await,
        ServiceError::ImageEmpty
    ));
    let refused = refusal(&test, with(inline(b"GIF89a"))).await;
    assert!(matches!(refused, ServiceError::ImageUndecodable { .. }));
    let good = photo_file();
    let half = ImageSource::Inline(good.slice(..good.len() / 2));
    assert!(matches!(
        refusal(&test, with(half)).await,
        ServiceError::ImageUndecodable { .. }
    ));

    let narrow = InputLimits {
        max_side: 12,
        ..LIMITS
    };
    let refused = test.service.submit(submission(sample_request("x"), narrow)).await;
    assert!(
        matches!(refused, Err(ServiceError::ImageTooManyPixels { .. })),
        "{refused:?}"
    );
    let few = InputLimits {
        max_pixels: 116,
        ..LIMITS
    };
    let refused = test.service.submit(submission(sample_request("x"), few)).await;
    assert!(
        matches!(
            refused,
            Err(ServiceError::ImageMegapixels {
                pixels: 117,
                limit: 116,
                ..
            })
        ),
        "{refused:?}"
    );
    let small = InputLimits {
        max_bytes: 10,
        ..LIMITS
    };
    let refused = test.service.submit(submission(sample_request("x"), small)).await;
    assert!(
        matches!(refused, Err(ServiceError::ImageTooLarge { limit: 10, .. })),
        "{refused:?}"
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

/// A web server with one picture, and a page that is none.
async fn picture_server() -> String {
    let file = photo_file();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let read = tokio::io::AsyncReadExt::read(&mut stream, &mut head)
                .await
                .unwrap();
            let body: &[u8] = if head[..read].starts_with(b"GET /picture ") {
                &file
            } else {
                b"<p>no picture"
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let whole = [answer.as_bytes(), body].concat();
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &whole).await;
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn pictures_at_addresses_are_fetched_before_the_job_is_stored() {
    let test = TestService::start(FakeExecutor::new());
    let server = picture_server().await;
    let mut request = sample_request("x");
    request.inputs = Inputs::new(ImageSource::Url(format!("{server}/picture")));
    let job = run(&test.service, request.clone()).await;
    assert_eq!(job.inputs, Inputs::new(ImageKey::input(job.id, InputRole::Init)));
    let made = test
        .service
        .picture(&finished_images(&job).unwrap()[0])
        .await
        .unwrap();
    assert_eq!(decode(&made, LIMITS).unwrap(), expected(&sample_request("x"), 0));

    for (address, fetched) in [
        (format!("{server}/page"), true),
        ("http://169.254.169.254/x".to_owned(), false),
        ("ftp://127.0.0.1/x".to_owned(), false),
        (String::new(), false),
    ] {
        request.inputs = Inputs::new(ImageSource::Url(address.clone()));
        let refused = refusal(&test, request.clone()).await;
        assert_eq!(
            matches!(refused, ServiceError::ImageUndecodable { .. }),
            fetched,
            "{address}: {refused}"
        );
        assert_eq!(matches!(refused, ServiceError::ImageNotFetched { .. }), !fetched);
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        assert!(!refused.to_string().contains("169.254"), "{refused}");
    }
}

#[tokio::test]
async fn a_mask_is_checked_stored_and_deleted_with_its_job() {
    let test = TestService::start(FakeExecutor::new());
    let mut request = sample_request("x");
    request.recipe.soft_edge = 3;
    request.inputs = Inputs::inpainting(
        ImageSource::Inline(photo_file()),
        ImageSource::Inline(photo_file()),
    );
    let job = run(&test.service, request.clone()).await;
    assert_eq!(job.recipe.soft_edge, 3);
    let key = job.inputs.mask().unwrap();
    for _ in 0..200 {
        if test.parts.images.get(key).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        test.parts.images.get(key).await.is_err(),
        "the mask is still there"
    );

    request.inputs = Inputs::inpainting(ImageSource::Inline(photo_file()), inline(b"GIF89a"));
    let refused = refusal(&test, request).await;
    assert!(
        matches!(&refused, ServiceError::OfInput { role: InputRole::Mask, fault } if matches!(**fault, ServiceError::ImageUndecodable { .. }))
    );
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}

/// Strokes on the left that only their alpha channel shows: every colour is black.
fn strokes_file() -> Vec<u8> {
    let mut file = Vec::new();
    let pixels: Vec<u8> = (0..16 * 16)
        .flat_map(|at| [0, 0, 0, if at % 16 < 8 { 255 } else { 0 }])
        .collect();
    PngEncoder::new(&mut file)
        .write_image(&pixels, 16, 16, ExtendedColorType::Rgba8)
        .unwrap();
    file
}

#[tokio::test]
async fn a_mask_in_its_alpha_channel_is_stored_as_what_it_means_and_noted() {
    let (mut held, executor) = Held::new();
    let test = TestService::start(executor);
    let mut request = sample_request("hold");
    let mask = ImageSource::Inline(strokes_file().into());
    request.inputs = Inputs::inpainting(ImageSource::Inline(photo_file()), mask);
    let id = test.service.submit(submission(request, LIMITS)).await.unwrap();
    held.arrives().await;
    let job = test.parts.store.get(id).await.unwrap().unwrap();
    assert_eq!(job.notes, [JobNote::MaskIsAlpha]);
    let stored = test.parts.images.get(job.inputs.mask().unwrap()).await.unwrap();
    let mask = decode(&stored, LIMITS).unwrap();
    assert_eq!(mask.pixels()[7 * 3..8 * 3], [255; 3]);
    assert_eq!(mask.pixels()[8 * 3..9 * 3], [0; 3]);
    drop(held);
}

#[tokio::test]
async fn a_picture_is_brought_to_the_size_that_is_asked_for() {
    let test = TestService::start(FakeExecutor::new());
    let size = Size {
        width: 24,
        height: 16,
    };
    let dialect = DialectTag {
        name: "test".to_owned(),
        note: Some("kept".to_owned()),
        number: Some(7),
    };
    let submission = Submission {
        dialect: dialect.clone(),
        fit: Some(size),
        ..submission(sample_request("x"), LIMITS)
    };
    let id = test.service.submit(submission).await.unwrap();
    let job = in_time(test.service.wait(id)).await.unwrap();
    assert_eq!(finished_images(&job).unwrap()[0].size, size);
    assert_eq!(job.dialect, dialect);

    let day = Duration::from_secs(86_400);
    let mut as_text = job.clone();
    as_text.delivery.base64 = true;
    let (picture, text) = (
        test.service.lasting_link(&job, 0, day),
        test.service.lasting_link(&as_text, 0, day),
    );
    assert_eq!(picture, test.service.lasting_link(&job, 0, day));
    assert!(picture.ends_with("_0.png") && text.ends_with("_0.png.base64"));
    let open = async |link: &str| test.service.open_link(link).await;
    let (picture, text) = (open(&picture).await.unwrap(), open(&text).await.unwrap());
    assert_eq!(
        (picture.content_type, text.content_type),
        ("image/png", "text/plain; charset=utf-8")
    );
    let read = async |file, range| test.service.read_linked(file, range).await.unwrap();
    let (whole, whole_text) = (
        read(&picture, 0..picture.size).await,
        read(&text, 0..text.size).await,
    );
    let decoded = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &whole_text).unwrap();
    assert_eq!(decoded, whole);
    // Parts of both, and of neither is more in the account than is held.
    let held = || {
        test.service
            .inner
            .memory
            .held(pentimento_types::MemoryUse::Replies)
    };
    drop((whole, whole_text));
    assert_eq!(held(), 0);
    let parts = (read(&picture, 1..4).await, read(&text, 2..5).await);
    assert_eq!(parts.0, decoded[1..4]);
    assert_eq!(
        parts.1,
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &decoded)[2..5]
    );
    assert_eq!(held(), 3 + text.size);
    drop(parts);
    assert_eq!(held(), 0);
    let later = test.service.lasting_link(&job, 7, day);
    assert!(matches!(open(&later).await, Err(ServiceError::ImageGone)));
}

#[tokio::test]
async fn text_to_image_needs_no_picture_and_has_the_size_that_is_asked_for() {
    let test = TestService::start(FakeExecutor::new());
    let size = Size {
        width: 64,
        height: 40,
    };
    let mut request = sample_request("a fox");
    request.inputs = Inputs::from_noise(size);
    request.recipe.strength = 0.3;
    request.recipe.image_count = 2;
    let job = run(&test.service, request.clone()).await;
    assert_eq!(job.inputs, Inputs::from_noise(size));
    assert_eq!(job.recipe.strength, 1.0, "what counts is what the record says");
    let Some(JobOutcome::Succeeded(images)) = &job.outcome else {
        panic!("{:?}", job.outcome)
    };
    assert_eq!(images.len(), 2);
    let file = test.parts.images.get(&images[1].key).await.unwrap();
    let provenance = crate::image_codec::read_provenance(&file);
    assert_eq!(provenance.source_type.as_deref(), Some("trainedAlgorithmicMedia"));
    let parameters = provenance.parameters.unwrap();
    assert_eq!((parameters.width, parameters.height), (64, 40));
    assert_eq!((parameters.task, parameters.strength), (Task::TextToImage, 1.0));
    assert!(!parameters.parameters_text().contains("Denoising"));
}

#[tokio::test]
async fn a_size_that_no_picture_is_made_of_is_refused_before_anything_is_stored() {
    let test = TestService::start(FakeExecutor::new());
    for (width, height) in [
        (0, 64),
        (60, 64),
        (64, 4),
        (LIMITS.max_side + 8, 64),
        (u32::MAX - 7, 64),
    ] {
        let mut request = sample_request("a fox");
        request.inputs = Inputs::from_noise(Size { width, height });
        let refused = refusal(&test, request).await;
        assert!(matches!(refused, ServiceError::SizeRefused { .. }), "{refused:?}");
        assert!(refused.to_string().contains("multiples of 8"), "{refused}");
    }
    assert_eq!(test.service.status().await.jobs.queued, 0);
}
