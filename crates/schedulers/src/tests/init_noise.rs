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
