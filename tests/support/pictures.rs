//! The input pictures of the tests, and looking at the output.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;

use super::tests_folder;

/// A file of `tests/scenarios/pictures`, or of `tests/images` when its name begins with `images/`.
pub(crate) fn bytes(name: &str) -> Vec<u8> {
    let folder = tests_folder();
    let path = if name.starts_with("images/") {
        folder.join(name)
    } else {
        folder.join("scenarios/pictures").join(name)
    };
    fs_err::read(path).expect("the picture is in the repository")
}

/// The same in base64.
pub(crate) fn base64(name: &str) -> String {
    STANDARD.encode(bytes(name))
}

/// A grey picture of any size.
pub(crate) fn grey(width: u32, height: u32) -> RgbImage {
    RgbImage::from_pixel(width, height, image::Rgb([120, 130, 140]))
}

/// The same as PNG in base64.
pub(crate) fn base64_of_size(width: u32, height: u32) -> String {
    let mut file = std::io::Cursor::new(Vec::new());
    grey(width, height)
        .write_to(&mut file, image::ImageFormat::Png)
        .expect("memory takes it");
    STANDARD.encode(file.into_inner())
}

/// Base64 in one of the spellings that clients use.
pub(crate) fn spelled(name: &str, spelling: &str) -> String {
    let plain = base64(name);
    match spelling {
        "plain" => plain,
        "data-uri" => format!("data:image/png;base64,{plain}"),
        "url-safe" => plain.replace('+', "-").replace('/', "_"),
        "unpadded" => plain.trim_end_matches('=').to_owned(),
        "wrapped" => {
            let lines: Vec<&str> = plain
                .as_bytes()
                .chunks(60)
                .filter_map(|line| str::from_utf8(line).ok())
                .collect();
            lines.join("\r\n") + "\n"
        }
        other => panic!("there is no spelling {other}"),
    }
}

/// Decodes a picture, whatever its format.
pub(crate) fn decode(bytes: &[u8]) -> RgbImage {
    image::load_from_memory(bytes)
        .expect("the server's pictures can be read")
        .to_rgb8()
}

/// The mean difference of two pictures of one size, in steps of 1/255.
pub(crate) fn mean_difference(one: &RgbImage, other: &RgbImage) -> f64 {
    assert_eq!(one.dimensions(), other.dimensions());
    let sum: f64 = one
        .iter()
        .zip(other.iter())
        .map(|(a, b)| f64::from(a.abs_diff(*b)))
        .sum();
    sum / one.len() as f64
}
