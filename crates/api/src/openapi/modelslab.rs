//! ModelsLab's calls.

use serde_json::{Value, json};

use super::novita::picture;
use super::operation::{Auth, Family, Operation, Parameter, ok};

pub(super) const TAG: &str = "modelslab";

const FAILURE: &str = "ModelsLabError";
const CALLS: Family = Family {
    tag: TAG,
    auth: Auth::Body,
    // Failures of the calls themselves come with status 200; these are the statuses of what never got that far, and of
    // `modelslab_strict_http_status`.
    failures: &[400, 401, 403, 404, 405, 408, 409, 413, 429, 500, 503],
    failure: FAILURE,
};

fn call(path: &'static str, id: &'static str, summary: &'static str, reply: &str) -> Operation {
    let words = "The answer; a failure has `status` `error`, and `message` says of each field what is wrong.";
    CALLS.call(("POST", path), (id, summary), ok(words, reply))
}

/// What works on any server, with the model inside the binary.
fn example(more: Value) -> Value {
    let mut body = json!({
        "key": "your key",
        "model_id": "demo",
        "prompt": "a cup of coffee on a wooden table",
        "negative_prompt": "blurry",
        "init_image": format!("data:image/png;base64,{}", picture()),
        "width": 64,
        "height": 64,
        "samples": 1,
        "num_inference_steps": 8,
        "safety_checker": "no",
        "enhance_prompt": "no",
        "guidance_scale": 3,
        "strength": 0.8,
        "scheduler": "UniPCMultistepScheduler",
        "seed": 1,
        "track_id": "order-1",
    });
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(super) fn operations() -> Vec<Operation> {
    let of_one_model = |path, id, summary| Operation {
        example: Some(json!({"key": "your key", "model_id": "demo"})),
        ..call(path, id, summary, "ModelsLabMessage")
    };
    vec![
        Operation {
            text: "It is held for a time that the operator sets; a job that takes longer is answered `processing`, and `fetch` has its \
                   images later. All paths of the original lead here: `/api/v1/enterprise`, `/api/v6/realtime` and others.",
            example: Some(example(json!({}))),
            ..call(
                "/api/v1/enterprise/img2img",
                "modelslab_img2img",
                "Image to image with any scheduler",
                "ModelsLabImages",
            )
        },
        Operation {
            text: "White is painted anew, black stays.",
            example: Some(example(
                json!({"mask_image": format!("data:image/png;base64,{}", picture())}),
            )),
            ..call(
                "/api/v1/enterprise/inpaint",
                "modelslab_inpaint",
                "Image to image within a mask",
                "ModelsLabImages",
            )
        },
        call(
            "/api/v1/enterprise/fetch",
            "modelslab_fetch_by_field",
            "The same as `fetch/{id}`, with the number in the body",
            "ModelsLabImages",
        ),
        Operation {
            parameters: vec![Parameter {
                name: "id",
                place: "path",
                schema: json!({"type": "integer"}),
                text: "The number of the job.",
            }],
            ..call(
                "/api/v1/enterprise/fetch/{id}",
                "modelslab_fetch",
                "The images of a job that was `processing`",
                "ModelsLabImages",
            )
        },
        of_one_model(
            "/api/v1/enterprise/verify_model",
            "modelslab_verify_model",
            "Whether a model is there",
        ),
        of_one_model(
            "/api/v1/enterprise/load_model",
            "modelslab_load_model",
            "Begins to fetch a model of the catalogue, and to load a checkpoint",
        ),
        of_one_model(
            "/api/v1/enterprise/load_model_v2",
            "modelslab_load_model_v2",
            "The same",
        ),
        Operation {
            example: Some(json!({"key": "your key", "vae_id": "sd-vae-ft-mse"})),
            ..call(
                "/api/v1/enterprise/load_vae",
                "modelslab_load_vae",
                "Begins to fetch a VAE of the catalogue, which the first request with it loads",
                "ModelsLabMessage",
            )
        },
        of_one_model(
            "/api/v1/enterprise/delete_model",
            "modelslab_delete_model",
            "Throws a checkpoint out of memory; its files stay",
        ),
        Operation {
            example: Some(json!({"key": "your key", "init_image": picture()})),
            ..call(
                "/api/v1/enterprise/nsfw_image_check",
                "modelslab_nsfw_image_check",
                "Whether an image is unsafe",
                "ModelsLabCheck",
            )
        },
        Operation {
            example: Some(json!({"key": "your key", "url": picture(), "scale": 2})),
            ..call(
                "/api/v1/enterprise/super_resolution",
                "modelslab_super_resolution",
                "An image with longer sides",
                "ModelsLabEnlarged",
            )
        },
        Operation {
            example: Some(json!({"key": "your key", "base64_image": picture(), "image_type": "png"})),
            ..call(
                "/api/v1/enterprise/upload_image",
                "modelslab_upload_image",
                "Keeps an image for a day, for `init_image` and the other fields of images",
                "ModelsLabUpload",
            )
        },
        Operation {
            text: "Of an operator's key: the jobs of all.",
            ..call(
                "/api/v1/enterprise/clear_queue",
                "modelslab_clear_queue",
                "Cancels the waiting jobs of the key",
                "ModelsLabMessage",
            )
        },
        Operation {
            text: "Of the operator's keys alone.",
            ..call(
                "/api/v1/enterprise/clear_cache",
                "modelslab_clear_cache",
                "Throws models out of memory that no job uses",
                "ModelsLabMessage",
            )
        },
        Operation {
            text: "Of the operator's keys alone. Running jobs end in order, waiting ones go on after it.",
            ..call(
                "/api/v1/enterprise/restart_server",
                "modelslab_restart_server",
                "Starts the program anew",
                "ModelsLabMessage",
            )
        },
        call(
            "/api/v1/enterprise/system_details",
            "modelslab_system_details",
            "What the server has to do",
            "ModelsLabDetails",
        ),
        call(
            "/api/v1/enterprise/schedulers_list",
            "modelslab_schedulers_list",
            "The schedulers by their names",
            "ModelsLabSchedulers",
        ),
        call(
            "/api/v1/enterprise/get_all_models",
            "modelslab_get_all_models",
            "The models that requests can name",
            "ModelsLabModels",
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let message = json!({
        "type": ["string", "object"],
        "description": "A sentence, or for each field at fault a list of sentences.",
    });
    let addresses = json!({"type": "array", "items": {"type": "string"}});
    vec![
        (
            "ModelsLabImages",
            json!({
                "type": "object",
                "required": ["status"],
                "properties": {
                    "status": {"enum": ["success", "processing", "failed", "error"]},
                    "id": {"type": ["integer", "string"], "description": "The job's number, for `fetch`; empty where there is no job."},
                    "output": addresses,
                    "proxy_links": addresses,
                    "future_links": addresses,
                    "image_links": addresses,
                    "generationTime": {"type": "number", "description": "Seconds."},
                    "eta": {"type": "integer", "description": "Of `processing`: seconds after which to fetch."},
                    "fetch_result": {"type": "string", "description": "Of `processing`: where."},
                    "nsfw_content_detected": {"type": "boolean"},
                    "has_nsfw_concept": {"type": "array", "items": {"type": "boolean"}},
                    "meta": {"type": "object", "description": "What was used, as strings where the original has strings."},
                    "message": message,
                    "warning": {"type": "string", "description": "What of the request had no effect. Not in the original."},
                },
            }),
        ),
        (
            "ModelsLabMessage",
            json!({
                "type": "object",
                "required": ["status", "message"],
                "properties": {"status": {"enum": ["success", "error"]}, "message": message},
            }),
        ),
        (
            "ModelsLabDetails",
            json!({
                "type": "object",
                "properties": {
                    "status": {"enum": ["ok", "error"]},
                    "message": message,
                    "model_count": {"type": "integer"},
                    "queue_time": {"type": "integer", "description": "Seconds that a job which came now would wait."},
                    "queue_num": {"type": "integer", "description": "Jobs that wait."},
                    "running_num": {"type": "integer"},
                    "resident_models": {"type": "array", "items": {"type": "string"}, "description": "Checkpoints in memory."},
                    "nodes": {"type": "array", "items": {"type": "object"}, "description": "In a cluster: its machines, with name, jobs and models in memory of each."},
                },
            }),
        ),
        (
            "ModelsLabSchedulers",
            json!({
                "type": "object",
                "properties": {"schedulers": {"type": "array", "items": {"type": "string"}}, "message": message},
            }),
        ),
        (
            "ModelsLabModels",
            json!({
                "type": "object",
                "properties": {
                    "status": {"enum": ["success", "error"]},
                    "message": message,
                    "models": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                "load_data": {"type": "string", "description": "Since when the server runs, as the original writes it."},
                                "model_id": {"type": "string"},
                                "model_category": {"type": "string"},
                                "aliases": {"type": "array", "items": {"type": "string"}},
                                "available": {"type": "boolean", "description": "Not in the original."},
                                "state": {"type": "string", "description": "Not in the original."},
                            },
                        },
                    },
                },
            }),
        ),
        (
            "ModelsLabUpload",
            json!({
                "type": "object",
                "required": ["status"],
                "properties": {
                    "status": {"enum": ["success", "error"]},
                    "message": message,
                    "image_url": {"type": "string"},
                },
            }),
        ),
        (
            "ModelsLabCheck",
            json!({
                "type": "object",
                "properties": {
                    "images": {"type": "string"},
                    "has_nsfw_concept": {"type": "array", "items": {"type": "boolean"}},
                    "score": {"type": ["number", "null"], "description": "Not in the original."},
                },
            }),
        ),
        (
            "ModelsLabEnlarged",
            json!({
                "type": "object",
                "required": ["status"],
                "properties": {
                    "status": {"enum": ["success", "error"]},
                    "generationTime": {"type": "number"},
                    "id": {"type": "integer"},
                    "output": {"type": "string", "description": "One address, and no list."},
                    "message": message,
                },
            }),
        ),
        (
            FAILURE,
            json!({
                "type": "object",
                "required": ["status", "message"],
                "properties": {
                    "status": {"enum": ["error", "failed"]},
                    "message": message,
                    "request_id": {"type": "string"},
                },
            }),
        ),
    ]
}
