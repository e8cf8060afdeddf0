//! From the fields to a valid request. All defaults and ranges of this dialect.

use pentimento_types::{
    AlgorithmType, Delivery, EmbeddingRef, ImageSource, InputRole, Inputs, LoraRef, ModelId, NoiseSpacing,
    Recipe, SchedulerChoice, SchedulerKind, Size,
};

use super::note::Note;
use super::reader::{Reader, is_null_word, without_null_word};
use crate::dialects::json::{Fields, Json};
use crate::dialects::lenient::{Refusal, integer_in, number_in, shorten};

mod meta;

/// No limit is documented; this one only keeps the tokenizer's work small.
const MAX_PROMPT_CHARS: usize = 10_000;
/// "Max Height: Width: 1024x1024"; the smallest is ours, the vendor's newest page says 256.
const SIDE: std::ops::RangeInclusive<i64> = 64..=1024;
/// The newest page of the vendor; the sample reply of the seed has it too.
const DEFAULT_SIDE: u32 = 512;
/// Steps between sides that every checkpoint can paint.
const SIDE_STEP: u32 = 8;
/// The seed says 21, 31 or 41, older pages 1 to 50; what is asked is run.
const STEPS: std::ops::RangeInclusive<i64> = 1..=150;
const DEFAULT_STEPS: u32 = 21;
/// "minimum: 1; maximum: 20"; below 1 makes sense for LCM models.
const GUIDANCE: std::ops::RangeInclusive<f64> = 0.0..=20.0;
/// Pixels; our own field. As in `pentimento generate --soft-edge`.
const SOFT_EDGE: std::ops::RangeInclusive<i64> = 0..=256;
const DEFAULT_GUIDANCE: f64 = 7.5;
const DEFAULT_STRENGTH: f64 = 0.7;
/// "from minimum 0.1 to maximum 1"; the wider range costs nothing.
const LORA_STRENGTH: std::ops::RangeInclusive<f64> = -2.0..=2.0;
/// Documented nowhere; the other vendor allows 5 of each.
const MAX_ADAPTERS: usize = 5;
/// 2^53: every seed survives a JSON reader that knows only floats.
const MAX_SEED: i64 = 1 << 53;
const SAFETY_CHECKER_TYPES: &[&str] = &["sensitive_content_text", "blur", "pixelate", "black"];
const IP_ADAPTERS: &[&str] = &[
    "ip-adapter_sdxl",
    "ip-adapter_sd15",
    "ip-adapter-plus-face_sd15",
    "ip-adapter-plus_sdxl_vit-h",
    "ip-adapter-plus-face_sdxl_vit-h",
];

/// Which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Img2Img,
    Inpaint,
}

/// What is used where the caller says nothing.
#[derive(Clone, Debug)]
pub(super) struct Defaults {
    /// The first checkpoint of the catalogue.
    pub(super) model: Option<String>,
    pub(super) seed: u64,
}

/// A body, understood.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) recipe: Recipe,
    pub(super) inputs: Inputs<ImageSource>,
    pub(super) delivery: Delivery,
    /// The size of the result.
    pub(super) size: Size,
    pub(super) note: Note,
    /// Names of unknown fields.
    pub(super) ignored: Vec<String>,
}

/// What changes the way to the picture.
#[derive(Clone, Debug)]
struct Sampling {
    samples: u32,
    steps: u32,
    guidance: f64,
    strength: f64,
    clip_skip: u32,
    seed: u64,
    token_merging: bool,
    scheduler: SchedulerChoice,
}

/// What is put beside the checkpoint.
#[derive(Clone, Debug)]
struct Adapters {
    vae: Option<String>,
    loras: Vec<(String, f64)>,
    embeddings: Vec<String>,
}

/// What is understood and has no effect in this version, and how the result is handed over.
#[derive(Clone, Debug)]
struct Extras {
    safety_checker: bool,
    safety_checker_type: &'static str,
    enhance_prompt: bool,
    ip_adapter: Option<&'static str>,
    base64: bool,
    temp: bool,
    webhook: Option<String>,
    track_id: Json,
}

