//! A run before it touches an array: how many evaluations it takes and at which timesteps.

use pentimento_types::{NoiseSpacing, SchedulerKind};

use crate::error::SchedulerError;
use crate::init_noise::{InitNoiseSigma, Start, sigma_of};
use crate::latents::Latents;
use crate::noise::NoiseSource;
use crate::scheduler::Scheduler;
use crate::update_rule::UpdateRule;

/// A run that is decided but not begun: what diffusers' `set_timesteps` leaves behind.
#[derive(Debug)]
pub struct SchedulerPlan {
    pub(crate) kind: SchedulerKind,
    /// The timestep of every evaluation of the whole schedule.
    pub(crate) timesteps: Vec<f64>,
    /// The first evaluation that runs.
    pub(crate) begin_index: usize,
    pub(crate) rule: Box<dyn UpdateRule>,
    pub(crate) init_noise_sigma: InitNoiseSigma,
    pub(crate) karras_ignored: bool,
    pub(crate) spacing: NoiseSpacing,
}

impl SchedulerPlan {
    /// How many evaluations the run takes. 0 only for strength 0.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a schedule has a few thousand evaluations at most"
    )]
    pub fn evaluations(&self) -> u32 {
        self.timesteps().len() as u32
    }

    /// The timesteps of the evaluations, in order.
    #[must_use]
    pub fn timesteps(&self) -> &[f64] {
        &self.timesteps[self.begin_index..]
    }

    /// Which scheduler runs.
    #[must_use]
    pub const fn kind(&self) -> SchedulerKind {
        self.kind
    }

    /// How the noise levels are spaced, whether the request or the checkpoint asked for it.
    #[must_use]
    pub const fn spacing(&self) -> NoiseSpacing {
        self.spacing
    }

    /// Whether Karras spacing was asked for and this scheduler has no place for it.
    #[must_use]
    pub const fn karras_ignored(&self) -> bool {
        self.karras_ignored
    }

    /// Whether a run always starts from its image, at strength 1 too, because it inverts it.
    #[must_use]
    pub fn inverts_image(&self) -> bool {
        self.kind == SchedulerKind::DDIMInverse
    }

    /// Starts from the encoded image, already multiplied by the VAE's scaling factor.
    /// Draws the start noise from `noise_source`, brings the image to the start level and keeps `noise_source` for
    /// stochastic steps. With strength 0 the latents are `init_latents`.
    ///
    /// # Errors
    /// When the schedule has no level for its first timestep.
    pub fn begin(
        self,
        init_latents: &Latents,
        noise_source: NoiseSource,
    ) -> Result<Scheduler, SchedulerError> {
        let mut noise_source = noise_source;
        let noise = noise_source.normal(init_latents.shape());
        let start = Start::Image {
            init_latents,
            noise: &noise,
        };
        self.begin_from(start, noise_source)
    }

    /// Starts with noise that has been drawn already; `noise_source` is for what is drawn afterwards.
    ///
    /// # Errors
    /// When the shapes differ, or the schedule has no level for its first timestep.
    pub fn begin_from(
        self,
        start: Start<'_>,
        noise_source: NoiseSource,
    ) -> Result<Scheduler, SchedulerError> {
        let (mut noise_source, rule, index) = (noise_source, self.rule, self.begin_index);
        let latents = match start {
            Start::Image { init_latents, noise } => {
                SchedulerError::check_shape("the noise", init_latents.shape(), noise)?;
                if index == self.timesteps.len() {
                    init_latents.clone()
                } else {
                    rule.prepare_latents(index, init_latents, noise, &mut noise_source)?
                }
            }
            Start::Noise { noise } => match self.init_noise_sigma {
                InitNoiseSigma::Unit => noise.clone(),
                InitNoiseSigma::Level => {
                    let black = Latents::zeros(noise.shape());
                    rule.prepare_latents(index, &black, noise, &mut noise_source)?
                }
                InitNoiseSigma::LevelAndUnit => {
                    let sigma = sigma_of(rule.as_ref(), index)?;
                    noise.clone().scaled(sigma.mul_add(sigma, 1.0).sqrt())
                }
            },
        };
        Ok(Scheduler::new(rule, self.timesteps, index, latents, noise_source))
    }
}
