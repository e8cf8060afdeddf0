//! Every field of this dialect's calls: names, ranges, defaults. The only place that has them.

use pentimento_types::ImageFormat;

use crate::dialects::field::{
    Anything, Choice, Effect, Field, Image, ListOf, Name, Number, ObjectOf, Otherwise, Required, Table, Text,
    Whole,
};

/// The `source` of every model here.
pub(super) const OWN_SOURCE: &str = "uploading";
/// "maximum resolution of 2048 * 2048"
pub(super) const MAX_IMAGE_SIDE: u32 = 2048;
/// "Range [1, 1024]"; characters, not bytes.
const MAX_PROMPT_CHARS: usize = 1024;
/// "supports up to 5 LoRAs", "up to 5 embeddings"
const MAX_ADAPTERS: usize = 5;
/// 2^53: every seed survives a JSON reader that knows only floats.
const MAX_SEED: i64 = 1 << 53;

pub(super) const MODEL_NAME: Field<Name<Required>> = Field::new(
    "model_name",
    Name { default: Required },
    "The checkpoint, by its `sd_name_in_api`.",
);
pub(super) const INPUT_IMAGE: Field<Image<Required>> = Field::new(
    "input_image",
    Image {
        // "max file size of 30 Mb"; read as MiB, the larger reading.
        max_bytes: 30 * 1024 * 1024,
        address: false,
        default: Required,
    },
    "The image to start from: a PNG, JPEG or WebP file in base64, at most 2048 pixels on a side. The result has its size, or what a small model reduces it to (`native_size` in the catalogue).",
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
pub(super) const IMAGE_NUM: Field<Whole<i64>> = Field::new(
    "image_num",
    Whole {
        range: 1..=16,
        default: 1,
    },
    "How many images. Image k uses the seed plus k.",
);
pub(super) const SD_VAE: Field<Name<Otherwise>> = Field::new(
    "sd_vae",
    Name {
        default: Otherwise("the checkpoint's own"),
    },
    "Another VAE than the checkpoint's own.",
);
pub(super) const LORAS: Field<ListOf> = Field::new(
    "loras",
    ListOf {
        max: MAX_ADAPTERS,
        members: LORA,
    },
    "LoRAs with their weights, for the checkpoint's base.",
);
pub(super) const EMBEDDINGS: Field<ListOf> = Field::new(
    "embeddings",
    ListOf {
        max: MAX_ADAPTERS,
        members: EMBEDDING,
    },
    "Textual inversions; the name or the token of each is written in a prompt.",
);
pub(super) const STEPS: Field<Whole<i64>> = Field::new(
    "steps",
    Whole {
        range: 1..=8,
        // The Python client's dataclass has it as the default; it is also the documented maximum.
        default: 8,
    },
    "How many steps run; all of them, whatever the strength.",
);
pub(super) const GUIDANCE_SCALE: Field<Number<f64>> = Field::new(
    "guidance_scale",
    Number {
        // The documentation says [0, 3], the JS client tells its users [2, 14]; the union costs nothing.
        range: 0.0..=14.0,
        // The Python client's dataclass again.
        default: 0.0,
    },
    "How much the prompt counts; guidance is on above 1.",
);
pub(super) const SEED: Field<Whole<Otherwise>> = Field::new(
    "seed",
    Whole {
        range: -1..=MAX_SEED,
        default: Otherwise("a random one, and so for -1"),
    },
    "The seed of the first image; the reply repeats it.",
);
pub(super) const CLIP_SKIP: Field<Whole<i64>> = Field::new(
    "clip_skip",
    Whole {
        range: 1..=12,
        default: 1,
    },
    "1 uses the text encoder's last layer, 2 the one before it, and so on.",
);
pub(super) const STRENGTH: Field<Number<f64>> = Field::new(
    "strength",
    Number {
        range: 0.0..=1.0,
        // Documented nowhere; the vendor's own test sends it.
        default: 0.5,
    },
    "How far from the input the run starts: 0 gives it back, 1 ignores it.",
);
pub(super) const EXTRA: Field<ObjectOf> = Field::new(
    "extra",
    ObjectOf {
        members: EXTRA_MEMBERS,
    },
    "How the result is handed over.",
);

pub(super) const RESPONSE_IMAGE_TYPE: Field<Choice<&str>> = Field::new(
    "response_image_type",
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
/// The async siblings'.
pub(super) const ENABLE_NSFW_DETECTION: Field<Choice<&str>> = Field::new(
    "enable_nsfw_detection",
    Choice {
        words: &["true", "false"],
        default: "false",
    },
    "Whether the images are looked at for unsafe content; each then has an `nsfw_detection_result`.",
);
/// The async siblings'.
pub(super) const NSFW_DETECTION_LEVEL: Field<Whole<i64>> = Field {
    effect: Effect::With("enable_nsfw_detection"),
    ..Field::new(
        "nsfw_detection_level",
        Whole {
            range: 0..=2,
            default: 0,
        },
        "What is unsafe: 0 sexual acts and uncovered genitals, 1 also what mostly suggests such, 2 also underwear and swimwear.",
    )
};
/// The JS client's.
const ENTERPRISE_PLAN: Field<Anything> = Field {
    effect: Effect::Never,
    ..Field::new("enterprise_plan", Anything, "The vendor's own plans.")
};
pub(super) const ADAPTER_NAME: Field<Name<Required>> =
    Field::new("model_name", Name { default: Required }, "Its `sd_name_in_api`.");
/// The seed's example spells the weight `strenth`, the JS client's type `strength`.
pub(super) const LORA_STRENGTH: Field<Number<f64>> = Field {
    aliases: &["strenth"],
    ..Field::new(
        "strength",
        Number {
            // Documented nowhere; beyond it a LoRA only destroys the image.
            range: -10.0..=10.0,
            default: 1.0,
        },
        "Its weight; 1 applies it as trained, 0 leaves it out.",
    )
};

/// `filter.types` in the documentation.
const TYPES: Field<Name<Otherwise>> = Field {
    aliases: &["type"],
    ..Field::new(
        "types",
        Name {
            default: Otherwise("all"),
        },
        "Which kinds: checkpoint, lora, vae, textualinversion; with commas between them, or given several times.",
    )
};
const VISIBILITY: Field<Choice<Otherwise>> = Field::new(
    "visibility",
    Choice {
        words: &["public", "private"],
        default: Otherwise("both"),
    },
    "All models are public.",
);
const QUERY: Field<Name<Otherwise>> = Field {
    aliases: &["querystring"],
    ..Field::new(
        "query",
        Name {
            default: Otherwise("all"),
        },
        "A part of the name, in any case.",
    )
};
const IS_SDXL: Field<Choice<Otherwise>> = filter("is_sdxl", "Whether SDXL models are listed, or all others.");
const IS_INPAINTING: Field<Choice<Otherwise>> =
    filter("is_inpainting", "Nothing is marked as an inpainting model.");
const IS_NSFW: Field<Choice<Otherwise>> = filter("is_nsfw", "Nothing is marked as unsafe.");
const SOURCE: Field<Choice<Otherwise>> = Field::new(
    "source",
    Choice {
        words: &["civitai", "training", OWN_SOURCE],
        default: Otherwise("all"),
    },
    "Where the models come from; all of one's own catalogue count as uploaded.",
);
pub(super) const LIMIT: Field<Whole<i64>> = Field::new(
    "limit",
    Whole {
        range: 1..=100,
        default: 100,
    },
    "How many models a page has.",
);
const CURSOR: Field<Name<Otherwise>> = Field::new(
    "cursor",
    Name {
        default: Otherwise("the first page"),
    },
    "The `next_cursor` of the page before.",
);

const fn filter(name: &'static str, text: &'static str) -> Field<Choice<Otherwise>> {
    let kind = Choice {
        words: &["true", "false"],
        default: Otherwise("both"),
    };
    Field::new(name, kind, text)
}

/// The query of the model lists; each name may have `filter.` or `pagination.` in front.
const MODEL_QUERY: Table = &[
    &TYPES,
    &VISIBILITY,
    &QUERY,
    &IS_SDXL,
    &IS_INPAINTING,
    &IS_NSFW,
    &SOURCE,
    &LIMIT,
    &CURSOR,
];
/// The body, in the order of the documentation, with `strength` where the table has it.
pub(super) const BODY: Table = &[
    &EXTRA,
    &MODEL_NAME,
    &INPUT_IMAGE,
    &PROMPT,
    &NEGATIVE_PROMPT,
    &IMAGE_NUM,
    &SD_VAE,
    &LORAS,
    &EMBEDDINGS,
    &STEPS,
    &GUIDANCE_SCALE,
    &SEED,
    &CLIP_SKIP,
    &STRENGTH,
];
/// All calls with fields: method, path, tables.
pub(crate) const ENDPOINTS: &[(&str, &str, &[Table])] = &[
    ("POST", "/v3/lcm-img2img", &[BODY]),
    ("GET", "/v3/model", &[MODEL_QUERY]),
];
const EXTRA_MEMBERS: Table = &[
    &RESPONSE_IMAGE_TYPE,
    &ENABLE_NSFW_DETECTION,
    &NSFW_DETECTION_LEVEL,
    &ENTERPRISE_PLAN,
];
/// One LoRA.
const LORA: Table = &[&ADAPTER_NAME, &LORA_STRENGTH];
/// One embedding.
const EMBEDDING: Table = &[&ADAPTER_NAME];