/// Reads all fields; either all are good, or every complaint is given.
pub(super) fn to_wish(fields: Fields, call: Call, defaults: Defaults) -> Result<Wish, Vec<Refusal>> {
    let mut reader = Reader::new(fields);
    let mut warnings = Vec::new();
    let prompt = prompt(&mut reader, "prompt");
    if prompt.is_empty() && reader.problems() == 0 {
        reader.complain("prompt", "is required");
    }
    let negative_prompt = self::prompt(&mut reader, "negative_prompt");
    let model = reader.word("model_id").or(defaults.model);
    if model.is_none() {
        reader.complain("model_id", "is required");
    }
    let size = size(&mut reader, &mut warnings);
    let sampling = sampling(&mut reader, defaults.seed, &mut warnings);
    let adapters = adapters(&mut reader);
    let extras = extras(&mut reader, &mut warnings);
    // Last, because they are the only costly ones.
    let mut inputs = Inputs::new(required_picture(&mut reader, "init_image"));
    let mut soft_edge = 0;
    // A mask is left unread by img2img, as upstream.
    if call == Call::Inpaint {
        inputs = inputs.with(InputRole::Mask, required_picture(&mut reader, "mask_image"));
        soft_edge = reader.whole("soft_edge", SOFT_EDGE).unwrap_or(0);
    }
    let ignored = reader.finish()?;
    let recipe = Recipe {
        model: ModelId::new(model.unwrap_or_default()),
        vae: adapters.vae.map(ModelId::new),
        loras: adapters.loras.into_iter().map(lora).collect(),
        embeddings: adapters.embeddings.into_iter().map(embedding).collect(),
        prompt,
        negative_prompt,
        image_count: sampling.samples,
        steps: sampling.steps,
        strength: sampling.strength,
        guidance_scale: sampling.guidance,
        seed: sampling.seed,
        clip_skip: sampling.clip_skip,
        token_merging: sampling.token_merging,
        scheduler: sampling.scheduler,
        soft_edge,
    };
    let delivery = Delivery {
        base64: extras.base64,
        webhook: extras.webhook.clone(),
        ..Delivery::default()
    };
    let note = Note {
        number: 0,
        meta: meta::of(&recipe, &inputs, size, &extras),
        warning: (!warnings.is_empty()).then(|| warnings.join(" ")),
        track_id: meta::plain(extras.track_id),
    };
    Ok(Wish {
        recipe,
        inputs,
        delivery,
        size,
        note,
        ignored,
    })
}

fn lora((name, strength): (String, f64)) -> LoraRef {
    LoraRef {
        model: ModelId::new(name),
        strength,
    }
}

fn embedding(name: String) -> EmbeddingRef {
    EmbeddingRef {
        model: ModelId::new(name),
    }
}

fn prompt(reader: &mut Reader, field: &str) -> String {
    let prompt = reader.text(field).unwrap_or_default();
    let chars = prompt.chars().count();
    if chars > MAX_PROMPT_CHARS {
        let message = format_args!("must not have more than {MAX_PROMPT_CHARS} characters, got {chars}");
        reader.complain(field, message);
    }
    prompt
}

fn required_picture(reader: &mut Reader, field: &str) -> ImageSource {
    let before = reader.problems();
    let picture = reader.picture(field);
    if picture.is_none() && reader.problems() == before {
        reader.complain(field, "is required");
    }
    picture.unwrap_or_else(|| ImageSource::Url(String::new()))
}

fn size(reader: &mut Reader, warnings: &mut Vec<String>) -> Size {
    let mut side = |field: &str| {
        let given = reader.whole(field, SIDE).unwrap_or(DEFAULT_SIDE);
        let rounded = (given + SIDE_STEP / 2) / SIDE_STEP * SIDE_STEP;
        if rounded != given {
            warnings.push(format!(
                "{field} {given} was rounded to {rounded}, a multiple of {SIDE_STEP}."
            ));
        }
        rounded
    };
    Size {
        width: side("width"),
        height: side("height"),
    }
}

