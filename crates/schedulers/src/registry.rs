//! From a request's choice and a checkpoint's configuration to a plan. The only list of schedulers.

use pentimento_types::{NoiseSpacing, SchedulerChoice, SchedulerKind};

use crate::config::{SchedulerConfig, unknown};
use crate::error::SchedulerError;
use crate::init_noise::InitNoiseSigma;
use crate::plan::SchedulerPlan;
use crate::run::{Run, Setup};
use crate::update_rule::Schedule;
use crate::{
    ddim, ddim_inverse, ddpm, deis_multistep, dpm_solver_multistep, dpm_solver_singlestep,
    euler_ancestral_discrete, euler_discrete, heun_discrete, ipndm, karras_ve, kdpm2_ancestral_discrete,
    kdpm2_discrete, lcm, lms_discrete, pndm, score_sde_ve, tcd, unipc_multistep,
};

/// Decides a whole run before any array exists.
///
/// # Errors
/// When the run is out of range, or when the configuration asks for something impossible.
pub fn build(
    choice: &SchedulerChoice,
    config: &SchedulerConfig,
    run: Run,
) -> Result<SchedulerPlan, SchedulerError> {
    let kind = match (choice.kind, config.own_kind(), config.class_name.as_deref()) {
        (Some(kind), _, _) | (None, Some(kind), _) => kind,
        // diffusers refuses a folder without a scheduler; PNDM is what Stable Diffusion was published with.
        (None, None, None) => SchedulerKind::PNDM,
        (None, None, Some(other)) => return Err(unknown("_class_name", other)),
    };
    check(run)?;
    let fixed = config.fixed_for(kind)?;
    let run = Run {
        num_inference_steps: fixed.map_or(run.num_inference_steps, |all| {
            u32::try_from(all.len()).unwrap_or(u32::MAX)
        }),
        ..run
    };
    // Levels at fixed timesteps are not spaced any more.
    let takes_karras = kind.supports_karras_sigmas() && fixed.is_none();
    let karras = choice.spacing == NoiseSpacing::Karras;
    let setup = Setup {
        config,
        run,
        karras,
        fixed,
        algorithm: choice.algorithm,
        strength_rule: choice.strength_rule,
    };
    let Schedule {
        timesteps,
        begin_index,
        rule,
    } = maker(kind)(&setup)?;
    // A schedule may be shorter than the steps asked for; a caller who wants some change still gets an evaluation.
    let begin_index = match run.last_steps(choice.strength_rule) {
        0 => timesteps.len(),
        _ => begin_index.min(timesteps.len().saturating_sub(1)),
    };
    Ok(SchedulerPlan {
        kind,
        timesteps,
        begin_index,
        rule,
        init_noise_sigma: InitNoiseSigma::of(kind, config)?,
        karras_ignored: karras && !takes_karras,
        spacing: if takes_karras && (karras || config.use_karras_sigmas == Some(true)) {
            NoiseSpacing::Karras
        } else {
            NoiseSpacing::Checkpoint
        },
    })
}

/// Makes the schedule and the rule of one scheduler.
type Maker = fn(&Setup<'_>) -> Result<Schedule, SchedulerError>;

fn maker(kind: SchedulerKind) -> Maker {
    match kind {
        SchedulerKind::DDPM => ddpm::plan,
        SchedulerKind::DDIM => ddim::plan,
        SchedulerKind::PNDM => pndm::plan,
        SchedulerKind::LMSDiscrete => lms_discrete::plan,
        SchedulerKind::EulerDiscrete => euler_discrete::plan,
        SchedulerKind::EulerAncestralDiscrete => euler_ancestral_discrete::plan,
        SchedulerKind::DPMSolverMultistep => dpm_solver_multistep::plan,
        SchedulerKind::HeunDiscrete => heun_discrete::plan,
        SchedulerKind::KDPM2Discrete => kdpm2_discrete::plan,
        SchedulerKind::DPMSolverSinglestep => dpm_solver_singlestep::plan,
        SchedulerKind::KDPM2AncestralDiscrete => kdpm2_ancestral_discrete::plan,
        SchedulerKind::UniPCMultistep => unipc_multistep::plan,
        SchedulerKind::DDIMInverse => ddim_inverse::plan,
        SchedulerKind::DEISMultistep => deis_multistep::plan,
        SchedulerKind::IPNDM => ipndm::plan,
        SchedulerKind::KarrasVe => karras_ve::plan,
        SchedulerKind::ScoreSdeVe => score_sde_ve::plan,
        SchedulerKind::LCM => lcm::plan,
        SchedulerKind::TCD => tcd::plan,
    }
}

/// The most steps of one run. More than the training timesteps have no meaning for any scheduler.
const MOST_STEPS: u32 = 1000;

fn check(run: Run) -> Result<(), SchedulerError> {
    let wrong = |name, problem: String| Err(SchedulerError::Run { name, problem });
    if !(0.0..=1.0).contains(&run.strength) {
        return wrong("strength", format!("{} is not between 0 and 1", run.strength));
    }
    if !(1..=MOST_STEPS).contains(&run.num_inference_steps) {
        return wrong(
            "steps",
            format!("{} is not between 1 and {MOST_STEPS}", run.num_inference_steps),
        );
    }
    Ok(())
}
