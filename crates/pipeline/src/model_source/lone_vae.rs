//! A VAE that stands in for the checkpoint's own: a folder, or a file that does not say by which factor latents are scaled.

use pentimento_models::{LayerSource, Vae, VaeConfig};
use pentimento_weights::{FileIdentity, WeightsError};
use serde_json::Value;

use super::{DTYPES, HOST, LoneVae, ModelSource};
use crate::PipelineError;
use crate::component::ComponentKey;

const CONFIG: &str = "vae/config.json";
const FACTOR: &str = "scaling_factor";

impl ModelSource {
    /// The files of the named VAE, and the factor where the checkpoint decides it.
    pub(super) fn lone_vae_identity(&self) -> Result<FileIdentity, PipelineError> {
        let Some(lone) = &self.vae else {
            return Err(self.mismatch("no VAE is named"));
        };
        let wrap = |error| lone.weights_error(error);
        let identity = lone.files.component_identity("vae", &[CONFIG]).map_err(wrap)?;
        let config = self.lone_vae_config(lone)?;
        Ok(identity.with_setting(FACTOR, &config[FACTOR].to_string()))
    }

    /// Reads it.
    pub(super) fn lone_vae(&self, key: &ComponentKey, lone: &LoneVae) -> Result<Vae, PipelineError> {
        let wrap = |error| lone.weights_error(error);
        let config: VaeConfig = serde_json::from_value(self.lone_vae_config(lone)?).map_err(|source| {
            wrap(WeightsError::Json {
                file: format!("{}/{CONFIG}", lone.files.name()),
                source,
            })
        })?;
        let weights = lone.files.component("vae", DTYPES, &HOST).map_err(wrap)?;
        let device = self.vae_device(key, &config)?;
        let source = LayerSource::new(weights.var_builder(), &device);
        let vae = Vae::new(&config, source).map_err(|source| match weights.take_fault() {
            Some(fault) => wrap(fault),
            None => PipelineError::Part {
                name: lone.name.clone(),
                source: Box::new(source),
            },
        })?;
        weights.finish().map_err(wrap)?;
        Ok(vae)
    }

    /// Its configuration. A large VAE's file has no factor: it is the one of the checkpoint, which is its base's.
    pub(super) fn lone_vae_config(&self, lone: &LoneVae) -> Result<Value, PipelineError> {
        let mut config: Value = lone
            .files
            .json(CONFIG)
            .map_err(|error| lone.weights_error(error))?;
        let is_tiny = config["_class_name"] == "AutoencoderTiny";
        if let Some(fields) = config.as_object_mut()
            && !is_tiny
            && !fields.contains_key(FACTOR)
        {
            let own: Value = self
                .checkpoint
                .json(CONFIG)
                .map_err(|error| self.weights_error(error))?;
            if let Some(factor) = own.get(FACTOR) {
                fields.insert(FACTOR.to_owned(), factor.clone());
            }
        }
        Ok(config)
    }
}

impl LoneVae {
    pub(super) fn weights_error(&self, source: WeightsError) -> PipelineError {
        PipelineError::Weights {
            name: self.name.clone(),
            source: Box::new(source),
        }
    }
}
