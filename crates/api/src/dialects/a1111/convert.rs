//! From the fields to the jobs of a call. Ranges and defaults are in `fields.rs`.
//!
//! A call is one job, unless it has several images to start from: then each image is a job of its own with its own seed.

use pentimento_service::{BaseModel, Catalog};
use pentimento_types::{
    Delivery, Framing, ImageFormat, ImageSource, Inputs, MaskedContent, ModelId, Recipe, ResizeMode, Size,
};
use serde_json::{Map, Value, json};

use super::fields::{
    BATCH_SIZE, CFG_SCALE, CLIP_STOP_AT_LAST_LAYERS, DENOISING_STRENGTH, ETA, HEIGHT, IMG2IMG,
    INCLUDE_INIT_IMAGES, INIT_IMAGES, INPAINT_FULL_RES, INPAINT_FULL_RES_PADDING, INPAINTING_FILL,
    INPAINTING_MASK_INVERT, MASK, MASK_BLUR, MASK_BLUR_X, MASK_BLUR_Y, MAX_IMAGES, N_ITER, NEGATIVE_PROMPT,
    OVERRIDE_SETTINGS, OVERRIDE_SETTINGS_RESTORE_AFTERWARDS, PROMPT, RESIZE_MODE, SAMPLER_NAME, SCHEDULER,
    SD_MODEL_CHECKPOINT, SEED, SEND_IMAGES, SIDE_STEP, STEPS, TXT2IMG, WIDTH,
};
use super::options::{Options, checkpoint};
use super::prompt_tags::without_tags;
use super::reader::{
    flag, image, images, name_if_given, number, refuse_all, text, unknown_styles, whole, whole_if_given,
};
use super::samplers;
use crate::dialects::field::{Field, Table, Whole, describe, names};
use crate::dialects::json::{Fields, Json, JsonError, parse_object};
use crate::dialects::lenient::{FieldError, integer_in};

/// Which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Img2Img,
    Txt2Img,
}

impl Call {
    /// The last part of its path.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Img2Img => "img2img",
            Self::Txt2Img => "txt2img",
        }
    }

    const fn tables(self) -> &'static [Table] {
        match self {
            Self::Img2Img => IMG2IMG,
            Self::Txt2Img => TXT2IMG,
        }
    }

    /// Reads JSON, whatever the content type says.
    pub(super) fn parse(self, bytes: &[u8]) -> Result<Fields, JsonError> {
        parse_object(bytes, &names(self.tables()))
    }
}

/// What is used where the caller says nothing.
#[derive(Clone, Debug)]
pub(super) struct Defaults<'a> {
    pub(super) catalog: &'a Catalog,
    /// What the caller's key remembers.
    pub(super) options: Options,
    pub(super) seed: u64,
}

/// What one job computes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub(super) recipe: Recipe,
    pub(super) inputs: Inputs<ImageSource>,
}

/// A call whose fields have been read and checked.
#[derive(Clone, Debug)]
pub(super) struct ParsedCall {
    /// At least one; in the order of their images.
    pub(super) parts: Vec<Part>,
    pub(super) delivery: Delivery,
    pub(super) send_images: bool,
    pub(super) include_init_images: bool,
    /// What the key is to remember.
    pub(super) remember: Option<Options>,
    /// With the tags of LoRAs.
    pub(super) prompt: String,
    pub(super) negative_prompt: String,
    pub(super) batch_size: u32,
    /// What the reply repeats.
    pub(super) parameters: Map<String, Value>,
    /// What had no effect.
    pub(super) warning: Option<String>,
    /// Names of the fields that were ignored.
    pub(super) ignored: Vec<String>,
}

/// The call that a body describes.
pub(super) fn to_call(
    mut fields: Fields,
    call: Call,
    defaults: Defaults<'_>,
) -> Result<ParsedCall, FieldError> {
    let parameters = parameters(&fields, call);
    refuse_all(&mut fields)?;
    let mut warnings = Vec::from_iter(unknown_styles(&mut fields));
    let overrides = fields.take(OVERRIDE_SETTINGS.name);
    let (own, mut ignored) = Options::read_member((OVERRIDE_SETTINGS.name, overrides), defaults.catalog)?;
    let restores = flag(&OVERRIDE_SETTINGS_RESTORE_AFTERWARDS, &mut fields)?;
    let remember = (!restores && own != Options::default()).then(|| own.clone());
    let options = own.over(&defaults.options);
    let prompt = text(&PROMPT, &mut fields)?;
    let negative_prompt = text(&NEGATIVE_PROMPT, &mut fields)?;
    let batch_size = whole(&BATCH_SIZE, &mut fields)?;
    let iterations = whole(&N_ITER, &mut fields)?;
    let size = Size {
        width: side(&WIDTH, &mut fields)?,
        height: side(&HEIGHT, &mut fields)?,
    };
    let recipe = Recipe {
        // An empty one is none, as it is there for checkpoints that tell the two apart.
        negative_prompt: Some(negative_prompt.clone()).filter(|text| !text.is_empty()),
        image_count: counted(batch_size, iterations)?,
        ..recipe(&mut fields, &prompt, (&options, &defaults), &mut warnings)?
    };
    let send_images = flag(&SEND_IMAGES, &mut fields)?;
    let delivery = Delivery {
        format: options.format.unwrap_or(ImageFormat::Png),
        file_stem: call.name().to_owned(),
        ..Delivery::default()
    };
    let (parts, batch_size, include_init_images) = match call {
        Call::Txt2Img => {
            let inputs = Inputs::from_noise(size);
            (vec![Part { recipe, inputs }], batch_size, false)
        }
        Call::Img2Img => {
            let includes = flag(&INCLUDE_INIT_IMAGES, &mut fields)?;
            let (parts, batch_size) = of_images(&mut fields, (recipe, size), (batch_size, iterations))?;
            (parts, batch_size, includes)
        }
    };
    ignored.extend(fields.into_ignored());
    Ok(ParsedCall {
        parts,
        delivery,
        send_images,
        include_init_images,
        remember,
        prompt,
        negative_prompt,
        batch_size,
        parameters,
        warning: (!warnings.is_empty()).then(|| warnings.join(" ")),
        ignored,
    })
}

