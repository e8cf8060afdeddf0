//! What is fetched, where it lies, and what a broken download leaves.

use axum::http::Method;
use pentimento_catalog::ModelKind;

use super::local_hub::{COMMIT, LocalHub, Trouble, sha256};
use super::*;
use crate::Stage;

async fn a_checkpoint() -> LocalHub {
    let mut hub = LocalHub::start().await;
    for path in [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
    ] {
        hub = hub.small(path, format!("{{\"file\": \"{path}\"}}"));
    }
    hub.large("unet/diffusion_pytorch_model.safetensors", bytes(70_000))
        .large("unet/diffusion_pytorch_model.bin", bytes(70_001))
        .large("unet/diffusion_flax_model.msgpack", bytes(70_002))
        .large("vae/diffusion_pytorch_model.safetensors", bytes(30_000))
        .large("text_encoder/model.safetensors", bytes(20_000))
        .large("text_encoder/pytorch_model.bin", bytes(20_001))
        .large("v1-5-pruned.ckpt", bytes(100_000))
}

#[tokio::test]
async fn of_a_repository_only_what_is_needed_is_fetched_and_python_finds_it() {
    let server = a_checkpoint().await;
    let client = Client::of(&server);
    let entry = entry(ModelKind::Checkpoint, "hf:owner/repo");
    assert!(matches!(client.hub.look(&entry), Found::Absent));
    assert!(server.log().is_empty(), "looking asks nobody");
    let place = client.fetch(&entry).await.unwrap();
    let repository = client.cache.join("models--owner--repo");
    assert_eq!(place, repository.join("snapshots").join(COMMIT));
    assert_eq!(
        fs_err::read_to_string(repository.join("refs/main")).unwrap(),
        COMMIT
    );
    let unet = place.join("unet/diffusion_pytorch_model.safetensors");
    assert_eq!(fs_err::read(&unet).unwrap(), bytes(70_000));
    let blob = format!("../../../blobs/{}", sha256(&bytes(70_000)));
    assert_eq!(fs_err::read_link(&unet).unwrap(), Path::new(&blob));
    for left in [
        "unet/diffusion_pytorch_model.bin",
        "v1-5-pruned.ckpt",
        "text_encoder/pytorch_model.bin",
    ] {
        assert!(!place.join(left).exists(), "{left}");
    }
    assert_eq!(server.bodies(), 3);
    assert_eq!(client.place(&entry), Some(place.clone()));
    assert_eq!(
        client.place(&super::entry(ModelKind::Checkpoint, "hf:owner/repo@main")),
        Some(place.clone())
    );
    let by_commit = super::entry(ModelKind::Checkpoint, &format!("hf:owner/repo@{COMMIT}"));
    assert_eq!(client.place(&by_commit), Some(place));
}

#[tokio::test]
async fn what_was_fetched_for_another_entry_does_not_pass_for_all_of_a_repository() {
    let server = a_checkpoint().await;
    let client = Client::of(&server);
    let whole = entry(ModelKind::Checkpoint, "hf:owner/repo");
    let file = entry(ModelKind::Checkpoint, "hf:owner/repo:v1-5-pruned.ckpt");
    client.fetch(&file).await.unwrap();
    assert!(client.place(&file).is_some());
    assert!(matches!(client.hub.look(&whole), Found::Absent));
    let place = client.fetch(&whole).await.unwrap();
    assert!(place.is_dir());
    assert_eq!(client.place(&whole), Some(place));

    // The one file of a repository is all of it, once the hub has said so.
    let server = LocalHub::start().await.large("lora.safetensors", bytes(1000));
    let client = Client::of(&server);
    let whole = entry(ModelKind::Lora, "hf:owner/repo");
    let place = client.fetch(&whole).await.unwrap();
    assert_eq!(client.place(&whole), Some(place));
}

