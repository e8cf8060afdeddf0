//! What the black-box tests share: a running server, requests, pictures and the scenario runner.

pub(crate) mod client;
pub(crate) mod expect;
pub(crate) mod hub_server;
pub(crate) mod picture_server;
pub(crate) mod pictures;
pub(crate) mod scenario;
pub(crate) mod server;
pub(crate) mod suite;

use std::path::PathBuf;

/// The folder `tests` of the repository.
pub(crate) fn tests_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests")
}
