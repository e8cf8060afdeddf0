//! A checkpoint's `scheduler_config.json`, as diffusers' `from_config` sees it.
//!
//! Only keys that the file states are kept here; each scheduler fills in its own class's defaults, because that is what
//! `from_config` does with a file that was written for another class.

use pentimento_types::SchedulerKind;
use serde::Deserialize;

use crate::error::SchedulerError;

/// The keys of `scheduler_config.json` that any scheduler reads. Unknown keys are ignored, `null` is as good as absent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SchedulerConfig {
    #[serde(rename = "_class_name")]
    pub(crate) class_name: Option<String>,
    pub(crate) num_train_timesteps: Option<usize>,
    pub(crate) beta_start: Option<f64>,
    pub(crate) beta_end: Option<f64>,
    pub(crate) beta_schedule: Option<String>,
    pub(crate) trained_betas: Option<Vec<f64>>,
    pub(crate) rescale_betas_zero_snr: Option<bool>,
    pub(crate) prediction_type: Option<String>,
    pub(crate) timestep_spacing: Option<String>,
    pub(crate) set_alpha_to_one: Option<bool>,
    pub(crate) clip_sample_range: Option<f64>,
    pub(crate) thresholding: Option<bool>,
    pub(crate) dynamic_thresholding_ratio: Option<f64>,
    pub(crate) sample_max_value: Option<f64>,
    pub(crate) use_karras_sigmas: Option<bool>,
    pub(crate) use_exponential_sigmas: Option<bool>,
    pub(crate) use_beta_sigmas: Option<bool>,
    pub(crate) use_flow_sigmas: Option<bool>,
    pub(crate) final_sigmas_type: Option<String>,
    pub(crate) sigma_min: Option<f64>,
    pub(crate) sigma_max: Option<f64>,
    pub(crate) interpolation_type: Option<String>,
    pub(crate) timestep_type: Option<String>,
    pub(crate) original_inference_steps: Option<usize>,
    pub(crate) timestep_scaling: Option<f64>,
    pub(crate) variance_type: Option<String>,
    pub(crate) skip_prk_steps: Option<bool>,
    pub(crate) solver_order: Option<usize>,
    pub(crate) solver_type: Option<String>,
    pub(crate) algorithm_type: Option<String>,
    pub(crate) lower_order_final: Option<bool>,
    pub(crate) euler_at_final: Option<bool>,
    pub(crate) use_lu_lambdas: Option<bool>,
    pub(crate) lambda_min_clipped: Option<LambdaMin>,
    pub(crate) predict_x0: Option<bool>,
    pub(crate) disable_corrector: Option<Vec<usize>>,
    /// No file has it: the timesteps of every run, whatever steps are asked for.
    #[serde(skip)]
    pub(crate) fixed_timesteps: Option<Vec<u32>>,
}

/// `lambda_min_clipped` is minus infinity by default, which JSON writers spell in their own ways.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum LambdaMin {
    Value(f64),
    Text(String),
}

impl LambdaMin {
    /// The number; every text means minus infinity.
    pub(crate) fn value(&self) -> f64 {
        match self {
            Self::Value(value) => *value,
            Self::Text(_) => f64::NEG_INFINITY,
        }
    }
}

impl SchedulerConfig {
    /// Reads the bytes of `scheduler_config.json`.
    ///
    /// Two keys are deliberately not read: diffusers' Stable Diffusion pipelines set `steps_offset` to 1 and
    /// `clip_sample` to false on whatever scheduler they are given.
    ///
    /// # Errors
    /// When the bytes are not a JSON object, or a known key has a value of the wrong type.
    pub fn from_json(bytes: &[u8]) -> Result<Self, SchedulerError> {
        // Python's json module writes -Infinity for `lambda_min_clipped`, which is not JSON.
        let text = String::from_utf8_lossy(bytes);
        let text = text.replace(": -Infinity", ": \"-Infinity\"");
        serde_json::from_str(&text).map_err(SchedulerError::Json)
    }