#[tokio::test]
async fn another_copy_passes_for_the_wanted_one_only_where_the_hub_has_no_other() {
    let server = LocalHub::start()
        .await
        .small("config.json", "{}")
        .large("diffusion_pytorch_model.safetensors", bytes(2000))
        .large("diffusion_pytorch_model.fp16.safetensors", bytes(1000));
    let client = Client::of(&server);
    let plain = entry(ModelKind::Vae, "hf:owner/repo");
    let half = of_variant(&plain, "fp16");
    client.fetch(&half).await.unwrap();
    assert!(client.place(&half).is_some());
    assert!(
        matches!(client.hub.look(&plain), Found::Absent),
        "its copy can be had"
    );
    client.fetch(&plain).await.unwrap();
    assert!(client.place(&plain).is_some());
    let other = of_variant(&plain, "ema");
    assert!(matches!(client.hub.look(&other), Found::Absent));
    client.fetch(&other).await.unwrap();
    assert!(client.place(&other).is_some(), "the hub has no such copy");
    assert_eq!(server.bodies(), 2);
}

#[tokio::test]
async fn a_snapshot_with_a_missing_part_is_not_there() {
    let server = a_checkpoint().await;
    let client = Client::of(&server);
    let entry = entry(ModelKind::Checkpoint, "hf:owner/repo");
    let place = client.fetch(&entry).await.unwrap();
    let unet = place.join("unet/diffusion_pytorch_model.safetensors");
    let blob = fs_err::canonicalize(&unet).unwrap();
    fs_err::remove_file(blob).unwrap();
    assert!(
        matches!(client.hub.look(&entry), Found::Absent),
        "its link leads nowhere"
    );
    client.fetch(&entry).await.unwrap();
    assert_eq!(server.bodies(), 4, "only that file is fetched again");
    assert!(client.place(&entry).is_some());
}

#[tokio::test]
async fn the_token_goes_to_the_hub_and_nowhere_else() {
    let server = a_checkpoint().await;
    let client = Client::of(&server);
    client
        .fetch(&entry(ModelKind::Checkpoint, "hf:owner/repo"))
        .await
        .unwrap();
    let log = server.log();
    assert!(log.iter().any(|seen| seen.on_network) && log.iter().any(|seen| seen.method == Method::HEAD));
    for seen in log {
        let expected = (!seen.on_network).then_some("Bearer hf_secret");
        assert_eq!(seen.token.as_deref(), expected, "{seen:?}");
    }
    assert!(!format!("{:?}", client.hub).contains("hf_secret"));
}

#[tokio::test]
async fn a_hundred_who_ask_share_one_download() {
    let server = LocalHub::start().await.large("lora.safetensors", bytes(50_000));
    let client = Client::of(&server);
    let entry = file_entry("lora.safetensors");
    server.close_gate();
    let mut works: Vec<_> = (0..100)
        .map(|_| client.hub.obtain(&entry, &client.hub.look(&entry)).unwrap())
        .collect();
    while works[0].progress().total_bytes.is_none() {
        assert!(works[0].changed().await);
    }
    let progress = works[99].progress();
    assert_eq!((progress.done_bytes, progress.total_bytes), (0, Some(50_000)));
    server.open_gate();
    for mut work in works {
        work.end().await.unwrap();
    }
    assert_eq!(server.bodies(), 1);
    assert!(client.hub.under_way(&entry).is_none());
    assert!(client.place(&entry).is_some());
}

#[tokio::test]
async fn a_transfer_that_breaks_is_gone_on_with() {
    let file = bytes(300_000);
    let server = LocalHub::start().await.large("lora.safetensors", file.clone());
    let client = Client::of(&server);
    server.trouble([
        Trouble::BreakAfter(100_000),
        Trouble::Status(503),
        Trouble::BreakAfter(50_000),
    ]);
    let place = client.fetch(&file_entry("lora.safetensors")).await.unwrap();
    assert_eq!(fs_err::read(place).unwrap(), file);
    let asked: Vec<_> = server.log().into_iter().filter(|seen| seen.on_network).collect();
    let ranges: Vec<Option<&str>> = asked.iter().map(|seen| seen.range.as_deref()).collect();
    assert_eq!(
        ranges,
        [
            None,
            Some("bytes=100000-"),
            Some("bytes=100000-"),
            Some("bytes=150000-")
        ]
    );
    assert!(asked[1..].iter().all(|seen| seen.if_range));
}

