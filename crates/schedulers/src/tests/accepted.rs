//! Every combination that a dialect takes: it runs, or it is refused before anything runs, by name.

use pentimento_types::{AlgorithmType, NoiseSpacing, SchedulerChoice, SchedulerKind, StrengthRule};

use crate::{NoiseSource, Run, SchedulerConfig, SchedulerError, SchedulerPlan, build};

/// The widest range of the dialects.
const MOST_STEPS: u32 = 150;
const STRENGTHS: &[f64] = &[0.0, 0.004, 0.05, 0.3, 0.7, 0.999, 1.0];
const ALGORITHMS: &[Option<AlgorithmType>] = &[
    None,
    Some(AlgorithmType::DpmSolver),
    Some(AlgorithmType::DpmSolverPlusPlus),
    Some(AlgorithmType::SdeDpmSolver),
    Some(AlgorithmType::SdeDpmSolverPlusPlus),
];
/// As published: SD 1.5, a latent consistency model, SD 2.1 with v-prediction, and a checkpoint whose own file asks for
/// Karras spacing.
const CHECKPOINTS: &[&str] = &[
    r#"{"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "skip_prk_steps": true, "set_alpha_to_one": false, "steps_offset": 1, "clip_sample": false}"#,
    r#"{"_class_name": "LCMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "original_inference_steps": 50, "timestep_scaling": 10.0, "set_alpha_to_one": true, "steps_offset": 1,
        "clip_sample": false, "prediction_type": "epsilon"}"#,
    r#"{"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction", "set_alpha_to_one": false, "steps_offset": 1, "clip_sample": false}"#,
    r#"{"_class_name": "DPMSolverMultistepScheduler", "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": true,
        "steps_offset": 1}"#,
];

fn checkpoints() -> Vec<SchedulerConfig> {
    let read = |text: &&str| SchedulerConfig::from_json(text.as_bytes()).unwrap();
    CHECKPOINTS.iter().map(read).collect()
}

/// Everything but steps and strength. Only the two solvers get an algorithm from a dialect.
fn choices() -> Vec<SchedulerChoice> {
    let kinds = std::iter::once(None).chain(SchedulerKind::ALL.iter().copied().map(Some));
    let mut choices = Vec::new();
    for kind in kinds {
        let solver = kind.is_none_or(|kind| {
            matches!(
                kind,
                SchedulerKind::DPMSolverMultistep | SchedulerKind::DPMSolverSinglestep
            )
        });
        for algorithm in &ALGORITHMS[..if solver { ALGORITHMS.len() } else { 1 }] {
            for spacing in [NoiseSpacing::Checkpoint, NoiseSpacing::Karras] {
                choices.push(SchedulerChoice {
                    kind,
                    spacing,
                    algorithm: *algorithm,
                    strength_rule: StrengthRule::FewerSteps,
                });
            }
        }
    }
    choices.push(SchedulerChoice {
        kind: Some(SchedulerKind::LCM),
        strength_rule: StrengthRule::LowerStart,
        ..SchedulerChoice::default()
    });
    choices
}

fn planned(
    choice: &SchedulerChoice,
    config: &SchedulerConfig,
    num_inference_steps: u32,
    strength: f64,
) -> Result<SchedulerPlan, SchedulerError> {
    let run = Run {
        num_inference_steps,
        strength,
    };
    build(choice, config, run)
}

/// What no run can do, as in diffusers: more steps than a latent consistency model is distilled on, and a variant that one
/// of the two solvers does not have.
fn must_be_refused(choice: &SchedulerChoice, config: &SchedulerConfig, steps: u32) -> Option<&'static str> {
    match (choice.kind.or(config.own_kind()), choice.algorithm) {
        (Some(SchedulerKind::LCM | SchedulerKind::TCD), _) if steps > 50 => Some("steps"),
        (Some(SchedulerKind::DPMSolverSinglestep), Some(AlgorithmType::SdeDpmSolver)) => {
            Some("algorithm_type")
        }
        _ => None,
    }
}

#[test]
fn every_combination_has_a_plan_or_is_refused_by_name() {
    for config in checkpoints() {
        for choice in choices() {
            for steps in 1..=MOST_STEPS {
                for strength in [0.0, 0.3, 1.0] {
                    let place = || format!("{choice:?}, {steps} steps, strength {strength}");
                    let expected = must_be_refused(&choice, &config, steps);
                    let found = match planned(&choice, &config, steps, strength) {
                        Ok(plan) => {
                            assert_eq!(plan.evaluations() == 0, strength == 0.0, "{}", place());
                            None
                        }
                        Err(SchedulerError::Run { name, .. }) => Some(name),
                        Err(SchedulerError::Setting { key, .. }) => Some(key),
                        Err(error) => panic!("{}: {error}", place()),
                    };
                    assert_eq!(found, expected, "{}", place());
                }
            }
        }
    }
}

#[test]
fn every_combination_that_has_a_plan_runs_to_its_end() {
    for config in checkpoints() {
        for choice in choices() {
            for steps in [1, 2, 3, 4, 8, 21, 50, 51, MOST_STEPS] {
                for strength in STRENGTHS {
                    let Ok(plan) = planned(&choice, &config, steps, *strength) else {
                        continue;
                    };
                    let (place, expected) = (
                        format!("{choice:?}, {steps} steps, strength {strength}"),
                        plan.evaluations(),
                    );
                    let init = NoiseSource::new(1).normal([4, 2, 2]);
                    let mut scheduler = plan.begin(&init, NoiseSource::new(7)).unwrap();
                    let mut ran = 0;
                    while let Some(evaluation) = scheduler.next_evaluation() {
                        let half = evaluation.sample.scaled(0.5);
                        scheduler.advance(&half).unwrap();
                        ran += 1;
                    }
                    assert_eq!(ran, expected, "{place}");
                    let finite = scheduler.latents().values().iter().all(|value| value.is_finite());
                    assert!(finite, "{place}");
                }
            }
        }
    }
}

#[test]
fn what_a_plan_says_of_itself_names_the_same_run() {
    for config in checkpoints() {
        for choice in choices() {
            let Ok(plan) = planned(&choice, &config, 7, 0.8) else {
                continue;
            };
            let kind = plan.kind();
            assert_eq!(
                plan.spacing() == NoiseSpacing::Karras,
                kind.supports_karras_sigmas()
                    && (choice.spacing == NoiseSpacing::Karras || config.use_karras_sigmas == Some(true)),
                "{choice:?}"
            );
            let named = SchedulerChoice {
                kind: Some(kind),
                spacing: plan.spacing(),
                ..choice
            };
            let again = planned(&named, &config, 7, 0.8).unwrap();
            assert_eq!(
                (again.kind(), again.spacing(), again.timesteps()),
                (kind, plan.spacing(), plan.timesteps()),
                "{choice:?}"
            );
            assert!(!again.karras_ignored(), "{choice:?}");
        }
    }
}