    /// The same, as whoever runs the model says it wants to be run: `kind` for requests that name none, `timestep_spacing` in
    /// diffusers' word, and `timesteps`, falling, in place of spaced ones. None leaves what the file says.
    #[must_use]
    pub fn adjusted(
        mut self,
        kind: Option<SchedulerKind>,
        timestep_spacing: Option<&str>,
        timesteps: Option<&[u32]>,
    ) -> Self {
        if let Some(kind) = kind {
            self.class_name = Some(kind.class_name().to_owned());
        }
        if let Some(spacing) = timestep_spacing {
            self.timestep_spacing = Some(spacing.to_owned());
        }
        if let Some(timesteps) = timesteps {
            self.fixed_timesteps = Some(timesteps.to_vec());
        }
        self
    }

    /// The timesteps of every run, checked; None where they are spaced.
    ///
    /// # Errors
    /// When `kind` takes none, as in diffusers, or when they do not fall.
    pub(crate) fn fixed_for(&self, kind: SchedulerKind) -> Result<Option<&[u32]>, SchedulerError> {
        let Some(timesteps) = self.fixed_timesteps.as_deref() else {
            return Ok(None);
        };
        const TAKEN_BY: [SchedulerKind; 4] = [
            SchedulerKind::EulerDiscrete,
            SchedulerKind::DDPM,
            SchedulerKind::LCM,
            SchedulerKind::TCD,
        ];
        let wrong = |problem: String| {
            Err(SchedulerError::Setting {
                key: "timesteps",
                problem,
            })
        };
        if !TAKEN_BY.contains(&kind) {
            let names = TAKEN_BY.map(SchedulerKind::class_name).join(", ");
            return wrong(format!("the model has timesteps of its own, which {kind} does not take; {names} do"));
        }
        let train = self.num_train_timesteps.unwrap_or(1000);
        let falls = timesteps.windows(2).all(|pair| pair[0] > pair[1]);
        let fits = timesteps.first().is_some_and(|first| (*first as usize) < train);
        if falls && fits {
            Ok(Some(timesteps))
        } else {
            wrong(format!("they must fall, from below {train}"))
        }
    }

    /// The scheduler that the file was written for, if it is a known one.
    #[must_use]
    pub fn own_kind(&self) -> Option<SchedulerKind> {
        self.class_name.as_deref().and_then(SchedulerKind::parse)
    }
}

/// How the timesteps of a run are spread over the training steps (Lin et al. 2023, arXiv 2305.08891, table 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimestepSpacing {
    Linspace,
    Leading,
    Trailing,
}

impl SchedulerConfig {
    /// `timestep_spacing`, or the class's default.
    pub(crate) fn timestep_spacing(
        &self,
        default: TimestepSpacing,
    ) -> Result<TimestepSpacing, SchedulerError> {
        match self.timestep_spacing.as_deref() {
            None => Ok(default),
            Some("linspace") => Ok(TimestepSpacing::Linspace),
            Some("leading") => Ok(TimestepSpacing::Leading),
            Some("trailing") => Ok(TimestepSpacing::Trailing),
            Some(other) => Err(unknown("timestep_spacing", other)),
        }
    }
}

/// The error for a value that no scheduler of diffusers knows.
pub(crate) fn unknown(key: &'static str, value: &str) -> SchedulerError {
    SchedulerError::Setting {
        key,
        problem: format!("{value:?} is not known"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_diffusers_writes() {
        let config = SchedulerConfig::from_json(
            br#"{"_class_name": "PNDMScheduler", "beta_end": 0.012, "trained_betas": null, "surprise": [1],
                 "lambda_min_clipped": -Infinity, "num_train_timesteps": 1000}"#,
        )
        .unwrap();
        assert_eq!(config.own_kind(), Some(SchedulerKind::PNDM));
        assert_eq!(config.beta_end, Some(0.012));
        assert_eq!(config.trained_betas, None);
        assert_eq!(config.lambda_min_clipped.unwrap().value(), f64::NEG_INFINITY);
        assert!(SchedulerConfig::from_json(b"[1, 2]").is_err());
        assert!(SchedulerConfig::from_json(br#"{"beta_end": "x"}"#).is_err());
        assert_eq!(
            SchedulerConfig::from_json(b"{}").unwrap(),
            SchedulerConfig::default()
        );
    }
}
