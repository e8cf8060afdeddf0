//! From the wire to a valid request, and from a finished job to the reply. All defaults and ranges of this dialect.

use std::time::Duration;

use pentimento_types::{
    Delivery, EmbeddingRef, ImageFormat, ImageSource, Inputs, LoraRef, ModelId, Recipe, SchedulerChoice,
    SchedulerKind, StoredImage,
};

use super::wire::{EMBEDDING_FIELDS, EXTRA_FIELDS, ImageItem, LORA_FIELDS, LcmImg2ImgBody, LcmImg2ImgReply};
use crate::base_url::BaseUrl;
use crate::dialects::inline_picture;
use crate::dialects::json::{Fields, Json};
use crate::dialects::lenient::{Refusal, integer_in, list, name, number_in, object, shorten, text};

/// "max file size of 30 Mb"; read as MiB, the larger reading.
pub(super) const MAX_IMAGE_BYTES: usize = 30 * 1024 * 1024;
/// "maximum resolution of 2048 * 2048"
pub(super) const MAX_IMAGE_SIDE: u32 = 2048;
/// "Range [1, 1024]"; characters, not bytes.
const MAX_PROMPT_CHARS: usize = 1024;
/// "supports up to 5 LoRAs", "up to 5 embeddings"
const MAX_ADAPTERS: usize = 5;
/// 2^53: every seed survives a JSON reader that knows only floats.
const MAX_SEED: i64 = 1 << 53;
/// The Python client's dataclass has it as the default; it is also the documented maximum.
const DEFAULT_STEPS: i64 = 8;
/// The Python client's dataclass again.
const DEFAULT_GUIDANCE: f64 = 0.0;
/// Documented nowhere; the vendor's own test sends it.
const DEFAULT_STRENGTH: f64 = 0.5;
/// Documented nowhere; beyond it a LoRA only destroys the picture.
const MAX_LORA_STRENGTH: f64 = 10.0;

/// A body, understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Converted {
    pub(super) recipe: Recipe,
    pub(super) inputs: Inputs<ImageSource>,
    pub(super) delivery: Delivery,
    /// Names of the fields that were ignored.
    pub(super) ignored: Vec<String>,
}

/// The valid request that `body` describes. `random_seed` is used where the caller gave none.
pub(super) fn to_request(body: LcmImg2ImgBody, random_seed: u64) -> Result<Converted, Refusal> {
    let mut ignored = body.ignored;
    let prompt = prompt("prompt", body.prompt)?.unwrap_or_default();
    if prompt.is_empty() {
        let limit = format_args!("is required: 1 to {MAX_PROMPT_CHARS} characters that say what to paint");
        return Err(Refusal::value("prompt", limit));
    }
    let seed = match integer_in("seed", body.seed, -1..=MAX_SEED)? {
        None | Some(-1) => random_seed,
        Some(given) => unsigned(given),
    };
    let recipe = Recipe {
        model: model_name("model_name", body.model_name)?,
        vae: vae(body.sd_vae)?,
        loras: loras(body.loras, &mut ignored)?,
        embeddings: embeddings(body.embeddings, &mut ignored)?,
        prompt,
        negative_prompt: self::prompt("negative_prompt", body.negative_prompt)?.unwrap_or_default(),
        image_count: small(integer_in("image_num", body.image_num, 1..=16)?.unwrap_or(1)),
        steps: small(integer_in("steps", body.steps, 1..=8)?.unwrap_or(DEFAULT_STEPS)),
        // The documentation says [0, 3], the JS client tells its users [2, 14]; the union costs nothing.
        guidance_scale: number_in("guidance_scale", body.guidance_scale, 0.0..=14.0)?
            .unwrap_or(DEFAULT_GUIDANCE),
        strength: number_in("strength", body.strength, 0.0..=1.0)?.unwrap_or(DEFAULT_STRENGTH),
        seed,
        clip_skip: small(integer_in("clip_skip", body.clip_skip, 1..=12)?.unwrap_or(1)),
        token_merging: false,
        scheduler: SchedulerChoice {
            kind: Some(SchedulerKind::LCM),
            ..SchedulerChoice::default()
        },
        soft_edge: 0,
    };
    let delivery = Delivery {
        format: output_format(body.extra, &mut ignored)?,
        file_stem: "lcm_img2img".to_owned(),
        ..Delivery::default()
    };
    Ok(Converted {
        recipe,
        delivery,
        // Last, because it is the only costly one.
        inputs: Inputs::new(input_image(body.input_image)?),
        ignored,
    })
}

/// The reply for the pictures of a finished job; `link` signs one and says how long the link lives.
pub(super) fn to_reply(
    job_id: String,
    pictures: &[StoredImage],
    base: &BaseUrl,
    link: impl Fn(&StoredImage) -> (String, Duration),
) -> LcmImg2ImgReply {
    let item = |picture: &StoredImage| {
        let (path, ttl) = link(picture);
        ImageItem {
            image_url: base.join(&path),
            image_url_ttl: ttl.as_secs().to_string(),
            image_type: picture.format.as_str(),
            seed: picture.seed,
        }
    };
    let images: Vec<ImageItem> = pictures.iter().map(item).collect();
    LcmImg2ImgReply {
        image: images.clone(),
        images,
        job_id,
    }
}

