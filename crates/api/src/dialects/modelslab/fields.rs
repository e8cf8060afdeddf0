//! Every field of this dialect's calls: names, ranges, defaults. The only place that has them.

use pentimento_types::SchedulerKind;

use crate::dialects::field::{
    Address, Choice, Effect, Field, Flag, Image, Label, Name, Names, Number, Numbers, Otherwise, Required,
    Table, Text, Whole,
};

/// The largest image file, sent or fetched.
pub(super) const MAX_IMAGE_BYTES: usize = 30 * 1024 * 1024;
/// Steps between sides that every checkpoint can paint.
pub(super) const SIDE_STEP: u32 = 8;
/// No limit is documented; this one only keeps the tokenizer's work small.
const MAX_PROMPT_CHARS: usize = 10_000;
/// "Max Height: Width: 1024x1024"; the smallest is ours, the vendor's newest page says 256. The default is the newest
/// page's; the sample reply of the seed has it too.
const SIDE: Whole<i64> = Whole {
    range: 64..=1024,
    default: 512,
};
/// Documented nowhere; the other vendor allows 5 of each.
const MAX_ADAPTERS: usize = 5;
/// 2^53: every seed survives a JSON reader that knows only floats.
const MAX_SEED: i64 = 1 << 53;
const FILE_OR_ADDRESS: Image<Required> = Image {
    max_bytes: MAX_IMAGE_BYTES,
    address: true,
    default: Required,
};
const SAFETY_CHECKER_TYPES: &[&str] = &["sensitive_content_text", "blur", "pixelate", "black"];
const SCHEDULERS: &[&str] = &{
    let mut names = [""; SchedulerKind::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = SchedulerKind::ALL[at].class_name();
        at += 1;
    }
    names
};

