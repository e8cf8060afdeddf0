//! From a request's choice and a checkpoint's configuration to a plan. The only list of schedulers.

use pentimento_types::{NoiseSpacing, SchedulerChoice, SchedulerKind};

use crate::scheduler::{Planned, Setup};
use crate::start::NoiseAlone;
use crate::{Run, SchedulerConfig, SchedulerError, SchedulerPlan};
use crate::{
    ddim, ddim_inverse, ddpm, deis_multistep, dpm_solver_multistep, dpm_solver_singlestep,
    euler_ancestral_discrete, euler_discrete, heun_discrete, ipndm, karras_ve, kdpm2_ancestral_discrete,
    kdpm2_discrete, lcm, lms_discrete, pndm, score_sde_ve, unipc_multistep,
};

/// Decides a whole run before any tensor exists.
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
        (None, None, Some(other)) => return Err(crate::config::unknown("_class_name", other)),
    };
    check(run)?;
    let karras = choice.spacing == NoiseSpacing::Karras;
    let setup = Setup {
        config,
        run,
        karras,
        algorithm: choice.algorithm,
    };
    let (plan, knows_karras) = maker(kind);
    let Planned {
        timesteps,
        skipped,
        rule,
    } = plan(&setup)?;
    // A schedule may be shorter than the steps asked for; a caller who wants some change still gets an evaluation.
    let begin = match run.last_steps() {
        0 => timesteps.len(),
        _ => skipped.min(timesteps.len().saturating_sub(1)),
    };
    Ok(SchedulerPlan {
        kind,
        timesteps,
        begin,
        rule,
        noise_alone: NoiseAlone::of(kind, config)?,
        karras_ignored: karras && !knows_karras,
    })
}

/// Makes the schedule and the rule of one scheduler.
type Maker = fn(&Setup<'_>) -> Result<Planned, SchedulerError>;

/// The maker of each scheduler, and whether Karras spacing means something to it.
fn maker(kind: SchedulerKind) -> (Maker, bool) {
    match kind {
        SchedulerKind::DDPM => (ddpm::plan, false),
        SchedulerKind::DDIM => (ddim::plan, false),
        SchedulerKind::PNDM => (pndm::plan, false),
        SchedulerKind::LMSDiscrete => (lms_discrete::plan, true),
        SchedulerKind::EulerDiscrete => (euler_discrete::plan, true),
        SchedulerKind::EulerAncestralDiscrete => (euler_ancestral_discrete::plan, false),
        SchedulerKind::DPMSolverMultistep => (dpm_solver_multistep::plan, true),
        SchedulerKind::HeunDiscrete => (heun_discrete::plan, true),
        SchedulerKind::KDPM2Discrete => (kdpm2_discrete::plan, true),
        SchedulerKind::DPMSolverSinglestep => (dpm_solver_singlestep::plan, true),
        SchedulerKind::KDPM2AncestralDiscrete => (kdpm2_ancestral_discrete::plan, true),
        SchedulerKind::UniPCMultistep => (unipc_multistep::plan, true),
        SchedulerKind::DDIMInverse => (ddim_inverse::plan, false),
        SchedulerKind::DEISMultistep => (deis_multistep::plan, true),
        SchedulerKind::IPNDM => (ipndm::plan, false),
        SchedulerKind::KarrasVe => (karras_ve::plan, true),
        SchedulerKind::ScoreSdeVe => (score_sde_ve::plan, true),
        SchedulerKind::LCM => (lcm::plan, false),
    }
}

/// The most steps of one run. More than the training timesteps have no meaning for any scheduler.
const MOST_STEPS: u32 = 1000;

fn check(run: Run) -> Result<(), SchedulerError> {
    let wrong = |name, problem: String| Err(SchedulerError::Run { name, problem });
    if !(0.0..=1.0).contains(&run.strength) {
        return wrong("strength", format!("{} is not between 0 and 1", run.strength));
    }
    if !(1..=MOST_STEPS).contains(&run.steps) {
        return wrong(
            "steps",
            format!("{} is not between 1 and {MOST_STEPS}", run.steps),
        );
    }
    Ok(())
}
