//! Secrets that are stored nowhere, commands at the same time, and labels.

use sha2::{Digest as _, Sha256};

use super::*;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

#[test]
fn a_secret_is_shown_once_and_only_its_hash_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let file = KeyFile::in_folder(&folder.path().join("new"));
    assert_eq!(file.keys().unwrap(), None);
    let secret = file.add(&NewKey::named("alice"), now()).unwrap();
    assert!(secret.starts_with("pnt_") && secret.len() == 68, "{secret}");
    let text = fs_err::read_to_string(file.path()).unwrap();
    assert!(
        !text.contains(&secret[4..]) && text.contains("\"alice\""),
        "{text}"
    );
    let keys = file.keys().unwrap().unwrap();
    assert_eq!(keys[0].digest(), Some(Sha256::digest(secret.as_bytes()).into()));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs_err::metadata(file.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn keys_that_are_made_at_the_same_time_are_all_there() {
    let folder = tempfile::tempdir().unwrap();
    let make = |number: u32| {
        let file = KeyFile::in_folder(folder.path());
        move || file.add(&NewKey::named(format!("key-{number}")), now()).unwrap()
    };
    let secrets: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|number| scope.spawn(make(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let keys = KeyFile::in_folder(folder.path()).keys().unwrap().unwrap();
    let digest = |secret: &String| Some(Sha256::digest(secret.as_bytes()).into());
    assert!(
        secrets
            .iter()
            .all(|secret| keys.iter().any(|key| key.digest() == digest(secret)))
    );
    let left: Vec<_> = fs_err::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 3, "no draft is left: {left:?}");
}

#[test]
fn what_a_killed_command_left_is_used_up() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("keys.json.new"), "half").unwrap();
    let file = KeyFile::in_folder(folder.path());
    file.add(&NewKey::named("alice"), now()).unwrap();
    assert_eq!(file.keys().unwrap().unwrap().len(), 1);
    let left: Vec<_> = fs_err::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[cfg(unix)]
#[test]
fn the_file_stays_its_owners_whoever_changes_it() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    const SERVER: u32 = 12_345;
    let folder = tempfile::tempdir().unwrap();
    let file = KeyFile::in_folder(folder.path());
    let owners =
        || ["keys.json", "keys.lock"].map(|name| fs_err::metadata(folder.path().join(name)).unwrap().uid());
    if chown(folder.path(), Some(SERVER), None).is_err() {
        eprintln!("left out: only root can give files to others");
        return;
    }
    file.add(&NewKey::named("alice"), now()).unwrap();
    assert_eq!(owners(), [SERVER; 2], "those of the folder's owner");
    chown(file.path(), Some(SERVER + 1), None).unwrap();
    file.revoke("alice", now()).unwrap();
    assert_eq!(owners()[0], SERVER + 1, "those of who had the file before");
}

#[test]
fn a_label_is_used_once_until_its_key_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let file = KeyFile::in_folder(folder.path());
    assert!(matches!(
        file.revoke("alice", now()),
        Err(KeyFileError::NoSuchKey { revoked: false, .. })
    ));
    let first = file.add(&NewKey::named("alice"), now()).unwrap();
    assert!(matches!(
        file.add(&NewKey::named("alice"), now()),
        Err(KeyFileError::LabelTaken { .. })
    ));
    file.revoke("alice", now()).unwrap();
    assert!(matches!(
        file.revoke("alice", now()),
        Err(KeyFileError::NoSuchKey { revoked: true, .. })
    ));
    let second = file.add(&NewKey::named("alice"), now()).unwrap();
    assert_ne!(first, second);
    assert_eq!(file.keys().unwrap().unwrap().len(), 1);
    let brief = NewKey {
        life: Some(Duration::from_secs(1)),
        ..NewKey::named("bob")
    };
    file.add(&brief, now()).unwrap();
    assert!(file.add(&brief, now()).is_err());
    assert!(file.add(&brief, now() + Duration::from_secs(1)).is_ok());
    for label in ["", "a b", "anonymous", "ä", "a\nb", &"x".repeat(65)] {
        let refused = file.add(&NewKey::named(label), now());
        assert!(matches!(refused, Err(KeyFileError::Label { .. })), "{label:?}");
    }
}