pub(super) const KEY: Field<Name<Otherwise>> = Field::new(
    "key",
    Name {
        default: Otherwise("the key in a header or the query"),
    },
    "The caller's key, where keys are configured.",
);
pub(super) const MODEL_ID: Field<Name<Otherwise>> = Field::new(
    "model_id",
    Name {
        default: Otherwise("the first checkpoint of the catalogue"),
    },
    "The checkpoint.",
);
/// What `load_vae` calls its VAE.
pub(super) const VAE_ID: Field<Name<Required>> = Field::new(
    "vae_id",
    Name { default: Required },
    "The VAE, by its name in the catalogue.",
);
/// Of the calls about one model.
const WHICH_MODEL: Field<Name<Required>> = Field::new(
    "model_id",
    Name { default: Required },
    "The model, by its name in the catalogue.",
);
pub(super) const PROMPT: Field<Text<Required>> = Field::new(
    "prompt",
    Text {
        max_chars: MAX_PROMPT_CHARS,
        default: Required,
    },
    "What the image should show.",
);
pub(super) const NEGATIVE_PROMPT: Field<Text<Otherwise>> = Field::new(
    "negative_prompt",
    Text {
        max_chars: MAX_PROMPT_CHARS,
        default: Otherwise("none"),
    },
    "What the image should not show.",
);
pub(super) const INIT_IMAGE: Field<Image<Required>> = Field::new(
    "init_image",
    FILE_OR_ADDRESS,
    "The image to start from: an address, a file in base64, or the file of a form.",
);
pub(super) const MASK_IMAGE: Field<Image<Required>> = Field::new(
    "mask_image",
    FILE_OR_ADDRESS,
    "White is repainted, black comes back pixel for pixel; stretched to the size of the result.",
);
/// Ours.
pub(super) const SOFT_EDGE: Field<Whole<i64>> = Field::new(
    "soft_edge",
    Whole {
        // As in `pentimento generate --soft-edge`.
        range: 0..=256,
        default: 0,
    },
    "Pixels inside the mask over which the new part fades in.",
);
/// Ours.
pub(super) const DIFFERENTIAL_DIFFUSION: Field<Flag> = Field::new(
    "differential_diffusion",
    Flag { default: false },
    "Takes the mask's grey for how much each pixel may change, from black, which stays, to white.",
);
pub(super) const WIDTH: Field<Whole<i64>> = Field::new(
    "width",
    SIDE,
    "Pixels per line of the result. Where neither this nor height is given, a model that says its native size, such as the built-in demo, gives the size of init_image within that.",
);
pub(super) const HEIGHT: Field<Whole<i64>> = Field::new("height", SIDE, "Lines of the result. See width.");
pub(super) const SAMPLES: Field<Whole<i64>> = Field::new(
    "samples",
    Whole {
        range: 1..=4,
        default: 1,
    },
    "How many images. Image k uses the seed plus k.",
);
pub(super) const NUM_INFERENCE_STEPS: Field<Whole<i64>> = Field {
    // In some clients.
    aliases: &["steps"],
    ..Field::new(
        "num_inference_steps",
        Whole {
            // The seed says 21, 31 or 41, older pages 1 to 50; what is asked is run.
            range: 1..=150,
            default: 21,
        },
        "Steps of the whole schedule; strength decides how many of them run.",
    )
};
pub(super) const SAFETY_CHECKER: Field<Flag> = Field::new(
    "safety_checker",
    Flag { default: true },
    "Whether unsafe images are replaced.",
);
pub(super) const SAFETY_CHECKER_TYPE: Field<Choice<&str>> = Field {
    effect: Effect::With("safety_checker"),
    ..Field::new(
        "safety_checker_type",
        Choice {
            words: SAFETY_CHECKER_TYPES,
            default: SAFETY_CHECKER_TYPES[0],
        },
        "What an unsafe image is replaced by: grey with a notice, itself blurred or in large squares, or black.",
    )
};
pub(super) const ENHANCE_PROMPT: Field<Flag> = Field::new(
    "enhance_prompt",
    // The vendor's default; the operator may choose the other one.
    Flag { default: true },
    "Whether words of quality are added behind both prompts, as far as they fit; the reply's meta shows them. The operator may have made no the default.",
);
pub(super) const GUIDANCE_SCALE: Field<Number<f64>> = Field::new(
    "guidance_scale",
    Number {
        // "minimum: 1; maximum: 20"; below 1 makes sense for LCM models.
        range: 0.0..=20.0,
        default: 7.5,
    },
    "How much the prompt counts; guidance is on above 1.",
);
pub(super) const STRENGTH: Field<Number<f64>> = Field::new(
    "strength",
    Number {
        range: 0.0..=1.0,
        default: 0.7,
    },
    "0 gives the input back, 1 ignores it.",
);
pub(super) const TOMESD: Field<Flag> = Field::new(
    "tomesd",
    // The vendor's default: whoever wants the image without the approximation says no.
    Flag { default: true },
    "Whether tokens of large images are merged, which is faster and changes the image a little.",
);
pub(super) const USE_KARRAS_SIGMAS: Field<Flag> = Field::new(
    "use_karras_sigmas",
    Flag { default: true },
    "Whether the noise levels are spaced as Karras et al. have them; without a meaning for some schedulers.",
);
pub(super) const ALGORITHM_TYPE: Field<Choice<Otherwise>> = Field::new(
    "algorithm_type",
    Choice {
        words: &["dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"],
        default: Otherwise("the checkpoint's own"),
    },
    "Which variant of the DPM solvers runs.",
);
pub(super) const SCHEDULER: Field<Choice<Otherwise>> = Field::new(
    "scheduler",
    Choice {
        words: SCHEDULERS,
        default: Otherwise("the checkpoint's own"),
    },
    "Which update rule runs; in any case.",
);
pub(super) const VAE: Field<Name<Otherwise>> = Field::new(
    "vae",
    Name {
        default: Otherwise("the checkpoint's own"),
    },
    "Another VAE than the checkpoint's own.",
);
pub(super) const LORA_MODEL: Field<Names> = Field::new(
    "lora_model",
    Names { max: MAX_ADAPTERS },
    "LoRAs for the checkpoint's base, with commas between them.",
);
pub(super) const LORA_STRENGTH: Field<Numbers> = Field {
    effect: Effect::With("lora_model"),
    ..Field::new(
        "lora_strength",
        Numbers {
            // "from minimum 0.1 to maximum 1"; the wider range costs nothing.
            range: -2.0..=2.0,
            default: 1.0,
        },
        "The weights of the LoRAs in their order, 0 leaves one out; a shorter list goes on with its last value.",
    )
};
pub(super) const EMBEDDINGS_MODEL: Field<Names> = Field::new(
    "embeddings_model",
    Names { max: MAX_ADAPTERS },
    "Textual inversions, with commas between them; the name or the token of each is written in a prompt.",
);
pub(super) const SEED: Field<Whole<Otherwise>> = Field::new(
    "seed",
    Whole {
        // -1 is what other services call random.
        range: -1..=MAX_SEED,
        default: Otherwise("a random one, and so for -1"),
    },
    "The seed of the first image.",
);
pub(super) const CLIP_SKIP: Field<Whole<i64>> = Field::new(
    "clip_skip",
    Whole {
        range: 1..=8,
        default: 1,
    },
    "1 uses the text encoder's last layer, 2 the one before it, and so on.",
);
pub(super) const IP_ADAPTER_ID: Field<Name<Otherwise>> = Field::new(
    "ip_adapter_id",
    Name {
        default: Otherwise("none"),
    },
    "An IP-Adapter of the catalogue, which shows the model ip_adapter_image beside the prompt.",
);
pub(super) const IP_ADAPTER_SCALE: Field<Number<f64>> = Field {
    effect: Effect::With("ip_adapter_id"),
    ..Field::new(
        "ip_adapter_scale",
        Number {
            range: 0.0..=1.0,
            default: 1.0,
        },
        "How much the adapter's image counts: 1 as trained, 0 not at all.",
    )
};
pub(super) const IP_ADAPTER_IMAGE: Field<Image<Otherwise>> = Field {
    effect: Effect::With("ip_adapter_id"),
    ..Field::new(
        "ip_adapter_image",
        Image {
            max_bytes: MAX_IMAGE_BYTES,
            address: true,
            default: Otherwise("none; needed with ip_adapter_id"),
        },
        "The adapter's image, of any size; a square one is seen whole.",
    )
};
pub(super) const LOADBALANCER: Field<Flag> = Field::new(
    "loadbalancer",
    Flag { default: true },
    "Whether any machine of a cluster may run the request; no keeps it on the one that took it. A server by itself answers yes with a \
     warning.",
);
pub(super) const BASE64: Field<Flag> = Field::new(
    "base64",
    Flag { default: false },
    "Whether the result is text instead of image files.",
);
pub(super) const TEMP: Field<Flag> = Field {
    effect: Effect::Never,
    ..Field::new(
        "temp",
        Flag { default: false },
        "Links that live for a day, as all links here do.",
    )
};
pub(super) const WEBHOOK: Field<Address> = Field::new(
    "webhook",
    Address { max_bytes: 2048 },
    "Where the end of the job is told; the body is that of the reply.",
);
pub(super) const TRACK_ID: Field<Label<Otherwise>> = Field {
    effect: Effect::With("webhook"),
    ..Field::new(
        "track_id",
        Label {
            max_bytes: 1024,
            default: Otherwise("none"),
        },
        "Sent back with the webhook as it came.",
    )
};
pub(super) const REQUEST_ID: Field<Label<Required>> = Field {
    aliases: &["id"],
    ..Field::new(
        "request_id",
        Label {
            max_bytes: 1024,
            default: Required,
        },
        "The number of the job.",
    )
};

