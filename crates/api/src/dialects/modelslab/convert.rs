//! From the fields to a valid request. Ranges and defaults are in `fields.rs`.

use pentimento_service::Fit;
use pentimento_types::{
    AlgorithmType, Delivery, EmbeddingRef, ImageSource, Inputs, IpAdapterRef, LoraRef, ModelId, NoiseSpacing,
    Recipe, SafetyAction, SafetyLevel, SafetyPolicy, SchedulerChoice, SchedulerKind, Size, StrengthRule,
};

use super::fields::{
    ALGORITHM_TYPE, CLIP_SKIP, DIFFERENTIAL_DIFFUSION, EMBEDDINGS_MODEL, GENERATION, GUIDANCE_SCALE, HEIGHT,
    INIT_IMAGE, IP_ADAPTER_ID, IP_ADAPTER_IMAGE, IP_ADAPTER_SCALE, LORA_MODEL, LORA_STRENGTH, MASK_IMAGE,
    MODEL_ID, NEGATIVE_PROMPT, NUM_INFERENCE_STEPS, PROMPT, SAMPLES, SCHEDULER, SEED, SIDE_STEP, SOFT_EDGE,
    STRENGTH, TOMESD, USE_KARRAS_SIGMAS, VAE, WIDTH,
};
use super::note::Note;
use super::reader::{Reader, without_null_word};
use crate::dialects::field::{Field, Whole};
use crate::dialects::json::{Fields, Json};
use crate::dialects::lenient::{FieldError, number_in, shorten};

mod extras;
mod meta;

use extras::{Extras, extras};
pub(super) use meta::yes_no;

/// Which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Img2Img,
    Inpaint,
}

impl Call {
    /// Part of its paths.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Img2Img => "img2img",
            Self::Inpaint => "inpaint",
        }
    }
}

/// What is used where the caller says nothing.
#[derive(Clone, Debug)]
pub(super) struct Defaults {
    /// The first checkpoint of the catalogue.
    pub(super) model: Option<String>,
    pub(super) seed: u64,
    pub(super) enhance_prompt: bool,
    /// Whether other machines can run the request.
    pub(super) has_cluster: bool,
}

/// A call whose fields have been read and checked.
#[derive(Clone, Debug)]
pub(super) struct ParsedCall {
    pub(super) recipe: Recipe,
    /// Whether words are added to its prompts.
    pub(super) enhance_prompt: bool,
    pub(super) inputs: Inputs<ImageSource>,
    /// Whether no other machine may run it.
    pub(super) stays: bool,
    pub(super) delivery: Delivery,
    /// What the image is brought to.
    pub(super) fit: Fit,
    pub(super) note: Note,
    /// Names of unknown fields.
    pub(super) ignored: Vec<String>,
}

/// How the images are computed.
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

/// Reads all fields; either all are good, or every error is given.
pub(super) fn to_call(fields: Fields, call: Call, defaults: Defaults) -> Result<ParsedCall, Vec<FieldError>> {
    let mut reader = Reader::new(fields);
    let mut warnings = Vec::new();
    let prompt = reader.prompt(&PROMPT).unwrap_or_default();
    if prompt.is_empty() && reader.error_count() == 0 {
        reader.refuse(PROMPT.name, "is required");
    }
    let negative_prompt = reader.prompt(&NEGATIVE_PROMPT);
    let model = reader.name(&MODEL_ID).or(defaults.model);
    if model.is_none() {
        reader.refuse(MODEL_ID.name, "is required");
    }
    let (size, fit) = size(&mut reader, &mut warnings);
    let sampling = sampling(&mut reader, defaults.seed, &mut warnings);
    let adapters = adapters(&mut reader, &mut warnings);
    let extras = extras(
        &mut reader,
        (defaults.enhance_prompt, defaults.has_cluster),
        &mut warnings,
    );
    warnings.extend(reader.no_effect_warning(GENERATION));
    // Last, because they are the only costly ones.
    let init = reader.required_image(&INIT_IMAGE);
    let (mut soft_edge, mut differential_diffusion) = (0, false);
    // A mask is left unread by img2img, as upstream.
    let mut inputs = match call {
        Call::Inpaint => {
            let mask = reader.required_image(&MASK_IMAGE);
            soft_edge = reader.whole(&SOFT_EDGE);
            differential_diffusion = reader.flag(&DIFFERENTIAL_DIFFUSION);
            Inputs::inpainting(init, mask)
        }
        Call::Img2Img => Inputs::new(init),
    };
    let mut ip_adapter = None;
    if let Some((adapter, image)) = adapter_and_image(&mut reader, &mut warnings) {
        inputs = inputs.with_ip_adapter(image);
        ip_adapter = Some(adapter);
    }
    let ignored = reader.into_ignored()?;
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
        framing: None,
        soft_edge,
        differential_diffusion,
        keeps_everything: false,
        ip_adapter,
    };
    let delivery = Delivery {
        base64: extras.base64,
        safety: safety(&extras),
        webhook: extras.webhook.clone(),
        ..Delivery::default()
    };
    let note = Note {
        meta: meta::of(&recipe, &inputs, size, &extras),
        warning: (!warnings.is_empty()).then(|| warnings.join(" ")),
        base: String::new(),
        track_id: meta::plain(extras.track_id),
    };
    Ok(ParsedCall {
        recipe,
        enhance_prompt: extras.enhance_prompt,
        inputs,
        stays: extras.stays,
        delivery,
        fit,
        note,
        ignored,
    })
}

