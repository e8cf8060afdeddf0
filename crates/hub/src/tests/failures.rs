//! What goes wrong at a hub, and what is said about it.

use super::local_hub::{LocalHub, Trouble, sha256};
use super::*;

async fn with_a_file() -> (LocalHub, Arc<ModelEntry>) {
    let server = LocalHub::start().await.large("lora.safetensors", bytes(50_000));
    (server, file_entry("lora.safetensors"))
}

#[tokio::test]
async fn every_refusal_says_what_to_do() {
    let (server, file) = with_a_file().await;
    let whole = entry(ModelKind::Checkpoint, "hf:owner/repo");
    for (status, code, says) in [
        (
            401,
            Some("GatedRepo"),
            "accept its licence on its page at the hub, and set HF_TOKEN",
        ),
        (
            403,
            Some("GatedRepo"),
            "accept its licence on its page at the hub, and set HF_TOKEN",
        ),
        (403, None, "is gated"),
        (
            401,
            Some("RepoNotFound"),
            "does not exist, or it is private; check its name, or set HF_TOKEN",
        ),
        (401, None, "does not exist, or it is private"),
        (404, Some("RepoNotFound"), "does not exist, or it is private"),
        (404, Some("RevisionNotFound"), "has no revision `main`"),
        (403, Some("DisabledRepo"), "has disabled the repository"),
        (400, None, "answered with status 400"),
    ] {
        server.refuse(status, code);
        for entry in [&file, &whole] {
            let client = Client::of(&server);
            let error = client.fetch(entry).await.unwrap_err();
            let text = error.to_string();
            assert!(text.contains(says), "{status} {code:?}: {text}");
            assert!(
                !text.contains("hf_secret") && !text.contains(client.cache.to_str().unwrap()),
                "{text}"
            );
        }
    }
    server.accept();
    let client = Client::of(&server);
    let missing = client.fetch(&file_entry("other.safetensors")).await.unwrap_err();
    assert!(
        missing
            .to_string()
            .contains("there is no file `other.safetensors` at owner/repo"),
        "{missing}"
    );
    let nothing = client.fetch(&whole).await.unwrap();
    assert!(
        nothing.ends_with("lora.safetensors"),
        "the only file is taken for a single-file checkpoint"
    );
    let vae = client
        .fetch(&entry(ModelKind::Embedding, "hf:other/repo"))
        .await
        .unwrap_err();
    assert!(matches!(*vae, HubError::NoRepository { .. }), "{vae}");
}

#[tokio::test]
async fn a_failure_is_remembered_for_a_while_and_begun_again_when_told() {
    let (server, entry) = with_a_file().await;
    let client = Client::of(&server);
    server.refuse(404, Some("RepoNotFound"));
    client.fetch(&entry).await.unwrap_err();
    let asked = server.log().len();
    for _ in 0..100 {
        let error = client.hub.obtain(&entry, &client.hub.look(&entry)).unwrap_err();
        assert!(matches!(*error, HubError::NoRepository { .. }));
    }
    assert_eq!(server.log().len(), asked, "the hub is not asked again");
    server.accept();
    client.fetch(&entry).await.unwrap();
    assert!(client.hub.failure(&entry).is_none());
}

#[tokio::test]
async fn wrong_bytes_are_removed_and_never_appear() {
    let (server, entry) = with_a_file().await;
    let client = Client::of(&server);
    server.trouble([Trouble::WrongBytes]);
    let error = client.fetch(&entry).await.unwrap_err();
    assert!(matches!(*error, HubError::WrongSha256 { .. }), "{error}");
    assert!(error.to_string().contains("the file was removed"));
    let blobs = client.cache.join("models--owner--repo/blobs");
    assert_eq!(fs_err::read_dir(blobs).unwrap().count(), 0);
    assert!(matches!(client.hub.look(&entry), Found::Absent));
    client.fetch(&entry).await.unwrap();
}

#[tokio::test]
async fn the_catalogues_sha256_counts_also_where_the_hub_has_its_own() {
    let (server, entry) = with_a_file().await;
    let with_sha256 = |sha256: String| {
        Arc::new(ModelEntry {
            sha256: Some(sha256),
            ..ModelEntry::clone(&entry)
        })
    };
    let client = Client::of(&server);
    let wrong = client.fetch(&with_sha256("0".repeat(64))).await.unwrap_err();
    assert!(matches!(*wrong, HubError::WrongSha256 { .. }), "{wrong}");
    let right = with_sha256(sha256(&bytes(50_000)));
    client.fetch(&right).await.unwrap();
    assert!(
        client.place(&right).is_some(),
        "what was computed on the way is not computed again"
    );
}

#[tokio::test]
async fn what_would_not_fit_onto_the_disk_is_not_begun() {
    let (server, entry) = with_a_file().await;
    server.announce("lora.safetensors", 1 << 60);
    let client = Client::of(&server);
    let error = client.fetch(&entry).await.unwrap_err();
    assert!(
        matches!(*error, HubError::DiskFull { needed, .. } if needed == 1 << 60),
        "{error}"
    );
    assert_eq!(server.bodies(), 0);
}

#[tokio::test]
async fn a_file_of_another_length_than_announced_is_refused() {
    let (server, entry) = with_a_file().await;
    for announced in [40_000, 60_000] {
        server.announce("lora.safetensors", announced);
        let client = Client::of(&server);
        let error = client.fetch(&entry).await.unwrap_err();
        assert!(
            matches!(*error, HubError::WrongSize { .. }),
            "{announced}: {error}"
        );
        assert!(client.place(&entry).is_none());
    }
}

#[tokio::test]
async fn who_never_answers_well_is_given_up() {
    let (server, entry) = with_a_file().await;
    let client = Client::of(&server);
    server.trouble(std::iter::repeat_n(Trouble::Status(500), 20));
    let error = client.fetch(&entry).await.unwrap_err();
    assert!(matches!(*error, HubError::Status { status: 500, .. }), "{error}");
    assert_eq!(server.bodies(), 6);
}

#[tokio::test]
async fn nobody_at_the_address_is_said() {
    let (server, entry) = with_a_file().await;
    // Nothing listens on port 1.
    let client = Client::with(&server, |settings| {
        settings.endpoint = "http://127.0.0.1:1".parse().unwrap();
    });
    let error = client.fetch(&entry).await.unwrap_err();
    assert!(matches!(*error, HubError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("127.0.0.1"));
}

#[tokio::test]
async fn offline_means_offline_and_uses_what_is_there() {
    let (server, entry) = with_a_file().await;
    let client = Client::with(&server, |settings| settings.offline = true);
    let error = client.hub.obtain(&entry, &client.hub.look(&entry)).unwrap_err();
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
    assert!(server.log().is_empty());

    let online = Client::with(&server, |settings| settings.cache = client.cache.clone());
    online.fetch(&entry).await.unwrap();
    assert!(client.place(&entry).is_some());
}

#[tokio::test]
async fn a_hub_whose_names_lead_elsewhere_writes_nothing_there() {
    let server = LocalHub::start()
        .await
        .small("model_index.json", "{}")
        .small("../../evil.safetensors", "x")
        .large("a/../../../evil.safetensors", bytes(10));
    let client = Client::of(&server);
    let error = client
        .fetch(&entry(ModelKind::Lora, "hf:owner/repo"))
        .await
        .unwrap_err();
    assert!(matches!(*error, HubError::NothingToUse { .. }), "{error}");
    assert!(!client.cache.join("evil.safetensors").exists());
}
