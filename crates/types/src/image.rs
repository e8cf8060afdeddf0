//! Images as the serving side sees them: bytes with a format, or plain RGB. Never tensors.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Width and height in pixels, both at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Size {
    /// Pixels per line.
    pub width: u32,
    /// Lines.
    pub height: u32,
}

impl Size {
    /// Both sides rounded up to the next multiple of `step`.
    #[must_use]
    pub const fn padded_to(self, step: u32) -> Self {
        Self {
            width: self.width.next_multiple_of(step),
            height: self.height.next_multiple_of(step),
        }
    }

    /// Width times height.
    #[must_use]
    pub const fn pixels(self) -> u64 {
        self.width as u64 * self.height as u64
    }

    /// What an [`RgbImage`] of this size takes, in bytes.
    #[must_use]
    pub const fn rgb_bytes(self) -> u64 {
        self.pixels() * 3
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// How a finished picture is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// Lossless; the default.
    #[default]
    Png,
    /// Lossy, quality 95.
    Jpeg,
    /// Lossless WebP.
    Webp,
}

impl ImageFormat {
    /// The lower-case name that both vendors use: `png`, `jpeg`, `webp`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Webp => "webp",
        }
    }

    /// The file extension without the dot. The same as the name, so that link and type agree.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        self.as_str()
    }

    /// The media type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }

    /// Reads `png`, `jpeg`, `jpg` or `webp`, in any case.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "png" => Some(Self::Png),
            "jpeg" | "jpg" => Some(Self::Jpeg),
            "webp" => Some(Self::Webp),
            _ => None,
        }
    }
}

/// An input image as a caller sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// The file's bytes.
    Inline(Bytes),
    /// An address. Fetched before the job is accepted, so no stored job has one.
    Url(String),
}

/// Decoded pixels: 8 bits per channel, red green blue, row by row from the top left. Clones share the pixels.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    size: Size,
    pixels: Bytes,
}

impl RgbImage {
    /// Takes `width * height * 3` bytes; None when the length does not fit the size.
    #[must_use]
    pub fn new(size: Size, pixels: Vec<u8>) -> Option<Self> {
        let fits = size.width > 0 && size.height > 0 && pixels.len() as u64 == size.rgb_bytes();
        fits.then(|| Self {
            size,
            pixels: pixels.into(),
        })
    }

    /// Width and height.
    #[must_use]
    pub const fn size(&self) -> Size {
        self.size
    }

    /// The bytes, row by row.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// What the pixels hold in memory.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size.rgb_bytes()
    }

    /// Gives the bytes away; copies them only where a clone has them too.
    #[must_use]
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels.into()
    }
}

impl std::fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RgbImage({})", self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_the_bytes_its_size_says() {
        let size = Size { width: 2, height: 3 };
        assert!(RgbImage::new(size, vec![0; 18]).is_some());
        assert!(RgbImage::new(size, vec![0; 17]).is_none());
        assert!(RgbImage::new(Size { width: 0, height: 3 }, vec![]).is_none());
        assert_eq!(
            Size { width: 67, height: 8 }.padded_to(8),
            Size { width: 72, height: 8 }
        );
    }
}
