//! Our own calls.

use serde_json::{Value, json};

use super::operation::{Auth, Family, JSON, Operation, Parameter, named, ok};

pub(super) const TAG: &str = "own";

const FAILURE: &str = "OwnError";
const CALLS: Family = Family {
    tag: TAG,
    auth: Auth::Bearer,
    failures: &[400, 401, 403, 404, 405, 408, 409, 413, 429, 500, 503, 504],
    failure: FAILURE,
};

fn in_path(name: &'static str, text: &'static str) -> Parameter {
    Parameter {
        name,
        place: "path",
        schema: json!({"type": "string"}),
        text,
    }
}

fn in_query(name: &'static str, schema: Value, text: &'static str) -> Parameter {
    Parameter {
        name,
        place: "query",
        schema,
        text,
    }
}

const JOB_ID: &str = "The job's id: `job_` and 32 hexadecimal digits.";
const MODEL: &str = "The name of a checkpoint in the catalogue.";

#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(super) fn operations() -> Vec<Operation> {
    vec![
        CALLS.call(
            ("GET", "/v1/models"),
            (
                "models",
                "Models with their kinds, and whether they can be used now",
            ),
            ok("All models.", "Models"),
        ),
        Operation {
            parameters: vec![in_path("name", "Any name of a model in the catalogue.")],
            ..CALLS.call(
                ("GET", "/v1/models/{name}"),
                ("model", "A model, and whether it can be used now"),
                ok("The model.", "Model"),
            )
        },
        Operation {
            text: "Of the operator's keys alone.",
            parameters: vec![in_path("name", MODEL)],
            ..CALLS.call(
                ("POST", "/v1/models/{name}/load"),
                (
                    "load_model",
                    "Brings a checkpoint into memory before a request needs it",
                ),
                ok("It is there.", "Answer"),
            )
        },
        Operation {
            text: "Of the operator's keys alone.",
            parameters: vec![in_path("name", MODEL)],
            ..CALLS.call(
                ("POST", "/v1/models/{name}/unload"),
                (
                    "unload_model",
                    "Throws a checkpoint out of memory, as far as no job uses it",
                ),
                ok("What was freed.", "Answer"),
            )
        },
        Operation {
            text: "Of the operator's keys alone.",
            ..CALLS.call(
                ("GET", "/v1/cluster"),
                (
                    "cluster",
                    "The machines that share jobs with this one, and what each has",
                ),
                ok("All that have been heard of lately.", "Answer"),
            )
        },
        Operation {
            parameters: vec![
                in_query(
                    "state",
                    json!({"type": "string"}),
                    "One or more of fetching, queued, running, succeeded, failed and cancelled, with commas between them.",
                ),
                in_query(
                    "limit",
                    json!({"type": "integer", "minimum": 1, "maximum": 200, "default": 50}),
                    "Jobs in a reply.",
                ),
                in_query(
                    "after",
                    json!({"type": "string"}),
                    "The id after which the page begins, as `next` gives it.",
                ),
            ],
            ..CALLS.call(
                ("GET", "/v1/jobs"),
                ("jobs", "The jobs of your key, newest first"),
                ok("A page of jobs.", "Jobs"),
            )
        },
        Operation {
            parameters: vec![in_path("id", JOB_ID)],
            ..CALLS.call(
                ("GET", "/v1/jobs/{id}"),
                (
                    "job",
                    "State, progress, time left and images of a job of either dialect",
                ),
                ok("The job.", "Job"),
            )
        },
        Operation {
            parameters: vec![
                in_path("id", JOB_ID),
                in_query(
                    "delete",
                    json!({"type": "string", "enum": ["true", "false"]}),
                    "Whether the job is deleted with its images, ended or not.",
                ),
            ],
            ..CALLS.call(
                ("DELETE", "/v1/jobs/{id}"),
                ("cancel_job", "Cancels a job that has not ended"),
                ok("The job as it is now, or that it is deleted.", "Answer"),
            )
        },
        Operation {
            text: "Events of the HTML standard; `Last-Event-ID` goes on after one that was seen.",
            parameters: vec![
                in_path("id", JOB_ID),
                in_query(
                    "previews",
                    json!({"type": "string", "enum": ["true", "false"], "default": "true"}),
                    "Whether small images of what is being made come too.",
                ),
            ],
            ..CALLS.call(
                ("GET", "/v1/jobs/{id}/events"),
                (
                    "job_events",
                    "A job's life as server-sent events, until it has ended",
                ),
                vec![
                    (200, "Events.", Some(("text/event-stream", json!({})))),
                    (204, "The end was seen already.", None),
                ],
            )
        },
        Operation {
            parameters: vec![
                in_query(
                    "state",
                    json!({"type": "string", "enum": ["pending", "delivered", "dead"]}),
                    "Only those in this state.",
                ),
                in_query("job", json!({"type": "string"}), "Only those of this job."),
                in_query(
                    "after",
                    json!({"type": "string"}),
                    "The id after which the page begins.",
                ),
            ],
            ..CALLS.call(
                ("GET", "/v1/webhooks"),
                (
                    "webhooks",
                    "The webhooks of your jobs, and what has become of them",
                ),
                ok("A hundred at most, newest last.", "Answer"),
            )
        },
        Operation {
            parameters: vec![in_path("id", "The webhook's id, or its job's.")],
            ..CALLS.call(
                ("POST", "/v1/webhooks/{id}/replay"),
                (
                    "replay_webhook",
                    "Sends a webhook again, under the id that it had",
                ),
                ok("The webhook.", "Answer"),
            )
        },
        Operation {
            text: "The body is the file itself, PNG, JPEG or WebP.",
            takes_file: true,
            ..CALLS.call(
                ("POST", "/v1/provenance/verify"),
                (
                    "verify_provenance",
                    "What a file says of where its picture comes from",
                ),
                ok("What was found.", "Provenance"),
            )
        },
        Operation {
            auth: Auth::None,
            failures: &[405],
            ..CALLS.call(
                ("GET", "/healthz"),
                ("healthz", "Whether the process answers"),
                vec![(200, "It does.", Some(("text/plain", json!({"type": "string"}))))],
            )
        },
        Operation {
            auth: Auth::None,
            failures: &[405],
            ..CALLS.call(
                ("GET", "/readyz"),
                ("readyz", "Whether requests are served"),
                vec![
                    (200, "They are.", Some((JSON, named("Answer")))),
                    (
                        503,
                        "They are not; `reason` says why.",
                        Some((JSON, named("Answer"))),
                    ),
                ],
            )
        },
        Operation {
            text: "Of the operator's keys alone. OpenMetrics where the caller asks for it; docs/observability has the list.",
            ..CALLS.call(
                ("GET", "/metrics"),
                ("metrics", "Numbers for Prometheus"),
                vec![(
                    200,
                    "The numbers.",
                    Some(("text/plain", json!({"type": "string"}))),
                )],
            )
        },
    ]
}