fn sampling(reader: &mut Reader, random_seed: u64, warnings: &mut Vec<String>) -> Sampling {
    let steps = reader.whole("num_inference_steps", STEPS);
    let alias = reader.whole("steps", STEPS);
    let seed = without_null_word(reader.take("seed"));
    let seed = reader.keep(integer_in("seed", seed, -1..=MAX_SEED)).flatten();
    Sampling {
        samples: reader.whole("samples", 1..=4).unwrap_or(1),
        steps: steps.or(alias).unwrap_or(DEFAULT_STEPS),
        guidance: reader
            .number("guidance_scale", GUIDANCE)
            .unwrap_or(DEFAULT_GUIDANCE),
        strength: reader.number("strength", 0.0..=1.0).unwrap_or(DEFAULT_STRENGTH),
        clip_skip: reader.whole("clip_skip", 1..=8).unwrap_or(1),
        // -1 is what other services call random.
        seed: seed
            .and_then(|seed| u64::try_from(seed).ok())
            .unwrap_or(random_seed),
        // The vendor's default: whoever wants the picture without the approximation says no.
        token_merging: reader.flag("tomesd").unwrap_or(true),
        scheduler: scheduler(reader, warnings),
    }
}

fn scheduler(reader: &mut Reader, warnings: &mut Vec<String>) -> SchedulerChoice {
    let named = reader.word("scheduler");
    let kind = named.as_deref().and_then(SchedulerKind::parse);
    if let (Some(name), None) = (&named, kind) {
        let all: Vec<&str> = SchedulerKind::ALL.iter().map(|kind| kind.class_name()).collect();
        let message = format_args!("has no {:?}; it is one of {}", shorten(name), all.join(", "));
        reader.complain("scheduler", message);
    }
    let asked = reader.flag("use_karras_sigmas");
    let karras = match kind {
        Some(kind) if !kind.supports_karras_sigmas() => {
            if asked == Some(true) {
                warnings.push(format!(
                    "use_karras_sigmas has no meaning for {kind} and was ignored."
                ));
            }
            false
        }
        _ => asked.unwrap_or(true),
    };
    let algorithm = reader.word("algorithm_type");
    let algorithm = algorithm.and_then(|name| {
        let found = algorithm_type(&name);
        if found.is_none() {
            let message =
                "must be one of dpmsolver++ (also written dpmsolver+++), dpmsolver, sde-dpmsolver++, sde-dpmsolver";
            reader.complain("algorithm_type", message);
        }
        found
    });
    let solver = |kind| {
        matches!(
            kind,
            SchedulerKind::DPMSolverMultistep | SchedulerKind::DPMSolverSinglestep
        )
    };
    if let (Some(kind), Some(_)) = (kind.filter(|kind| !solver(*kind)), algorithm) {
        warnings.push(format!(
            "algorithm_type has no meaning for {kind} and was ignored."
        ));
    }
    SchedulerChoice {
        kind,
        spacing: if karras {
            NoiseSpacing::Karras
        } else {
            NoiseSpacing::Checkpoint
        },
        algorithm: algorithm.filter(|_| kind.is_none_or(solver)),
    }
}

fn algorithm_type(name: &str) -> Option<AlgorithmType> {
    match name.to_ascii_lowercase().as_str() {
        "dpmsolver" => Some(AlgorithmType::DpmSolver),
        // Three plus signs in the vendor's own page.
        "dpmsolver++" | "dpmsolver+++" => Some(AlgorithmType::DpmSolverPlusPlus),
        "sde-dpmsolver" => Some(AlgorithmType::SdeDpmSolver),
        "sde-dpmsolver++" | "sde-dpmsolver+++" => Some(AlgorithmType::SdeDpmSolverPlusPlus),
        _ => None,
    }
}

