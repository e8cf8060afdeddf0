//! Whole img2img runs against diffusers' own schedulers: every timestep, every model input, all latents.

use crate::{NoiseSource, Run, SchedulerConfig, SchedulerPlan, build};
use candle_core::Tensor;
use pentimento_testkit::{Difference, Golden, Tolerance, compare};
use pentimento_types::{AlgorithmType, NoiseSpacing, SchedulerChoice, SchedulerKind};

/// The stand-in for the UNet of `tests/golden/generate/schedulers.py`.
fn model(sample: &Tensor, timestep: f64) -> Tensor {
    let wave = (timestep / 150.0).cos();
    let squash = sample.sqr().unwrap().affine(0.25, 1.0).unwrap();
    let pulled = (sample.affine(0.9, 0.0).unwrap() / squash).unwrap();
    let rolled = sample.roll(1, 3).unwrap();
    let sum = (pulled + rolled.affine(0.3 * wave, 0.0).unwrap()).unwrap();
    sum.affine(1.0, 0.1 * wave).unwrap()
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
fn peak(tensor: &Tensor) -> f64 {
    let flat = tensor.abs().unwrap().flatten_all().unwrap();
    f64::from(flat.max(0).unwrap().to_scalar::<f32>().unwrap())
}

/// The plan of one case of a golden file.
fn plan_of(kind: SchedulerKind, case: &serde_json::Value) -> SchedulerPlan {
    let config = serde_json::to_vec(&case["config"]).unwrap();
    let config = SchedulerConfig::from_json(&config).unwrap();
    let spacing = if case["karras"] == true {
        NoiseSpacing::Karras
    } else {
        NoiseSpacing::Checkpoint
    };
    let choice = SchedulerChoice {
        kind: Some(kind),
        spacing,
        algorithm: case["algorithm"].as_str().map(algorithm),
    };
    let run = Run {
        steps: u32::try_from(case["steps"].as_u64().unwrap()).unwrap(),
        strength: case["strength"].as_f64().unwrap(),
    };
    build(&choice, &config, run).unwrap()
}

/// Compares one run with `tensor`, its recorded parts, and returns the worst difference.
fn run_case<'a>(
    what: &str,
    plan: SchedulerPlan,
    noise: NoiseSource,
    clean: &Tensor,
    tensor: impl Fn(&str) -> &'a Tensor,
) -> Difference {
    let timesteps = tensor("timesteps").to_vec1::<f64>().unwrap();
    assert_eq!(plan.evaluations() as usize, timesteps.len(), "{what}");
    for (found, expected) in plan.timesteps().iter().zip(&timesteps) {
        assert!((found - expected).abs() < 1e-3, "{what}: {found} {expected}");
    }
    let tolerance = tolerance(tensor("start"));
    let mut all = Difference { max: 0.0, mean: 0.0 };
    let mut check = |part: &str, found: &Tensor, expected: &Tensor| {
        // `compare` takes numbers of this size for pixels and would not rescale.
        let scale = 1.0 / peak(expected).max(1.0);
        let scaled = |t: &Tensor| t.affine(scale, 0.0).unwrap();
        let found = compare(&scaled(found), &scaled(expected)).unwrap();
        assert!(
            found.max <= tolerance.max && found.mean <= tolerance.mean,
            "{what}, {part}: {found:?}"
        );
        all = Difference {
            max: all.max.max(found.max),
            mean: all.mean.max(found.mean),
        };
    };
    let mut scheduler = plan.begin(clean, noise).unwrap();
    check("start", scheduler.latents(), tensor("start"));
    for (index, timestep) in timesteps.iter().enumerate() {
        let evaluation = scheduler.next_evaluation().unwrap().unwrap();
        let part = |of: &str| tensor(of).narrow(0, index, 1).unwrap();
        check(&format!("input {index}"), &evaluation.sample, &part("inputs"));
        // Our own input goes on, so differences add up as they do in a picture.
        scheduler.advance(&model(&evaluation.sample, *timestep)).unwrap();
        check(&format!("latents {index}"), scheduler.latents(), &part("latents"));
    }
    assert!(scheduler.next_evaluation().unwrap().is_none(), "{what}");
    all
}

/// Runs that start at a sigma of thousands cannot be closer than f32 is there.
fn tolerance(start: &Tensor) -> Tolerance {
    if peak(start) > 1000.0 {
        Tolerance::SCHEDULER_ZERO_SNR
    } else {
        Tolerance::SCHEDULER
    }
}

/// Runs every case of a golden file and prints the worst differences.
fn run_golden(kind: SchedulerKind) {
    let name = kind.class_name().trim_end_matches("Scheduler");
    let golden = Golden::open(&format!("schedulers/{name}.safetensors"));
    let cases = golden.about()["cases"].as_array().unwrap();
    assert!(cases.len() >= 11, "{kind}: {}", cases.len());
    let (mut usual, mut noisy) = ((0.0_f64, 0.0_f64), 0.0_f64);
    for (number, case) in cases.iter().enumerate() {
        let what = format!("{kind} case {number} {}", case["changes"]);
        let tensor = |part: &str| golden.tensor(&format!("{number}.{part}"));
        let noise = NoiseSource::new(case["seed"].as_u64().unwrap());
        let found = run_case(&what, plan_of(kind, case), noise, golden.tensor("clean"), tensor);
        if tolerance(tensor("start")) == Tolerance::SCHEDULER {
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
            run_golden(SchedulerKind::$kind);
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
);
