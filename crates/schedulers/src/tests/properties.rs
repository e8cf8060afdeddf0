//! What holds for every scheduler and every configuration: counts, order, and clear errors.

use crate::{Latents, NoiseSource, Run, SchedulerConfig, SchedulerError, build};
use pentimento_types::{
    AlgorithmType, ErrorKind, HasKind, NoiseSpacing, SchedulerChoice, SchedulerKind, StrengthRule,
};
use proptest::prelude::*;

fn any_kind() -> impl Strategy<Value = SchedulerKind> {
    proptest::sample::select(SchedulerKind::ALL)
}

fn any_choice() -> impl Strategy<Value = SchedulerChoice> {
    let spacing = prop_oneof![Just(NoiseSpacing::Checkpoint), Just(NoiseSpacing::Karras)];
    let algorithm = proptest::option::of(prop_oneof![
        Just(AlgorithmType::DpmSolver),
        Just(AlgorithmType::DpmSolverPlusPlus),
        Just(AlgorithmType::SdeDpmSolver),
        Just(AlgorithmType::SdeDpmSolverPlusPlus),
    ]);
    let rule = prop_oneof![Just(StrengthRule::FewerSteps), Just(StrengthRule::LowerStart)];
    (any_kind(), spacing, algorithm, rule).prop_map(|(kind, spacing, algorithm, strength_rule)| {
        SchedulerChoice {
            kind: Some(kind),
            spacing,
            algorithm,
            strength_rule,
        }
    })
}

/// Values for the keys that any scheduler reads, some of them impossible.
const KEYS: &[(&str, &[&str])] = &[
    (
        "beta_schedule",
        &[
            "\"linear\"",
            "\"scaled_linear\"",
            "\"squaredcos_cap_v2\"",
            "\"exp\"",
            "\"laplace\"",
            "\"nonsense\"",
        ],
    ),
    (
        "prediction_type",
        &["\"epsilon\"", "\"v_prediction\"", "\"sample\"", "\"\""],
    ),
    (
        "timestep_spacing",
        &["\"linspace\"", "\"leading\"", "\"trailing\"", "\"other\""],
    ),
    ("num_train_timesteps", &["2", "10", "30", "1000", "1"]),
    ("rescale_betas_zero_snr", &["true", "false", "null"]),
    ("skip_prk_steps", &["true", "false"]),
    ("set_alpha_to_one", &["true", "false"]),
    ("solver_order", &["1", "2", "3", "4", "0"]),
    ("final_sigmas_type", &["\"zero\"", "\"sigma_min\"", "\"x\""]),
    ("lower_order_final", &["true", "false"]),
    ("euler_at_final", &["true", "false"]),
    (
        "solver_type",
        &[
            "\"midpoint\"",
            "\"heun\"",
            "\"bh1\"",
            "\"bh2\"",
            "\"logrho\"",
            "\"z\"",
        ],
    ),
    (
        "algorithm_type",
        &[
            "\"dpmsolver\"",
            "\"dpmsolver++\"",
            "\"sde-dpmsolver\"",
            "\"sde-dpmsolver++\"",
            "\"deis\"",
            "\"?\"",
        ],
    ),
    ("use_exponential_sigmas", &["true"]),
    ("use_beta_sigmas", &["true"]),
    ("use_lu_lambdas", &["true"]),
    ("sigma_min", &["0.1", "0", "-1", "1e9"]),
    ("sigma_max", &["10", "0.01", "1e9"]),
    ("thresholding", &["true"]),
    ("sample_max_value", &["2", "0.5"]),
    (
        "variance_type",
        &[
            "\"fixed_small\"",
            "\"fixed_large\"",
            "\"fixed_large_log\"",
            "\"learned\"",
        ],
    ),
    ("interpolation_type", &["\"linear\"", "\"log_linear\""]),
    ("timestep_type", &["\"continuous\""]),
    ("predict_x0", &["true", "false"]),
    ("original_inference_steps", &["1", "10", "2000"]),
    ("lambda_min_clipped", &["-5.1", "-Infinity", "3", "1e30"]),
    ("beta_end", &["0.5", "0.9999"]),
];

/// Up to six keys with any of their values.
fn any_config() -> impl Strategy<Value = String> {
    let entry = proptest::sample::select(KEYS)
        .prop_flat_map(|(key, values)| proptest::sample::select(values).prop_map(move |value| (key, value)));
    proptest::collection::btree_map(any::<u8>(), entry, 0..6).prop_map(|entries| {
        let mut stated = std::collections::BTreeMap::new();
        stated.extend(entries.into_values());
        let lines: Vec<_> = stated
            .iter()
            .map(|(key, value)| format!("\"{key}\": {value}"))
            .collect();
        format!("{{{}}}", lines.join(", "))
    })
}

fn sd15() -> SchedulerConfig {
    SchedulerConfig::from_json(
        br#"{"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
             "skip_prk_steps": true, "set_alpha_to_one": false, "steps_offset": 1, "clip_sample": false}"#,
    )
    .unwrap()
}