#[tokio::test]
async fn a_killed_download_is_gone_on_with_by_the_next_process() {
    let file = bytes(300_000);
    let server = LocalHub::start().await.large("lora.safetensors", file.clone());
    let client = Client::of(&server);
    let blobs = client.cache.join("models--owner--repo/blobs");
    fs_err::create_dir_all(&blobs).unwrap();
    let incomplete = blobs.join(format!("{}.incomplete", sha256(&file)));
    fs_err::write(&incomplete, &file[..120_000]).unwrap();
    let place = client.fetch(&file_entry("lora.safetensors")).await.unwrap();
    assert_eq!(fs_err::read(place).unwrap(), file);
    let asked = server.log().into_iter().find(|seen| seen.on_network).unwrap();
    assert_eq!(asked.range.as_deref(), Some("bytes=120000-"));
    assert!(!incomplete.exists());

    // What is left of something else is found out by the sha256, and all comes once more.
    let other = bytes(200_000);
    let server = LocalHub::start().await.large("other.safetensors", other.clone());
    let client = Client::of(&server);
    let blobs = client.cache.join("models--owner--repo/blobs");
    fs_err::create_dir_all(&blobs).unwrap();
    fs_err::write(blobs.join(format!("{}.incomplete", sha256(&other))), [9; 1000]).unwrap();
    let place = client.fetch(&file_entry("other.safetensors")).await.unwrap();
    assert_eq!(fs_err::read(place).unwrap(), other);
    assert_eq!(server.bodies(), 2);
}

#[tokio::test]
async fn a_server_without_parts_or_with_another_file_sends_all_of_it() {
    for trouble in [Trouble::NoParts, Trouble::Changed] {
        let file = bytes(300_000);
        let server = LocalHub::start().await.large("lora.safetensors", file.clone());
        let client = Client::of(&server);
        server.trouble([Trouble::BreakAfter(100_000), trouble.clone()]);
        let entry = file_entry("lora.safetensors");
        let mut work = client.hub.begin(&entry, &client.hub.look(&entry)).unwrap();
        let place = work.end().await.unwrap();
        assert_eq!(fs_err::read(place).unwrap(), file, "{trouble:?}");
        assert_eq!(work.progress().done_bytes, 300_000, "{trouble:?}");
    }
}

#[tokio::test]
async fn a_cancelled_download_ends_and_keeps_what_has_come() {
    let server = LocalHub::start().await.large("lora.safetensors", bytes(50_000));
    let client = Client::of(&server);
    let entry = file_entry("lora.safetensors");
    server.close_gate();
    let mut work = client.hub.obtain(&entry, &client.hub.look(&entry)).unwrap();
    while work.progress().total_bytes.is_none() {
        assert!(work.changed().await);
    }
    assert!(client.hub.cancel(&entry));
    assert!(!client.hub.cancel(&entry));
    assert!(matches!(*work.end().await.unwrap_err(), HubError::Cancelled));
    assert!(client.hub.failure(&entry).is_none(), "that is no failure");
    server.open_gate();
    client.fetch(&entry).await.unwrap();
}

#[tokio::test]
async fn who_fetches_the_same_in_another_process_is_waited_for() {
    let server = LocalHub::start().await.large("lora.safetensors", bytes(50_000));
    let client = Client::of(&server);
    let entry = file_entry("lora.safetensors");
    let locks = client.cache.join(".locks/models--owner--repo");
    fs_err::create_dir_all(&locks).unwrap();
    let lock = locks.join(format!("{}.lock", sha256(&bytes(50_000))));
    let held = fs_err::File::create(lock).unwrap().into_parts().0;
    held.lock().unwrap();
    let mut work = client.hub.obtain(&entry, &client.hub.look(&entry)).unwrap();
    while work.progress().total_bytes.is_none() || work.progress().stage != Stage::Waiting {
        assert!(work.changed().await);
    }
    assert_eq!(server.bodies(), 0);
    held.unlock().unwrap();
    work.end().await.unwrap();
    assert_eq!(server.bodies(), 1);
}

#[tokio::test]
async fn files_of_the_cache_are_compared_with_their_names() {
    let server = a_checkpoint().await;
    let client = Client::of(&server);
    let place = client
        .fetch(&entry(ModelKind::Checkpoint, "hf:owner/repo"))
        .await
        .unwrap();
    assert_eq!(client.hub.compare_with_names(&place).unwrap(), 3);
    let unet = fs_err::canonicalize(place.join("unet/diffusion_pytorch_model.safetensors")).unwrap();
    fs_err::write(unet, bytes(70_001)).unwrap();
    let error = client.hub.compare_with_names(&place).unwrap_err();
    assert!(matches!(error, HubError::ChangedFile { .. }), "{error}");
}
