//! What the black-box tests share: a running server, requests, pictures and the scenario runner.

#[cfg(unix)]
pub(crate) mod account;
#[cfg(unix)]
#[expect(
    dead_code,
    reason = "a part of it is for the tests of the cluster's own crate"
)]
#[path = "../../crates/cluster/src/tests/broker.rs"]
pub(crate) mod broker;
#[cfg(unix)]
pub(crate) mod callers;
pub(crate) mod client;
pub(crate) mod expect;
pub(crate) mod exposition;
#[cfg(unix)]
pub(crate) mod fleet;
#[cfg(unix)]
pub(crate) mod ground;
pub(crate) mod hub_server;
#[cfg(unix)]
pub(crate) mod machine;
#[cfg(target_os = "linux")]
pub(crate) mod network;
pub(crate) mod picture_server;
pub(crate) mod pictures;
#[cfg(unix)]
pub(crate) mod receiver;
pub(crate) mod s3_server;
pub(crate) mod scenario;
pub(crate) mod server;
pub(crate) mod suite;
#[cfg(unix)]
pub(crate) mod worker;

use std::path::{Path, PathBuf};

/// The folder `tests` of the repository.
pub(crate) fn tests_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests")
}

/// A catalogue with the embedded model that makes pictures as large as what is sent.
pub(crate) fn any_size() -> String {
    let path = tests_folder().join("catalogues/any-size.toml");
    path.to_str().expect("a plain path").to_owned()
}

/// A folder with everything in it.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).expect("a folder can be made");
    for entry in fs_err::read_dir(from).expect("the folder is there") {
        let entry = entry.expect("it can be listed");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs_err::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}
