//! The calls of AUTOMATIC1111's web UI.

use serde_json::{Value, json};

use super::novita::picture;
use super::operation::{Auth, Family, JSON, Operation, Reply, ok};

pub(super) const TAG: &str = "a1111";

const FAILURE: &str = "A1111Error";
const CALLS: Family = Family {
    tag: TAG,
    auth: Auth::BasicOrBearer,
    failures: &[401, 404, 405, 408, 409, 413, 422, 429, 500, 501, 503, 504],
    failure: FAILURE,
};

/// A reply of no more than this.
fn of(words: &'static str, schema: Value) -> Vec<Reply> {
    vec![(200, words, Some((JSON, schema)))]
}

/// What there is to choose from.
fn list((path, id): (&'static str, &'static str), summary: &'static str) -> Operation {
    let items = json!({"type": "array", "items": {"type": "object"}});
    CALLS.call(("GET", path), (id, summary), of("A list.", items))
}

pub(super) fn operations() -> Vec<Operation> {
    [making(), watching(), lists(), about_pictures()].concat()
}

fn making() -> Vec<Operation> {
    vec![
        Operation {
            text: "The call is held until the images are there. Several images to start from give one image each.",
            example: Some(json!({
                "init_images": [picture()],
                "prompt": "a cup of coffee on a wooden table",
                "width": 256,
                "height": 256,
                "steps": 4,
                "cfg_scale": 1,
                "sampler_name": "LCM",
                "denoising_strength": 0.8,
                "seed": 1,
            })),
            ..CALLS.call(
                ("POST", "/sdapi/v1/img2img"),
                ("a1111_img2img", "Image to image, with a mask or without"),
                ok("The images.", "A1111Images"),
            )
        },
        Operation {
            example: Some(json!({
                "prompt": "a cup of coffee on a wooden table",
                "width": 256,
                "height": 256,
                "steps": 4,
                "cfg_scale": 1,
                "sampler_name": "LCM",
                "seed": 1,
            })),
            ..CALLS.call(
                ("POST", "/sdapi/v1/txt2img"),
                ("a1111_txt2img", "Text to image"),
                ok("The images.", "A1111Images"),
            )
        },
    ]
}

fn watching() -> Vec<Operation> {
    vec![
        Operation {
            text: "About the caller's own jobs of this door; the oldest of those that run counts.",
            ..CALLS.call(
                ("GET", "/sdapi/v1/progress"),
                ("a1111_progress", "How far the caller's job is, with a preview"),
                of("How things stand.", json!({"type": "object"})),
            )
        },
        CALLS.call(
            ("POST", "/sdapi/v1/interrupt"),
            ("a1111_interrupt", "Ends the caller's own jobs of this door"),
            of("Always an empty object.", json!({"type": "object"})),
        ),
        CALLS.call(
            ("POST", "/sdapi/v1/skip"),
            ("a1111_skip", "Ends the one of them that is being made"),
            of("Always null.", json!({"type": "null"})),
        ),
    ]
}

fn lists() -> Vec<Operation> {
    vec![
        CALLS.call(
            ("GET", "/sdapi/v1/options"),
            ("a1111_options", "The caller's own options"),
            of("Options.", json!({"type": "object"})),
        ),
        Operation {
            text: "They hold for the caller's key alone, and until the server ends. On a server without keys all callers are one.",
            ..CALLS.call(
                ("POST", "/sdapi/v1/options"),
                ("a1111_set_options", "Changes the caller's own options"),
                of("Always null.", json!({"type": "null"})),
            )
        },
        list(
            ("/sdapi/v1/samplers", "a1111_samplers"),
            "Samplers by their names there",
        ),
        list(
            ("/sdapi/v1/schedulers", "a1111_schedulers"),
            "How noise levels can be spaced",
        ),
        list(("/sdapi/v1/sd-models", "a1111_sd_models"), "Checkpoints"),
        list(("/sdapi/v1/sd-vae", "a1111_sd_vae"), "VAEs"),
        list(
            ("/sdapi/v1/loras", "a1111_loras"),
            "LoRAs, which a prompt names in tags",
        ),
        CALLS.call(
            ("GET", "/sdapi/v1/embeddings"),
            (
                "a1111_embeddings",
                "Textual inversions, which a prompt names by their words",
            ),
            of("By their names.", json!({"type": "object"})),
        ),
        list(
            ("/sdapi/v1/upscalers", "a1111_upscalers"),
            "Networks that enlarge",
        ),
    ]
}

fn about_pictures() -> Vec<Operation> {
    vec![
        Operation {
            example: Some(json!({"image": picture()})),
            ..CALLS.call(
                ("POST", "/sdapi/v1/png-info"),
                ("a1111_png_info", "The parameters inside a picture"),
                of(
                    "The text, and its parts.",
                    json!({
                        "type": "object",
                        "required": ["info", "items", "parameters"],
                        "properties": {
                            "info": {"type": "string"},
                            "items": {"type": "object"},
                            "parameters": {"type": "object"},
                        },
                    }),
                ),
            )
        },
        Operation {
            example: Some(json!({"image": picture(), "upscaling_resize": 2})),
            ..CALLS.call(
                ("POST", "/sdapi/v1/extra-single-image"),
                ("a1111_extra_single_image", "A picture with longer sides"),
                of(
                    "The picture.",
                    json!({
                        "type": "object",
                        "required": ["image", "html_info"],
                        "properties": {
                            "image": {"type": "string", "contentEncoding": "base64"},
                            "html_info": {"type": "string"},
                        },
                    }),
                ),
            )
        },
    ]
}

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        (
            "A1111Images",
            json!({
                "type": "object",
                "required": ["images", "parameters", "info"],
                "properties": {
                    "images": {
                        "type": "array",
                        "items": {"type": "string", "contentEncoding": "base64"},
                        "description": "In the order of their seeds; empty where `send_images` says so.",
                    },
                    "parameters": {"type": "object", "description": "What was sent, and the defaults of the rest."},
                    "info": {
                        "type": "string",
                        "contentMediaType": "application/json",
                        "description": "`all_seeds`, `infotexts` and the like, as a text.",
                    },
                    "warning": {"type": "string", "description": "What of the request had no effect. Not in the original."},
                },
            }),
        ),
        (
            FAILURE,
            json!({
                "type": "object",
                "required": ["detail"],
                "properties": {
                    "error": {"type": "string", "description": "Absent where a field is at fault."},
                    "detail": {
                        "description": "A text; or, where a field is at fault, a list of `{loc, msg, type}`.",
                        "anyOf": [
                            {"type": "string"},
                            {"type": "array", "items": {"type": "object", "required": ["loc", "msg", "type"]}},
                        ],
                    },
                    "body": {"type": "string"},
                    "errors": {"type": "string"},
                    "request_id": {"type": "string", "description": "For the log. Not in the original."},
                },
            }),
        ),
    ]
}
