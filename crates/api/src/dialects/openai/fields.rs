//! Every field of this dialect's calls: names, ranges, defaults. The only place that has them.
//!
//! The first ones are OpenAI's, as its published clients send them (`openai` 3.57 for Python); those after them are ours, for
//! the clients' `extra_body`.

use pentimento_types::{ImageFormat, SchedulerKind};

use crate::dialects::field::{
    Choice, Effect, Field, Image, Label, ListOf, Name, Number, Otherwise, Required, Table, Text, Whole,
};

/// The largest image file, sent or fetched.
pub(crate) const MAX_IMAGE_BYTES: usize = 30 * 1024 * 1024;
/// Of a result, in pixels.
pub(crate) const LEAST_SIDE: u32 = 64;
/// The same.
pub(crate) const LONGEST_SIDE: u32 = 2048;
/// Steps between sides that every checkpoint can paint.
pub(crate) const SIDE_STEP: u32 = 8;
/// "The maximum length is 32000 characters"
const MAX_PROMPT_CHARS: usize = 32_000;
/// "You can provide up to 16 images."
pub(crate) const MAX_IMAGES: usize = 16;
const MAX_ADAPTERS: usize = 5;
/// 2^53: every seed survives a JSON reader that knows only floats.
const MAX_SEED: i64 = 1 << 53;
const FLAG: &[&str] = &["true", "false"];
const SCHEDULERS: &[&str] = &{
    let mut names = [""; SchedulerKind::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = SchedulerKind::ALL[at].class_name();
        at += 1;
    }
    names
};

pub(crate) const MODEL: Field<Name<Otherwise>> = Field::new(
    "model",
    Name {
        default: Otherwise("the first checkpoint of the catalogue"),
    },
    "The checkpoint. OpenAI's own names (`gpt-image-…`, `chatgpt-image-…`, `dall-e-…`) mean the default one, unless the catalogue has such a name or alias.",
);
pub(crate) const PROMPT: Field<Text<Required>> = Field::new(
    "prompt",
    Text {
        max_chars: MAX_PROMPT_CHARS,
        default: Required,
    },
    "What the image should show.",
);
/// Of a variation, where OpenAI has none.
pub(crate) const OWN_PROMPT: Field<Text<Otherwise>> = Field::new(
    "prompt",
    Text {
        max_chars: MAX_PROMPT_CHARS,
        default: Otherwise("the image alone counts"),
    },
    "What the variation should show. Not in the original.",
);
pub(crate) const IMAGE: Field<Image<Otherwise>> = Field {
    aliases: &["image[]"],
    ..Field::new(
        "image",
        Image {
            max_bytes: MAX_IMAGE_BYTES,
            address: true,
            default: Otherwise("images, of which one must be there"),
        },
        "The image to start from: the file of a form, or a text. A second one is for ip_adapter; more than that are refused.",
    )
};
pub(crate) const IMAGES: Field<ListOf> = Field::new(
    "images",
    ListOf {
        max: MAX_IMAGES,
        members: REFERENCE,
    },
    "The same in a JSON body.",
);
pub(crate) const IMAGE_URL: Field<Image<Otherwise>> = Field::new(
    "image_url",
    Image {
        max_bytes: MAX_IMAGE_BYTES,
        address: true,
        default: Otherwise("refused"),
    },
    "The image.",
);
pub(crate) const FILE_ID: Field<Name<Otherwise>> = Field::new(
    "file_id",
    Name {
        default: Otherwise("image_url"),
    },
    "Refused: no files are kept here.",
);
pub(crate) const MASK: Field<Image<Otherwise>> = Field {
    aliases: &["mask[]"],
    ..Field::new(
        "mask",
        Image {
            max_bytes: MAX_IMAGE_BYTES,
            address: true,
            default: Otherwise("the whole image is edited"),
        },
        "What is transparent in it is edited, and all else comes back pixel for pixel; stretched to the size of the result. In a JSON body it may be an object with image_url.",
    )
};
pub(crate) const MARKUP: Field<Name<Otherwise>> = Field::new(
    "markup",
    Name {
        default: Otherwise("nothing"),
    },
    "Refused: models here read no drawings on the image.",
);
pub(crate) const N: Field<Whole<i64>> = Field::new(
    "n",
    Whole {
        range: 1..=10,
        default: 1,
    },
    "How many images. Image k uses the seed plus k.",
);
pub(crate) const SIZE: Field<Name<Otherwise>> = Field::new(
    "size",
    Name {
        default: Otherwise("auto: the size of the image; without an image 512x512, and 1024x1024 for SDXL"),
    },
    "WIDTHxHEIGHT, multiples of 8 from 64 to 2048, or auto. An image is stretched to it.",
);
pub(crate) const QUALITY: Field<Choice<&str>> = Field::new(
    "quality",
    Choice {
        words: &["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"],
        default: "auto",
    },
    "How many steps run: low 10, medium 20, high 30, xhigh 40, max 50; auto and standard are medium, hd is high.",
);
pub(crate) const OUTPUT_FORMAT: Field<Choice<&str>> = Field::new(
    "output_format",
    Choice {
        words: &[
            ImageFormat::Png.as_str(),
            ImageFormat::Jpeg.as_str(),
            ImageFormat::Webp.as_str(),
        ],
        default: ImageFormat::Png.as_str(),
    },
    "How the images are encoded.",
);
pub(crate) const OUTPUT_COMPRESSION: Field<Whole<Otherwise>> = Field::new(
    "output_compression",
    Whole {
        range: 0..=100,
        default: Otherwise("95"),
    },
    "The quality of JPEG files. PNG and WebP files lose nothing here, so that it has no effect on them.",
);
pub(crate) const RESPONSE_FORMAT: Field<Choice<Otherwise>> = Field::new(
    "response_format",
    Choice {
        words: &["url", "b64_json"],
        default: Otherwise("url for models whose name begins with dall-e, else b64_json"),
    },
    "Whether the reply has signed links or the files themselves. A stream has files.",
);
pub(crate) const BACKGROUND: Field<Choice<&str>> = Field::new(
    "background",
    Choice {
        words: &["auto", "opaque"],
        default: "auto",
    },
    "Images are opaque; `transparent` is refused.",
);
pub(crate) const INPUT_FIDELITY: Field<Choice<Otherwise>> = Field::new(
    "input_fidelity",
    Choice {
        words: &["low", "high"],
        default: Otherwise("low; with a mask a strength of 1"),
    },
    "How close the result stays to the image: low is a strength of 0.75, high one of 0.5.",
);
pub(crate) const STREAM: Field<Choice<&str>> = Field::new(
    "stream",
    Choice {
        words: FLAG,
        default: "false",
    },
    "Whether the reply is a stream of server-sent events.",
);
pub(crate) const PARTIAL_IMAGES: Field<Whole<i64>> = Field {
    effect: Effect::With("stream"),
    ..Field::new(
        "partial_images",
        Whole {
            range: 0..=3,
            default: 0,
        },
        "How many previews come before the images at most: small JPEG files. A fast run has fewer.",
    )
};
const MODERATION: Field<Choice<&str>> = Field {
    effect: Effect::Never,
    ..Field::new(
        "moderation",
        Choice {
            words: &["auto", "low"],
            default: "auto",
        },
        "What is done about unsafe images is the operator's setting.",
    )
};
const STYLE: Field<Choice<Otherwise>> = Field {
    effect: Effect::Never,
    ..Field::new(
        "style",
        Choice {
            words: &["vivid", "natural"],
            default: Otherwise("nothing"),
        },
        "Of models that are retired upstream.",
    )
};
const USER: Field<Label<Otherwise>> = Field {
    aliases: &["safety_identifier"],
    effect: Effect::Never,
    ..Field::new(
        "user",
        Label {
            max_bytes: 1024,
            default: Otherwise("nothing"),
        },
        "Who the caller asks for.",
    )
};

