//! The pictures and masks of a request: which are taken, in which size, and which are refused before anything is stored.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder as _};
use pentimento_types::{ErrorKind, HasKind as _, ImageKey, InputRole, JobNote, JobOutcome};

use super::*;
use crate::finished_images;
use crate::image_codec::decode;

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
async fn a_size_that_is_left_open_is_the_pictures_own_within_the_models_native_one() {
    let usual = Size {
        width: 512,
        height: 512,
    };
    let size = |width, height| Size { width, height };
    let photo = RgbImage::new(size(120, 80), vec![90; 120 * 80 * 3]).unwrap();
    let file = crate::image_codec::to_file(&photo).unwrap();
    let limits = InputLimits {
        max_side: 120,
        ..LIMITS
    };
    for (side, expected) in [(128, photo.size()), (64, size(72, 48))] {
        let text = format!(
            "[[model]]\nname = \"demo\"\nkind = \"checkpoint\"\nsource = \"embedded:demo\"\nnative_size = {side}\n"
        );
        let config = TestConfig {
            catalog: crate::Catalog::from_text(&text, std::path::Path::new("models.toml")).unwrap(),
            ..TestConfig::default()
        };
        let test = TestService::start_with(FakeExecutor::new(), config);
        for fit in [Fit::Open(None), Fit::Open(Some(usual))] {
            let mut request = sample_request("x");
            request.inputs = Inputs::new(ImageSource::Inline(file.clone()));
            let submission = Submission {
                fit,
                ..submission(request, limits)
            };
            let id = test.service.submit(submission).await.unwrap();
            let job = in_time(test.service.wait(id)).await.unwrap();
            assert_eq!(finished_images(&job).unwrap()[0].size, expected, "{fit:?}");
        }
    }
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
        fit: Fit::To(size),
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