/// What shows the model an image: an adapter and the image go together.
fn adapter_and_image(reader: &mut Reader, warnings: &mut Vec<String>) -> Option<(IpAdapterRef, ImageSource)> {
    let model = reader.name(&IP_ADAPTER_ID);
    let scale = reader.number(&IP_ADAPTER_SCALE);
    let before = reader.error_count();
    let image = reader.image(&IP_ADAPTER_IMAGE);
    match (model, image) {
        (Some(model), Some(image)) => {
            let model = ModelId::new(model);
            Some((IpAdapterRef { model, scale }, image))
        }
        (Some(_), None) => {
            if reader.error_count() == before {
                reader.refuse(IP_ADAPTER_IMAGE.name, "is required with ip_adapter_id");
            }
            None
        }
        (None, Some(_)) => {
            let message =
                "is required with ip_adapter_image: the name of an IP-Adapter, such as ip-adapter_sd15";
            reader.refuse(IP_ADAPTER_ID.name, message);
            None
        }
        (None, None) => {
            if scale != IP_ADAPTER_SCALE.kind.default {
                warnings.push(nothing_to_weigh(IP_ADAPTER_SCALE.name, IP_ADAPTER_ID.name));
            }
            None
        }
    }
}

/// About a weight that is no fault, since clients send the fields that they have; only one who chose it has to know.
fn nothing_to_weigh(weight: &str, missing: &str) -> String {
    format!("{weight} has no effect without {missing}.")
}