pub(crate) const NEGATIVE_PROMPT: Field<Text<Otherwise>> = Field::new(
    "negative_prompt",
    Text {
        max_chars: MAX_PROMPT_CHARS,
        default: Otherwise("none"),
    },
    "What the image should not show.",
);
pub(crate) const SEED: Field<Whole<Otherwise>> = Field::new(
    "seed",
    Whole {
        range: -1..=MAX_SEED,
        default: Otherwise("a random one, and so for -1"),
    },
    "The seed of the first image; the reply repeats it.",
);
pub(crate) const STRENGTH: Field<Number<Otherwise>> = Field::new(
    "strength",
    Number {
        range: 0.0..=1.0,
        default: Otherwise("what input_fidelity says; 0.5 for a variation"),
    },
    "0 gives the image back, 1 ignores it.",
);
pub(crate) const STEPS: Field<Whole<Otherwise>> = Field {
    aliases: &["num_inference_steps"],
    ..Field::new(
        "steps",
        Whole {
            range: 1..=150,
            default: Otherwise("what quality says"),
        },
        "Steps of the whole schedule; strength decides how many of them run.",
    )
};
pub(crate) const GUIDANCE_SCALE: Field<Number<f64>> = Field::new(
    "guidance_scale",
    Number {
        range: 0.0..=20.0,
        default: 7.5,
    },
    "How much the prompt counts; guidance is on above 1. Without a prompt it is off.",
);
pub(crate) const SCHEDULER: Field<Choice<Otherwise>> = Field::new(
    "scheduler",
    Choice {
        words: SCHEDULERS,
        default: Otherwise("the checkpoint's own"),
    },
    "Which update rule runs; in any case, and with or without the word Scheduler.",
);
pub(crate) const USE_KARRAS_SIGMAS: Field<Choice<&str>> = Field::new(
    "use_karras_sigmas",
    Choice {
        words: FLAG,
        default: "false",
    },
    "Whether the noise levels are spaced as Karras et al. have them; refused for schedulers that know no such levels.",
);
pub(crate) const CLIP_SKIP: Field<Whole<i64>> = Field::new(
    "clip_skip",
    Whole {
        range: 1..=12,
        default: 1,
    },
    "1 uses the text encoder's last layer, 2 the one before it, and so on.",
);
pub(crate) const VAE: Field<Name<Otherwise>> = Field::new(
    "vae",
    Name {
        default: Otherwise("the checkpoint's own"),
    },
    "Another VAE than the checkpoint's own.",
);
pub(crate) const LORAS: Field<ListOf> = Field::new(
    "loras",
    ListOf {
        max: MAX_ADAPTERS,
        members: LORA,
    },
    "LoRAs with their weights, for the checkpoint's base; in a form as `loras[][model]`, or as a JSON text.",
);
pub(crate) const LORA_MODEL: Field<Name<Required>> =
    Field::new("model", Name { default: Required }, "Its name in the catalogue.");
