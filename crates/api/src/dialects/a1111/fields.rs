//! Every field of this dialect's calls: names, ranges, defaults. The only place that has them.
//!
//! Names and defaults are those of A1111's `StableDiffusionProcessing…` classes (`modules/processing.py`), which its API takes.

use crate::dialects::field::{
    Anything, Choice, Effect, Field, Image, Images, Name, Number, ObjectOf, Only, Otherwise, Required, Table,
    Text, Whole,
};

/// No limit there; this one only keeps the tokenizer's work small.
const MAX_PROMPT_CHARS: usize = 10_000;
/// LoRAs that a prompt may name.
pub(super) const MAX_LORAS: usize = 5;
/// The largest weight of one; beyond it a LoRA only destroys the image.
pub(super) const MAX_LORA_WEIGHT: f64 = 10.0;
/// The largest image file.
const MAX_IMAGE_BYTES: usize = 30 * 1024 * 1024;
/// The longest side of an image that is sent; what is computed has the sides that the call names.
pub(super) const MAX_IMAGE_SIDE: u32 = 8192;
/// Of what is computed.
pub(super) const SIDE_STEP: u32 = 8;
/// Images of one call.
pub(super) const MAX_IMAGES: i64 = 16;
/// 2^53: every seed survives a JSON reader that knows only floats.
const MAX_SEED: i64 = 1 << 53;
/// Its sliders' range of sides.
const SIDE: Whole<i64> = Whole {
    range: 64..=2048,
    default: 512,
};