/// Read as [`INIT_IMAGE`].
const LOOKED_AT: Field<Image<Required>> = Field::new("init_image", FILE_OR_ADDRESS, "The image to look at.");
/// Upstream's newest page has it.
pub(super) const THRESHOLD: Field<Number<Otherwise>> = Field::new(
    "threshold",
    Number {
        range: 0.0..=1.0,
        default: Otherwise("the server's setting"),
    },
    "From which score on the image is unsafe; lower finds more.",
);
pub(super) const URL: Field<Image<Required>> = Field::new("url", FILE_OR_ADDRESS, "The image to enlarge.");
/// Of `upload_image`.
pub(super) const BASE64_IMAGE: Field<Image<Required>> = Field::new(
    "base64_image",
    FILE_OR_ADDRESS,
    "The image to keep: a file in base64, an address, or the file of a form.",
);
/// Of `upload_image`. "image_type" of the vendor's page is png, jpeg or jpg.
pub(super) const IMAGE_TYPE: Field<Choice<Otherwise>> = Field::new(
    "image_type",
    Choice {
        words: &["png", "jpeg", "jpg", "webp"],
        default: Otherwise("what the file is"),
    },
    "What the file is said to be; where it is something else, the file counts, and the reply's warning says so.",
);
pub(super) const SCALE: Field<Whole<i64>> = Field::new(
    "scale",
    Whole {
        range: 1..=4,
        // Documented nowhere; the networks that the vendor names are made for it.
        default: 4,
    },
    "How many times longer the sides become.",
);
pub(super) const UPSCALER: Field<Name<Otherwise>> = Field::new(
    "model_id",
    Name {
        default: Otherwise("the small one inside the binary"),
    },
    "The network that enlarges, a model of kind `upscaler`.",
);
pub(super) const FACE_ENHANCE: Field<Flag> = Field {
    effect: Effect::NotYet("face_enhance"),
    ..Field::new(
        "face_enhance",
        Flag { default: false },
        "Whether faces are painted anew.",
    )
};
/// There is no job whose end could be told: the reply has the image.
pub(super) const ENLARGED_WEBHOOK: Field<Address> = Field {
    effect: Effect::NotYet("webhook"),
    ..Field::new(
        "webhook",
        Address { max_bytes: 2048 },
        "Where the end of the job is told.",
    )
};

