//! Reading images of every kind that callers send, and refusing the others without harm.

use image::ExtendedColorType;
use image::ImageEncoder as _;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;

use pentimento_types::{RgbImage, Size};

use super::*;

const LIMITS: InputLimits = InputLimits {
    max_side: 2048,
    max_pixels: u64::MAX,
    max_bytes: 30 << 20,
};

macro_rules! fixtures {
    ($($name:literal),+ $(,)?) => {
        /// Each image with what Pillow makes of it; see `testdata/generate.py`.
        fn fixtures() -> Vec<(&'static str, &'static [u8])> {
            vec![$(($name, include_bytes!(concat!("../../../testdata/", $name)))),+]
        }
    };
}

fixtures!(
    "rgb_interlaced.png",
    "rgb_16.png",
    "grey_16.png",
    "rgba.png",
    "grey_alpha.png",
    "grey_1.png",
    "grey_4.png",
    "palette_alpha.png",
    "animated.png",
    "progressive.jpeg",
    "subsampled.jpeg",
    "grey.jpeg",
    "cmyk.jpeg",
    "lossy.webp",
    "alpha.webp",
    "animated.webp",
);

fn fixture(wanted: &str) -> &'static [u8] {
    fixtures()
        .into_iter()
        .find(|(name, _)| *name == wanted)
        .unwrap()
        .1
}

fn pillow(name: &str) -> Vec<u8> {
    let stem = name.rsplit_once('.').unwrap().0;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/");
    fs_err::read(format!("{folder}{stem}.rgb")).unwrap()
}

#[test]
fn every_kind_of_image_is_read_as_pillow_reads_it() {
    for (name, bytes) in fixtures() {
        let image = decode(bytes, LIMITS).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            image.size(),
            Size {
                width: 12,
                height: 10
            },
            "{name}"
        );
        // Lossy formats are decoded by other code than libjpeg and libwebp, which rounds in other places.
        let allowed = match name {
            "subsampled.jpeg" | "progressive.jpeg" => 6,
            "grey.jpeg" | "cmyk.jpeg" | "lossy.webp" => 2,
            _ => 0,
        };
        let expected = pillow(name);
        let off = image.pixels().iter().zip(&expected).map(|(a, b)| a.abs_diff(*b));
        let off = off.max().unwrap();
        assert!(off <= allowed, "{name} is {off} off");
    }
}

fn text(result: Result<RgbImage, ServiceError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_cut_file_is_refused_wherever_it_is_cut() {
    for (name, bytes) in fixtures() {
        for length in 1..bytes.len() {
            let found = decode(&bytes[..length], LIMITS);
            // A PNG is whole when its last pixel is there; what follows is the frames of an animation or the end mark.
            let rest_is_idle = name.ends_with(".png") && found.is_ok();
            assert!(
                rest_is_idle || matches!(found, Err(ServiceError::ImageUndecodable { .. })),
                "{name} cut to {length} of {}: {found:?}",
                bytes.len()
            );
            if let (true, Ok(image)) = (rest_is_idle, found) {
                assert_eq!(image.pixels(), pillow(name), "{name} cut to {length}");
            }
        }
    }
}

#[test]
fn a_jpeg_without_its_end_is_refused_as_in_pillow() {
    let bytes = fixture("subsampled.jpeg");
    assert!(text(decode(&bytes[..bytes.len() - 2], LIMITS)).contains("not whole"));
    let followed = [bytes, b"what a camera adds".as_slice()].concat();
    assert!(decode(&followed, LIMITS).is_ok());
}

#[test]
fn a_flipped_byte_never_escapes() {
    for (name, bytes) in fixtures() {
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 0xff;
            match decode(&bad, LIMITS) {
                Ok(image) => assert!(image.size().width <= LIMITS.max_side, "{name} at {at}"),
                Err(ServiceError::ImageUndecodable { .. } | ServiceError::ImageTooManyPixels { .. }) => {}
                Err(other) => panic!("{name} at {at}: {other:?}"),
            }
        }
    }
}

#[test]
fn limits_are_checked_before_pixels_are_made() {
    let bytes = fixture("rgba.png");
    let limits = |max_side, max_bytes| InputLimits {
        max_side,
        max_pixels: u64::MAX,
        max_bytes,
    };
    assert!(decode(bytes, limits(12, 115)).is_ok());
    let found = decode(bytes, limits(11, 115));
    assert!(
        matches!(
            found,
            Err(ServiceError::ImageTooManyPixels {
                size: Size {
                    width: 12,
                    height: 10
                },
                max_side: 11
            })
        ),
        "{found:?}"
    );
    let found = decode(bytes, limits(12, 114));
    assert!(
        matches!(
            found,
            Err(ServiceError::ImageTooLarge {
                bytes: 115,
                limit: 114
            })
        ),
        "{found:?}"
    );
    assert!(matches!(decode(&[], LIMITS), Err(ServiceError::ImageEmpty)));
}

#[test]
fn a_small_png_that_claims_to_be_huge_is_refused_by_its_header() {
    let mut bytes = fixture("rgba.png").to_vec();
    bytes[16..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0]);
    let crc = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    let found = decode(&bytes, LIMITS);
    assert!(
        matches!(
            found,
            Err(ServiceError::ImageTooManyPixels {
                size: Size { width: 100_000, .. },
                ..
            })
        ),
        "{found:?}"
    );
}

/// CRC-32 of the PNG specification, annex D.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 * (crc & 1))
        })
    })
}

fn png_chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [kind.as_slice(), data].concat();
    let length = u32::try_from(data.len()).unwrap();
    [&length.to_be_bytes()[..], &body, &crc32(&body).to_be_bytes()].concat()
}