/// A flag as JSON has it.
const fn flag(name: &'static str, default: &'static str, text: &'static str) -> Field<Choice<&'static str>> {
    let words = &["true", "false"];
    Field::new(name, Choice { words, default }, text)
}

/// What is refused unless it has a value that means "not this".
const fn only(name: &'static str, values: &'static [&'static str], text: &'static str) -> Field<Only> {
    Field::new(name, Only { values }, text)
}

/// The same fields for whoever reads them and for whoever lists them.
macro_rules! refused {
    ($(#[$about:meta])* $fields:ident, $table:ident: $($field:expr),+ $(,)?) => {
        $(#[$about])*
        pub(super) const $fields: &[&Field<Only>] = &[$(&$field),+];
        const $table: Table = &[$(&$field),+];
    };
}

/// What says more about something that is not computed here, or that is done in any case.
const fn unused(name: &'static str, text: &'static str) -> Field<Anything> {
    Field {
        effect: Effect::Never,
        ..Field::new(name, Anything, text)
    }
}

pub(super) const PROMPT: Field<Text<&str>> = Field::new(
    "prompt",
    Text {
        max_chars: MAX_PROMPT_CHARS,
        default: "",
    },
    "What the image should show. `<lora:name:0.8>` applies a LoRA and is taken out.",
);
pub(super) const NEGATIVE_PROMPT: Field<Text<&str>> = Field::new(
    "negative_prompt",
    Text {
        max_chars: MAX_PROMPT_CHARS,
        default: "",
    },
    "What the image should not show.",
);
pub(super) const STYLES: Field<Anything> = Field {
    effect: Effect::NotYet("styles"),
    ..Field::new("styles", Anything, "Names of styles; this server has none.")
};
pub(super) const INIT_IMAGES: Field<Images> = Field::new(
    "init_images",
    Images {
        max: MAX_IMAGES as usize,
        max_bytes: MAX_IMAGE_BYTES,
    },
    "The images to start from: PNG, JPEG or WebP files in base64, with or without `data:` in front. Of several each gives one image, image k with the seed plus k.",
);
pub(super) const MASK: Field<Image<Otherwise>> = Field::new(
    "mask",
    Image {
        max_bytes: MAX_IMAGE_BYTES,
        address: false,
        default: Otherwise("all is painted anew"),
    },
    "White is painted anew, black stays. Of a mask with transparent parts the opaque ones are painted.",
);
pub(super) const MASK_BLUR: Field<Whole<Otherwise>> = Field::new(
    "mask_blur",
    Whole {
        range: 0..=64,
        default: Otherwise("mask_blur_x and mask_blur_y"),
    },
    "Blurs the mask by a Gaussian of this standard deviation, in pixels of the mask.",
);
pub(super) const MASK_BLUR_X: Field<Whole<i64>> = Field {
    effect: Effect::With("mask"),
    ..Field::new(
        "mask_blur_x",
        Whole {
            range: 0..=64,
            default: 4,
        },
        "The same across alone.",
    )
};
pub(super) const MASK_BLUR_Y: Field<Whole<i64>> = Field {
    effect: Effect::With("mask"),
    ..Field::new(
        "mask_blur_y",
        Whole {
            range: 0..=64,
            default: 4,
        },
        "The same down alone.",
    )
};
pub(super) const INPAINTING_FILL: Field<Whole<i64>> = Field {
    effect: Effect::With("mask"),
    ..Field::new(
        "inpainting_fill",
        Whole {
            range: 0..=3,
            default: 0,
        },
        "What the masked part holds in the beginning: 0 the colours around it, 1 what is there. 2 (latent noise) and 3 (latent nothing) are refused.",
    )
};
pub(super) const INPAINT_FULL_RES: Field<Choice<&str>> = Field {
    effect: Effect::With("mask"),
    ..flag(
        "inpaint_full_res",
        "true",
        "Whether only the masked part is cut out, computed in `width` by `height` pixels, and put back.",
    )
};
pub(super) const INPAINT_FULL_RES_PADDING: Field<Whole<i64>> = Field {
    effect: Effect::With("inpaint_full_res"),
    ..Field::new(
        "inpaint_full_res_padding",
        Whole {
            range: 0..=1024,
            default: 0,
        },
        "Pixels around it that are cut out with it.",
    )
};
pub(super) const INPAINTING_MASK_INVERT: Field<Whole<i64>> = Field {
    effect: Effect::With("mask"),
    ..Field::new(
        "inpainting_mask_invert",
        Whole {
            range: 0..=1,
            default: 0,
        },
        "1 paints what is black.",
    )
};
pub(super) const RESIZE_MODE: Field<Whole<i64>> = Field::new(
    "resize_mode",
    Whole {
        range: 0..=3,
        default: 0,
    },
    "How an image comes to `width` by `height`: 0 stretched, 1 cropped, 2 with its edges drawn out. 3 (enlarged as latents) is refused.",
);
pub(super) const DENOISING_STRENGTH: Field<Number<f64>> = Field::new(
    "denoising_strength",
    Number {
        range: 0.0..=1.0,
        default: 0.75,
    },
    "How far from the image the run starts: `int(strength * steps) + 1` steps run, and none at 0.",
);
/// Of a call without an image it is about the second pass.
const DENOISING_STRENGTH_UNUSED: Field<Anything> = unused(
    "denoising_strength",
    "Of a second pass that enlarges, which is not computed here.",
);
pub(super) const SEED: Field<Whole<Otherwise>> = Field::new(
    "seed",
    Whole {
        range: -1..=MAX_SEED,
        default: Otherwise("a random one, and so for -1"),
    },
    "The seed of the first image; image k uses it plus k. The noise is PyTorch's of the CPU.",
);
pub(super) const SAMPLER_NAME: Field<Name<&str>> = Field {
    aliases: &["sampler_index"],
    ..Field::new(
        "sampler_name",
        Name { default: "Euler" },
        "The sampler, as `GET /sdapi/v1/samplers` names it; with ` Karras` behind it, too.",
    )
};
pub(super) const SCHEDULER: Field<Name<&str>> = Field::new(
    "scheduler",
    Name { default: "Automatic" },
    "`Karras` spaces the noise levels so, `Automatic` as the checkpoint says. Others are refused.",
);
pub(super) const STEPS: Field<Whole<i64>> = Field::new(
    "steps",
    Whole {
        range: 1..=150,
        default: 50,
    },
    "Steps of the whole schedule.",
);
pub(super) const CFG_SCALE: Field<Number<f64>> = Field::new(
    "cfg_scale",
    Number {
        range: 0.0..=30.0,
        default: 7.0,
    },
    "How much the prompt counts; guidance is on above 1.",
);
pub(super) const WIDTH: Field<Whole<i64>> = Field::new(
    "width",
    SIDE,
    "Pixels per line of what is computed; a multiple of 8.",
);
pub(super) const HEIGHT: Field<Whole<i64>> =
    Field::new("height", SIDE, "Lines of what is computed; a multiple of 8.");
pub(super) const BATCH_SIZE: Field<Whole<i64>> = Field::new(
    "batch_size",
    Whole {
        range: 1..=MAX_IMAGES,
        default: 1,
    },
    "How many images; of several `init_images` there is one of each instead.",
);
pub(super) const N_ITER: Field<Whole<i64>> = Field::new(
    "n_iter",
    Whole {
        range: 1..=MAX_IMAGES,
        default: 1,
    },
    "How often so many; 16 images in all at most.",
);
pub(super) const ETA: Field<Number<Otherwise>> = Field::new(
    "eta",
    Number {
        range: 0.0..=1.0,
        default: Otherwise("0 for DDIM, 1 for ancestral samplers"),
    },
    "How much noise a sampler adds: anything but these defaults is refused where a sampler adds any.",
);
pub(super) const OVERRIDE_SETTINGS: Field<ObjectOf> = Field::new(
    "override_settings",
    ObjectOf { members: OPTIONS },
    "Options of this call alone.",
);
pub(super) const OVERRIDE_SETTINGS_RESTORE_AFTERWARDS: Field<Choice<&str>> = flag(
    "override_settings_restore_afterwards",
    "true",
    "Whether the caller's own options stay as they are; else these are kept for the same key.",
);
pub(super) const SEND_IMAGES: Field<Choice<&str>> = flag(
    "send_images",
    "true",
    "Whether the reply has the images; they are kept, whatever it says.",
);
pub(super) const INCLUDE_INIT_IMAGES: Field<Choice<&str>> = flag(
    "include_init_images",
    "false",
    "Whether the reply's `parameters` repeat the images that were sent.",
);

refused!(
    /// Of `img2img` and `txt2img`.
    REFUSED, REFUSED_TABLE:
    only("subseed_strength", &["0"], "Mixing in the noise of another seed, which is not done here."),
    only("seed_resize_from_h", &["-1", "0"], "Noise of another size, which is not made here."),
    only("seed_resize_from_w", &["-1", "0"], "Noise of another size, which is not made here."),
    only("restore_faces", &["false"], "Painting faces anew, which is not done here."),
    only("tiling", &["false"], "Pictures that tile, which are not made here."),
    only("s_churn", &["0"], "Noise between steps, which is not added here."),
    only("s_min_uncond", &["0"], "Leaving the negative prompt out of some steps, which is not done here."),
    only("initial_noise_multiplier", &["1"], "More or less noise at the start, which is not made here."),
    only("token_merging_ratio", &["0"], "Merging tokens, which is not done for this call."),
    only("refiner_checkpoint", &["\"\"", "\"None\""], "A second checkpoint for the last steps, which is not used here."),
    only("enable_hr", &["false"], "A second pass that enlarges, which is not computed here."),
    only("script_name", &["\"\"", "\"None\""], "A script, of which this server has none."),
    only("alwayson_scripts", &["{}"], "Scripts of extensions, of which this server has none."),
    only("disable_extra_networks", &["false"], "Leaving LoRAs out; write no tag for them instead."),
    only("infotext", &["\"\""], "Parameters as a text, which are not read here."),
);
pub(super) const SAMPLES_FORMAT: Field<Choice<&str>> = Field::new(
    "samples_format",
    Choice {
        words: &["png", "jpg", "jpeg", "webp"],
        default: "png",
    },
    "How the images are encoded.",
);
pub(super) const SD_MODEL_CHECKPOINT: Field<Name<Otherwise>> = Field::new(
    "sd_model_checkpoint",
    Name {
        default: Otherwise("the first checkpoint of the catalogue"),
    },
    "The checkpoint, by its name or its title.",
);
pub(super) const SD_VAE: Field<Name<&str>> = Field::new(
    "sd_vae",
    Name { default: "Automatic" },
    "Another VAE than the checkpoint's own, which `Automatic` and `None` are.",
);
pub(super) const CLIP_STOP_AT_LAST_LAYERS: Field<Whole<i64>> = Field::new(
    "CLIP_stop_at_last_layers",
    Whole {
        range: 1..=12,
        default: 1,
    },
    "1 uses the text encoder's last layer, 2 the one before it, and so on.",
);
pub(super) const IMG2IMG_FIX_STEPS: Field<Only> = only(
    "img2img_fix_steps",
    &["false"],
    "Running exactly `steps` steps, which is not done here.",
);

const SUBSEED: Field<Anything> = unused("subseed", "The other seed.");
const IMAGE_CFG_SCALE: Field<Anything> = unused(
    "image_cfg_scale",
    "Of checkpoints that follow instructions, which are not run here.",
);
const SAVE_IMAGES: Field<Anything> = unused("save_images", "Every image is kept for a while.");
const DO_NOT_SAVE_SAMPLES: Field<Anything> =
    unused("do_not_save_samples", "Every image is kept for a while.");
const DO_NOT_SAVE_GRID: Field<Anything> = unused("do_not_save_grid", "No grids are made.");
const SCRIPT_ARGS: Field<Anything> = unused("script_args", "Of a script.");
const S_TMIN: Field<Anything> = unused("s_tmin", "Of `s_churn`.");
const S_TMAX: Field<Anything> = unused("s_tmax", "Of `s_churn`.");
const S_NOISE: Field<Anything> = unused("s_noise", "Of `s_churn`.");
const REFINER_SWITCH_AT: Field<Anything> = unused("refiner_switch_at", "Of `refiner_checkpoint`.");
const FORCE_TASK_ID: Field<Anything> = unused("force_task_id", "A name for the web UI's own calls.");
const COMMENTS: Field<Anything> = unused("comments", "For people.");
/// `POST /sdapi/v1/png-info`, and the picture of `extra-single-image`.
pub(super) const IMAGE: Field<Image<Required>> = Field::new(
    "image",
    Image {
        max_bytes: MAX_IMAGE_BYTES,
        address: false,
        default: Required,
    },
    "A PNG, JPEG or WebP file in base64.",
);
pub(super) const UPSCALING_RESIZE: Field<Whole<i64>> = Field::new(
    "upscaling_resize",
    Whole {
        range: 1..=4,
        default: 2,
    },
    "How many times longer the sides become.",
);
pub(super) const UPSCALER_1: Field<Name<&str>> = Field::new(
    "upscaler_1",
    Name { default: "None" },
    "The network that enlarges, as `GET /sdapi/v1/upscalers` names it; `None` is the small one inside the binary.",
);
refused!(
    /// Of `extra-single-image`.
    EXTRAS_REFUSED, EXTRAS_REFUSED_TABLE:
    only("resize_mode", &["0"], "Enlarging to a size, which is not done here."),
    only("gfpgan_visibility", &["0"], "Painting faces anew, which is not done here."),
    only("codeformer_visibility", &["0"], "Painting faces anew, which is not done here."),
    only("upscaler_2", &["\"None\"", "\"\""], "A second network, which is not used here."),
    only("extras_upscaler_2_visibility", &["0"], "A second network, which is not used here."),
);
/// Of `GET /sdapi/v1/progress`.
const SKIP_CURRENT_IMAGE: Field<Choice<&str>> = flag(
    "skip_current_image",
    "false",
    "Whether no preview is wanted; one is made only while it is asked for.",
);

/// What a call may say for itself, and what a caller's key remembers.
pub(super) const OPTIONS: Table = &[
    &SD_MODEL_CHECKPOINT,
    &SD_VAE,
    &CLIP_STOP_AT_LAST_LAYERS,
    &SAMPLES_FORMAT,
    &IMG2IMG_FIX_STEPS,
];
/// Of both calls that make images.
const BOTH: Table = &[
    &PROMPT,
    &NEGATIVE_PROMPT,
    &STYLES,
    &SEED,
    &SAMPLER_NAME,
    &SCHEDULER,
    &STEPS,
    &CFG_SCALE,
    &WIDTH,
    &HEIGHT,
    &BATCH_SIZE,
    &N_ITER,
    &ETA,
    &OVERRIDE_SETTINGS,
    &OVERRIDE_SETTINGS_RESTORE_AFTERWARDS,
    &SEND_IMAGES,
];
const OF_IMAGES: Table = &[
    &INIT_IMAGES,
    &DENOISING_STRENGTH,
    &RESIZE_MODE,
    &MASK,
    &MASK_BLUR,
    &MASK_BLUR_X,
    &MASK_BLUR_Y,
    &INPAINTING_FILL,
    &INPAINT_FULL_RES,
    &INPAINT_FULL_RES_PADDING,
    &INPAINTING_MASK_INVERT,
    &INCLUDE_INIT_IMAGES,
    &IMAGE_CFG_SCALE,
];
const UNUSED: Table = &[
    &SUBSEED,
    &S_TMIN,
    &S_TMAX,
    &S_NOISE,
    &REFINER_SWITCH_AT,
    &SAVE_IMAGES,
    &DO_NOT_SAVE_SAMPLES,
    &DO_NOT_SAVE_GRID,
    &SCRIPT_ARGS,
    &FORCE_TASK_ID,
    &COMMENTS,
];
/// What a call without an image takes of a second pass.
const SECOND_PASS: Table = &[
    &DENOISING_STRENGTH_UNUSED,
    &unused("hr_scale", "Of `enable_hr`."),
    &unused("hr_upscaler", "Of `enable_hr`."),
    &unused("hr_second_pass_steps", "Of `enable_hr`."),
    &unused("hr_resize_x", "Of `enable_hr`."),
    &unused("hr_resize_y", "Of `enable_hr`."),
    &unused("hr_checkpoint_name", "Of `enable_hr`."),
    &unused("hr_sampler_name", "Of `enable_hr`."),
    &unused("hr_scheduler", "Of `enable_hr`."),
    &unused("hr_prompt", "Of `enable_hr`."),
    &unused("hr_negative_prompt", "Of `enable_hr`."),
    &unused("firstphase_width", "Of `enable_hr`."),
    &unused("firstphase_height", "Of `enable_hr`."),
];
pub(super) const IMG2IMG: &[Table] = &[BOTH, OF_IMAGES, REFUSED_TABLE, UNUSED];
pub(super) const TXT2IMG: &[Table] = &[BOTH, SECOND_PASS, REFUSED_TABLE, UNUSED];
pub(super) const PNG_INFO: &[Table] = &[&[&IMAGE]];
pub(super) const EXTRA_SINGLE_IMAGE: &[Table] =
    &[&[&IMAGE, &UPSCALING_RESIZE, &UPSCALER_1], EXTRAS_REFUSED_TABLE];
/// All calls with fields: method, path, tables.
pub(crate) const ENDPOINTS: &[(&str, &str, &[Table])] = &[
    ("POST", "/sdapi/v1/img2img", IMG2IMG),
    ("POST", "/sdapi/v1/txt2img", TXT2IMG),
    ("GET", "/sdapi/v1/progress", &[&[&SKIP_CURRENT_IMAGE]]),
    ("POST", "/sdapi/v1/options", &[OPTIONS]),
    ("POST", "/sdapi/v1/png-info", PNG_INFO),
    ("POST", "/sdapi/v1/extra-single-image", EXTRA_SINGLE_IMAGE),
];
