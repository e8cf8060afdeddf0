//! Novita's calls.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::operation::{Auth, Family, Operation, ok};

pub(super) const TAG: &str = "novita";

const FAILURE: &str = "NovitaError";
const CALLS: Family = Family {
    tag: TAG,
    auth: Auth::Bearer,
    failures: &[400, 403, 404, 405, 408, 409, 413, 429, 500, 503, 504],
    failure: FAILURE,
};

/// A small picture for examples, in base64.
pub(super) fn picture() -> String {
    STANDARD.encode(include_bytes!("example.png"))
}

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation {
            text: "The call is held until the images are there. The original's page: \
                   <https://novita.ai/docs/api-reference/model-apis-lcm-img2img>.",
            example: Some(json!({
                "model_name": "demo",
                "input_image": picture(),
                "prompt": "a cup of coffee on a wooden table",
                "image_num": 1,
                "steps": 4,
                "strength": 0.8,
                "guidance_scale": 1,
                "clip_skip": 1,
                "seed": 1,
            })),
            ..CALLS.call(
                ("POST", "/v3/lcm-img2img"),
                (
                    "novita_lcm_img2img",
                    "Image to image with a latent consistency model",
                ),
                ok("The images.", "NovitaImages"),
            )
        },
        CALLS.call(
            ("GET", "/v3/model"),
            ("novita_models", "The models that requests can name"),
            ok("A page of models.", "NovitaModels"),
        ),
        CALLS.call(
            ("GET", "/v3/user"),
            ("novita_user", "The caller's credits, which never end here"),
            ok("The caller.", "NovitaUser"),
        ),
    ]
}

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let image = json!({
        "type": "object",
        "required": ["image_url", "image_url_ttl", "image_type"],
        "properties": {
            "image_url": {"type": "string", "format": "uri", "description": "Signed; it needs no key."},
            "image_url_ttl": {"type": "string", "description": "Seconds for which it works."},
            "image_type": {"enum": ["png", "jpeg", "webp"]},
            "seed": {"type": "integer", "description": "With the same body it gives this image again. Not in the original."},
            "nsfw_detection_result": {
                "type": "object",
                "description": "Where `extra.enable_nsfw_detection` asked for it.",
                "properties": {
                    "valid": {"type": "boolean", "description": "Whether it is unsafe."},
                    "confidence": {"type": "number", "minimum": 0, "maximum": 1},
                },
            },
        },
    });
    let images = json!({"type": "array", "items": image});
    vec![
        (
            "NovitaImages",
            json!({
                "type": "object",
                "required": ["images", "image"],
                "properties": {
                    "images": images,
                    "image": {"type": "array", "description": "The same once more, as the original's example has it."},
                    "job_id": {"type": "string", "description": "For `/v1/jobs`. Not in the original."},
                    "warning": {"type": "string", "description": "What of the request had no effect. Not in the original."},
                },
            }),
        ),
        (
            "NovitaModels",
            json!({
                "type": "object",
                "required": ["models", "pagination"],
                "properties": {
                    "models": {"type": "array", "items": {"type": "object", "required": ["id", "name", "sd_name_in_api"]}},
                    "pagination": {
                        "type": "object",
                        "properties": {"next_cursor": {"type": "string", "description": "Empty on the last page."}},
                    },
                },
            }),
        ),
        ("NovitaUser", json!({"type": "object"})),
        (
            FAILURE,
            json!({
                "type": "object",
                "required": ["code", "reason", "message", "metadata"],
                "properties": {
                    "code": {"type": "integer", "description": "The HTTP status."},
                    "reason": {"type": "string", "description": "One of the original's words, as `INVALID_REQUEST_BODY`."},
                    "message": {"type": "string"},
                    "metadata": {"type": "object", "description": "`field` where one is at fault, `request_id` for the log."},
                },
            }),
        ),
    ]
}