fn prompt(field: &str, value: Json) -> Result<Option<String>, Refusal> {
    let Some(prompt) = text(field, value)? else {
        return Ok(None);
    };
    let chars = prompt.chars().count();
    if chars > MAX_PROMPT_CHARS {
        let found = format_args!("may have at most {MAX_PROMPT_CHARS} characters, got {chars}; shorten it");
        return Err(Refusal::value(field, found));
    }
    Ok(Some(prompt))
}

fn model_name(field: &str, value: Json) -> Result<ModelId, Refusal> {
    let missing = || {
        Refusal::value(
            field,
            "is required; GET /v3/model lists the names (sd_name_in_api)",
        )
    };
    name(field, value)?.map(ModelId::new).ok_or_else(missing)
}

fn vae(value: Json) -> Result<Option<ModelId>, Refusal> {
    let named = name("sd_vae", value)?;
    // A1111's words for "the checkpoint's own".
    let own = |name: &String| name.eq_ignore_ascii_case("automatic") || name.eq_ignore_ascii_case("none");
    Ok(named.filter(|name| !own(name)).map(ModelId::new))
}

fn loras(value: Json, ignored: &mut Vec<String>) -> Result<Vec<LoraRef>, Refusal> {
    let mut found: Vec<LoraRef> = Vec::new();
    for (at, item) in list("loras", value, MAX_ADAPTERS)?.into_iter().enumerate() {
        let place = format!("loras[{at}]");
        let mut fields = members(&place, item, LORA_FIELDS)?;
        let model = model_name(&format!("{place}.model_name"), fields.take("model_name"))?;
        if found.iter().any(|lora| lora.model == model) {
            let message = format_args!("names {} a second time; give it once", shorten(model.as_str()));
            return Err(Refusal::value(&format!("{place}.model_name"), message));
        }
        let mut strength = |key: &str| {
            let range = -MAX_LORA_STRENGTH..=MAX_LORA_STRENGTH;
            number_in(&format!("{place}.{key}"), fields.take(key), range)
        };
        let (correct, misspelt) = (strength("strength")?, strength("strenth")?);
        found.push(LoraRef {
            model,
            strength: correct.or(misspelt).unwrap_or(1.0),
        });
        note_ignored(&place, fields, ignored);
    }
    Ok(found)
}

fn embeddings(value: Json, ignored: &mut Vec<String>) -> Result<Vec<EmbeddingRef>, Refusal> {
    let mut found = Vec::new();
    for (at, item) in list("embeddings", value, MAX_ADAPTERS)?.into_iter().enumerate() {
        let place = format!("embeddings[{at}]");
        let mut fields = members(&place, item, EMBEDDING_FIELDS)?;
        let model = model_name(&format!("{place}.model_name"), fields.take("model_name"))?;
        found.push(EmbeddingRef { model });
        note_ignored(&place, fields, ignored);
    }
    Ok(found)
}

fn output_format(value: Json, ignored: &mut Vec<String>) -> Result<ImageFormat, Refusal> {
    const FIELD: &str = "extra.response_image_type";
    let Some(members) = object("extra", value)? else {
        return Ok(ImageFormat::default());
    };
    let mut fields = Fields::from_object(members, EXTRA_FIELDS);
    let format = name(FIELD, fields.take("response_image_type"))?;
    note_ignored("extra", fields, ignored);
    let Some(format) = format else {
        return Ok(ImageFormat::default());
    };
    let unknown = || {
        let found = shorten(&format);
        Refusal::value(FIELD, format_args!("must be png, jpeg or webp, got {found:?}"))
    };
    ImageFormat::parse(&format).ok_or_else(unknown)
}

fn input_image(value: Json) -> Result<ImageSource, Refusal> {
    const FIELD: &str = "input_image";
    let missing = || Refusal::value(FIELD, "is required: a PNG, JPEG or WebP file in base64");
    let text = text(FIELD, value)?.ok_or_else(missing)?;
    inline_picture::decode(FIELD, text, MAX_IMAGE_BYTES).map(ImageSource::Inline)
}

fn members(place: &str, item: Json, names: &[&str]) -> Result<Fields, Refusal> {
    let missing = || Refusal::value(place, "must be an object with a model_name, got null");
    let members = object(place, item)?.ok_or_else(missing)?;
    Ok(Fields::from_object(members, names))
}

fn note_ignored(place: &str, fields: Fields, ignored: &mut Vec<String>) {
    ignored.extend(
        fields
            .into_ignored()
            .into_iter()
            .map(|name| format!("{place}.{name}")),
    );
}

fn unsigned(seed: i64) -> u64 {
    u64::try_from(seed).expect("the range begins at -1 and -1 was taken out before")
}

fn small(number: i64) -> u32 {
    u32::try_from(number).expect("the ranges of all counts lie in 1..=16")
}

#[cfg(test)]
mod tests;
