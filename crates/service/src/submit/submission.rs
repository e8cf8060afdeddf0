//! A request on its way to becoming a job.

use std::time::SystemTime;

use pentimento_types::{
    ApiKeyId, Delivery, DialectTag, Idempotency, ImageKey, ImageSource, Inputs, Job, JobId, JobNote,
    JobOrigin, Recipe, Size, Start,
};

use super::fit::Fit;
use crate::InputLimits;
use crate::image_codec::MaskReading;

/// A request on its way to becoming a job.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Who asks.
    pub owner: ApiKeyId,
    /// Through which dialect, with what it wants to find again.
    pub dialect: DialectTag,
    /// Which call it is.
    pub origin: JobOrigin,
    /// What decides the pixels.
    pub recipe: Recipe,
    /// Whether words are added to its prompts, as the service's enhancer finds them and as far as they fit.
    pub enhance_prompt: bool,
    /// What to start from and the images beside it, as the caller sent them. Noise is text to image: no image is needed, the
    /// size is checked as one of a picture is, and the recipe's strength counts as 1.
    pub inputs: Inputs<ImageSource>,
    /// How a mask among them is read. It is stored with white for what is repainted, whatever it was.
    pub mask: MaskReading,
    /// How the results are handed over.
    pub delivery: Delivery,
    /// How much of an image the dialect takes, and how large one may be that is made from noise.
    pub limits: InputLimits,
    /// The size that the image to start from is brought to.
    pub fit: Fit,
    /// Draws the number by which the dialect's callers name the job, where they do; again where another job has it.
    pub number: Option<fn() -> u64>,
    /// The caller's own name for the request: the same request under it is the same job.
    pub idempotency: Option<Idempotency>,
    /// Whether only this machine runs it, where several share jobs. One that runs none lets others do it all the same.
    pub stays: bool,
}

impl Submission {
    /// Whether an image has to be fetched.
    pub(crate) fn has_addresses(&self) -> bool {
        let mut sources = self.inputs.iter();
        sources.any(|(_, source)| matches!(source, ImageSource::Url(_)))
    }

    /// Of each image to be made, while the one to start from may not be known.
    pub(crate) fn expected_size(&self) -> Size {
        const USUAL: Size = Size {
            width: 512,
            height: 512,
        };
        match self.inputs.start() {
            Start::Noise(size) => *size,
            Start::Image { .. } => {
                let framed = self.recipe.framing.map(|framing| framing.size);
                self.fit.expected().or(framed).unwrap_or(USUAL)
            }
        }
    }

    /// The record, queued.
    pub(crate) fn into_job(
        self,
        id: JobId,
        now: SystemTime,
        (inputs, notes): (Inputs<ImageKey>, Vec<JobNote>),
    ) -> Job {
        let number = self.number.map_or(self.dialect.number, |draw| Some(draw()));
        Job {
            owner: self.owner,
            dialect: DialectTag {
                number,
                ..self.dialect
            },
            origin: self.origin,
            delivery: self.delivery,
            idempotency: self.idempotency,
            stays: self.stays,
            notes,
            ..Job::queued(id, now, self.recipe, inputs)
        }
    }
}
