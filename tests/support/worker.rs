//! The real binary as a worker of a cluster; killed when it goes out of scope.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::server::first_line;

/// A running `pentimento worker`.
#[derive(Debug)]
pub(crate) struct TestWorker {
    process: Child,
    home: PathBuf,
    /// Deleted with the worker, where it is its own.
    _folder: Option<TempDir>,
    health: String,
}

impl TestWorker {
    /// Starts one with a folder of its own.
    pub(crate) fn start(environment: &[(String, String)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut worker = Self::start_in(folder.path(), environment);
        worker._folder = Some(folder);
        worker
    }

    /// Starts it in a folder that outlives it.
    pub(crate) fn start_in(home: &Path, environment: &[(String, String)]) -> Self {
        Self::start_as(
            Command::new(env!("CARGO_BIN_EXE_pentimento")),
            (home, environment),
        )
    }

    /// Starts it as a program that ends in the server's binary, such as one that enters a namespace first.
    pub(crate) fn start_as(mut program: Command, (home, environment): (&Path, &[(String, String)])) -> Self {
        let log = fs_err::OpenOptions::new()
            .create(true)
            .append(true)
            .open(home.join("worker.log"))
            .unwrap();
        let mut process = program
            .args(["worker", "--admin-listen", "127.0.0.1:0", "--data"])
            .arg(home.join("data"))
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.into_parts().0)
            .spawn()
            .unwrap();
        let line = first_line(&mut process);
        let health = line.trim().strip_prefix("working; health checks on ");
        let health = health
            .unwrap_or_else(|| panic!("the worker said {line:?}; its log:\n{}", log_in(home)))
            .to_owned();
        Self {
            process,
            home: home.to_owned(),
            _folder: None,
            health,
        }
    }

    /// Where health checks are answered.
    pub(crate) fn health(&self) -> &str {
        &self.health
    }

    /// Its name in the cluster.
    pub(crate) fn name(&self) -> String {
        let name = fs_err::read_to_string(self.home.join("data/node-id")).unwrap();
        name.trim().to_owned()
    }

    /// Sends a signal, `TERM` for example.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.process.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    /// The exit code, once the process has ended by itself; None for one that a signal ended.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.process.wait().unwrap().code()
    }
}

fn log_in(home: &Path) -> String {
    fs_err::read_to_string(home.join("worker.log")).unwrap_or_default()
}

impl Drop for TestWorker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the worker's log:\n{}", log_in(&self.home));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