fn adapters(reader: &mut Reader) -> Adapters {
    let names = reader.words("lora_model", MAX_ADAPTERS);
    let strengths = lora_strengths(reader);
    if strengths.len() > names.len().max(1) {
        let (found, wanted) = (strengths.len(), names.len());
        reader.complain(
            "lora_strength",
            format_args!("has {found} values for {wanted} models"),
        );
    }
    // A shorter list goes on with its last value, as one value for many does.
    let strength = |at: usize| strengths.get(at).or(strengths.last()).copied().unwrap_or(1.0);
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            let message = format_args!("names {} a second time", shorten(name));
            reader.complain("lora_model", message);
        }
    }
    Adapters {
        vae: reader.word("vae"),
        loras: names
            .into_iter()
            .enumerate()
            .map(|(at, name)| (name, strength(at)))
            .collect(),
        embeddings: reader.words("embeddings_model", MAX_ADAPTERS),
    }
}

/// One number, or texts with commas between them.
fn lora_strengths(reader: &mut Reader) -> Vec<f64> {
    const FIELD: &str = "lora_strength";
    let values: Vec<Json> = match reader.take(FIELD) {
        Json::Text(text) => text.split(',').map(|part| Json::Text(part.to_owned())).collect(),
        Json::List(items) => items,
        value @ (Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Number(_) | Json::Object(_)) => {
            vec![value]
        }
    };
    let mut strengths = Vec::new();
    for value in values.into_iter().map(without_null_word) {
        let read = reader.keep(number_in(FIELD, value, LORA_STRENGTH));
        strengths.extend(read.flatten());
    }
    strengths
}

fn extras(reader: &mut Reader, warnings: &mut Vec<String>) -> Extras {
    let ip_adapter = reader.choice("ip_adapter_id", IP_ADAPTERS);
    reader.number("ip_adapter_scale", 0.0..=1.0);
    // Looked at, and not fetched: it has no effect yet.
    let ip_image = reader.picture("ip_adapter_image");
    reader.flag("loadbalancer");
    let extras = Extras {
        safety_checker: reader.flag("safety_checker").unwrap_or(true),
        safety_checker_type: reader
            .choice("safety_checker_type", SAFETY_CHECKER_TYPES)
            .unwrap_or(SAFETY_CHECKER_TYPES[0]),
        enhance_prompt: reader.flag("enhance_prompt").unwrap_or(true),
        ip_adapter,
        base64: reader.flag("base64").unwrap_or(false),
        temp: reader.flag("temp").unwrap_or(false),
        webhook: webhook(reader),
        track_id: track_id(reader),
    };
    let idle: Vec<&str> = [
        ("safety_checker", extras.safety_checker),
        ("enhance_prompt", extras.enhance_prompt),
        ("ip_adapter", ip_adapter.is_some() || ip_image.is_some()),
        ("webhook", extras.webhook.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, wanted)| wanted.then_some(name))
    .collect();
    if !idle.is_empty() {
        warnings.push(format!("No effect in this version: {}.", idle.join(", ")));
    }
    extras
}

fn webhook(reader: &mut Reader) -> Option<String> {
    let address = reader.text("webhook")?;
    let address = address.trim();
    if is_null_word(address) {
        return None;
    }
    let good = address.len() <= 2048
        && url::Url::parse(address)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !good {
        reader.complain("webhook", "must be an http or https URL");
    }
    Some(address.to_owned())
}

fn track_id(reader: &mut Reader) -> Json {
    let value = reader.take("track_id");
    match &value {
        Json::Null | Json::Integer(_) | Json::Number(_) => {}
        Json::Text(text) if text.len() <= 1024 => {}
        Json::Text(_) | Json::Bool(_) | Json::List(_) | Json::Object(_) => {
            reader.complain("track_id", "must be a number or a text of at most 1024 bytes")
        }
    }
    value
}

#[cfg(test)]
mod tests;
