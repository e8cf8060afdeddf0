//! Whole img2img runs against diffusers' own schedulers: every timestep, every model input, all latents.

use candle_core::Tensor;
use pentimento_schedulers::{NoiseSource, Run, SchedulerConfig, build};
use pentimento_testkit::{Difference, Golden, Tolerance, compare};
use pentimento_types::{SchedulerChoice, SchedulerKind};

/// The stand-in for the UNet of `tests/golden/generate/schedulers.py`.
fn model(sample: &Tensor, timestep: f64) -> Tensor {
    let wave = (timestep / 150.0).cos();
    let squash = sample.sqr().unwrap().affine(0.25, 1.0).unwrap();
    let pulled = (sample.affine(0.9, 0.0).unwrap() / squash).unwrap();
    let rolled = sample.roll(1, 3).unwrap();
    let sum = (pulled + rolled.affine(0.3 * wave, 0.0).unwrap()).unwrap();
    sum.affine(1.0, 0.1 * wave).unwrap()
}

fn worst(a: Difference, b: Difference) -> Difference {
    Difference {
        max: a.max.max(b.max),
        mean: a.mean.max(b.mean),
    }
}

/// Runs every case of a golden file and returns the worst difference of its inputs and latents.
fn run_golden(kind: SchedulerKind) -> Difference {
    let name = kind.class_name().trim_end_matches("Scheduler");
    let golden = Golden::open(&format!("schedulers/{name}.safetensors"));
    let clean = golden.tensor("clean");
    let mut all = Difference { max: 0.0, mean: 0.0 };
    for (number, case) in golden.about()["cases"].as_array().unwrap().iter().enumerate() {
        let what = format!("{kind} case {number} {}", case["changes"]);
        let config = serde_json::to_vec(&case["config"]).unwrap();
        let config = SchedulerConfig::from_json(&config).unwrap();
        let run = Run {
            steps: u32::try_from(case["steps"].as_u64().unwrap()).unwrap(),
            strength: case["strength"].as_f64().unwrap(),
        };
        let choice = SchedulerChoice {
            kind: Some(kind),
            ..SchedulerChoice::default()
        };
        let tensor = |part: &str| golden.tensor(&format!("{number}.{part}"));
        let timesteps = tensor("timesteps").to_vec1::<f64>().unwrap();

        let plan = build(&choice, &config, run).unwrap();
        assert_eq!(plan.evaluations() as usize, timesteps.len(), "{what}");
        for (found, expected) in plan.timesteps().iter().zip(&timesteps) {
            assert!((found - expected).abs() < 1e-3, "{what}: {found} {expected}");
        }
        let noise = NoiseSource::new(case["seed"].as_u64().unwrap());
        let mut scheduler = plan.begin(clean, noise).unwrap();
        let check = |part: &str, found: &Tensor, expected: &Tensor| {
            // Zero-SNR runs in sigma start at 4096; `compare` takes such numbers for pixels and would not rescale.
            let peak = expected.abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            let scale = 1.0 / f64::from(peak.to_scalar::<f32>().unwrap()).max(1.0);
            let scaled = |t: &Tensor| t.affine(scale, 0.0).unwrap();
            let difference = compare(&scaled(found), &scaled(expected)).unwrap();
            let tolerance = if case["config"]["rescale_betas_zero_snr"] == true {
                Tolerance::SCHEDULER_ZERO_SNR
            } else {
                Tolerance::SCHEDULER
            };
            assert!(
                difference.max <= tolerance.max && difference.mean <= tolerance.mean,
                "{what}, {part}: {difference:?}"
            );
            difference
        };
        all = worst(all, check("start", scheduler.latents(), tensor("start")));
        for index in 0..timesteps.len() {
            let evaluation = scheduler.next_evaluation().unwrap().unwrap();
            let part = |of: &str| tensor(of).narrow(0, index, 1).unwrap();
            all = worst(
                all,
                check(&format!("input {index}"), &evaluation.sample, &part("inputs")),
            );
            // Our own input goes on, so differences add up as they do in a picture.
            scheduler
                .advance(&model(&evaluation.sample, timesteps[index]))
                .unwrap();
            all = worst(
                all,
                check(&format!("latents {index}"), scheduler.latents(), &part("latents")),
            );
        }
        assert!(scheduler.next_evaluation().unwrap().is_none(), "{what}");
    }
    println!("{kind}: largest {:.1e}, mean {:.1e}", all.max, all.mean);
    all
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
    ddim: DDIM,
    lcm: LCM,
    euler_discrete: EulerDiscrete,
);
