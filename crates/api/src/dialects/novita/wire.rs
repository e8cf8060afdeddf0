//! What `POST /v3/lcm-img2img` reads and writes, field by field. No meaning is given here; see `convert.rs`.

use serde::Serialize;

use crate::dialects::json::{Fields, Json, JsonError, parse_object};

/// The fields of the body, in the order of the documentation, with `strength` where the table has it.
pub(super) const FIELDS: &[&str] = &[
    "extra",
    "model_name",
    "input_image",
    "prompt",
    "negative_prompt",
    "image_num",
    "sd_vae",
    "loras",
    "embeddings",
    "steps",
    "guidance_scale",
    "seed",
    "clip_skip",
    "strength",
];
/// The members of `extra`. `enterprise_plan` is the JS client's and means nothing here.
pub(super) const EXTRA_FIELDS: &[&str] = &["response_image_type", "enterprise_plan"];
/// The members of one LoRA. The seed's example spells the weight `strenth`, the JS client's type `strength`.
pub(super) const LORA_FIELDS: &[&str] = &["model_name", "strength", "strenth"];
/// The members of one embedding.
pub(super) const EMBEDDING_FIELDS: &[&str] = &["model_name"];

/// The body as it came.
#[derive(Debug)]
pub(super) struct LcmImg2ImgBody {
    pub(super) extra: Json,
    pub(super) model_name: Json,
    pub(super) input_image: Json,
    pub(super) prompt: Json,
    pub(super) negative_prompt: Json,
    pub(super) image_num: Json,
    pub(super) sd_vae: Json,
    pub(super) loras: Json,
    pub(super) embeddings: Json,
    pub(super) steps: Json,
    pub(super) guidance_scale: Json,
    pub(super) seed: Json,
    pub(super) clip_skip: Json,
    pub(super) strength: Json,
    /// Fields that this call does not know.
    pub(super) ignored: Vec<String>,
}

impl LcmImg2ImgBody {
    /// Reads JSON, whatever the content type says.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        parse_object(bytes, FIELDS).map(Self::from)
    }
}

impl From<Fields> for LcmImg2ImgBody {
    fn from(mut fields: Fields) -> Self {
        Self {
            extra: fields.take("extra"),
            model_name: fields.take("model_name"),
            input_image: fields.take("input_image"),
            prompt: fields.take("prompt"),
            negative_prompt: fields.take("negative_prompt"),
            image_num: fields.take("image_num"),
            sd_vae: fields.take("sd_vae"),
            loras: fields.take("loras"),
            embeddings: fields.take("embeddings"),
            steps: fields.take("steps"),
            guidance_scale: fields.take("guidance_scale"),
            seed: fields.take("seed"),
            clip_skip: fields.take("clip_skip"),
            strength: fields.take("strength"),
            ignored: fields.into_ignored(),
        }
    }
}

/// One finished picture.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ImageItem {
    /// Absolute, signed, needs no key.
    pub(super) image_url: String,
    /// Seconds; a string, as the seed and the JS client have it. Python parses it as well.
    pub(super) image_url_ttl: String,
    /// `png`, `jpeg` or `webp`; agrees with the link's ending and the file's bytes.
    pub(super) image_type: &'static str,
    /// Not in the original: sending it with the same body gives this very picture again.
    pub(super) seed: u64,
}

/// The reply. The documentation's table says `images`, its example says `image`; clients read either.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LcmImg2ImgReply {
    pub(super) images: Vec<ImageItem>,
    pub(super) image: Vec<ImageItem>,
    /// Not in the original: the job that made the pictures, for the log and for `/v1/jobs`.
    pub(super) job_id: String,
}
