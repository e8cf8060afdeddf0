//! What `POST /v3/lcm-img2img` reads and writes. What each field of the body takes is in `fields.rs`.

use pentimento_types::Findings;
use serde::Serialize;

use super::fields::BODY;
use crate::dialects::field::names;
use crate::dialects::json::{Fields, JsonError, parse_object};

/// The body as it came.
#[derive(Debug)]
pub(super) struct LcmImg2ImgBody(pub(super) Fields);

impl LcmImg2ImgBody {
    /// Reads JSON, whatever the content type says.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        parse_object(bytes, &names(&[BODY])).map(Self)
    }
}

/// One finished image.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ImageItem {
    /// Absolute, signed, needs no key.
    pub(super) image_url: String,
    /// Seconds; a string, as the seed and the JS client have it. Python parses it as well.
    pub(super) image_url_ttl: String,
    /// `png`, `jpeg` or `webp`; agrees with the link's ending and the file's bytes.
    pub(super) image_type: &'static str,
    /// Not in the original: sending it with the same body gives this very image again.
    pub(super) seed: u64,
    /// Where the image was looked at, as on the vendor's async endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) nsfw_detection_result: Option<NsfwDetectionResult>,
}

/// What was found in an image. Clients take it for unsafe when it is `valid` and the confidence is high enough for them.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct NsfwDetectionResult {
    /// Whether it is unsafe.
    pub(super) valid: bool,
    /// How sure that is, 0 to 1.
    pub(super) confidence: f64,
}

impl NsfwDetectionResult {
    /// None where nobody has looked.
    pub(super) fn of(findings: &Findings) -> Option<Self> {
        findings.nsfw.map(|valid| Self {
            valid,
            // The reference checker says only yes or no, and clients compare the number with one of theirs.
            confidence: match findings.score {
                Some(score) => f64::from(score) / 1000.0,
                None => f64::from(u8::from(valid)),
            },
        })
    }
}

/// The reply. The documentation's table says `images`, its example says `image`; clients read either.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LcmImg2ImgReply {
    pub(super) images: Vec<ImageItem>,
    pub(super) image: Vec<ImageItem>,
    /// Not in the original: the job that made the images, for the log and for `/v1/jobs`.
    pub(super) job_id: String,
    /// Not in the original: what of the request had no effect, or was read in a way that is not plain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) warning: Option<String>,
}
