//! From the wire to a valid request, and from a finished job to the reply. Ranges and defaults are in `fields.rs`.

use std::time::Duration;

use pentimento_types::{
    Delivery, EmbeddingRef, ImageFormat, ImageSource, Inputs, Job, LoraRef, ModelId, Recipe, SafetyAction,
    SafetyLevel, SafetyPolicy, SchedulerChoice, SchedulerKind, StoredImage, StrengthRule,
};

use super::fields::{
    ADAPTER_NAME, CLIP_SKIP, EMBEDDINGS, ENABLE_NSFW_DETECTION, EXTRA, GUIDANCE_SCALE, IMAGE_NUM,
    INPUT_IMAGE, LORA_STRENGTH, LORAS, MODEL_NAME, NEGATIVE_PROMPT, NSFW_DETECTION_LEVEL, PROMPT,
    RESPONSE_IMAGE_TYPE, SD_VAE, SEED, STEPS, STRENGTH,
};
use super::wire::{ImageItem, LcmImg2ImgBody, LcmImg2ImgReply, NsfwDetectionResult};
use crate::base_url::BaseUrl;
use crate::dialects::field::{Field, ListOf, Number, Text, Whole, names};
use crate::dialects::inline_image;
use crate::dialects::json::{Fields, Json};
use crate::dialects::lenient::{FieldError, list, name, object, shorten, text};

/// A body whose fields have been read and checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ParsedCall {
    pub(super) recipe: Recipe,
    pub(super) inputs: Inputs<ImageSource>,
    pub(super) delivery: Delivery,
    /// Names of the fields that were ignored.
    pub(super) ignored: Vec<String>,
}

/// The valid call that `body` describes. `random_seed` is used where the caller gave none.
pub(super) fn to_call(body: LcmImg2ImgBody, random_seed: u64) -> Result<ParsedCall, FieldError> {
    let mut fields = body.0;
    let mut of_members = Vec::new();
    let prompt = prompt(&PROMPT, &mut fields)?.unwrap_or_default();
    if prompt.is_empty() {
        let limit = PROMPT.kind.max_chars;
        let message = format_args!("is required: 1 to {limit} characters that say what to paint");
        return Err(FieldError::value(PROMPT.name, message));
    }
    let seed = match SEED.read(&mut fields)? {
        None | Some(-1) => random_seed,
        Some(given) => unsigned(given),
    };
    let recipe = Recipe {
        model: required_name(MODEL_NAME.name, fields.take(MODEL_NAME.name))?,
        vae: vae(&mut fields)?,
        loras: loras(&mut fields, &mut of_members)?,
        embeddings: embeddings(&mut fields, &mut of_members)?,
        prompt,
        negative_prompt: self::prompt(&NEGATIVE_PROMPT, &mut fields)?,
        image_count: whole(&IMAGE_NUM, &mut fields)?,
        steps: whole(&STEPS, &mut fields)?,
        guidance_scale: number(&GUIDANCE_SCALE, &mut fields)?,
        strength: number(&STRENGTH, &mut fields)?,
        seed,
        clip_skip: whole(&CLIP_SKIP, &mut fields)?,
        token_merging: false,
        scheduler: SchedulerChoice {
            kind: Some(SchedulerKind::LCM),
            strength_rule: StrengthRule::LowerStart,
            ..SchedulerChoice::default()
        },
        framing: None,
        soft_edge: 0,
        differential_diffusion: false,
        keeps_everything: false,
        ip_adapter: None,
    };
    let (format, safety) = extra(&mut fields, &mut of_members)?;
    let delivery = Delivery {
        format,
        file_stem: "lcm_img2img".to_owned(),
        safety,
        ..Delivery::default()
    };
    // Last, because it is the only costly one.
    let inputs = Inputs::new(input_image(&mut fields)?);
    let mut ignored = fields.into_ignored();
    ignored.append(&mut of_members);
    Ok(ParsedCall {
        recipe,
        inputs,
        delivery,
        ignored,
    })
}

