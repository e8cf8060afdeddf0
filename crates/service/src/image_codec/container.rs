//! Tells the formats of image files apart by their first bytes.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    Png,
    Jpeg,
    Webp,
    /// With its article, for a message.
    Other(&'static str),
}

impl Container {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let at = |from: usize, to: usize| bytes.get(from..to).unwrap_or_default();
        if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            return Self::Png;
        }
        if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
            return Self::Jpeg;
        }
        if at(0, 4) == b"RIFF" && at(8, 12) == b"WEBP" {
            return Self::Webp;
        }
        let head = at(0, bytes.len().min(256)).trim_ascii_start();
        Self::Other(if bytes.starts_with(b"GIF8") {
            "a GIF"
        } else if bytes.starts_with(b"BM") {
            "a BMP"
        } else if bytes.starts_with(b"II*\0") || bytes.starts_with(b"MM\0*") {
            "a TIFF"
        } else if bytes.starts_with(b"%PDF") {
            "a PDF"
        } else if at(4, 8) == b"ftyp" {
            "an AVIF, HEIC or video file"
        } else if head.starts_with(b"<") {
            "SVG, XML or HTML"
        } else if bytes.starts_with(&[0xff, 0x0a]) || at(4, 8) == b"JXL " {
            "a JPEG XL"
        } else {
            "not a picture format that is known here"
        })
    }
}