fn length(num_inference_steps: u32, strength: f64) -> Run {
    Run {
        num_inference_steps,
        strength,
    }
}

/// Runs to the end with a prediction that is half the input, and returns the latents and the number of evaluations.
fn run(choice: &SchedulerChoice, config: &SchedulerConfig, run: Run, seed: u64) -> (Latents, u32) {
    let init_latents = NoiseSource::new(seed + 1).normal([4, 2, 3]);
    let plan = build(choice, config, run).unwrap();
    let promised = plan.evaluations();
    let mut scheduler = plan.begin(&init_latents, NoiseSource::new(seed)).unwrap();
    let mut evaluations = 0;
    while let Some(evaluation) = scheduler.next_evaluation() {
        assert_eq!(evaluation.sample.shape(), init_latents.shape());
        assert!(evaluation.timestep.is_finite());
        scheduler.advance(&evaluation.sample.scaled(0.5)).unwrap();
        evaluations += 1;
    }
    assert_eq!(evaluations, promised);
    let refused = scheduler.advance(&init_latents).unwrap_err();
    assert!(matches!(refused, SchedulerError::Finished));
    (scheduler.latents().clone(), evaluations)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_configuration_runs_or_is_refused_clearly(
        choice in any_choice(), text in any_config(), steps in 1_u32..30, strength in 0.0_f64..=1.0,
    ) {
        let config = SchedulerConfig::from_json(text.as_bytes()).unwrap();
        match build(&choice, &config, length(steps, strength)) {
            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::InvalidInput, "{}", error),
            Ok(plan) => {
                prop_assert!(plan.evaluations() > 0 || strength == 0.0, "{}", text);
                let (latents, _) = run(&choice, &config, length(steps, strength), 3);
                prop_assert!(latents.is_finite(), "{:?} {} {} {}", choice, text, steps, strength);
            }
        }
    }

    #[test]
    fn more_strength_never_means_fewer_evaluations(
        kind in any_kind(), steps in 1_u32..60, a in 0.0_f64..=1.0, b in 0.0_f64..=1.0,
    ) {
        let choice = SchedulerChoice { kind: Some(kind), ..SchedulerChoice::default() };
        let config = sd15();
        let count = |strength| build(&choice, &config, length(steps, strength)).map(|p| p.evaluations());
        if let (Ok(low), Ok(high)) = (count(a.min(b)), count(a.max(b))) {
            prop_assert!(low <= high);
        }
        prop_assert_eq!(count(0.0).unwrap_or(0), 0);
    }

    #[test]
    fn the_same_request_gives_the_same_bits(choice in any_choice(), steps in 1_u32..20, seed in any::<u32>()) {
        let config = sd15();
        let run_length = length(steps, 0.8);
        if build(&choice, &config, run_length).is_ok() {
            let bits = || {
                let (latents, _) = run(&choice, &config, run_length, u64::from(seed));
                latents.values().iter().map(|x| x.to_bits()).collect::<Vec<_>>()
            };
            prop_assert_eq!(bits(), bits());
        }
    }
}

/// Schedulers whose timesteps do not fall all the way, with the reason.
fn may_rise(kind: SchedulerKind) -> bool {
    // The first inverts the image, from low noise to high; the churn of the second raises the noise before each step.
    matches!(kind, SchedulerKind::DDIMInverse | SchedulerKind::KarrasVe)
}

#[test]
fn timesteps_fall_from_noise_to_image() {
    for kind in SchedulerKind::ALL.iter().copied().filter(|k| !may_rise(*k)) {
        for spacing in [NoiseSpacing::Checkpoint, NoiseSpacing::Karras] {
            for steps in [1, 2, 3, 7, 20, 50] {
                let choice = SchedulerChoice {
                    kind: Some(kind),
                    spacing,
                    ..SchedulerChoice::default()
                };
                let Ok(plan) = build(&choice, &sd15(), length(steps, 1.0)) else {
                    continue;
                };
                // The KDPM2 schedulers round the timesteps of Karras levels, but not those of the midpoints between.
                let falls = plan.timesteps().windows(2).all(|pair| pair[0] + 1.0 >= pair[1]);
                assert!(falls, "{kind} {spacing:?} {steps}: {:?}", plan.timesteps());
                assert!(
                    plan.timesteps().iter().all(|t| (0.0..1000.0).contains(t)),
                    "{kind} {:?}",
                    plan.timesteps()
                );
            }
        }
    }
}

#[test]
fn steps_and_strength_count_as_in_diffusers() {
    let choice = SchedulerChoice {
        kind: Some(SchedulerKind::DDIM),
        ..SchedulerChoice::default()
    };
    let count = |steps, strength| {
        build(&choice, &sd15(), length(steps, strength))
            .unwrap()
            .evaluations()
    };
    assert_eq!(count(4, 1.0), 4);
    assert_eq!(count(4, 0.7), 2);
    assert_eq!(count(20, 0.3), 6);
    assert_eq!(count(10, 0.7), 7);
    assert_eq!(
        count(1, 0.3),
        1,
        "a strength that rounds to no step still changes the image"
    );
    assert_eq!(count(30, 0.0), 0);
}

