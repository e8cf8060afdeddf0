//! Pictures that are looked at or enlarged without a job.

use bytes::Bytes;
use pentimento_engine::testing::FakeExecutor;
use pentimento_types::{ApiKeyId, ErrorKind, HasKind as _, ImageSource, RgbImage, Size};
use std::time::Duration;

use crate::image_codec::{decode, to_file};
use crate::testing::{TestConfig, TestService};
use crate::{InputLimits, PictureCall, SafetyRule, SafetySettings, ServiceError};

const LIMITS: InputLimits = InputLimits {
    max_side: u32::MAX,
    max_pixels: u64::MAX,
    max_bytes: 1 << 20,
};

fn call(width: u32, height: u32) -> PictureCall {
    let size = Size { width, height };
    let pixels = (0..size.rgb_bytes()).map(|at| (at / 7 % 200) as u8).collect();
    let picture = RgbImage::new(size, pixels).unwrap();
    PictureCall {
        owner: ApiKeyId::anonymous(),
        source: ImageSource::Inline(to_file(&picture).unwrap()),
        limits: LIMITS,
        held: Box::new(()),
    }
}

fn service(rule: SafetyRule, threshold: u16) -> TestService {
    let mut config = TestConfig::default();
    config.service.safety = SafetySettings {
        rule,
        threshold,
        model: None,
    };
    TestService::start_with(FakeExecutor::default(), config)
}

#[tokio::test]
async fn a_picture_is_looked_at_with_the_servers_threshold_or_the_callers() {
    let service = service(SafetyRule::Auto, 1000).service;
    let found = service.check_picture(call(40, 30), None).await.unwrap();
    assert_eq!((found.nsfw, found.action), (Some(false), None));
    let found = service.check_picture(call(40, 30), Some(0)).await.unwrap();
    assert_eq!(found.nsfw, Some(true));
    let damaged = PictureCall {
        source: ImageSource::Inline(Bytes::from_static(b"no picture")),
        ..call(8, 8)
    };
    let refused = service.check_picture(damaged, None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
}

#[tokio::test]
async fn every_number_of_times_has_its_size() {
    let service = service(SafetyRule::Auto, 700).service;
    for times in 1..=4 {
        let enlarged = service
            .enlarge_picture(call(24, 17), (times, None), Duration::from_secs(60))
            .await
            .unwrap();
        let size = Size {
            width: 24 * times,
            height: 17 * times,
        };
        assert_eq!(enlarged.size, size);
        let file = service.open_link(&enlarged.path).await.unwrap();
        assert_eq!(file.content_type, "image/png");
        let bytes = service.read_linked(&file, 0..file.size).await.unwrap();
        assert_eq!(decode(&bytes, LIMITS).unwrap().size(), size);
        assert_eq!(enlarged.findings.nsfw, None);
    }
}

#[tokio::test]
async fn a_picture_that_would_become_too_large_is_refused_before_it_is_decoded() {
    let service = service(SafetyRule::Auto, 700).service;
    let refused = service
        .enlarge_picture(call(1025, 1024), (4, None), Duration::from_secs(60))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, ServiceError::EnlargedTooLarge { .. }),
        "{refused}"
    );
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    assert!(refused.to_string().contains("16777216"), "{refused}");
}

#[tokio::test]
async fn what_the_operator_wants_looked_at_is_looked_at_when_it_is_enlarged() {
    let service = service(SafetyRule::Required, 0).service;
    let enlarged = service
        .enlarge_picture(call(70, 60), (2, None), Duration::from_secs(60))
        .await
        .unwrap();
    assert_eq!(enlarged.findings.nsfw, Some(true));
    let file = service.open_link(&enlarged.path).await.unwrap();
    let bytes = service.read_linked(&file, 0..file.size).await.unwrap();
    let picture = decode(&bytes, LIMITS).unwrap();
    assert_eq!(
        &picture.pixels()[..3],
        [64, 64, 64],
        "the notice, and not the picture"
    );
}
