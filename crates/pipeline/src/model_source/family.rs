//! Which components a model has, and what its folder says about them as a whole.

use serde::Deserialize;

use super::ModelSource;
use crate::PipelineError;
use crate::component::ComponentRole;

const INDEX: &str = "model_index.json";
const UNET: &str = "unet/config.json";
const SECOND_ENCODER: &str = "text_encoder_2/config.json";

/// The models that the pipeline can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Stable Diffusion 1.x and 2.x.
    OneEncoder,
    /// SDXL. Whether zeros stand for a negative prompt that is not there, or the states of an empty one.
    TwoEncoders { zeros_for_none: bool },
}

/// What of `model_index.json` decides how a model is run. Absent keys have the defaults of diffusers' pipelines.
#[derive(Deserialize)]
struct ModelIndex {
    #[serde(rename = "_class_name", default)]
    class_name: String,
    #[serde(default = "yes")]
    force_zeros_for_empty_prompt: bool,
    #[serde(default)]
    requires_aesthetics_score: bool,
}

fn yes() -> bool {
    true
}

/// Whether diffusers' pipeline of this name is one with a UNet that is run here.
fn has_unet(class_name: &str) -> bool {
    const EXACT: [&str; 3] = [
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
    ];
    const FAMILIES: [&str; 2] = ["StableDiffusionXL", "LatentConsistency"];
    EXACT.contains(&class_name) || FAMILIES.iter().any(|family| class_name.starts_with(family))
}

impl Family {
    /// Its components.
    pub(super) const fn roles(self) -> &'static [ComponentRole] {
        match self {
            Self::OneEncoder => &ComponentRole::OF_ONE_ENCODER,
            Self::TwoEncoders { .. } => &ComponentRole::OF_TWO_ENCODERS,
        }
    }
}

impl ModelSource {
    /// Of which family the model is, which the files say that it has.
    ///
    /// # Errors
    /// When it is the refiner of SDXL or no Stable Diffusion 1, 2 or XL, or its index is wrong.
    pub(crate) fn family(&self) -> Result<Family, PipelineError> {
        let index = self.checkpoint.has(INDEX).then(|| self.checkpoint.json(INDEX));
        let index = index.transpose().map_err(|error| self.weights_error(error))?;
        let index = index.unwrap_or(ModelIndex {
            class_name: String::new(),
            force_zeros_for_empty_prompt: true,
            requires_aesthetics_score: false,
        });
        if index.requires_aesthetics_score {
            return Err(self.mismatch(
                "a refiner of Stable Diffusion XL, which this version does not run; name the base model",
            ));
        }
        // Where it should have one and has none, whoever reads it says what is there instead.
        if !index.class_name.is_empty() && !has_unet(&index.class_name) && !self.checkpoint.has(UNET) {
            let class = index.class_name.chars().take(60).collect::<String>();
            return Err(self.mismatch(&format!(
                "a {class}, which is no Stable Diffusion 1, 2 or XL with a UNet"
            )));
        }
        if self.checkpoint.has(SECOND_ENCODER) {
            let zeros_for_none = index.force_zeros_for_empty_prompt;
            return Ok(Family::TwoEncoders { zeros_for_none });
        }
        Ok(Family::OneEncoder)
    }
}
