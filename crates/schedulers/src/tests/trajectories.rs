//! Whole img2img runs against diffusers' own schedulers: every timestep, every model input, all latents.

use pentimento_testkit::{Difference, Golden, Tolerance, compare_values};
use pentimento_types::{AlgorithmType, NoiseSpacing, SchedulerChoice, SchedulerKind, StrengthRule};

use super::shifted_right;
use crate::{Latents, NoiseSource, Run, SchedulerConfig, SchedulerPlan, build};

/// The stand-in for the UNet of `tests/golden/generate/schedulers.py`.
#[expect(clippy::cast_possible_truncation, reason = "the stand-in computes in f32")]
fn model(sample: &Latents, timestep: f64) -> Latents {
    let wave = (timestep / 150.0).cos();
    let (of_left, shift) = ((0.3 * wave) as f32, (0.1 * wave) as f32);
    let values = sample.values().iter().zip(shifted_right(sample));
    let mixed = values.map(|(x, left)| {
        let pulled = x * 0.9 / (x * x * 0.25 + 1.0);
        pulled + left * of_left + shift
    });
    Latents::new(sample.shape(), mixed.collect()).unwrap()
}

fn algorithm(name: &str) -> AlgorithmType {
    match name {
        "dpmsolver" => AlgorithmType::DpmSolver,
        "dpmsolver++" => AlgorithmType::DpmSolverPlusPlus,
        "sde-dpmsolver" => AlgorithmType::SdeDpmSolver,
        "sde-dpmsolver++" => AlgorithmType::SdeDpmSolverPlusPlus,
        other => panic!("{other}"),
    }
}

/// The largest magnitude.
fn peak(values: &[f32]) -> f64 {
    values.iter().map(|x| f64::from(x.abs())).fold(0.0, f64::max)
}

/// The plan of one case of a golden file.
fn plan_of(kind: SchedulerKind, case: &serde_json::Value) -> SchedulerPlan {
    let config = serde_json::to_vec(&case["config"]).unwrap();
    let timesteps: Option<Vec<u32>> = serde_json::from_value(case["timesteps"].clone()).unwrap();
    let config = SchedulerConfig::from_json(&config).unwrap();
    let config = config.adjusted(None, None, timesteps.as_deref());
    let spacing = if case["karras"] == true {
        NoiseSpacing::Karras
    } else {
        NoiseSpacing::Checkpoint
    };
    let choice = SchedulerChoice {
        kind: Some(kind),
        spacing,
        algorithm: case["algorithm"].as_str().map(algorithm),
        strength_rule: match case["strength_rule"].as_str() {
            None => StrengthRule::FewerSteps,
            Some(_) => StrengthRule::LowerStart,
        },
    };
    let run = Run {
        num_inference_steps: u32::try_from(case["steps"].as_u64().unwrap()).unwrap(),
        strength: case["strength"].as_f64().unwrap(),
    };
    build(&choice, &config, run).unwrap()
}

/// Compares one run with its recorded parts in `golden`, and returns the worst difference.
fn run_case(what: &str, plan: SchedulerPlan, noise_source: NoiseSource, golden: &Case<'_>) -> Difference {
    let timesteps: Vec<f64> = golden.file.values(&golden.name("timesteps"));
    assert_eq!(plan.evaluations() as usize, timesteps.len(), "{what}");
    for (found, expected) in plan.timesteps().iter().zip(&timesteps) {
        assert!((found - expected).abs() < 1e-3, "{what}: {found} {expected}");
    }
    let [start, inputs, latents] = ["start", "inputs", "latents"].map(|part| golden.values(part));
    let tolerance = tolerance(&start);
    let mut all = Difference { max: 0.0, mean: 0.0 };
    let mut check = |part: &str, found: &Latents, expected: &[f32]| {
        // `compare_values` takes numbers of this size for pixels and would not rescale.
        let scale = 1.0 / peak(expected).max(1.0);
        let expected = Latents::new(found.shape(), expected.to_vec()).unwrap();
        let (found, expected) = (found.clone().scaled(scale), expected.scaled(scale));
        let found = compare_values(found.values(), expected.values()).unwrap();
        assert!(
            found.max <= tolerance.max && found.mean <= tolerance.mean,
            "{what}, {part}: {found:?}"
        );
        all = Difference {
            max: all.max.max(found.max),
            mean: all.mean.max(found.mean),
        };
    };
    let init_latents = golden.init_latents();
    let size = init_latents.values().len();
    let mut scheduler = plan.begin(&init_latents, noise_source).unwrap();
    check("start", scheduler.latents(), &start);
    for (index, timestep) in timesteps.iter().enumerate() {
        let evaluation = scheduler.next_evaluation().unwrap();
        let recorded = index * size..(index + 1) * size;
        check(
            &format!("input {index}"),
            &evaluation.sample,
            &inputs[recorded.clone()],
        );
        // Our own input goes on, so differences add up as they do in an image.
        scheduler.advance(&model(&evaluation.sample, *timestep)).unwrap();
        check(
            &format!("latents {index}"),
            scheduler.latents(),
            &latents[recorded],
        );
    }
    assert!(scheduler.next_evaluation().is_none(), "{what}");
    all
}

