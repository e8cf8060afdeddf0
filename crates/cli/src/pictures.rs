//! Pictures for people: saved as PNG, put side by side, shown in the terminal.

use std::io::Cursor;
use std::path::Path;

use anyhow::Context as _;
use image::{DynamicImage, ImageFormat, RgbImage, imageops};

/// White pixels between two pictures.
const GAP: u32 = 8;
/// Columns that a preview takes at most.
const PREVIEW_COLUMNS: u32 = 64;

/// The image as the `image` crate has it, to be shown.
pub(crate) fn to_picture(image: &pentimento_types::RgbImage) -> anyhow::Result<RgbImage> {
    let size = image.size();
    RgbImage::from_raw(size.width, size.height, image.pixels().to_vec())
        .context("an image has three bytes for each pixel")
}

/// Reads a file's bytes; only for files that this program made or that the user named.
pub(crate) fn read(bytes: &[u8]) -> anyhow::Result<RgbImage> {
    Ok(image::load_from_memory(bytes)
        .context("the picture cannot be read")?
        .to_rgb8())
}

/// Writes a PNG.
pub(crate) fn save_png(picture: &RgbImage, path: &Path) -> anyhow::Result<()> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png)?;
    fs_err::write(path, bytes.into_inner())?;
    Ok(())
}

/// Both pictures on white, the first on the left.
pub(crate) fn side_by_side(left: &RgbImage, right: &RgbImage) -> RgbImage {
    let width = left.width() + GAP + right.width();
    let mut both = RgbImage::from_pixel(
        width,
        left.height().max(right.height()),
        image::Rgb([255, 255, 255]),
    );
    imageops::replace(&mut both, left, 0, 0);
    imageops::replace(&mut both, right, i64::from(left.width() + GAP), 0);
    both
}

/// Shows a picture where the terminal can; a terminal that cannot is left alone, and a failure is no error.
pub(crate) fn preview(picture: &RgbImage) {
    if !crate::config::terminal_shows_pictures() {
        return;
    }
    let config = viuer::Config {
        absolute_offset: false,
        width: Some(PREVIEW_COLUMNS.min(picture.width().max(1))),
        ..viuer::Config::default()
    };
    if let Err(error) = viuer::print(&DynamicImage::ImageRgb8(picture.clone()), &config) {
        tracing::debug!(%error, "the terminal cannot show a picture");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_pictures_stand_side_by_side_on_white() {
        let red = RgbImage::from_pixel(3, 2, image::Rgb([255, 0, 0]));
        let blue = RgbImage::from_pixel(2, 4, image::Rgb([0, 0, 255]));
        let both = side_by_side(&red, &blue);
        assert_eq!(both.dimensions(), (3 + GAP + 2, 4));
        assert_eq!(both.get_pixel(0, 0).0, [255, 0, 0]);
        assert_eq!(both.get_pixel(0, 3).0, [255, 255, 255]);
        assert_eq!(both.get_pixel(3 + GAP, 3).0, [0, 0, 255]);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("both.png");
        save_png(&both, &path).unwrap();
        assert_eq!(read(&fs_err::read(path).unwrap()).unwrap(), both);
    }
}