/// The rule of the LCM pipeline: at one step, too, a lower strength starts closer to the image.
#[test]
fn a_lower_start_runs_all_steps_that_fit_below_the_strength() {
    let choice = SchedulerChoice {
        kind: Some(SchedulerKind::LCM),
        strength_rule: StrengthRule::LowerStart,
        ..SchedulerChoice::default()
    };
    let timesteps = |steps, strength| {
        build(&choice, &sd15(), length(steps, strength))
            .unwrap()
            .timesteps()
            .to_vec()
    };
    assert_eq!(timesteps(1, 1.0), [999.0]);
    assert_eq!(timesteps(1, 0.5), [499.0]);
    assert_eq!(timesteps(1, 0.05), [39.0]);
    assert_eq!(timesteps(4, 0.5), [499.0, 379.0, 259.0, 139.0]);
    // 0.05 of the 50 timesteps of the distillation are 2; below 0.02 there is the lowest one.
    assert_eq!(timesteps(4, 0.05), [39.0, 19.0]);
    assert_eq!(timesteps(4, 0.001), [19.0]);
    assert!(timesteps(4, 0.0).is_empty());
    let start = |strength| timesteps(4, strength).first().copied().unwrap_or(0.0);
    let starts: Vec<f64> = (0..=1000)
        .map(|thousandth| start(f64::from(thousandth) / 1000.0))
        .collect();
    assert!(starts.is_sorted());
}

#[test]
fn strength_zero_gives_the_image_back() {
    let choice = SchedulerChoice {
        kind: Some(SchedulerKind::LCM),
        ..SchedulerChoice::default()
    };
    let init_latents = Latents::new([1, 1, 2], vec![0.25, -1.5]).unwrap();
    let plan = build(&choice, &sd15(), length(4, 0.0)).unwrap();
    let scheduler = plan.begin(&init_latents, NoiseSource::new(1)).unwrap();
    assert!(scheduler.next_evaluation().is_none());
    assert_eq!(scheduler.latents(), &init_latents);
}

#[test]
fn runs_out_of_range_are_refused() {
    let choice = SchedulerChoice {
        kind: Some(SchedulerKind::LCM),
        ..SchedulerChoice::default()
    };
    for (steps, strength) in [
        (0, 0.5),
        (4, -0.1),
        (4, 1.1),
        (4, f64::NAN),
        (51, 0.5),
        (100_000, 0.5),
    ] {
        let error = build(&choice, &sd15(), length(steps, strength)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(matches!(error, SchedulerError::Run { .. }), "{error}");
    }
}

#[test]
fn without_a_choice_the_checkpoint_decides() {
    let none = SchedulerChoice::default();
    let run = length(4, 1.0);
    let own = SchedulerConfig::from_json(br#"{"_class_name": "LCMScheduler"}"#).unwrap();
    assert_eq!(build(&none, &own, run).unwrap().kind(), SchedulerKind::LCM);
    let odd = SchedulerConfig::from_json(br#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#).unwrap();
    let error = build(&none, &odd, run).unwrap_err();
    assert!(
        error.to_string().contains("FlowMatchEulerDiscreteScheduler"),
        "{error}"
    );
}

/// Karras spacing moves the timesteps, or it is reported as ignored: never neither, never both.
#[test]
fn karras_moves_the_timesteps_of_those_that_know_it_and_is_reported_by_the_others() {
    for kind in SchedulerKind::ALL {
        let plan = |spacing| {
            let choice = SchedulerChoice {
                kind: Some(*kind),
                spacing,
                ..SchedulerChoice::default()
            };
            build(&choice, &sd15(), length(8, 1.0)).unwrap()
        };
        let (plain, karras) = (plan(NoiseSpacing::Checkpoint), plan(NoiseSpacing::Karras));
        assert!(!plain.karras_ignored(), "{kind}");
        assert_eq!(karras.karras_ignored(), !kind.supports_karras_sigmas(), "{kind}");
        assert_eq!(
            karras.timesteps() != plain.timesteps(),
            kind.supports_karras_sigmas(),
            "{kind}"
        );
    }
}

/// A run that a loop of the property above found to overflow.
#[test]
fn a_noise_level_beyond_any_schedule_is_refused_by_name() {
    let choice = SchedulerChoice {
        kind: Some(SchedulerKind::KDPM2AncestralDiscrete),
        ..SchedulerChoice::default()
    };
    let config = SchedulerConfig::from_json(br#"{"sigma_max": 1e9, "use_beta_sigmas": true}"#).unwrap();
    let error = build(&choice, &config, length(6, 0.4346)).unwrap_err();
    assert!(error.to_string().contains("sigma_max"), "{error}");
}
