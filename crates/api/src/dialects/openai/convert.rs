//! From the fields to a valid request. Ranges and defaults are in `fields.rs`.

use pentimento_service::{BaseModel, Catalog, Fit, ModelKind};
use pentimento_types::{
    Delivery, ImageFormat, ImageSource, Inputs, IpAdapterRef, LoraRef, ModelId, NoiseSpacing, Recipe,
    SchedulerChoice, SchedulerKind, Size, Start, StrengthRule,
};

use super::fields::{
    BACKGROUND, CLIP_SKIP, DIFFERENTIAL_DIFFUSION, EDIT_TABLES, GENERATION_TABLES, GUIDANCE_SCALE, IMAGE,
    INPUT_FIDELITY, IP_ADAPTER, IP_ADAPTER_SCALE, LEAST_SIDE, LONGEST_SIDE, LORA_MODEL, LORA_STRENGTH, LORAS,
    MARKUP, MASK, MODEL, N, NEGATIVE_PROMPT, OUTPUT_COMPRESSION, OUTPUT_FORMAT, PARTIAL_IMAGES, PROMPT,
    QUALITY, RESPONSE_FORMAT, SCHEDULER, SEED, SIDE_STEP, SIZE, SOFT_EDGE, STEPS, STREAM, STRENGTH,
    USE_KARRAS_SIGMAS, VAE, VARIATION_TABLES,
};
use super::images::{self, Shown};
use super::reader::{choice, flag, prompt, whole};
use crate::dialects::field::{Table, names};
use crate::dialects::json::{Fields, Json, parse_object};
use crate::dialects::lenient::{FieldError, list, name, object, shorten};

/// Which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Edit,
    Generation,
    Variation,
}

impl Call {
    /// In what order everything else follows.
    pub(super) const ALL: [Self; 3] = [Self::Edit, Self::Generation, Self::Variation];

    /// The end of its path.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Edit => "edits",
            Self::Generation => "generations",
            Self::Variation => "variations",
        }
    }

    /// What it reads.
    pub(super) const fn tables(self) -> &'static [Table] {
        match self {
            Self::Edit => EDIT_TABLES,
            Self::Generation => GENERATION_TABLES,
            Self::Variation => VARIATION_TABLES,
        }
    }
}

/// How the reply is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplyStyle {
    /// Links instead of files.
    pub(crate) links: bool,
    /// Events, with so many previews at most; None is a plain reply.
    pub(super) stream: Option<u32>,
    /// In OpenAI's words.
    pub(super) quality: &'static str,
}

/// A call whose fields have been read and checked.
#[derive(Clone, Debug)]
pub(crate) struct ParsedCall {
    pub(super) recipe: Recipe,
    pub(crate) inputs: Inputs<ImageSource>,
    pub(super) delivery: Delivery,
    /// What the image is brought to.
    pub(super) fit: Fit,
    pub(crate) style: ReplyStyle,
    /// Names of fields without effect.
    pub(crate) ignored: Vec<String>,
}

/// The valid call that the fields describe. `random_seed` is used where the caller gave none.
pub(super) fn to_call(
    mut fields: Fields,
    call: Call,
    (catalog, random_seed): (&Catalog, u64),
) -> Result<ParsedCall, FieldError> {
    let mut ignored = Vec::new();
    refuse_what_cannot_be(&mut fields)?;
    let named = name(MODEL.name, fields.take(MODEL.name))?;
    let (model, of_dall_e) = model(catalog, named)?;
    let prompt = words(call, &mut fields)?;
    let size = size(&mut fields)?;
    let (steps, quality) = steps(&mut fields)?;
    let guidance_scale = GUIDANCE_SCALE.read(&mut fields)?;
    let seed = SEED.read(&mut fields)?.and_then(|seed| u64::try_from(seed).ok());
    let delivery = delivery(&mut fields, &mut ignored)?;
    let style = style(&mut fields, (of_dall_e, quality))?;
    let recipe = Recipe {
        vae: name(VAE.name, fields.take(VAE.name))?.map(ModelId::new),
        loras: loras(&mut fields, &mut ignored)?,
        negative_prompt: self::prompt(&NEGATIVE_PROMPT, &mut fields)?,
        image_count: whole(&N, &mut fields)?,
        steps,
        // Without words both rows of a guided image would be the same.
        guidance_scale: if prompt.is_empty() {
            1.0
        } else {
            guidance_scale.unwrap_or(GUIDANCE_SCALE.kind.default)
        },
        seed: seed.unwrap_or(random_seed),
        clip_skip: whole(&CLIP_SKIP, &mut fields)?,
        scheduler: scheduler(&mut fields)?,
        prompt,
        ..Recipe::of_model(model)
    };
    let mut parsed = ParsedCall {
        inputs: Inputs::from_noise(size.unwrap_or_else(|| usual_size(catalog, &recipe.model))),
        recipe,
        delivery,
        fit: size.map_or(Fit::Open(None), Fit::To),
        style,
        ignored: Vec::new(),
    };
    if call != Call::Generation {
        add_images(&mut parsed, call, &mut fields)?;
    }
    ignored.extend(fields.into_ignored());
    parsed.ignored = ignored;
    Ok(parsed)
}

