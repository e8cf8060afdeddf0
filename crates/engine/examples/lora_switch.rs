//! How long it takes to switch to another set of LoRAs, and what a set costs at every evaluation.
//!
//! `cargo run --release -p pentimento-engine --example lora_switch [FOLDER [ROUNDS]]` writes a checkpoint of Stable Diffusion
//! 1.5's shapes in half precision, 2 GB of seeded noise, and LoRAs for it into FOLDER or a temporary one unless they are
//! there. `benches/peers/lora.py` measures diffusers on the same files.

#![expect(clippy::print_stdout, reason = "a command of the workbench that prints")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use pentimento_catalog::{ModelEntry, ModelKind, Source};
use pentimento_engine::{
    BatchPolicy, Engine, EngineHandle, JobEvent, PipelineExecutor, ResolvedJob, ResolvedModels,
};
use pentimento_pipeline::seeded::{self, LoraLayers};
use pentimento_types::{
    Clock as _, Inputs, JobId, ModelId, Recipe, RgbImage, SchedulerChoice, SchedulerKind, Size, SystemClock,
};

/// Pixels on a side where only the switch counts.
const SMALL: u32 = 64;
/// Where an evaluation counts.
const FULL: u32 = 512;
/// Name, layers and rank of each LoRA.
const LORAS: [(&str, LoraLayers, usize); 8] = [
    ("style-1", LoraLayers::Transformers, 32),
    ("style-2", LoraLayers::Transformers, 32),
    ("style-3", LoraLayers::Transformers, 32),
    ("style-4", LoraLayers::Transformers, 32),
    ("style-5", LoraLayers::Transformers, 32),
    // So high a rank that its layers are merged.
    ("wide", LoraLayers::Transformers, 320),
    ("locon", LoraLayers::WithConvolutions, 32),
    ("lcm", LoraLayers::WithConvolutions, 64),
];

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let folder = arguments.next().map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| std::env::temp_dir().join("pentimento-lora-switch"));
    let rounds = arguments
        .next()
        .and_then(|text| text.to_str()?.parse().ok())
        .unwrap_or(3);
    write_unless_there(&folder)?;
    let bench = Bench::start(folder)?;
    bench.run(&[], false, (SMALL, 1))?;
    bench.switches(rounds)?;
    bench.evaluations(rounds)
}

fn write_unless_there(folder: &Path) -> Result<()> {
    let checkpoint = folder.join("checkpoint");
    if !checkpoint.join("model_index.json").is_file() {
        println!("writing a checkpoint to {}", checkpoint.display());
        seeded::write_checkpoint(seeded::Shape::Sd15, 2, &checkpoint)?;
    }
    for (seed, (name, layers, rank)) in (10..).zip(LORAS) {
        let path = folder.join(format!("{name}.safetensors"));
        if !path.is_file() {
            seeded::write_lora(&checkpoint, (layers, rank, seed), &path)?;
        }
    }
    Ok(())
}

struct Bench {
    folder: PathBuf,
    handle: EngineHandle,
}

/// What one picture took, in seconds.
struct Taken {
    whole: f64,
    evaluations: Vec<f64>,
}

impl Bench {
    fn start(folder: PathBuf) -> Result<Self> {
        let (handle, _) = Engine::start(PipelineExecutor::cpu(), BatchPolicy::cpu(), Arc::new(SystemClock))?;
        Ok(Self { folder, handle })
    }

    fn entry(&self, name: &str, kind: ModelKind) -> Arc<ModelEntry> {
        let file = if kind == ModelKind::Checkpoint {
            self.folder.join(name)
        } else {
            self.folder.join(format!("{name}.safetensors"))
        };
        Arc::new(ModelEntry::new(name, kind, Source::Path(file)))
    }

    /// One picture with these LoRAs, on the LCM-LoRA or not.
    fn run(&self, loras: &[(&str, f64)], on_lcm: bool, shape: (u32, u32)) -> Result<Taken> {
        let lora = |(name, strength): &(&str, f64)| (self.entry(name, ModelKind::Lora), *strength);
        let models = ResolvedModels {
            loras: loras.iter().map(lora).collect(),
            lcm_loras: on_lcm.then(|| vec![self.entry("lcm", ModelKind::Lora)]),
            ..ResolvedModels::checkpoint(self.entry("checkpoint", ModelKind::Checkpoint))
        };
        let begun = SystemClock.now();
        let mut events = self.handle.generate(JobId::new(), job(models, shape)?)?;
        let (mut evaluations, mut before): (Vec<f64>, Option<Instant>) = (Vec::new(), None);
        while let Some(event) = events.blocking_next() {
            match event {
                JobEvent::Progress(_) => {
                    let now = SystemClock.now();
                    evaluations.extend(before.map(|before| (now - before).as_secs_f64()));
                    before = Some(now);
                }
                JobEvent::Failed(error) => return Err(error.into()),
                JobEvent::Started
                | JobEvent::Preview { .. }
                | JobEvent::Image { .. }
                | JobEvent::Finished
                | JobEvent::Cancelled => {}
            }
        }
        Ok(Taken {
            whole: (SystemClock.now() - begun).as_secs_f64(),
            evaluations,
        })
    }