/// The fixture with more chunks between header and pixels.
fn with_chunks(chunks: &[u8]) -> Vec<u8> {
    let bytes = fixture("rgba.png");
    [&bytes[..33], chunks, &bytes[33..]].concat()
}

#[test]
fn texts_and_profiles_are_skipped_however_large() {
    let expected = pillow("rgba.png");
    let text = png_chunk(b"tEXt", &[b"Comment\0".as_slice(), &vec![b'x'; 1 << 20]].concat());
    // Claims deflate and holds noise: reading it would fail.
    let compressed = png_chunk(b"zTXt", b"Comment\0\0not deflate at all");
    let profile = png_chunk(b"iCCP", b"profile\0\0not deflate at all");
    for chunks in [
        text,
        compressed,
        profile,
        png_chunk(b"tIME", &[0; 7]).repeat(20_000),
    ] {
        let image = decode(&with_chunks(&chunks), LIMITS).unwrap();
        assert_eq!(image.pixels(), expected);
    }
}

/// Two bytes of red and green in a row: enough to see every turn.
fn arrow() -> (Vec<u8>, u32, u32) {
    let (red, green, blue) = ([255, 0, 0], [0, 255, 0], [0, 0, 255]);
    ([red, green, blue, blue, red, red].concat(), 3, 2)
}

/// A TIFF block with the orientation alone.
fn orientation_block(value: u8) -> Vec<u8> {
    let mut block = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    block.extend([value, 0, 0, 0, 0, 0, 0]);
    block
}

/// Pixel (x, y) of the upright image is this pixel of the stored one, from the EXIF specification's table.
fn stored_place(orientation: u8, (x, y): (u32, u32), (width, height): (u32, u32)) -> (u32, u32) {
    match orientation {
        2 => (width - 1 - x, y),
        3 => (width - 1 - x, height - 1 - y),
        4 => (x, height - 1 - y),
        5 => (y, x),
        6 => (y, height - 1 - x),
        7 => (width - 1 - y, height - 1 - x),
        8 => (width - 1 - y, x),
        _ => (x, y),
    }
}

#[test]
fn every_orientation_is_turned_upright() {
    let (stored, width, height) = arrow();
    for orientation in 0..=9 {
        let mut file = Vec::new();
        let mut encoder = WebPEncoder::new_lossless(&mut file);
        encoder.set_exif_metadata(orientation_block(orientation)).unwrap();
        encoder
            .write_image(&stored, width, height, ExtendedColorType::Rgb8)
            .unwrap();
        let image = decode(&file, LIMITS).unwrap();
        let turned = (5..=8).contains(&orientation);
        let size = if turned { (height, width) } else { (width, height) };
        assert_eq!((image.size().width, image.size().height), size, "{orientation}");
        for y in 0..size.1 {
            for x in 0..size.0 {
                let (from_x, from_y) = stored_place(orientation, (x, y), (width, height));
                let pixel = |pixels: &[u8], at: u32| pixels[at as usize * 3..][..3].to_vec();
                assert_eq!(
                    pixel(image.pixels(), y * size.0 + x),
                    pixel(&stored, from_y * width + from_x),
                    "orientation {orientation}, pixel {x} {y}"
                );
            }
        }
    }
}

#[test]
fn the_orientation_of_jpeg_and_png_counts_too() {
    let pixels = vec![200; 16 * 8 * 3];
    let mut jpeg = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, 90);
    encoder.set_exif_metadata(orientation_block(6)).unwrap();
    encoder
        .write_image(&pixels, 16, 8, ExtendedColorType::Rgb8)
        .unwrap();
    let size = decode(&jpeg, LIMITS).unwrap().size();
    assert_eq!(size, Size { width: 8, height: 16 });
    let png = with_chunks(&png_chunk(b"eXIf", &orientation_block(6)));
    let size = decode(&png, LIMITS).unwrap().size();
    assert_eq!(
        size,
        Size {
            width: 10,
            height: 12
        }
    );
}

#[test]
fn a_progressive_bomb_is_refused() {
    let bytes = fixture("progressive.jpeg");
    // From the last scan's header to the end marker.
    let scan = bytes.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap();
    let end = bytes.len() - 2;
    let bomb = [&bytes[..end], &bytes[scan..end].repeat(5000), &bytes[end..]].concat();
    assert!(text(decode(&bomb, LIMITS)).contains("too many scans"));
}

#[test]
fn other_formats_are_named_in_the_refusal() {
    let cases: [(&[u8], &str); 9] = [
        (b"GIF89a\x01\0\x01\0", "a GIF"),
        (b"BM\0\0\0\0", "a BMP"),
        (b"II*\0\x08\0\0\0", "a TIFF"),
        (b"%PDF-1.7", "a PDF"),
        (b"\0\0\0\x20ftypavif", "an AVIF"),
        (b"  <?xml version=\"1.0\"?><svg/>", "SVG"),
        (b"<html>", "HTML"),
        (b"RIFF\0\0\0\0WAVE", "not a picture"),
        (b"{\"init_image\":1}", "not a picture"),
    ];
    for (bytes, expected) in cases {
        let found = text(decode(bytes, LIMITS));
        assert!(
            found.contains(expected) && found.contains("PNG, JPEG or WebP"),
            "{found}"
        );
    }
}

#[test]
fn a_panicking_decoder_is_a_refusal_without_its_text() {
    let found = text(contain_panic(|| panic!("index 7 out of range in /secret/path")));
    assert_eq!(found, "the picture cannot be read: the file is damaged");
}
