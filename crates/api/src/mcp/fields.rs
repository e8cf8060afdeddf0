//! The arguments of the tools. Those of a picture are OpenAI's, and are read as its calls read them.

use crate::dialects::field::{Choice, Field, Image, Name, Otherwise, Required, Table};
use crate::dialects::openai::fields as openai;

/// Read as OpenAI's `image`.
const IMAGE: Field<Image<Otherwise>> = Field::new(
    "image",
    Image {
        max_bytes: openai::MAX_IMAGE_BYTES,
        address: true,
        default: Otherwise("the picture is made from words alone"),
    },
    "The image to change: base64, a data URI, or an http or https address, of an earlier picture for example.",
);
pub(super) const WAIT: Field<Choice<&str>> = Field::new(
    "wait",
    Choice {
        words: &["true", "false"],
        default: "true",
    },
    "Whether the answer comes when the images are there; false answers at once with the id of the job, for job_status.",
);
pub(super) const ID: Field<Name<Required>> = Field::new(
    "id",
    Name { default: Required },
    "The id of the job: job_ and 32 hexadecimal digits.",
);

pub(super) const GENERATE: Table = &[
    &openai::PROMPT,
    &IMAGE,
    &openai::MASK,
    &openai::MODEL,
    &openai::NEGATIVE_PROMPT,
    &openai::N,
    &openai::SIZE,
    &openai::QUALITY,
    &openai::INPUT_FIDELITY,
    &openai::OUTPUT_FORMAT,
    &openai::RESPONSE_FORMAT,
    &openai::SEED,
    &openai::STRENGTH,
    &openai::STEPS,
    &openai::GUIDANCE_SCALE,
    &openai::SCHEDULER,
    &openai::VAE,
    &openai::LORAS,
    &openai::SOFT_EDGE,
    &openai::DIFFERENTIAL_DIFFUSION,
    &WAIT,
];
pub(super) const OF_JOB: Table = &[&ID];
pub(super) const NONE: Table = &[];
