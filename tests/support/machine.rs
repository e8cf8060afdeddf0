//! A machine of a cluster that is stopped, killed and started again, in a folder that outlives its process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use tokio::sync::watch;

use super::server::TestServer;
use super::worker::TestWorker;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Answers callers and runs jobs.
    Server,
    /// Answers callers.
    Front,
    Worker,
}

#[derive(Debug)]
enum Running {
    Server(TestServer),
    Worker(TestWorker),
}

/// One of the cluster.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) role: Role,
    pub(crate) home: PathBuf,
    /// The version of the server that it is started with.
    pub(crate) program: PathBuf,
    running: Option<Running>,
    /// Where it answers callers now, or did a moment ago.
    address: watch::Sender<SocketAddr>,
}

impl Machine {
    /// One that is yet to be started, with the program under test.
    pub(crate) fn new(role: Role, home: PathBuf) -> Self {
        fs_err::create_dir(&home).expect("a folder for a machine");
        let (address, _) = watch::channel(([127, 0, 0, 1], 9).into());
        Self {
            role,
            home,
            program: env!("CARGO_BIN_EXE_pentimento").into(),
            running: None,
            address,
        }
    }

    pub(crate) fn start(&mut self, environment: &[(String, String)]) {
        let mut program = Command::new(&self.program);
        if self.role == Role::Worker {
            let worker = TestWorker::start_as(program, (&self.home, environment));
            self.running = Some(Running::Worker(worker));
            return;
        }
        program
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env("PENTIMENTO_RUNS_JOBS", (self.role == Role::Server).to_string());
        let server = TestServer::start_as(program, (&self.home, &[]));
        self.address.send_replace(server.address());
        self.running = Some(Running::Server(server));
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.running = None;
    }

    /// In order, which it has to end well.
    pub(crate) fn stop(&mut self) {
        let code = match &mut self.running {
            Some(Running::Server(server)) => {
                server.signal("TERM");
                server.wait()
            }
            Some(Running::Worker(worker)) => {
                worker.signal("TERM");
                worker.wait()
            }
            None => return,
        };
        assert_eq!(code, Some(0), "{:?} in {}", self.role, self.home.display());
        self.running = None;
    }

    pub(crate) fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// Where callers are answered, from now on.
    pub(crate) fn address(&self) -> watch::Receiver<SocketAddr> {
        self.address.subscribe()
    }

    /// What runs, where it answers callers.
    pub(crate) fn server(&self) -> Option<&TestServer> {
        match &self.running {
            Some(Running::Server(server)) => Some(server),
            Some(Running::Worker(_)) | None => None,
        }
    }
}