/// The same for a caller that says by the image alone which call it means.
pub(super) fn to_call_by_image(
    fields: Fields,
    (catalog, random_seed): (&Catalog, u64),
) -> Result<ParsedCall, FieldError> {
    let call = if fields.has(IMAGE.name) {
        Call::Edit
    } else {
        Call::Generation
    };
    if call == Call::Generation && fields.has(MASK.name) {
        let message = format_args!("needs an {}, a part of which it shows", IMAGE.name);
        return Err(FieldError::value(MASK.name, message));
    }
    to_call(fields, call, (catalog, random_seed))
}

/// What the caller would miss if it were only left out.
fn refuse_what_cannot_be(fields: &mut Fields) -> Result<(), FieldError> {
    if fields.take(MARKUP.name) != Json::Null {
        let message = "cannot be used here; say what is to change in prompt, and where in mask";
        return Err(FieldError::value(MARKUP.name, message));
    }
    // The words of the choice are those that can be.
    choice(&BACKGROUND, fields)?;
    Ok(())
}

/// The checkpoint, and whether it was asked for by the name of one of OpenAI's that gave links.
fn model(catalog: &Catalog, named: Option<String>) -> Result<(ModelId, bool), FieldError> {
    let openais = ["gpt-image", "chatgpt-image", "dall-e"];
    let of_dall_e = named.as_deref().is_some_and(|name| name.starts_with(openais[2]));
    let is_here = |name: &String| {
        let is_openais = openais.iter().any(|prefix| name.starts_with(prefix));
        let known = || catalog.resolve(&ModelId::new(name.as_str()), ModelKind::Checkpoint);
        !is_openais || known().is_ok()
    };
    if let Some(name) = named.filter(is_here) {
        return Ok((ModelId::new(name), of_dall_e));
    }
    let first = catalog
        .entries()
        .iter()
        .find(|entry| entry.kind == ModelKind::Checkpoint);
    let first = first.ok_or_else(|| {
        FieldError::value(
            MODEL.name,
            "is required: this server's catalogue has no checkpoint to take by itself",
        )
    })?;
    Ok((ModelId::new(first.name.as_str()), of_dall_e))
}

/// What is to be seen. Only a variation needs no words.
fn words(call: Call, fields: &mut Fields) -> Result<String, FieldError> {
    let prompt = prompt(&PROMPT, fields)?.unwrap_or_default();
    if prompt.is_empty() && call != Call::Variation {
        let limit = PROMPT.kind.max_chars;
        let message = format_args!("is required: 1 to {limit} characters that say what to paint");
        return Err(FieldError::value(PROMPT.name, message));
    }
    Ok(prompt)
}

