//! Tiny checkpoints on disk: what is shared, what leaves, and what is noticed of a replaced file.

use std::path::Path;

use fs_err::os::unix::fs::symlink;
use pentimento_catalog::{ModelEntry, ModelKind, Source};
use pentimento_pipeline::seeded;
use pentimento_types::{ManualClock, MemoryBudget};

use super::*;

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

/// Two checkpoints that differ in the UNet only.
fn two_checkpoints() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| home.path().join(name));
    seeded::write_checkpoint(seeded::Shape::Tiny, 1, &a).unwrap();
    fs_err::create_dir(&b).unwrap();
    for shared in ["tokenizer", "text_encoder", "vae", "scheduler"] {
        symlink(a.join(shared), b.join(shared)).unwrap();
    }
    fs_err::create_dir(b.join("unet")).unwrap();
    for file in ["unet/config.json", UNET] {
        fs_err::copy(a.join(file), b.join(file)).unwrap();
    }
    home
}

fn models(folder: &Path) -> ResolvedModels {
    let checkpoint = ModelEntry::new(
        &folder.file_name().unwrap().to_string_lossy(),
        ModelKind::Checkpoint,
        Source::Path(folder.to_owned()),
    );
    ResolvedModels::checkpoint(Arc::new(checkpoint))
}

fn loader(weights: u64) -> (PipelineLoader, Arc<MemoryLedger>, ManualClock) {
    let ledger = MemoryLedger::new(MemoryBudget {
        weights,
        ..MemoryBudget::UNBOUNDED
    });
    let clock = ManualClock::new(std::time::SystemTime::UNIX_EPOCH);
    let loader = PipelineLoader::new(
        Device::Cpu,
        Arc::clone(&ledger),
        Arc::new(clock.clone()),
        (None, LoaderMetrics::default()),
    );
    (loader, ledger, clock)
}

#[test]
fn two_entries_share_the_components_whose_files_they_share() {
    let home = two_checkpoints();
    let (loader, ledger, _) = loader(u64::MAX);
    let a = loader.load(&models(&home.path().join("a"))).unwrap();
    let whole = ledger.held(MemoryUse::Weights);
    let unet = fs_err::metadata(home.path().join("a").join(UNET)).unwrap().len();
    let b = loader.load(&models(&home.path().join("b"))).unwrap();
    let more = ledger.held(MemoryUse::Weights) - whole;
    // The file has a header beside the tensors.
    assert!(
        more <= unet && more > unet * 9 / 10,
        "{more} for a UNet of {unet}"
    );
    assert_eq!(loader.resident_models(), ["a", "b"]);
    drop((a, b));
    assert!(loader.evict_idle() > 0);
    assert_eq!(ledger.held(MemoryUse::Weights), 0);
    assert!(loader.resident_models().is_empty());
}

#[test]
fn a_model_in_use_stays_and_one_that_nobody_uses_leaves_for_another() {
    let home = two_checkpoints();
    let [a, b] = ["a", "b"].map(|name| models(&home.path().join(name)));
    let (unbounded, ledger, _) = loader(u64::MAX);
    unbounded.load(&a).unwrap();
    let whole = ledger.held(MemoryUse::Weights);

    let (loader, ledger, _) = loader(whole + whole / 20);
    let in_use = loader.load(&a).unwrap();
    let refused = loader.load(&b).unwrap_err();
    assert!(matches!(refused, LoadError::NoRoom(_)), "{refused:?}");
    drop(in_use);
    let _b = loader.load(&b).unwrap();
    assert_eq!(loader.resident_models(), ["b"]);
    assert!(ledger.held(MemoryUse::Weights) <= whole + whole / 20);
}

/// The checkpoint with a LoRA of rank 2 that is written beside it.
fn with_lora(folder: &Path, strength: f64) -> ResolvedModels {
    let path = folder.with_file_name("style.safetensors");
    if !path.exists() {
        let recipe = (seeded::LoraLayers::Transformers, 2, 5);
        seeded::write_lora(folder, recipe, &path).unwrap();
    }
    let lora = ModelEntry::new("style", ModelKind::Lora, Source::Path(path));
    ResolvedModels {
        loras: vec![(Arc::new(lora), strength)],
        ..models(folder)
    }
}

#[test]
fn a_set_holds_its_own_bytes_and_its_base_and_both_leave_together() {
    let home = two_checkpoints();
    let folder = home.path().join("a");
    let (loader, ledger, _) = loader(u64::MAX);
    drop(loader.load(&models(&folder)).unwrap());
    let whole = ledger.held(MemoryUse::Weights);
    let set = loader.load(&with_lora(&folder, 0.5)).unwrap();
    let own = ledger.held(MemoryUse::Weights) - whole;
    assert!(own > 0 && own < whole / 4, "{own} beside {whole}");
    drop(loader.load(&with_lora(&folder, 0.25)).unwrap());
    assert_eq!(ledger.held(MemoryUse::Weights), whole + 2 * own);
    // Again from memory.
    drop(loader.load(&with_lora(&folder, 0.25)).unwrap());
    assert_eq!(ledger.held(MemoryUse::Weights), whole + 2 * own);
    assert_eq!(loader.evict_idle(), own, "the set in use holds its base");
    drop(set);
    loader.evict_idle();
    assert_eq!(ledger.held(MemoryUse::Weights), 0);
}