/// What `img2img` and `inpaint` take, in the order in which warnings name them.
pub(super) const GENERATION: Table = &[
    &KEY,
    &MODEL_ID,
    &PROMPT,
    &NEGATIVE_PROMPT,
    &INIT_IMAGE,
    &WIDTH,
    &HEIGHT,
    &SAMPLES,
    &NUM_INFERENCE_STEPS,
    &SAFETY_CHECKER,
    &SAFETY_CHECKER_TYPE,
    &ENHANCE_PROMPT,
    &GUIDANCE_SCALE,
    &STRENGTH,
    &TOMESD,
    &USE_KARRAS_SIGMAS,
    &ALGORITHM_TYPE,
    &VAE,
    &LORA_STRENGTH,
    &LORA_MODEL,
    &EMBEDDINGS_MODEL,
    &SEED,
    &SCHEDULER,
    &LOADBALANCER,
    &CLIP_SKIP,
    &IP_ADAPTER_ID,
    &IP_ADAPTER_SCALE,
    &IP_ADAPTER_IMAGE,
    &WEBHOOK,
    &TRACK_ID,
    &BASE64,
    &TEMP,
];
/// What `inpaint` takes beside them. `img2img` knows these too, and leaves them unread as upstream does.
pub(super) const MASK: Table = &[&MASK_IMAGE, &SOFT_EDGE, &DIFFERENTIAL_DIFFUSION];
/// What `fetch` takes where the path has no number.
const FETCH: Table = &[&KEY, &REQUEST_ID];
/// What `verify_model`, `load_model` and `delete_model` take.
const ONE_MODEL: Table = &[&KEY, &WHICH_MODEL];
/// What `load_vae` takes.
const LOAD_VAE: Table = &[&KEY, &VAE_ID];
/// What `nsfw_image_check` takes.
const NSFW_IMAGE_CHECK: Table = &[&KEY, &LOOKED_AT, &THRESHOLD];
/// What `super_resolution` takes, in the order in which warnings name them.
pub(super) const SUPER_RESOLUTION: Table = &[&KEY, &URL, &SCALE, &UPSCALER, &FACE_ENHANCE, &ENLARGED_WEBHOOK];
/// What `upload_image` takes.
const UPLOAD_IMAGE: Table = &[&KEY, &BASE64_IMAGE, &IMAGE_TYPE];
/// What the calls take that act on the server or ask about it, and `fetch` with the number in its path.
const ONLY_KEY: Table = &[&KEY];
/// All calls with fields: method, path, tables.
pub(crate) const ENDPOINTS: &[(&str, &str, &[Table])] = &[
    ("POST", "/api/v1/enterprise/img2img", &[GENERATION]),
    ("POST", "/api/v1/enterprise/inpaint", &[GENERATION, MASK]),
    ("POST", "/api/v1/enterprise/fetch", &[FETCH]),
    ("POST", "/api/v1/enterprise/fetch/{id}", &[ONLY_KEY]),
    ("POST", "/api/v1/enterprise/verify_model", &[ONE_MODEL]),
    ("POST", "/api/v1/enterprise/load_model", &[ONE_MODEL]),
    ("POST", "/api/v1/enterprise/load_model_v2", &[ONE_MODEL]),
    ("POST", "/api/v1/enterprise/load_vae", &[LOAD_VAE]),
    ("POST", "/api/v1/enterprise/delete_model", &[ONE_MODEL]),
    ("POST", "/api/v1/enterprise/nsfw_image_check", &[NSFW_IMAGE_CHECK]),
    ("POST", "/api/v1/enterprise/super_resolution", &[SUPER_RESOLUTION]),
    ("POST", "/api/v1/enterprise/upload_image", &[UPLOAD_IMAGE]),
    ("POST", "/api/v1/enterprise/clear_queue", &[ONLY_KEY]),
    ("POST", "/api/v1/enterprise/clear_cache", &[ONLY_KEY]),
    ("POST", "/api/v1/enterprise/restart_server", &[ONLY_KEY]),
    ("POST", "/api/v1/enterprise/system_details", &[ONLY_KEY]),
    ("POST", "/api/v1/enterprise/schedulers_list", &[ONLY_KEY]),
    ("POST", "/api/v1/enterprise/get_all_models", &[ONLY_KEY]),
];
/// All that is known: a client that sends a field of one call with another is told nothing about it.
pub(super) const ALL: &[Table] = &[
    GENERATION,
    MASK,
    &[&REQUEST_ID],
    NSFW_IMAGE_CHECK,
    SUPER_RESOLUTION,
    UPLOAD_IMAGE,
];