/// What both calls say of how an image is computed.
fn recipe(
    fields: &mut Fields,
    prompt: &str,
    (options, defaults): (&Options, &Defaults<'_>),
    warnings: &mut Vec<String>,
) -> Result<Recipe, FieldError> {
    let model = checkpoint(defaults.catalog, options.checkpoint.as_deref()).ok_or_else(|| {
        FieldError::value(
            SD_MODEL_CHECKPOINT.name,
            "cannot be chosen: this server has no checkpoint",
        )
    })?;
    let (plain, loras) = without_tags(prompt)?;
    let sampler = name_if_given(&SAMPLER_NAME, ("", fields))?;
    let scheduler = name_if_given(&SCHEDULER, ("", fields))?;
    let sampler = sampler.as_deref().unwrap_or(SAMPLER_NAME.kind.default);
    let scheduler = scheduler.as_deref().unwrap_or(SCHEDULER.kind.default);
    let scheduler = samplers::choice(sampler, scheduler)?;
    samplers::check_eta(ETA.read(fields)?, scheduler.kind)?;
    let seed = match SEED.read(fields)? {
        None | Some(-1) => defaults.seed,
        Some(given) => u64::try_from(given).expect("the range begins at -1 and -1 was taken out before"),
    };
    let mut clip_skip = options.clip_skip.unwrap_or(1);
    if clip_skip > 1 && model.base == Some(BaseModel::Sdxl) {
        // Its default for SDXL.
        clip_skip = 1;
        let name = CLIP_STOP_AT_LAST_LAYERS.name;
        warnings.push(format!(
            "{name} has no effect on a checkpoint of SDXL, as in the web UI."
        ));
    }
    Ok(Recipe {
        vae: options.vae.clone().flatten().map(ModelId::new),
        loras,
        prompt: plain,
        steps: whole(&STEPS, fields)?,
        guidance_scale: number(&CFG_SCALE, fields)?,
        seed,
        clip_skip,
        scheduler,
        ..Recipe::of_model(ModelId::new(model.name.clone()))
    })
}

/// The jobs of a call with images, and how many images each iteration has.
fn of_images(
    fields: &mut Fields,
    (mut recipe, size): (Recipe, Size),
    (batch_size, iterations): (u32, u32),
) -> Result<(Vec<Part>, u32), FieldError> {
    recipe.strength = number(&DENOISING_STRENGTH, fields)?;
    let framing = framing(fields, size)?;
    // Last, because they are the only costly ones.
    let mask = image(&MASK, fields)?;
    if mask.is_some() && framing.is_refused_with_mask {
        return Err(FieldError::value(
            INPAINTING_FILL.name,
            "2 and 3 (latent noise, latent nothing) are not computed here; send 0 (the colours around) or 1 (what is there), \
             with denoising_strength 1 for a start from noise",
        ));
    }
    recipe.framing = Some(framing.framing);
    let inits = images(&INIT_IMAGES, fields)?;
    let inputs = |init: ImageSource| match &mask {
        None => Inputs::new(init),
        Some(mask) => Inputs::inpainting(init, mask.clone()),
    };
    if let [init] = inits.as_slice() {
        let inputs = inputs(init.clone());
        return Ok((vec![Part { recipe, inputs }], batch_size));
    }
    // As many as there are, whatever the batch's size says, as there.
    let of_each = u32::try_from(inits.len()).unwrap_or(u32::MAX);
    let all = counted(of_each, iterations)?;
    let part = |at: u32| Part {
        recipe: Recipe {
            image_count: 1,
            seed: recipe.seed + u64::from(at),
            ..recipe.clone()
        },
        inputs: inputs(inits[(at % of_each) as usize].clone()),
    };
    Ok(((0..all).map(part).collect(), of_each))
}

/// How the images are framed, and whether that is refused where there is a mask.
struct ReadFraming {
    framing: Framing,
    is_refused_with_mask: bool,
}

fn framing(fields: &mut Fields, size: Size) -> Result<ReadFraming, FieldError> {
    let resize = match whole(&RESIZE_MODE, fields)? {
        0 => ResizeMode::Stretch,
        1 => ResizeMode::Crop,
        2 => ResizeMode::Fill,
        _ => {
            return Err(FieldError::value(
                RESIZE_MODE.name,
                "3 (enlarged as latents) is not computed here; send 0 to stretch, 1 to crop or 2 to fill",
            ));
        }
    };
    let across = whole(&MASK_BLUR_X, fields)?;
    let down = whole(&MASK_BLUR_Y, fields)?;
    let both = whole_if_given(&MASK_BLUR, fields)?;
    let fill = whole(&INPAINTING_FILL, fields)?;
    let only_masked = flag(&INPAINT_FULL_RES, fields)?;
    let padding = whole(&INPAINT_FULL_RES_PADDING, fields)?;
    Ok(ReadFraming {
        framing: Framing {
            size,
            resize,
            invert_mask: inverted(fields)?,
            mask_blur: both.map_or([across, down], |both| [both, both]),
            masked_content: if fill == 0 {
                MaskedContent::Fill
            } else {
                MaskedContent::Original
            },
            only_masked: only_masked.then_some(padding),
        },
        is_refused_with_mask: fill > 1,
    })
}

/// 0 and 1, or their words.
fn inverted(fields: &mut Fields) -> Result<bool, FieldError> {
    let field = &INPAINTING_MASK_INVERT;
    let value = fields.take(field.name);
    let value = if let Json::Bool(flag) = value {
        Json::Integer(flag.into())
    } else {
        value
    };
    let found = integer_in(field.name, value, field.kind.range.clone())?;
    Ok(found.unwrap_or(field.kind.default) == 1)
}

fn side(field: &Field<Whole<i64>>, fields: &mut Fields) -> Result<u32, FieldError> {
    let side = whole(field, fields)?;
    if side.is_multiple_of(SIDE_STEP) {
        return Ok(side);
    }
    let below = side / SIDE_STEP * SIDE_STEP;
    let message = format_args!(
        "must be a multiple of {SIDE_STEP}, got {side}; {below} and {} are",
        below + SIDE_STEP
    );
    Err(FieldError::value(field.name, message))
}

fn counted(batch_size: u32, iterations: u32) -> Result<u32, FieldError> {
    let all = batch_size * iterations;
    if i64::from(all) > MAX_IMAGES {
        return Err(FieldError::value(
            N_ITER.name,
            format_args!(
                "times the images of a batch may be at most {MAX_IMAGES}, got {all}; send several calls"
            ),
        ));
    }
    Ok(all)
}

/// The fields of the call as they came, with the defaults of the others. Images are left out, and so is what may be of any size
/// and means nothing here: it would be held until the job ends.
fn parameters(fields: &Fields, call: Call) -> Map<String, Value> {
    let mut all = Map::new();
    for description in describe(call.tables()) {
        let is_repeated = !matches!(description.kind, "image" | "images" | "anything" | "only");
        let of = |name: &str| {
            let value = fields.peek(name);
            let most = if description.kind == "text" {
                LONGEST_TEXT
            } else {
                LARGEST_VALUE
            };
            if is_repeated && is_small(value, most) {
                to_value(value.clone())
            } else {
                Value::Null
            }
        };
        let given = of(description.name);
        let value = if given.is_null() {
            description.default.map_or(Value::Null, plain)
        } else {
            given
        };
        all.insert(description.name.to_owned(), value);
        for alias in description.aliases {
            all.insert((*alias).to_owned(), of(alias));
        }
    }
    all
}

/// Bytes of a prompt, and of any other value, that are repeated.
const LONGEST_TEXT: usize = 40_000;
const LARGEST_VALUE: usize = 4_000;

/// Whether a value has at most so many bytes.
fn is_small(value: &Json, most: usize) -> bool {
    fn bytes(value: &Json) -> usize {
        match value {
            Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Number(_) => 8,
            Json::Text(text) => text.len(),
            Json::File(file) => file.len(),
            Json::List(items) => items.iter().map(|item| 8 + bytes(item)).sum(),
            Json::Object(members) => members
                .iter()
                .map(|(name, value)| name.len() + bytes(value))
                .sum(),
        }
    }
    bytes(value) <= most
}

/// Flags are kept as words.
fn plain(default: Value) -> Value {
    match default.as_str() {
        Some("true") => json!(true),
        Some("false") => json!(false),
        _ => default,
    }
}

fn to_value(value: Json) -> Value {
    match value {
        Json::Null | Json::File(_) => Value::Null,
        Json::Bool(flag) => json!(flag),
        Json::Integer(integer) => {
            i64::try_from(integer).map_or_else(|_| json!(integer as f64), |whole| json!(whole))
        }
        Json::Number(number) => json!(number),
        Json::Text(text) => json!(text),
        Json::List(items) => items.into_iter().map(to_value).collect(),
        Json::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name, to_value(value)))
            .collect(),
    }
}

#[cfg(test)]
mod tests;