/// A model: as the list of everything has it, and as OpenAI's clients read it.
fn of_models() -> [(&'static str, Value); 2] {
    let properties = json!({
        "name": {"type": "string"},
        "aliases": {"type": "array", "items": {"type": "string"}},
        "kind": {"type": "string"},
        "base": {"type": ["string", "null"]},
        "state": {"type": "string"},
        "progress": {"type": ["object", "null"]},
        "available": {"type": "boolean"},
        "unavailable_because": {"type": ["string", "null"]},
        "in_memory": {"type": "boolean"},
        "precision": {"enum": ["f32", "f16", "bf16"], "description": "Of a checkpoint: the numbers in which it is computed here."},
    });
    let plain =
        json!({"type": "object", "required": ["name", "kind", "available"], "properties": properties});
    let mut openais = plain.clone();
    openais["required"] = json!(["id", "object", "created", "owned_by", "name", "kind", "available"]);
    openais["properties"]["id"] = json!({"type": "string"});
    openais["properties"]["object"] = json!({"enum": ["model"]});
    openais["properties"]["created"] = json!({"type": "integer", "description": "When the server started."});
    openais["properties"]["owned_by"] = json!({"type": "string"});
    let list = json!({
        "type": "object",
        "required": ["object", "data", "models"],
        "properties": {
            "object": {"enum": ["list"]},
            "data": {"type": "array", "description": "The checkpoints, for OpenAI's clients.", "items": named("Model")},
            "models": {"type": "array", "description": "Everything that a request can name.", "items": plain},
            "memory": {"type": "object", "description": "What weights hold, and what they may."},
            "device": {
                "type": "object",
                "description": "What computes, in which numbers; of a GPU its capability, software and memory. The first one of several.",
            },
            "devices": {
                "type": "array",
                "description": "All that compute, each with its jobs and the models in its memory. Their order is that of the label `device` in `/metrics`.",
                "items": {"type": "object"},
            },
        },
    });
    [("Models", list), ("Model", openais)]
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let mut all = vec![
        (
            "Job",
            json!({
                "type": "object",
                "required": ["id", "state", "dialect", "created_at", "recipe", "images"],
                "properties": {
                    "id": {"type": "string"},
                    "state": {"enum": ["fetching", "queued", "running", "succeeded", "failed", "cancelled"]},
                    "attempt": {"type": "integer"},
                    "dialect": {"type": "string"},
                    "created_at": {"type": "string", "format": "date-time"},
                    "started_at": {"type": ["string", "null"], "format": "date-time"},
                    "finished_at": {"type": ["string", "null"], "format": "date-time"},
                    "progress": {"type": ["object", "null"], "properties": {"done": {"type": "integer"}, "total": {"type": "integer"}}},
                    "queue_position": {"type": ["integer", "null"], "description": "Which of the waiting jobs it is, from 1."},
                    "seconds_left": {"type": ["number", "null"]},
                    "notes": {"type": "array", "items": {"type": "string"}},
                    "recipe": {"type": "object", "description": "What decides the pixels."},
                    "images": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                "url": {"type": "string"},
                                "seconds_valid": {"type": "integer"},
                                "format": {"type": "string"},
                                "width": {"type": "integer"},
                                "height": {"type": "integer"},
                                "seed": {"type": "integer"},
                                "nsfw": {"type": ["boolean", "null"]},
                            },
                        },
                    },
                    "error": {"type": ["object", "null"]},
                },
            }),
        ),
        (
            "Jobs",
            json!({
                "type": "object",
                "required": ["jobs"],
                "properties": {
                    "jobs": {"type": "array", "items": named("Job")},
                    "next": {"type": ["string", "null"], "description": "For `after`; null on the last page."},
                },
            }),
        ),
        (
            "Provenance",
            json!({
                "type": "object",
                "required": ["generated", "digital_source_type", "parameters"],
                "properties": {
                    "generated": {"type": "boolean", "description": "Whether it says that a program has made or changed it."},
                    "digital_source_type": {"type": ["string", "null"], "description": "IPTC's word."},
                    "parameters": {"type": ["object", "null"], "description": "How a picture of this program was made."},
                    "content_credentials": {
                        "type": ["object", "null"],
                        "description": "What its C2PA manifest says, in a build that reads them; `intact` is whether signature and file fit together, not whose it is.",
                        "properties": {
                            "intact": {"type": "boolean"},
                            "signed_by": {"type": ["string", "null"]},
                            "organisation": {"type": ["string", "null"]},
                            "generator": {"type": ["string", "null"]},
                            "digital_source_type": {"type": ["string", "null"]},
                            "has_parent": {"type": "boolean"},
                            "problems": {"type": "array", "items": {"type": "string"}},
                        },
                    },
                    "watermark": {"type": ["boolean", "null"], "description": "Whether this program's watermark is in its pixels; null where they cannot be read."},
                },
            }),
        ),
        ("Answer", json!({"type": "object"})),
        (
            FAILURE,
            json!({
                "type": "object",
                "required": ["error"],
                "properties": {
                    "error": {
                        "type": "object",
                        "required": ["kind", "message"],
                        "properties": {
                            "kind": {"type": "string"},
                            "message": {"type": "string"},
                            "request_id": {"type": "string"},
                        },
                    },
                },
            }),
        ),
    ];
    all.extend(of_models());
    all
}
