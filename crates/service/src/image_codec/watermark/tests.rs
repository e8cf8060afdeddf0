//! Against the Python package whose scheme it is, and against what pictures go through.

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder as _};

use super::*;
use crate::InputLimits;
use crate::image_codec::{decode, to_file};

const LIMITS: InputLimits = InputLimits {
    max_side: 4096,
    max_pixels: u64::MAX,
    max_bytes: 1 << 24,
};

fn golden(name: &str) -> Vec<u8> {
    fs_err::read(pentimento_testkit::golden_dir().join("watermark").join(name)).unwrap()
}

fn source() -> RgbImage {
    decode(&golden("source.png"), LIMITS).unwrap()
}

/// In decibels.
fn psnr(one: &RgbImage, other: &RgbImage) -> f64 {
    let squares = one
        .pixels()
        .iter()
        .zip(other.pixels())
        .map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
    10.0 * (255.0 * 255.0 * one.pixels().len() as f64 / squares.sum::<f64>()).log10()
}

fn through_jpeg(image: &RgbImage, quality: u8) -> RgbImage {
    let (mut file, size) = (Vec::new(), image.size());
    let encoder = JpegEncoder::new_with_quality(&mut file, quality);
    encoder
        .write_image(image.pixels(), size.width, size.height, ExtendedColorType::Rgb8)
        .unwrap();
    decode(&file, LIMITS).unwrap()
}

fn flat(size: Size, colour: [u8; 3]) -> RgbImage {
    let pixels = colour.iter().copied().cycle().take(size.rgb_bytes() as usize);
    RgbImage::new(size, pixels.collect()).unwrap()
}

/// `ours.png` is what this writes, and the generator decodes it with the package. `INSTA_UPDATE=always` writes it anew.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a test's own switch, not a setting of the program"
)]
fn the_package_reads_ours_and_we_read_the_packages() {
    assert!(has_watermark(&decode(&golden("package.png"), LIMITS).unwrap()));
    let ours = with_watermark(source());
    if std::env::var("INSTA_UPDATE").is_ok_and(|how| how == "always") {
        let path = pentimento_testkit::golden_dir().join("watermark/ours.png");
        fs_err::write(path, to_file(&ours).unwrap()).unwrap();
    }
    assert_eq!(decode(&golden("ours.png"), LIMITS).unwrap(), ours);
}

#[test]
fn it_changes_little_and_outlives_jpeg_and_another_size() {
    let marked = with_watermark(source());
    let noise = psnr(&source(), &marked);
    println!("{noise:.1} dB");
    assert!(noise > 40.0, "{noise}");
    assert_eq!(right_bits(&marked), BITS);
    for quality in [95, 80, 70] {
        assert!(has_watermark(&through_jpeg(&marked, quality)), "{quality}");
    }
    let size = marked.size();
    for percent in [70, 75, 90, 110, 125, 150] {
        let scaled = Size {
            width: size.width * percent / 100,
            height: size.height * percent / 100,
        };
        let scaled = resized(&marked, scaled);
        assert!(has_watermark(&scaled), "{percent} %");
        if percent >= 90 {
            assert!(has_watermark(&through_jpeg(&scaled, 80)), "{percent} %, JPEG");
        }
    }
}

#[test]
fn every_colour_can_hold_it_and_none_has_it_by_itself() {
    let size = Size {
        width: 256,
        height: 256,
    };
    for colour in [
        [0; 3],
        [255; 3],
        [128; 3],
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
        [255, 255, 0],
        [20, 10, 5],
    ] {
        let plain = flat(size, colour);
        assert!(!has_watermark(&plain), "{colour:?}");
        assert_eq!(right_bits(&with_watermark(plain)), BITS, "{colour:?}");
    }
    assert!(!has_watermark(&source()));
    assert!(!has_watermark(&resized(
        &source(),
        Size {
            width: 300,
            height: 240
        }
    )));
}

#[test]
fn a_small_picture_stays_as_it_is() {
    let plain = flat(
        Size {
            width: 255,
            height: 256,
        },
        [90, 120, 30],
    );
    assert_eq!(with_watermark(plain.clone()), plain);
    assert!(!has_watermark(&plain));
    // Wide enough in pixels, and without a whole block.
    let line = flat(
        Size {
            width: 20_000,
            height: 7,
        },
        [90, 120, 30],
    );
    assert_eq!(with_watermark(line.clone()), line);
}

#[test]
fn few_former_sizes_are_tried() {
    let of = |width, height| former_sizes(Size { width, height }).collect::<Vec<_>>();
    assert!(of(384, 256).contains(&Size {
        width: 576,
        height: 384
    }));
    // 512x512 by nine tenths.
    assert!(of(461, 461).contains(&Size {
        width: 512,
        height: 512
    }));
    assert_eq!(of(500, 347), [], "it was none with such sides");
    for (width, height) in [(1, 1), (8, 70_000), (70_000, 8), (2048, 2048), (u32::MAX, 9)] {
        let tried = of(width, height);
        assert!(tried.len() < 32, "{width}x{height}: {}", tried.len());
        assert!(tried.iter().all(|size| size.pixels() <= MOST_PIXELS_SCALED));
    }
}
