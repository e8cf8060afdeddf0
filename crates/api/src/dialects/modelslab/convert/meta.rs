//! The reply's `meta`: what was asked and what will be used, in the vendor's words.

use pentimento_types::{AlgorithmType, ImageSource, Inputs, NoiseSpacing, Recipe, Size};
use serde_json::{Map, Number, Value, json};

use super::extras::Extras;
use crate::dialects::json::Json;

/// All of it but `file_prefix`, which is known with the job.
pub(super) fn of(
    recipe: &Recipe,
    inputs: &Inputs<ImageSource>,
    size: Size,
    extras: &Extras,
) -> Map<String, Value> {
    let scheduler = &recipe.scheduler;
    let names = |names: Vec<&str>| (!names.is_empty()).then(|| names.join(","));
    let loras: Vec<&str> = recipe.loras.iter().map(|lora| lora.model.as_str()).collect();
    let strengths: Vec<String> = recipe
        .loras
        .iter()
        .map(|lora| lora.strength.to_string())
        .collect();
    let embeddings = recipe.embeddings.iter().map(|item| item.model.as_str());
    let mut meta = json!({
        "prompt": recipe.prompt,
        "model_id": recipe.model.as_str(),
        "negative_prompt": recipe.negative_text(),
        // Until the checkpoint has been asked, null is the one that it names.
        "scheduler": scheduler.kind.map(pentimento_types::SchedulerKind::class_name),
        "safetychecker": yes_no(extras.safety_checker),
        "safety_checker": yes_no(extras.safety_checker),
        "safety_checker_type": extras.safety_checker_type,
        "W": size.width,
        "H": size.height,
        "width": size.width,
        "height": size.height,
        "guidance_scale": recipe.guidance_scale,
        "steps": recipe.steps,
        "n_samples": recipe.image_count,
        "strength": recipe.strength,
        "init_image": inputs.init().map(shown),
        "full_url": "no",
        "upscale": "no",
        "multi_lingual": "no",
        "seed": recipe.seed,
        "outdir": "out",
        "tomesd": yes_no(recipe.token_merging),
        "use_karras_sigmas": yes_no(scheduler.spacing == NoiseSpacing::Karras),
        "algorithm_type": scheduler.algorithm.map_or("none", algorithm_name),
        "vae": recipe.vae.as_ref().map(pentimento_types::ModelId::as_str),
        "lora": names(loras),
        "lora_strength": (!strengths.is_empty()).then(|| strengths.join(",")),
        "embeddings": names(embeddings.collect()),
        "ip_adapter_id": recipe.ip_adapter.as_ref().map(|adapter| adapter.model.as_str()),
        "clip_skip": recipe.clip_skip,
        "enhance_prompt": yes_no(extras.enhance_prompt),
        "temp": yes_no(extras.temp),
        "base64": yes_no(extras.base64),
        "webhook": extras.webhook,
        "track_id": plain(extras.track_id.clone()),
    });
    if let (Some(adapter), Some(image)) = (&recipe.ip_adapter, inputs.ip_adapter()) {
        meta["ip_adapter_scale"] = json!(adapter.scale);
        meta["ip_adapter_image"] = json!(shown(image));
    }
    if let Some(mask) = inputs.mask() {
        meta["mask_image"] = json!(shown(mask));
        meta["soft_edge"] = json!(recipe.soft_edge);
        meta["differential_diffusion"] = json!(yes_no(recipe.differential_diffusion));
    }
    if let Value::Object(meta) = meta {
        meta
    } else {
        Map::new()
    }
}

/// An address as it came; of a file only that it was one.
fn shown(image: &ImageSource) -> &str {
    match image {
        ImageSource::Url(url) => url,
        ImageSource::Inline(_) => "base64",
    }
}

pub(in super::super) const fn yes_no(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

const fn algorithm_name(algorithm: AlgorithmType) -> &'static str {
    match algorithm {
        AlgorithmType::DpmSolver => "dpmsolver",
        AlgorithmType::DpmSolverPlusPlus => "dpmsolver++",
        AlgorithmType::SdeDpmSolver => "sde-dpmsolver",
        AlgorithmType::SdeDpmSolverPlusPlus => "sde-dpmsolver++",
    }
}

/// A text or a number with its own JSON type.
pub(super) fn plain(value: Json) -> Value {
    match value {
        Json::Text(text) => Value::String(text),
        Json::Integer(integer) => i64::try_from(integer).map_or_else(
            |_| u64::try_from(integer).map_or(Value::Null, Value::from),
            Value::from,
        ),
        Json::Number(number) => Number::from_f64(number).map_or(Value::Null, Value::Number),
        Json::Bool(flag) => Value::Bool(flag),
        Json::Null | Json::File(_) | Json::List(_) | Json::Object(_) => Value::Null,
    }
}
