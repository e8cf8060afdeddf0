//! What decoding a file takes, known before anything is allocated.

use pentimento_types::Size;

/// What decoding a file takes, read from its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoding {
    /// Width and height as the file has them; the image may lie on its side.
    pub size: Size,
    /// At most so many bytes at once while it is decoded and turned upright, the image itself among them.
    pub working_bytes: u64,
}

impl Decoding {
    /// What the image takes afterwards, in bytes.
    #[must_use]
    pub const fn image_bytes(&self) -> u64 {
        self.size.rgb_bytes()
    }
}
