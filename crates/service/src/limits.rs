//! How much of an image a dialect takes.

/// How much of an image a dialect takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputLimits {
    /// Longest side in pixels.
    pub max_side: u32,
    /// Pixels in all. The server's own bound, from its settings, holds beside it.
    pub max_pixels: u64,
    /// Size of the file in bytes.
    pub max_bytes: u64,
}
