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
    let checkpoint = ModelEntry {
        name: folder.file_name().unwrap().to_string_lossy().into_owned(),
        aliases: Vec::new(),
        kind: ModelKind::Checkpoint,
        source: Source::Path(folder.to_owned()),
        sha256: None,
        base: None,
        role: None,
    };
    ResolvedModels::checkpoint(Arc::new(checkpoint))
}

fn loader(weights: u64) -> (PipelineLoader, Arc<MemoryLedger>, ManualClock) {
    let ledger = MemoryLedger::new(MemoryBudget {
        weights,
        ..MemoryBudget::UNBOUNDED
    });
    let clock = ManualClock::new(std::time::SystemTime::UNIX_EPOCH);
    let loader = PipelineLoader::new(Device::Cpu, Arc::clone(&ledger), Arc::new(clock.clone()));
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
fn a_broken_file_is_permanent_and_remembered_for_a_while() {
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
    let text = pentimento_types::describe_chain(&first);
    assert!(text.contains("HTML or XML page"), "{text}");
    fs_err::write(folder.join(UNET), good).unwrap();
    failure(&loader);
    clock.advance(FAILURE_LIFETIME);
    loader.load(&models(&folder)).unwrap();
}
