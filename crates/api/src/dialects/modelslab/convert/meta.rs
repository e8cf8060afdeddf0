//! The reply's `meta`: what was asked and what will be used, in the vendor's words.

use pentimento_types::{AlgorithmType, GenerationRequest, ImageSource, NoiseSpacing, Size, Task};
use serde_json::{Map, Number, Value, json};

use super::Extras;
use crate::dialects::json::Json;

/// All of it but `file_prefix`, which is known with the job.
pub(super) fn of(request: &GenerationRequest, size: Size, extras: &Extras) -> Map<String, Value> {
    let scheduler = &request.scheduler;
    let names = |names: Vec<&str>| (!names.is_empty()).then(|| names.join(","));
    let loras: Vec<&str> = request.loras.iter().map(|lora| lora.model.as_str()).collect();
    let strengths: Vec<String> = request
        .loras
        .iter()
        .map(|lora| lora.strength.to_string())
        .collect();
    let embeddings = request.embeddings.iter().map(|item| item.model.as_str());
    let mut meta = json!({
        "prompt": request.prompt,
        "model_id": request.model.as_str(),
        "negative_prompt": request.negative_prompt,
        // null is the one that the checkpoint names.
        "scheduler": scheduler.kind.map(pentimento_types::SchedulerKind::class_name),
        "safetychecker": yes_no(extras.safety_checker),
        "safety_checker": yes_no(extras.safety_checker),
        "safety_checker_type": extras.safety_checker_type,
        "W": size.width,
        "H": size.height,
        "width": size.width,
        "height": size.height,
        "guidance_scale": request.guidance_scale,
        "steps": request.steps,
        "n_samples": request.image_count,
        "strength": request.strength,
        "init_image": shown(&request.init_image),
        "full_url": "no",
        "upscale": "no",
        "multi_lingual": "no",
        "seed": request.seed,
        "outdir": "out",
        "tomesd": yes_no(request.token_merging),
        "use_karras_sigmas": yes_no(scheduler.spacing == NoiseSpacing::Karras),
        "algorithm_type": scheduler.algorithm.map_or("none", algorithm_name),
        "vae": request.vae.as_ref().map(pentimento_types::ModelId::as_str),
        "lora": names(loras),
        "lora_strength": (!strengths.is_empty()).then(|| strengths.join(",")),
        "embeddings": names(embeddings.collect()),
        "ip_adapter_id": extras.ip_adapter,
        "clip_skip": request.clip_skip,
        "enhance_prompt": yes_no(extras.enhance_prompt),
        "temp": yes_no(extras.temp),
        "base64": yes_no(extras.base64),
        "webhook": extras.webhook,
        "track_id": plain(extras.track_id.clone()),
    });
    if let Task::Inpaint { mask, soft_edge } = &request.task {
        meta["mask_image"] = json!(shown(mask));
        meta["soft_edge"] = json!(soft_edge);
    }
    if let Value::Object(meta) = meta {
        meta
    } else {
        Map::new()
    }
}

/// An address as it came; of a file only that it was one.
fn shown(picture: &ImageSource) -> &str {
    match picture {
        ImageSource::Url(url) => url,
        ImageSource::Inline(_) | ImageSource::Stored(_) => "base64",
    }
}

const fn yes_no(flag: bool) -> &'static str {
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