/// The reply for the images of a finished job; `link` signs one and says how long the link lives.
pub(super) fn to_reply(
    job: &Job,
    images: &[StoredImage],
    base: &BaseUrl,
    link: impl Fn(&StoredImage) -> (String, Duration),
) -> LcmImg2ImgReply {
    let item = |image: &StoredImage| {
        let (path, ttl) = link(image);
        ImageItem {
            image_url: base.join(&path),
            image_url_ttl: ttl.as_secs().to_string(),
            image_type: image.format.as_str(),
            seed: image.seed,
            nsfw_detection_result: NsfwDetectionResult::of(&image.findings),
        }
    };
    let images: Vec<ImageItem> = images.iter().map(item).collect();
    LcmImg2ImgReply {
        image: images.clone(),
        images,
        job_id: job.id.to_string(),
        warning: (!job.notes.is_empty()).then(|| {
            let sentences: Vec<String> = job.notes.iter().map(ToString::to_string).collect();
            sentences.join(" ")
        }),
    }
}

fn whole(field: &Field<Whole<i64>>, fields: &mut Fields) -> Result<u32, FieldError> {
    let found = field.read(fields)?.unwrap_or(field.kind.default);
    Ok(u32::try_from(found).expect("the ranges of all counts lie in 1..=16"))
}

fn number(field: &Field<Number<f64>>, fields: &mut Fields) -> Result<f64, FieldError> {
    Ok(field.read(fields)?.unwrap_or(field.kind.default))
}

fn prompt<D>(field: &Field<Text<D>>, fields: &mut Fields) -> Result<Option<String>, FieldError> {
    let Some(prompt) = text(field.name, fields.take(field.name))? else {
        return Ok(None);
    };
    let (chars, limit) = (prompt.chars().count(), field.kind.max_chars);
    if chars > limit {
        let found = format_args!("may have at most {limit} characters, got {chars}; shorten it");
        return Err(FieldError::value(field.name, found));
    }
    Ok(Some(prompt))
}

fn required_name(place: &str, value: Json) -> Result<ModelId, FieldError> {
    let missing = || {
        FieldError::value(
            place,
            "is required; GET /v3/model lists the names (sd_name_in_api)",
        )
    };
    name(place, value)?.map(ModelId::new).ok_or_else(missing)
}

fn vae(fields: &mut Fields) -> Result<Option<ModelId>, FieldError> {
    let named = name(SD_VAE.name, fields.take(SD_VAE.name))?;
    // A1111's words for "the checkpoint's own".
    let own = |name: &String| name.eq_ignore_ascii_case("automatic") || name.eq_ignore_ascii_case("none");
    Ok(named.filter(|name| !own(name)).map(ModelId::new))
}

fn loras(fields: &mut Fields, ignored: &mut Vec<String>) -> Result<Vec<LoraRef>, FieldError> {
    let mut found: Vec<LoraRef> = Vec::new();
    for item in objects(&LORAS, fields)? {
        let (place, mut item) = item?;
        let model = adapter_name(&place, &mut item)?;
        if found.iter().any(|lora| lora.model == model) {
            let message = format_args!("names {} a second time; give it once", shorten(model.as_str()));
            return Err(FieldError::value(&at(&place, ADAPTER_NAME.name), message));
        }
        let strength = LORA_STRENGTH.read_at(Some(&place), &mut item)?;
        found.push(LoraRef {
            model,
            strength: strength.unwrap_or(LORA_STRENGTH.kind.default),
        });
        note_ignored(&place, item, ignored);
    }
    Ok(found)
}

fn embeddings(fields: &mut Fields, ignored: &mut Vec<String>) -> Result<Vec<EmbeddingRef>, FieldError> {
    let mut found = Vec::new();
    for item in objects(&EMBEDDINGS, fields)? {
        let (place, mut item) = item?;
        let model = adapter_name(&place, &mut item)?;
        found.push(EmbeddingRef { model });
        note_ignored(&place, item, ignored);
    }
    Ok(found)
}

fn adapter_name(place: &str, item: &mut Fields) -> Result<ModelId, FieldError> {
    required_name(&at(place, ADAPTER_NAME.name), item.take(ADAPTER_NAME.name))
}

