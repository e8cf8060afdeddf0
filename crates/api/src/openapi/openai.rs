//! OpenAI's calls for images.

use serde_json::{Value, json};

use super::novita::picture;
use super::operation::{Auth, Family, Operation, Reply, ok};

pub(super) const TAG: &str = "openai";

const FAILURE: &str = "OpenAiError";
const CALLS: Family = Family {
    tag: TAG,
    auth: Auth::Bearer,
    failures: &[400, 401, 403, 404, 405, 408, 409, 413, 429, 500, 503, 504],
    failure: FAILURE,
};
const STREAM: &str = "With `stream` the reply is `text/event-stream`: up to `partial_images` events `….partial_image`, then one \
                      `….completed` for each image, of `image_edit` or `image_generation`.";

fn images() -> Vec<Reply> {
    ok("The images.", "OpenAiImages")
}

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation {
            text: STREAM,
            takes_form: true,
            example: Some(json!({
                "model": "demo",
                "images": [{"image_url": format!("data:image/png;base64,{}", picture())}],
                "prompt": "a cup of coffee on a wooden table",
                "steps": 4,
                "seed": 1,
            })),
            ..CALLS.call(
                ("POST", "/v1/images/edits"),
                ("openai_edit", "Changes an image, with or without a mask"),
                images(),
            )
        },
        Operation {
            text: STREAM,
            example: Some(json!({
                "model": "demo",
                "prompt": "a cup of coffee on a wooden table",
                "size": "64x64",
                "steps": 4,
                "seed": 1,
            })),
            ..CALLS.call(
                ("POST", "/v1/images/generations"),
                ("openai_generation", "Makes an image from words alone"),
                images(),
            )
        },
        Operation {
            text: STREAM,
            takes_form: true,
            example: Some(json!({"model": "demo", "image": picture(), "steps": 4, "seed": 1})),
            ..CALLS.call(
                ("POST", "/v1/images/variations"),
                ("openai_variation", "Makes an image like another one"),
                images(),
            )
        },
    ]
}

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let image = json!({
        "type": "object",
        "properties": {
            "b64_json": {"type": "string", "contentEncoding": "base64"},
            "url": {"type": "string", "format": "uri", "description": "Signed; it needs no key."},
            "seed": {"type": "integer", "description": "With the same body it gives this image again. Not in the original."},
        },
    });
    vec![
        (
            "OpenAiImages",
            json!({
                "type": "object",
                "required": ["created", "data"],
                "properties": {
                    "created": {"type": "integer", "description": "Unix seconds."},
                    "data": {"type": "array", "items": image},
                    "background": {"enum": ["opaque"]},
                    "output_format": {"enum": ["png", "jpeg", "webp"]},
                    "quality": {"enum": ["low", "medium", "high", "xhigh", "max"]},
                    "size": {"type": "string", "description": "WIDTHxHEIGHT"},
                    "usage": {"type": "object", "description": "All zeros: nothing is counted in tokens here."},
                    "warning": {"type": "string", "description": "How the request was read, where that is not plain. Not in the original."},
                },
            }),
        ),
        (
            FAILURE,
            json!({
                "type": "object",
                "required": ["error"],
                "properties": {
                    "error": {
                        "type": "object",
                        "required": ["message", "type", "param", "code"],
                        "properties": {
                            "message": {"type": "string"},
                            "type": {"type": "string", "enum": ["invalid_request_error", "requests", "server_error"]},
                            "param": {"type": ["string", "null"], "description": "The field at fault."},
                            "code": {"type": "string"},
                            "request_id": {"type": "string", "description": "For the log. Not in the original."},
                        },
                    },
                },
            }),
        ),
    ]
}