#[test]
fn sets_of_a_checkpoint_are_bounded_and_shown_by_its_name_alone() {
    let home = two_checkpoints();
    let folder = home.path().join("a");
    let (loader, ledger, _) = loader(u64::MAX);
    drop(loader.load(&models(&folder)).unwrap());
    let whole = ledger.held(MemoryUse::Weights);
    drop(loader.load(&with_lora(&folder, 0.0)).unwrap());
    let own = ledger.held(MemoryUse::Weights) - whole;
    for number in 1..80 {
        drop(loader.load(&with_lora(&folder, f64::from(number))).unwrap());
    }
    assert_eq!(loader.resident_models(), ["a"]);
    assert_eq!(ledger.held(MemoryUse::Weights), whole + 64 * own);
    assert_eq!(loader.evict("a"), whole + 64 * own);
    assert!(loader.resident_models().is_empty());
}

#[test]
fn a_set_is_loaded_with_its_base_within_the_budget() {
    let home = two_checkpoints();
    let folder = home.path().join("a");
    let (unbounded, ledger, _) = loader(u64::MAX);
    drop(unbounded.load(&with_lora(&folder, 1.0)).unwrap());
    let whole = ledger.held(MemoryUse::Weights);
    let (loader, ledger, _) = loader(whole + whole / 20);
    let set = loader.load(&with_lora(&folder, 1.0)).unwrap();
    let other = loader.load(&models(&home.path().join("b"))).unwrap_err();
    assert!(matches!(other, LoadError::NoRoom(_)), "{other:?}");
    drop(set);
    let _b = loader.load(&models(&home.path().join("b"))).unwrap();
    assert!(ledger.held(MemoryUse::Weights) <= whole + whole / 20);
}

#[test]
fn a_replaced_file_is_loaded_anew_and_an_unchanged_one_is_not() {
    let home = two_checkpoints();
    let folder = home.path().join("a");
    let (loader, ledger, _) = loader(u64::MAX);
    drop(loader.load(&models(&folder)).unwrap());
    let whole = ledger.held(MemoryUse::Weights);
    drop(loader.load(&models(&folder)).unwrap());
    assert_eq!(ledger.held(MemoryUse::Weights), whole);
    let bytes = fs_err::read(folder.join(UNET)).unwrap();
    fs_err::remove_file(folder.join(UNET)).unwrap();
    fs_err::write(folder.join("unet/model.safetensors"), bytes).unwrap();
    drop(loader.load(&models(&folder)).unwrap());
    assert!(
        ledger.held(MemoryUse::Weights) > whole,
        "the old one is there until its room is needed"
    );
}

#[test]
fn a_broken_file_is_permanent_and_remembered_until_it_changes() {
    let home = two_checkpoints();
    let folder = home.path().join("a");
    let good = fs_err::read(folder.join(UNET)).unwrap();
    fs_err::write(folder.join(UNET), b"<html>").unwrap();
    let (loader, _, clock) = loader(u64::MAX);
    let failure = |loader: &PipelineLoader| match loader.load(&models(&folder)) {
        Err(LoadError::Failed(error)) => error,
        other => panic!("it cannot be loaded: {other:?}"),
    };
    let first = failure(&loader);
    assert!(first.is_permanent());
    assert_eq!(first.kind(), ErrorKind::BadModel);
    assert_eq!(
        first.message(),
        "the model `a` could not be loaded: unet/diffusion_pytorch_model.safetensors: not a model: an HTML or XML \
         page instead of weights"
    );
    clock.advance(100 * FAILURE_LIFETIME);
    let (ExecutorError::ModelLoad { source: one, .. }, ExecutorError::ModelLoad { source: two, .. }) =
        (first, failure(&loader))
    else {
        panic!("both are failures of a load");
    };
    assert!(Arc::ptr_eq(&one, &two), "the files were read again");
    fs_err::write(folder.join(UNET), good).unwrap();
    loader.load(&models(&folder)).unwrap();
}

#[test]
fn every_broken_part_is_a_bad_model_with_its_file_named() {
    for (file, content) in [
        ("tokenizer/merges.txt", "nonsense"),
        ("tokenizer/vocab.json", "{"),
        ("unet/config.json", "[]"),
        ("vae/config.json", "{\"latent_channels\": -1}"),
        ("text_encoder/config.json", "{\"hidden_size\": 7}"),
        ("scheduler/scheduler_config.json", "7"),
        ("vae/diffusion_pytorch_model.safetensors", "PK\u{3}\u{4}"),
    ] {
        let home = two_checkpoints();
        let folder = home.path().join("a");
        fs_err::write(folder.join(file), content).unwrap();
        let (loader, _, _) = loader(u64::MAX);
        let Err(LoadError::Failed(error)) = loader.load(&models(&folder)) else {
            panic!("{file} is broken");
        };
        assert_eq!(error.kind(), ErrorKind::BadModel, "{file}: {error:?}");
        assert!(error.is_permanent(), "{file}");
        let message = error.message();
        assert!(!message.contains(&folder.display().to_string()), "{message}");
        println!("{message}");
    }
}