fn safety(extras: &Extras) -> SafetyPolicy {
    if !extras.safety_checker {
        return SafetyPolicy::Off;
    }
    SafetyPolicy::On {
        action: match extras.safety_checker_type {
            "blur" => SafetyAction::Blur,
            "pixelate" => SafetyAction::Pixelate,
            "black" => SafetyAction::Black,
            _ => SafetyAction::SensitiveContentText,
        },
        level: SafetyLevel::default(),
    }
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

/// What is asked for, or the vendor's usual size; and whether it was asked for at all.
fn size(reader: &mut Reader, warnings: &mut Vec<String>) -> (Size, Fit) {
    let mut is_open = true;
    let mut side = |field: &Field<Whole<i64>>| {
        let asked = reader.whole_if_given(field);
        is_open &= asked.is_none();
        let given = asked.unwrap_or_else(|| Reader::usual(field));
        let rounded = (given + SIDE_STEP / 2) / SIDE_STEP * SIDE_STEP;
        if rounded != given {
            let name = field.name;
            warnings.push(format!(
                "{name} {given} was rounded to {rounded}, a multiple of {SIDE_STEP}."
            ));
        }
        rounded
    };
    let size = Size {
        width: side(&WIDTH),
        height: side(&HEIGHT),
    };
    let fit = if is_open {
        Fit::Open(Some(size))
    } else {
        Fit::To(size)
    };
    (size, fit)
}

fn sampling(reader: &mut Reader, random_seed: u64, warnings: &mut Vec<String>) -> Sampling {
    let steps = reader.whole(&NUM_INFERENCE_STEPS);
    let seed = reader.number_if_given(&SEED);
    Sampling {
        steps,
        samples: reader.whole(&SAMPLES),
        guidance: reader.number(&GUIDANCE_SCALE),
        strength: reader.number(&STRENGTH),
        clip_skip: reader.whole(&CLIP_SKIP),
        // -1 is what other services call random.
        seed: seed
            .and_then(|seed| u64::try_from(seed).ok())
            .unwrap_or(random_seed),
        token_merging: reader.flag(&TOMESD),
        scheduler: scheduler(reader, warnings),
    }
}

fn scheduler(reader: &mut Reader, warnings: &mut Vec<String>) -> SchedulerChoice {
    let kind = scheduler_kind(reader);
    let asked = reader.flag_if_given(&USE_KARRAS_SIGMAS);
    let karras = match kind {
        Some(kind) if !kind.supports_karras_sigmas() => {
            if asked == Some(true) {
                warnings.push(format!(
                    "{} has no meaning for {kind} and was ignored.",
                    USE_KARRAS_SIGMAS.name
                ));
            }
            false
        }
        _ => asked.unwrap_or(USE_KARRAS_SIGMAS.kind.default),
    };
    let algorithm = algorithm(reader);
    let solver = |kind| {
        matches!(
            kind,
            SchedulerKind::DPMSolverMultistep | SchedulerKind::DPMSolverSinglestep
        )
    };
    if let (Some(kind), Some(_)) = (kind.filter(|kind| !solver(*kind)), algorithm) {
        warnings.push(format!(
            "{} has no meaning for {kind} and was ignored.",
            ALGORITHM_TYPE.name
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
        // Its fields are those of `StableDiffusionImg2ImgPipeline`.
        strength_rule: StrengthRule::FewerSteps,
    }
}

/// The names of the table are those of the kinds; without the word `Scheduler` they are taken too.
fn scheduler_kind(reader: &mut Reader) -> Option<SchedulerKind> {
    let name = reader
        .choice(&SCHEDULER)?
        .map_or_else(|other| other, str::to_owned);
    let kind = SchedulerKind::parse(&name);
    if kind.is_none() {
        let all = SCHEDULER.kind.words.join(", ");
        let message = format_args!("has no {:?}; it is one of {all}", shorten(&name));
        reader.refuse(SCHEDULER.name, message);
    }
    kind
}

fn algorithm(reader: &mut Reader) -> Option<AlgorithmType> {
    let name = match reader.choice(&ALGORITHM_TYPE)? {
        Ok(name) => name.to_owned(),
        // Three plus signs in the vendor's own page.
        Err(other) => other.to_ascii_lowercase().replace("+++", "++"),
    };
    let found = algorithm_type(&name);
    if found.is_none() {
        let first = ALGORITHM_TYPE.kind.words[0];
        let words = ALGORITHM_TYPE.kind.words.join(", ");
        let words = words.replacen(first, &format!("{first} (also written dpmsolver+++)"), 1);
        reader.refuse(ALGORITHM_TYPE.name, format_args!("must be one of {words}"));
    }
    found
}

/// The meaning of the table's words.
fn algorithm_type(name: &str) -> Option<AlgorithmType> {
    match name {
        "dpmsolver" => Some(AlgorithmType::DpmSolver),
        "dpmsolver++" => Some(AlgorithmType::DpmSolverPlusPlus),
        "sde-dpmsolver" => Some(AlgorithmType::SdeDpmSolver),
        "sde-dpmsolver++" => Some(AlgorithmType::SdeDpmSolverPlusPlus),
        _ => None,
    }
}

fn adapters(reader: &mut Reader, warnings: &mut Vec<String>) -> Adapters {
    let names = reader.names(&LORA_MODEL);
    let strengths = lora_strengths(reader);
    let is_chosen = |strength: &f64| *strength != LORA_STRENGTH.kind.default;
    if names.is_empty() && strengths.iter().any(is_chosen) {
        warnings.push(nothing_to_weigh(LORA_STRENGTH.name, LORA_MODEL.name));
    }
    // Without models there is nothing that the values could be too many for.
    if !names.is_empty() && strengths.len() > names.len() {
        let (found, wanted) = (strengths.len(), names.len());
        reader.refuse(
            LORA_STRENGTH.name,
            format_args!("has {found} values for {wanted} models"),
        );
    }
    // A shorter list goes on with its last value, as one value for many does.
    let strength = |at: usize| {
        let given = strengths.get(at).or(strengths.last());
        given.copied().unwrap_or(LORA_STRENGTH.kind.default)
    };
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            let message = format_args!("names {} a second time", shorten(name));
            reader.refuse(LORA_MODEL.name, message);
        }
    }
    Adapters {
        vae: reader.name(&VAE),
        loras: names
            .into_iter()
            .enumerate()
            .map(|(at, name)| (name, strength(at)))
            .collect(),
        embeddings: reader.names(&EMBEDDINGS_MODEL),
    }
}

/// One number, or texts with commas between them.
fn lora_strengths(reader: &mut Reader) -> Vec<f64> {
    let (field, range) = (LORA_STRENGTH.name, LORA_STRENGTH.kind.range);
    let values: Vec<Json> = match reader.take(field) {
        // Not 0, which is a weight.
        Json::Bool(false) => Vec::new(),
        Json::Text(text) => text.split(',').map(|part| Json::Text(part.to_owned())).collect(),
        Json::List(items) => items,
        value @ (Json::Null
        | Json::Bool(_)
        | Json::Integer(_)
        | Json::Number(_)
        | Json::File(_)
        | Json::Object(_)) => {
            vec![value]
        }
    };
    let mut strengths = Vec::new();
    for value in values.into_iter().map(without_null_word) {
        let read = reader.ok(number_in(field, value, range.clone()));
        strengths.extend(read.flatten());
    }
    strengths
}

#[cfg(test)]
mod tests;