pub(crate) const LORA_STRENGTH: Field<Number<f64>> = Field::new(
    "strength",
    Number {
        range: -10.0..=10.0,
        default: 1.0,
    },
    "Its weight; 1 applies it as trained, 0 leaves it out.",
);
pub(crate) const SOFT_EDGE: Field<Whole<i64>> = Field {
    effect: Effect::With("mask"),
    ..Field::new(
        "soft_edge",
        Whole {
            range: 0..=256,
            default: 0,
        },
        "Pixels inside the mask over which the new part fades in.",
    )
};
pub(crate) const DIFFERENTIAL_DIFFUSION: Field<Choice<&str>> = Field {
    effect: Effect::With("mask"),
    ..Field::new(
        "differential_diffusion",
        Choice {
            words: FLAG,
            default: "false",
        },
        "Takes the mask's transparency for how much each pixel may change, from opaque, which stays, to transparent.",
    )
};
pub(crate) const IP_ADAPTER: Field<Name<Otherwise>> = Field::new(
    "ip_adapter",
    Name {
        default: Otherwise("none"),
    },
    "An IP-Adapter of the catalogue, which shows the model the second image beside the prompt.",
);
pub(crate) const IP_ADAPTER_SCALE: Field<Number<f64>> = Field {
    effect: Effect::With("ip_adapter"),
    ..Field::new(
        "ip_adapter_scale",
        Number {
            range: 0.0..=1.0,
            default: 1.0,
        },
        "How much the second image counts: 1 as trained, 0 not at all.",
    )
};

/// An image of a JSON body.
const REFERENCE: Table = &[&IMAGE_URL, &FILE_ID];
/// One LoRA.
const LORA: Table = &[&LORA_MODEL, &LORA_STRENGTH];
/// What begins with an image.
const EDIT: Table = &[
    &IMAGE,
    &IMAGES,
    &PROMPT,
    &MASK,
    &MARKUP,
    &MODEL,
    &N,
    &SIZE,
    &QUALITY,
    &INPUT_FIDELITY,
];
const GENERATION: Table = &[&PROMPT, &MODEL, &N, &SIZE, &QUALITY, &STYLE];
const VARIATION: Table = &[&IMAGE, &IMAGES, &MODEL, &N, &SIZE, &OWN_PROMPT, &QUALITY];
/// How all of them are handed over.
const HANDING_OVER: Table = &[
    &OUTPUT_FORMAT,
    &OUTPUT_COMPRESSION,
    &RESPONSE_FORMAT,
    &BACKGROUND,
    &STREAM,
    &PARTIAL_IMAGES,
    &MODERATION,
    &USER,
];
/// Ours, for all of them.
const OWN: Table = &[
    &NEGATIVE_PROMPT,
    &SEED,
    &STEPS,
    &GUIDANCE_SCALE,
    &SCHEDULER,
    &USE_KARRAS_SIGMAS,
    &CLIP_SKIP,
    &VAE,
    &LORAS,
];
/// Ours, where there is an image.
const OWN_OF_IMAGE: Table = &[&STRENGTH, &IP_ADAPTER, &IP_ADAPTER_SCALE];
const OWN_OF_MASK: Table = &[&SOFT_EDGE, &DIFFERENTIAL_DIFFUSION];

pub(crate) const EDIT_TABLES: &[Table] = &[EDIT, HANDING_OVER, OWN, OWN_OF_IMAGE, OWN_OF_MASK];
pub(crate) const GENERATION_TABLES: &[Table] = &[GENERATION, HANDING_OVER, OWN];
pub(crate) const VARIATION_TABLES: &[Table] = &[VARIATION, HANDING_OVER, OWN, OWN_OF_IMAGE];

/// All calls with fields: method, path, tables.
pub(crate) const ENDPOINTS: &[(&str, &str, &[Table])] = &[
    ("POST", "/v1/images/edits", EDIT_TABLES),
    ("POST", "/v1/images/generations", GENERATION_TABLES),
    ("POST", "/v1/images/variations", VARIATION_TABLES),
];
