//! How the finished images of a job are handed over. Nothing here changes a pixel that is safe to see.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ImageFormat, SafetyPolicy};

/// The way of a job's images to its caller.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Delivery {
    /// How they are encoded.
    pub format: ImageFormat,
    /// How much of a JPEG file is kept, 1 to 100; None is the server's own. Other formats lose nothing.
    pub jpeg_quality: Option<u8>,
    /// Prefix of the files' names; a dialect's own convention.
    pub file_stem: String,
    /// Life of the links to them; None is the server's own.
    pub link_life: Option<Duration>,
    /// Whether the caller wants text in base64 instead of image files.
    pub base64: bool,
    /// Whether they are looked at for unsafe content, and what is done with an unsafe one.
    pub safety: SafetyPolicy,
    /// Where the end of the job is to be told.
    pub webhook: Option<String>,
}