    /// The same small picture with a set that is new, and again with one that is in memory but was not the last; without
    /// what it takes when nothing has changed.
    fn switches(&self, rounds: u32) -> Result<()> {
        let mut same = Vec::new();
        for _ in 0..2 * rounds {
            same.push(self.run(&[], false, (SMALL, 1))?.whole);
        }
        let usual = median(same);
        println!("small picture, no switch            {usual:>8.3} s");
        let sets: [(&str, &[&str], bool); 5] = [
            ("one of rank 32", &["style-1"], false),
            (
                "five of rank 32",
                &["style-1", "style-2", "style-3", "style-4", "style-5"],
                false,
            ),
            ("one of rank 320, merged", &["wide"], false),
            ("LoCon of rank 32", &["locon"], false),
            ("LCM-LoRA of rank 64, its own base", &[], true),
        ];
        for (what, names, on_lcm) in sets {
            let (mut anew, mut cached) = (Vec::new(), Vec::new());
            for round in 0..rounds {
                // A strength that was not there before is a set that was not there before.
                let strength = 1.0 - 0.05 * f64::from(round);
                let set: Vec<(&str, f64)> = names.iter().map(|name| (*name, strength)).collect();
                let first = self.run(&set, on_lcm, (SMALL, 1))?.whole;
                if round == 0 || !on_lcm {
                    anew.push(first - usual);
                }
                self.run(&[], false, (SMALL, 1))?;
                cached.push(self.run(&set, on_lcm, (SMALL, 1))?.whole - usual);
            }
            println!(
                "switch to {what:<35} {:>8.3} s from files, {:.3} s in memory",
                median(anew),
                median(cached)
            );
        }
        Ok(())
    }

    /// Evaluations with more and more LoRAs, in turns.
    fn evaluations(&self, rounds: u32) -> Result<()> {
        let styles = ["style-1", "style-2", "style-3", "style-4", "style-5"];
        let mut sets: Vec<(String, Vec<&str>, bool)> = (0..=5)
            .map(|count| (format!("{count} of rank 32"), styles[..count].to_vec(), false))
            .collect();
        sets.push(("merged transformers".to_owned(), vec!["wide"], false));
        sets.push(("merged with convolutions".to_owned(), vec!["locon"], false));
        sets.push(("on the LCM-LoRA".to_owned(), vec![], true));
        let mut taken = vec![Vec::new(); sets.len()];
        for _ in 0..rounds {
            for ((_, names, on_lcm), taken) in sets.iter().zip(&mut taken) {
                let set: Vec<(&str, f64)> = names.iter().map(|name| (*name, 0.5)).collect();
                taken.extend(self.run(&set, *on_lcm, (FULL, 4))?.evaluations);
            }
        }
        let plain = median(taken[0].clone());
        for ((what, ..), taken) in sets.iter().zip(taken) {
            let median = median(taken);
            println!(
                "evaluation, {what:<28} {median:>8.3} s, {:.3} of the plain one",
                median / plain
            );
        }
        Ok(())
    }
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
}

fn job(models: ResolvedModels, (side, steps): (u32, u32)) -> Result<ResolvedJob> {
    let size = Size {
        width: side,
        height: side,
    };
    let pixels = (0..side * side * 3)
        .map(|at| u8::try_from(at * 7 % 251).unwrap_or(0))
        .collect();
    let recipe = Recipe {
        prompt: "a photograph of a cup of coffee on a wooden table".to_owned(),
        steps,
        seed: 1,
        scheduler: SchedulerChoice {
            kind: Some(SchedulerKind::LCM),
            ..SchedulerChoice::default()
        },
        ..Recipe::of_model(ModelId::new("checkpoint"))
    };
    Ok(ResolvedJob {
        recipe: Arc::new(recipe),
        models,
        images: Inputs::new(RgbImage::new(size, pixels).ok_or("the length fits the size")?),
    })
}
