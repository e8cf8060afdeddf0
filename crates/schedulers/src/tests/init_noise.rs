//! How large the latents are that a run starts from, and what inpainting puts in their place, for every scheduler.

use pentimento_types::{ErrorKind, HasKind, SchedulerChoice, SchedulerKind};

use crate::{Latents, NoiseSource, Run, SchedulerConfig, SchedulerError, Start, build};

/// `init_noise_sigma` after `set_timesteps(7)` with linspace, leading and trailing spacing, printed by diffusers
/// 0.42 for `beta_start` 0.00085, `beta_end` 0.012, `beta_schedule` scaled_linear, `steps_offset` 1.
const SIGMA: [f64; 3] = [
    14.614_646_911_621_094,
    6.646_311_759_948_730_5,
    14.614_646_911_621_094,
];

fn deviation(kind: SchedulerKind, spacing: &str) -> f64 {
    let json = format!(
        r#"{{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "timestep_spacing": "{spacing}"}}"#
    );
    let config = SchedulerConfig::from_json(json.as_bytes()).unwrap();
    let choice = SchedulerChoice {
        kind: Some(kind),
        ..SchedulerChoice::default()
    };
    let run = Run {
        num_inference_steps: 7,
        strength: 1.0,
    };
    let ones = Latents::new([4, 2, 2], vec![1.0; 16]).unwrap();
    let plan = build(&choice, &config, run).unwrap();
    let scheduler = plan
        .begin_from(Start::Noise { noise: &ones }, NoiseSource::new(0))
        .unwrap();
    let values = scheduler.latents().values();
    assert!(values.iter().all(|v| v.to_bits() == values[0].to_bits()));
    f64::from(values[0])
}

#[test]
fn noise_alone_is_as_large_as_in_diffusers() {
    use SchedulerKind::{
        DDIM, DDPM, DEISMultistep, DPMSolverMultistep, DPMSolverSinglestep, EulerAncestralDiscrete,
        EulerDiscrete, HeunDiscrete, KDPM2AncestralDiscrete, KDPM2Discrete, LCM, LMSDiscrete, PNDM,
        UniPCMultistep,
    };
    for (spacing, sigma) in ["linspace", "leading", "trailing"].into_iter().zip(SIGMA) {
        for kind in [
            LMSDiscrete,
            EulerDiscrete,
            EulerAncestralDiscrete,
            HeunDiscrete,
            KDPM2Discrete,
            KDPM2AncestralDiscrete,
        ] {
            let found = deviation(kind, spacing);
            assert!(
                (found - sigma).abs() < 1e-5,
                "{kind} {spacing}: {found} is not {sigma}"
            );
        }
        for kind in [
            DDPM,
            DDIM,
            PNDM,
            DPMSolverMultistep,
            DPMSolverSinglestep,
            UniPCMultistep,
            DEISMultistep,
            LCM,
        ] {
            assert_eq!(deviation(kind, spacing), 1.0, "{kind} {spacing}");
        }
    }
}

/// At the last level the noised image is the image itself, and before that it is noisier.
#[test]
fn every_scheduler_brings_an_image_to_every_level() {
    let config = SchedulerConfig::from_json(b"{}").unwrap();
    for kind in SchedulerKind::ALL {
        let choice = SchedulerChoice {
            kind: Some(*kind),
            ..SchedulerChoice::default()
        };
        let run = Run {
            num_inference_steps: 4,
            strength: 0.8,
        };
        let init_latents = NoiseSource::new(1).normal([4, 2, 3]);
        let noise = NoiseSource::new(2).normal([4, 2, 3]);
        let start = Start::Image {
            init_latents: &init_latents,
            noise: &noise,
        };
        let plan = build(&choice, &config, run).unwrap();
        let mut scheduler = plan.begin_from(start, NoiseSource::new(3)).unwrap();
        let mut put_back = 0;
        while scheduler.next_evaluation().is_some() {
            scheduler.advance(&noise).unwrap();
            if let Some(noised) = scheduler.noised_init(&init_latents, &noise).unwrap() {
                assert_eq!(noised.shape(), init_latents.shape(), "{kind}");
                scheduler.replace_latents(noised).unwrap();
                put_back += 1;
            }
        }
        assert!(put_back >= 3, "{kind}");
        assert_eq!(scheduler.latents().values(), init_latents.values(), "{kind}");
    }
}