/// The objects of a list, each with its place in the body.
fn objects(
    list_field: &Field<ListOf>,
    fields: &mut Fields,
) -> Result<impl Iterator<Item = Result<(String, Fields), FieldError>>, FieldError> {
    let (field, kind) = (list_field.name, list_field.kind);
    let names = names(&[kind.members]);
    let items = list(field, fields.take(field), kind.max)?;
    Ok(items.into_iter().enumerate().map(move |(at, item)| {
        let place = format!("{field}[{at}]");
        let missing = || FieldError::value(&place, "must be an object with a model_name, got null");
        let members = object(&place, item)?.ok_or_else(missing)?;
        let members = Fields::from_object(members, &names);
        Ok((place, members))
    }))
}

/// What `extra` says of how the images are handed over.
fn extra(fields: &mut Fields, ignored: &mut Vec<String>) -> Result<(ImageFormat, SafetyPolicy), FieldError> {
    let Some(members) = object(EXTRA.name, fields.take(EXTRA.name))? else {
        return Ok((ImageFormat::default(), SafetyPolicy::default()));
    };
    let mut extra = Fields::from_object(members, &names(&[EXTRA.kind.members]));
    let format = output_format(&mut extra)?;
    let safety = safety(&mut extra)?;
    note_ignored(EXTRA.name, extra, ignored);
    Ok((format, safety))
}

fn output_format(extra: &mut Fields) -> Result<ImageFormat, FieldError> {
    let place = at(EXTRA.name, RESPONSE_IMAGE_TYPE.name);
    let Some(format) = name(&place, extra.take(RESPONSE_IMAGE_TYPE.name))? else {
        return Ok(ImageFormat::default());
    };
    let unknown = || {
        let (words, found) = (alternatives(RESPONSE_IMAGE_TYPE.kind.words), shorten(&format));
        FieldError::value(&place, format_args!("must be {words}, got {found:?}"))
    };
    ImageFormat::parse(&format).ok_or_else(unknown)
}

/// The vendor only says what it has found, and leaves what to do with it to the caller.
fn safety(extra: &mut Fields) -> Result<SafetyPolicy, FieldError> {
    let level = NSFW_DETECTION_LEVEL.read_at(Some(EXTRA.name), extra)?;
    let level = match level.unwrap_or(NSFW_DETECTION_LEVEL.kind.default) {
        0 => SafetyLevel::Explicit,
        1 => SafetyLevel::Suggestive,
        _ => SafetyLevel::Revealing,
    };
    let wanted = detection_wanted(extra.take(ENABLE_NSFW_DETECTION.name))?;
    Ok(if wanted {
        SafetyPolicy::On {
            action: SafetyAction::Keep,
            level,
        }
    } else {
        SafetyPolicy::Off
    })
}

fn detection_wanted(value: Json) -> Result<bool, FieldError> {
    let wanted = match &value {
        Json::Null => Some(false),
        Json::Bool(flag) => Some(*flag),
        Json::Integer(0) => Some(false),
        Json::Integer(1) => Some(true),
        Json::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "" | "false" | "0" => Some(false),
            _ => None,
        },
        Json::Integer(_) | Json::Number(_) | Json::File(_) | Json::List(_) | Json::Object(_) => None,
    };
    let place = at(EXTRA.name, ENABLE_NSFW_DETECTION.name);
    wanted.ok_or_else(|| FieldError::value(&place, "must be true or false"))
}

fn input_image(fields: &mut Fields) -> Result<ImageSource, FieldError> {
    let field = INPUT_IMAGE.name;
    let missing = || FieldError::value(field, "is required: a PNG, JPEG or WebP file in base64");
    let text = text(field, fields.take(field))?.ok_or_else(missing)?;
    inline_image::decode(field, text, INPUT_IMAGE.kind.max_bytes).map(ImageSource::Inline)
}

fn note_ignored(place: &str, fields: Fields, ignored: &mut Vec<String>) {
    ignored.extend(fields.into_ignored().into_iter().map(|name| at(place, &name)));
}

fn at(place: &str, name: &str) -> String {
    format!("{place}.{name}")
}

/// `a, b or c`
fn alternatives(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

fn unsigned(seed: i64) -> u64 {
    u64::try_from(seed).expect("the range begins at -1 and -1 was taken out before")
}

#[cfg(test)]
mod tests;