/// One run of a golden file.
struct Case<'a> {
    file: &'a Golden,
    number: usize,
}

impl Case<'_> {
    fn name(&self, part: &str) -> String {
        format!("{}.{part}", self.number)
    }

    fn values(&self, part: &str) -> Vec<f32> {
        self.file.values(&self.name(part))
    }

    /// All runs of a file start from the same image.
    fn init_latents(&self) -> Latents {
        let shape = self.file.shape("clean")[1..].try_into().unwrap();
        Latents::new(shape, self.file.values("clean")).unwrap()
    }
}

/// Runs that start at a sigma of thousands cannot be closer than f32 is there.
fn tolerance(start: &[f32]) -> Tolerance {
    if peak(start) > 1000.0 {
        Tolerance::SCHEDULER_ZERO_SNR
    } else {
        Tolerance::SCHEDULER
    }
}

/// Runs every case of a golden file and prints the worst differences.
fn run_golden(name: &str, kind: SchedulerKind) {
    let golden = Golden::open(&format!("schedulers/{name}.safetensors"));
    let cases = golden.about()["cases"].as_array().unwrap();
    assert!(cases.len() >= 11, "{name}: {}", cases.len());
    let (mut usual, mut noisy) = ((0.0_f64, 0.0_f64), 0.0_f64);
    for (number, case) in cases.iter().enumerate() {
        let what = format!("{kind} case {number} {}", case["changes"]);
        let recorded = Case {
            file: &golden,
            number,
        };
        let noise_source = NoiseSource::new(case["seed"].as_u64().unwrap());
        let found = run_case(&what, plan_of(kind, case), noise_source, &recorded);
        if tolerance(&recorded.values("start")) == Tolerance::SCHEDULER {
            usual = (usual.0.max(found.max), usual.1.max(found.mean));
        } else {
            noisy = noisy.max(found.max);
        }
    }
    println!(
        "{kind}: {} runs, largest {:.1e}, mean {:.1e}; from a sigma of thousands {noisy:.1e}",
        cases.len(),
        usual.0,
        usual.1
    );
}

macro_rules! goldens {
    ($($test:ident: $kind:ident),+ $(,)?) => {
        $(#[test]
        fn $test() {
            run_golden(stringify!($kind), SchedulerKind::$kind);
        })+
    };
}

goldens!(
    ddpm: DDPM,
    ddim: DDIM,
    pndm: PNDM,
    lms_discrete: LMSDiscrete,
    euler_discrete: EulerDiscrete,
    euler_ancestral_discrete: EulerAncestralDiscrete,
    dpm_solver_multistep: DPMSolverMultistep,
    heun_discrete: HeunDiscrete,
    kdpm2_discrete: KDPM2Discrete,
    dpm_solver_singlestep: DPMSolverSinglestep,
    kdpm2_ancestral_discrete: KDPM2AncestralDiscrete,
    unipc_multistep: UniPCMultistep,
    ddim_inverse: DDIMInverse,
    deis_multistep: DEISMultistep,
    ipndm: IPNDM,
    karras_ve: KarrasVe,
    score_sde_ve: ScoreSdeVe,
    lcm: LCM,
    tcd: TCD,
);

#[test]
fn timesteps_of_the_model_s_own() {
    for kind in [
        SchedulerKind::EulerDiscrete,
        SchedulerKind::DDPM,
        SchedulerKind::LCM,
        SchedulerKind::TCD,
    ] {
        let name = kind.class_name().trim_end_matches("Scheduler");
        run_golden(&format!("{name}-timesteps"), kind);
    }
}

#[test]
fn timesteps_of_the_model_s_own_are_no_other_scheduler_s() {
    let run = Run {
        num_inference_steps: 30,
        strength: 1.0,
    };
    let plan = |kind: SchedulerKind, timesteps: &[u32]| {
        let choice = SchedulerChoice {
            kind: Some(kind),
            spacing: NoiseSpacing::Karras,
            ..SchedulerChoice::default()
        };
        build(&choice, &SchedulerConfig::default().adjusted(None, None, Some(timesteps)), run)
    };
    let euler = plan(SchedulerKind::EulerDiscrete, &[999, 499]).unwrap();
    assert_eq!((euler.evaluations(), euler.spacing()), (2, NoiseSpacing::Checkpoint));
    let refused = plan(SchedulerKind::UniPCMultistep, &[999, 499]).unwrap_err().to_string();
    assert!(refused.contains("UniPCMultistepScheduler does not take"), "{refused}");
    for wrong in [&[][..], &[499, 999], &[1000], &[5, 5]] {
        assert!(plan(SchedulerKind::LCM, wrong).is_err(), "{wrong:?}");
    }
    // What an entry says of the scheduler is for requests that name none.
    let own = SchedulerConfig::default().adjusted(Some(SchedulerKind::TCD), Some("trailing"), None);
    let plan = build(&SchedulerChoice::default(), &own, run).unwrap();
    assert_eq!(plan.kind(), SchedulerKind::TCD);
}

#[test]
fn lcm_with_the_strength_in_its_timesteps() {
    run_golden("LCM-strength", SchedulerKind::LCM);
}