#[test]
fn arrays_of_another_shape_are_refused() {
    let choice = SchedulerChoice {
        kind: Some(SchedulerKind::DDIM),
        ..SchedulerChoice::default()
    };
    let run = Run {
        num_inference_steps: 4,
        strength: 0.5,
    };
    let plan = || build(&choice, &SchedulerConfig::default(), run).unwrap();
    let (right, wrong) = (Latents::zeros([4, 2, 3]), Latents::zeros([4, 3, 2]));
    let start = Start::Image {
        init_latents: &right,
        noise: &wrong,
    };
    let internal = |error: SchedulerError| {
        assert!(matches!(error, SchedulerError::Shape { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Internal);
    };
    internal(plan().begin_from(start, NoiseSource::new(3)).unwrap_err());
    let mut scheduler = plan().begin(&right, NoiseSource::new(3)).unwrap();
    internal(scheduler.advance(&wrong).unwrap_err());
    internal(scheduler.noised_init(&wrong, &right).unwrap_err());
    internal(scheduler.noised_init(&right, &wrong).unwrap_err());
    internal(scheduler.replace_latents(wrong).unwrap_err());
}

/// Latents in place of which a noised image is put must stand at the level that the model input is scaled for. KDPM2's
/// midpoints are left out: upstream's `add_noise` knows only the levels of whole steps.
#[test]
fn a_noised_image_stands_at_the_level_of_the_model_input() {
    use SchedulerKind::{
        EulerAncestralDiscrete, EulerDiscrete, HeunDiscrete, KDPM2AncestralDiscrete, KDPM2Discrete, KarrasVe,
        LMSDiscrete, ScoreSdeVe,
    };
    let config = SchedulerConfig::default();
    let run = Run {
        num_inference_steps: 6,
        strength: 1.0,
    };
    let (black, ones) = (
        Latents::zeros([1, 1, 1]),
        Latents::new([1, 1, 1], vec![1.0]).unwrap(),
    );
    for (kind, stages) in [
        (LMSDiscrete, 1),
        (EulerDiscrete, 1),
        (EulerAncestralDiscrete, 1),
        (HeunDiscrete, 1),
        (KDPM2Discrete, 2),
        (KDPM2AncestralDiscrete, 2),
        (KarrasVe, 1),
        (ScoreSdeVe, 1),
    ] {
        let choice = SchedulerChoice {
            kind: Some(kind),
            ..SchedulerChoice::default()
        };
        let plan = build(&choice, &config, run).unwrap();
        let mut scheduler = plan.begin(&ones, NoiseSource::new(3)).unwrap();
        let mut index = 0;
        while let Some(evaluation) = scheduler.next_evaluation() {
            if index % stages == 0 {
                let noised = scheduler.noised_init(&black, &ones).unwrap().unwrap();
                let sigma = f64::from(noised.values()[0]);
                let expected = f64::from(scheduler.latents().values()[0]) / (sigma * sigma + 1.0).sqrt();
                let found = f64::from(evaluation.sample.values()[0]);
                assert!(
                    (found - expected).abs() <= 1e-5 * expected.abs().max(1.0),
                    "{kind} {index}: {found} {expected}"
                );
            }
            scheduler.advance(&evaluation.sample.scaled(0.5)).unwrap();
            index += 1;
        }
    }
}

#[test]
fn only_ddim_inversion_inverts_its_image() {
    for kind in SchedulerKind::ALL {
        let choice = SchedulerChoice {
            kind: Some(*kind),
            ..SchedulerChoice::default()
        };
        let run = Run {
            num_inference_steps: 4,
            strength: 1.0,
        };
        let plan = build(&choice, &SchedulerConfig::default(), run).unwrap();
        let inverts = *kind == SchedulerKind::DDIMInverse;
        assert_eq!(plan.inverts_image(), inverts, "{kind}");
        // On its way up the latents are left alone.
        let image = NoiseSource::new(1).normal([4, 2, 3]);
        let scheduler = plan.begin(&image, NoiseSource::new(3)).unwrap();
        let noised = scheduler.noised_init(&image, &image).unwrap();
        assert_eq!(noised.is_none(), inverts, "{kind}");
    }
}

/// A model that predicts no noise at all: `ScoreSdeVe` divides by the size of what it predicts.
#[test]
fn a_model_that_predicts_nothing_leaves_finite_latents() {
    for kind in SchedulerKind::ALL {
        let choice = SchedulerChoice {
            kind: Some(*kind),
            ..SchedulerChoice::default()
        };
        let run = Run {
            num_inference_steps: 5,
            strength: 1.0,
        };
        let plan = build(&choice, &SchedulerConfig::default(), run).unwrap();
        let nothing = Latents::zeros([4, 2, 3]);
        let image = NoiseSource::new(1).normal(nothing.shape());
        let mut scheduler = plan.begin(&image, NoiseSource::new(3)).unwrap();
        while scheduler.next_evaluation().is_some() {
            scheduler.advance(&nothing).unwrap();
        }
        assert!(scheduler.latents().is_finite(), "{kind}");
    }
}