#[test]
fn a_pipe_or_an_endless_device_in_a_model_is_refused_at_once() {
    for file in [
        "unet/config.json",
        "tokenizer/merges.txt",
        UNET,
        "scheduler/scheduler_config.json",
    ] {
        for endless in [false, true] {
            let home = two_checkpoints();
            let path = home.path().join("a").join(file);
            fs_err::remove_file(&path).unwrap();
            if endless {
                symlink("/dev/zero", &path).unwrap();
            } else {
                let made = std::process::Command::new("mkfifo").arg(&path).status();
                assert!(made.unwrap().success());
            }
            let (loader, _, _) = loader(u64::MAX);
            let Err(LoadError::Failed(error)) = loader.load(&models(&home.path().join("a"))) else {
                panic!("{file} is no file");
            };
            assert_eq!(error.kind(), ErrorKind::BadModel, "{file}: {error:?}");
        }
    }
}

#[test]
fn a_disk_that_does_not_answer_delays_its_own_model_only() {
    let home = two_checkpoints();
    let [a, b] = ["a", "b"].map(|name| models(&home.path().join(name)));
    let (loader, _, clock) = loader(u64::MAX);
    // As a load of `a` whose disk does not answer has it: the turn, and no progress.
    let hanging = Watched::default();
    let held = loader.0.reading.take(&hanging);
    let (_sender, never) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let (watched, watching) = (hanging.clone(), loader.clone());
        let attended = scope.spawn(move || watching.attend(&watched, &never));
        let other = scope.spawn(|| loader.load(&b));
        let pass = |time| {
            clock.advance(time);
            std::thread::sleep(Duration::from_millis(20));
        };
        // Slowly, since the other load is watched by the same clock.
        while !other.is_finished() {
            pass(Duration::from_millis(100));
        }
        assert!(other.join().unwrap().is_ok(), "it was let go before the other");
        while !attended.is_finished() {
            pass(Duration::from_secs(1));
        }
        assert_eq!(attended.join().unwrap(), None, "it was given up");
    });
    drop(held);
    loader.memory().given_up.insert(ModelKey::of(&a), hanging.clone());
    let Err(LoadError::Failed(error)) = loader.load(&a) else {
        panic!("a second thread would wait for the same disk");
    };
    assert!(!error.is_permanent() && error.kind() == ErrorKind::Unavailable);
    hanging.end();
    loader.load(&a).unwrap();
}

#[test]
fn a_pinned_model_stays_until_it_is_evicted_by_name() {
    let home = two_checkpoints();
    let [a, b] = ["a", "b"].map(|name| models(&home.path().join(name)));
    let unet = fs_err::metadata(home.path().join("a").join(UNET)).unwrap().len();
    let (loader, ledger, _) = loader(u64::MAX);
    drop(loader.load(&a).unwrap());
    loader.pin(&a);
    drop(loader.load(&b).unwrap());
    let both = ledger.held(MemoryUse::Weights);
    let freed = loader.evict("b");
    assert!(
        freed > unet * 9 / 10 && freed <= unet,
        "what it shares stays: {freed}"
    );
    assert_eq!(ledger.held(MemoryUse::Weights), both - freed);
    assert_eq!(loader.evict_idle(), 0);
    assert_eq!(loader.resident_models(), ["a"]);
    assert_eq!(loader.evict("a"), both - freed);
    assert!(loader.resident_models().is_empty());
}

#[test]
fn a_model_that_nobody_uses_leaves_after_its_own_time() {
    let home = two_checkpoints();
    let [brief, lasting] = [("a", Some(60)), ("b", None)].map(|(name, seconds)| {
        let models = models(&home.path().join(name));
        let mut entry = ModelEntry::clone(&models.checkpoint);
        entry.keep_alive = seconds.map(Duration::from_secs);
        ResolvedModels::checkpoint(Arc::new(entry))
    });
    let (loader, _, clock) = loader(u64::MAX);
    let used = loader.load(&brief).unwrap();
    drop(loader.load(&lasting).unwrap());
    let pass = |seconds| {
        clock.advance(Duration::from_secs(seconds));
        loader.evict_unused()
    };
    assert_eq!((pass(5), pass(600)), (0, 0), "it is in use");
    drop(used);
    assert_eq!((pass(5), pass(54)), (0, 0));
    assert!(pass(6) > 0);
    assert_eq!(loader.resident_models(), ["b"], "what they share is kept for b");
    assert_eq!(pass(1_000_000), 0);
}