/// None is `auto`.
fn size(fields: &mut Fields) -> Result<Option<Size>, FieldError> {
    let Some(text) = name(SIZE.name, fields.take(SIZE.name))? else {
        return Ok(None);
    };
    if text.eq_ignore_ascii_case("auto") {
        return Ok(None);
    }
    let side = |text: &str| {
        let side = text.trim().parse::<u32>().ok()?;
        let possible = (LEAST_SIDE..=LONGEST_SIDE).contains(&side) && side.is_multiple_of(SIDE_STEP);
        possible.then_some(side)
    };
    let sides = text.split_once(['x', 'X']);
    let sides = sides.and_then(|(width, height)| Some((side(width)?, side(height)?)));
    let Some((width, height)) = sides else {
        let message = format_args!(
            "must be auto or WIDTHxHEIGHT, multiples of {SIDE_STEP} from {LEAST_SIDE} to {LONGEST_SIDE}, got {:?}",
            shorten(&text)
        );
        return Err(FieldError::value(SIZE.name, message));
    };
    Ok(Some(Size { width, height }))
}

/// What a model was trained on, as far as the catalogue says it.
fn usual_size(catalog: &Catalog, model: &ModelId) -> Size {
    let entry = catalog.resolve(model, ModelKind::Checkpoint).ok();
    let said = entry.as_ref().and_then(|entry| entry.native_side());
    let side = said.unwrap_or_else(|| match entry.and_then(|entry| entry.base) {
        Some(BaseModel::Sdxl) => 1024,
        Some(BaseModel::Sd15 | BaseModel::Sd2) | None => 512,
    });
    Size {
        width: side,
        height: side,
    }
}

/// How many, and the quality in the reply's words.
fn steps(fields: &mut Fields) -> Result<(u32, &'static str), FieldError> {
    let quality = choice(&QUALITY, fields)?.unwrap_or(QUALITY.kind.default);
    let (steps, quality) = match quality {
        "low" => (10, "low"),
        "high" | "hd" => (30, "high"),
        "xhigh" => (40, "xhigh"),
        "max" => (50, "max"),
        _ => (20, "medium"),
    };
    let asked = STEPS.read(fields)?.and_then(|steps| u32::try_from(steps).ok());
    Ok((asked.unwrap_or(steps), quality))
}

fn delivery(fields: &mut Fields, ignored: &mut Vec<String>) -> Result<Delivery, FieldError> {
    let format = choice(&OUTPUT_FORMAT, fields)?.and_then(ImageFormat::parse);
    let format = format.unwrap_or_default();
    let compression = OUTPUT_COMPRESSION.read(fields)?;
    if compression.is_some() && format != ImageFormat::Jpeg {
        ignored.push(OUTPUT_COMPRESSION.name.to_owned());
    }
    Ok(Delivery {
        format,
        // The encoder's scale begins at 1.
        jpeg_quality: compression.and_then(|quality| u8::try_from(quality.max(1)).ok()),
        file_stem: "image".to_owned(),
        ..Delivery::default()
    })
}

