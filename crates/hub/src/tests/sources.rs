//! `https:` sources and the sha256 of files that are here already. (The tests' server speaks http.)

use super::local_hub::{LocalHub, Trouble, sha256};
use super::*;
use crate::Stage;

fn elsewhere(address: String, sha256: String) -> Arc<ModelEntry> {
    Arc::new(ModelEntry {
        sha256: Some(sha256),
        ..ModelEntry::new("model", ModelKind::Vae, Source::Https(address))
    })
}

#[tokio::test]
async fn a_file_from_elsewhere_is_kept_by_its_sha256() {
    let file = bytes(200_000);
    let server = LocalHub::start().await.large("vae.safetensors", file.clone());
    let entry = elsewhere(server.network_address("vae.safetensors"), sha256(&file));
    let client = Client::of(&server);
    server.trouble([Trouble::NoParts, Trouble::BreakAfter(90_000)]);
    let place = client.fetch(&entry).await.unwrap();
    assert_eq!(fs_err::read(&place).unwrap(), file);
    assert!(
        place
            .to_str()
            .unwrap()
            .ends_with(&format!("{}.safetensors", sha256(&file)))
    );
    assert_eq!(client.place(&entry), Some(place));
    let log = server.log();
    assert!(
        log.iter().all(|seen| seen.token.is_none()),
        "the token is the hub's"
    );
    assert_eq!(log.last().unwrap().range.as_deref(), Some("bytes=90000-"));
}

#[tokio::test]
async fn a_file_from_elsewhere_with_another_sha256_is_removed() {
    let server = LocalHub::start().await.large("vae.safetensors", bytes(1000));
    let client = Client::of(&server);
    let wrong = elsewhere(server.network_address("vae.safetensors"), "0".repeat(64));
    let error = client.fetch(&wrong).await.unwrap_err();
    assert!(matches!(*error, HubError::WrongSha256 { .. }), "{error}");
    assert!(matches!(client.hub.look(&wrong), Found::Absent));
    let gone = elsewhere(server.network_address("gone.safetensors"), "0".repeat(64));
    let error = client.fetch(&gone).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("there is no file `gone.safetensors` at 127.0.0.1"),
        "{error}"
    );
}

#[tokio::test]
async fn a_path_with_a_sha256_is_compared_once_until_the_file_changes() {
    let server = LocalHub::start().await;
    let client = Client::of(&server);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vae.safetensors");
    fs_err::write(&path, "abc").unwrap();
    let entry = Arc::new(ModelEntry {
        sha256: Some(sha256(b"abc")),
        ..ModelEntry::new("model", ModelKind::Vae, Source::Path(path.clone()))
    });
    assert!(matches!(client.hub.look(&entry), Found::Unchecked));
    let mut work = client.hub.obtain(&entry, &Found::Unchecked).unwrap();
    assert_eq!(work.end().await.unwrap(), path);
    assert_eq!(
        (work.progress().stage, work.progress().done_bytes),
        (Stage::Checking, 3)
    );
    assert_eq!(client.place(&entry), Some(path.clone()));

    fs_err::write(&path, "abcd").unwrap();
    assert!(
        matches!(client.hub.look(&entry), Found::Unchecked),
        "it is another file now"
    );
    let error = client.fetch(&entry).await.unwrap_err();
    assert!(matches!(*error, HubError::ChangedFile { .. }), "{error}");
    assert!(
        matches!(client.hub.look(&entry), Found::Wrong(_)),
        "and is not read again"
    );
}
