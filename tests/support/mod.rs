//! What the black-box tests share: a running server, requests, pictures and the scenario runner.

#[cfg(unix)]
#[expect(
    dead_code,
    reason = "a part of it is for the tests of the cluster's own crate"
)]
#[path = "../../crates/cluster/src/tests/broker.rs"]
pub(crate) mod broker;
pub(crate) mod client;
pub(crate) mod expect;
pub(crate) mod exposition;
pub(crate) mod hub_server;
pub(crate) mod picture_server;
pub(crate) mod pictures;
pub(crate) mod s3_server;
pub(crate) mod scenario;
pub(crate) mod server;
pub(crate) mod suite;

use std::path::{Path, PathBuf};

/// The folder `tests` of the repository.
pub(crate) fn tests_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests")
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