fn style(fields: &mut Fields, (of_dall_e, quality): (bool, &'static str)) -> Result<ReplyStyle, FieldError> {
    let links = choice(&RESPONSE_FORMAT, fields)?.map_or(of_dall_e, |format| format == "url");
    let previews = whole(&PARTIAL_IMAGES, fields)?;
    let stream = flag(&STREAM, fields)?.then_some(previews);
    Ok(ReplyStyle {
        links,
        stream,
        quality,
    })
}

fn scheduler(fields: &mut Fields) -> Result<SchedulerChoice, FieldError> {
    let named = name(SCHEDULER.name, fields.take(SCHEDULER.name))?;
    let kind = match named {
        None => None,
        Some(named) => Some(SchedulerKind::parse(&named).ok_or_else(|| {
            let all = SCHEDULER.kind.words.join(", ");
            let message = format_args!("has no {:?}; it is one of {all}", shorten(&named));
            FieldError::value(SCHEDULER.name, message)
        })?),
    };
    let karras = flag(&USE_KARRAS_SIGMAS, fields)?;
    if let Some(kind) = kind.filter(|kind| karras && !kind.supports_karras_sigmas()) {
        let message = format_args!("has no meaning for {kind}; leave it out, or take another scheduler");
        return Err(FieldError::value(USE_KARRAS_SIGMAS.name, message));
    }
    Ok(SchedulerChoice {
        kind,
        spacing: if karras {
            NoiseSpacing::Karras
        } else {
            NoiseSpacing::Checkpoint
        },
        algorithm: None,
        strength_rule: StrengthRule::FewerSteps,
    })
}

fn loras(fields: &mut Fields, ignored: &mut Vec<String>) -> Result<Vec<LoraRef>, FieldError> {
    let field = LORAS.name;
    let mut value = fields.take(field);
    if let Json::Text(text) = &value
        && !text.trim().is_empty()
    {
        value = listed(text)?;
    }
    let mut found: Vec<LoraRef> = Vec::new();
    for (at, item) in list(field, value, LORAS.kind.max)?.into_iter().enumerate() {
        let place = format!("{field}[{at}]");
        let missing = || FieldError::value(&place, "must be an object with a model, got null");
        let members = object(&place, item)?.ok_or_else(missing)?;
        let mut item = Fields::from_object(members, &names(&[LORAS.kind.members]));
        let of_model = format!("{place}.{}", LORA_MODEL.name);
        let model = name(&of_model, item.take(LORA_MODEL.name))?;
        let missing = || FieldError::value(&of_model, "is required; GET /v1/models lists the names");
        let model = model.map(ModelId::new).ok_or_else(missing)?;
        if found.iter().any(|lora| lora.model == model) {
            let message = format_args!("names {} a second time; give it once", shorten(model.as_str()));
            return Err(FieldError::value(&of_model, message));
        }
        let strength = LORA_STRENGTH.read_at(Some(&place), &mut item)?;
        let strength = strength.unwrap_or(LORA_STRENGTH.kind.default);
        found.push(LoraRef { model, strength });
        ignored.extend(
            item.into_ignored()
                .into_iter()
                .map(|name| format!("{place}.{name}")),
        );
    }
    Ok(found)
}

/// The list that a form has as a JSON text.
fn listed(text: &str) -> Result<Json, FieldError> {
    let field = LORAS.name;
    let wrapped = format!("{{\"{field}\":{text}}}");
    let mut read = parse_object(wrapped.as_bytes(), &[field])
        .map_err(|_| FieldError::value(field, "must be a list of objects, or such a list as a JSON text"))?;
    Ok(read.take(field))
}

/// The images of the call, and what counts because there are some.
fn add_images(parsed: &mut ParsedCall, call: Call, fields: &mut Fields) -> Result<(), FieldError> {
    let recipe = &mut parsed.recipe;
    let fidelity = match call {
        Call::Edit => choice(&INPUT_FIDELITY, fields)?,
        // Close enough to be one.
        Call::Generation | Call::Variation => Some("high"),
    };
    let strength = STRENGTH.read(fields)?;
    let adapter = name(IP_ADAPTER.name, fields.take(IP_ADAPTER.name))?;
    let scale = IP_ADAPTER_SCALE.read(fields)?;
    let soft_edge = whole(&SOFT_EDGE, fields)?;
    let differential_diffusion = flag(&DIFFERENTIAL_DIFFUSION, fields)?;
    // Last, because they are the only costly ones.
    let Shown { init, second } = images::of(fields, adapter.is_some())?;
    let mask = images::mask(fields)?.filter(|_| call == Call::Edit);
    recipe.strength = strength.unwrap_or(match (fidelity, &mask) {
        (Some("high"), _) => 0.5,
        (Some(_), _) | (None, None) => 0.75,
        // What is transparent is to be filled, as there.
        (None, Some(_)) => 1.0,
    });
    if mask.is_some() {
        recipe.soft_edge = soft_edge;
        recipe.differential_diffusion = differential_diffusion;
    }
    let inputs = Inputs::starting(Start::Image { init, mask });
    parsed.inputs = match (adapter, second) {
        (Some(model), Some(image)) => {
            recipe.ip_adapter = Some(IpAdapterRef {
                model: ModelId::new(model),
                scale: scale.unwrap_or(IP_ADAPTER_SCALE.kind.default),
            });
            inputs.with_ip_adapter(image)
        }
        // Neither is there without the other.
        _ => inputs,
    };
    Ok(())
}

#[cfg(test)]
mod tests;
