//! How a picture and its mask are brought to the size that is computed, and the result back into the picture: what
//! AUTOMATIC1111's web UI does around its image to image (`modules/processing.py`, `modules/masking.py` there).
//!
//! What a mask means for the latents is not among it: those whose top left pixel is at least half white are repainted, as in
//! diffusers, where the web UI averages.
//!
//! Everything follows from the caller's own files and these values, so a job can be framed again after a restart.

use serde::{Deserialize, Serialize};

use crate::Size;

/// Of one job. All that is about a mask means nothing without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Framing {
    /// What is computed; of the result, too, unless only the masked part is.
    pub size: Size,
    /// How a picture with sides of another proportion gets there.
    pub resize: ResizeMode,
    /// Black is repainted, and not white.
    pub invert_mask: bool,
    /// Standard deviations of the Gaussian that blurs the mask across and down, in its own pixels; 0 does not.
    pub mask_blur: [u32; 2],
    /// What the repainted part holds in the beginning.
    pub masked_content: MaskedContent,
    /// Only the masked part is computed, with so many pixels around it, and put back into the whole picture.
    pub only_masked: Option<u32>,
}

/// How a picture comes to a size with sides of another proportion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeMode {
    /// Stretched.
    #[default]
    Stretch,
    /// Its middle, as much as covers the size.
    Crop,
    /// All of it, with its edges drawn out where it does not reach.
    Fill,
}

/// What the repainted part of a picture holds before it is repainted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskedContent {
    /// The colours around it, blurred into it.
    Fill,
    /// What was there.
    #[default]
    Original,
}

impl Framing {
    /// The whole picture stretched to a size, and a mask as it is.
    #[must_use]
    pub const fn stretched(size: Size) -> Self {
        Self {
            size,
            resize: ResizeMode::Stretch,
            invert_mask: false,
            mask_blur: [0, 0],
            masked_content: MaskedContent::Original,
            only_masked: None,
        }
    }
}
