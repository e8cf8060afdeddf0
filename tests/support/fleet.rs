//! A cluster of real machines under callers of both dialects, from its start to the account of everything that was accepted.

use std::path::PathBuf;
use std::time::Duration;

use rand::rngs::StdRng;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::account::Account;
use super::callers::{Callers, ENVIRONMENT};
use super::client::get;
use super::ground::{Ground, until, until_workers};
use super::machine::{Machine, Role};
use super::receiver::Receiver;

/// A worker may be silent for twice that.
pub(crate) const LEASE_SECONDS: u64 = 3;
/// Callers of each dialect, and how long each rests after a request.
const CALLERS: u32 = 2;
const REST: Duration = Duration::from_millis(200);
/// For callers and machines to end what they have begun, once all are up.
const SETTLING: Duration = Duration::from_secs(240);

/// The machines, what they share, and who calls them.
pub(crate) struct Fleet {
    pub(crate) machines: Vec<Machine>,
    pub(crate) ground: Ground,
    folder: TempDir,
    begin: tokio::time::Instant,
    environment: Vec<(String, String)>,
    receiver: Receiver,
    callers: std::sync::Arc<Callers>,
    calling: JoinSet<()>,
}

impl Fleet {
    /// Starts machines, and callers of those that answer them. None where this machine has no broker.
    pub(crate) async fn start(roles: &[Role], dice: &mut StdRng) -> Option<Self> {
        let ground = Ground::new().await?;
        let receiver = Receiver::default();
        let receiver_at = receiver.start().await;
        let solo = Callers::solo().await;
        let folder = tempfile::tempdir().expect("a folder for the machines");
        let named = roles.iter().enumerate();
        let machines: Vec<Machine> = named
            .map(|(at, role)| Machine::new(*role, folder.path().join(format!("machine-{at}"))))
            .collect();
        let answering = machines.iter().filter(|machine| machine.role != Role::Worker);
        let addresses = answering.map(Machine::address).collect();
        let callers = Callers::new(addresses, (receiver_at, REST), solo);
        let mut fleet = Self {
            environment: environment_on(&ground),
            machines,
            ground,
            folder,
            begin: tokio::time::Instant::now(),
            receiver,
            calling: JoinSet::new(),
            callers,
        };
        fleet.start_all();
        fleet.until_heard().await;
        fleet.calling = fleet.callers.start(CALLERS, dice);
        Some(fleet)
    }

    /// Since the machines were started.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Starts whatever does not run, all at once.
    pub(crate) fn start_all(&mut self) {
        let environment = &self.environment;
        tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                for machine in self.machines.iter_mut().filter(|machine| !machine.runs()) {
                    scope.spawn(move || machine.start(environment));
                }
            });
        });
    }

    /// Starts one that does not run, with another program if one is given.
    pub(crate) fn start_machine(&mut self, at: usize, program: Option<&PathBuf>) {
        let machine = &mut self.machines[at];
        if let Some(program) = program {
            machine.program.clone_from(program);
        }
        tokio::task::block_in_place(|| machine.start(&self.environment));
    }

    /// One more worker.
    pub(crate) async fn add_worker(&mut self, program: Option<&PathBuf>) {
        let at = self.machines.len();
        let home = self.folder.path().join(format!("machine-{at}"));
        self.machines.push(Machine::new(Role::Worker, home));
        self.start_machine(at, program);
        self.until_heard().await;
    }

    /// Stops a machine in order.
    pub(crate) fn stop(&mut self, at: usize) {
        tokio::task::block_in_place(|| self.machines[at].stop());
    }

    /// Waits until everybody who answers callers knows all who run jobs.
    pub(crate) async fn until_heard(&self) {
        let working = |machine: &&Machine| machine.runs() && machine.role != Role::Front;
        let count = self.machines.iter().filter(working).count();
        for server in self.machines.iter().filter_map(Machine::server) {
            until_workers(server, count).await;
        }
    }

    /// Lets everything come to its end, stops the machines, and holds what they have written down against what callers and the
    /// receiver say.
    pub(crate) async fn finish(mut self) -> Account {
        let ends = self.callers.finish(std::mem::take(&mut self.calling));
        let Ok(ends) = tokio::time::timeout(SETTLING, ends).await else {
            panic!("callers are not answered; open: {:#?}", self.open_jobs().await);
        };
        println!("callers have their answers after {:.1?}", self.elapsed());
        self.until_settled().await;
        self.receiver.until_quiet().await;
        println!("settled after {:.1?}", self.elapsed());
        for at in 0..self.machines.len() {
            self.stop(at);
        }
        let homes: Vec<PathBuf> = self.machines.iter().map(|machine| machine.home.clone()).collect();
        let account = Account::read(&homes).await;
        let objects = self.ground.store.objects();
        let is_stored = |key: &str| {
            objects
                .iter()
                .any(|(name, _)| name.strip_prefix("of/tests/") == Some(key))
        };
        account.judge_jobs(&ends, is_stored);
        account.judge_webhooks(&self.receiver.messages());
        account
    }

    /// Waits until no machine has a job that waits or runs.
    async fn until_settled(&self) {
        for server in self.machines.iter().filter_map(Machine::server) {
            until("nothing waits or runs", async || {
                let jobs = get(&format!("{}/readyz", server.base())).await.json()["jobs"].clone();
                (jobs["queued"] == 0 && jobs["running"] == 0).then_some(())
            })
            .await;
        }
    }

    /// For a test that fails: what each machine knows of jobs that have not ended.
    async fn open_jobs(&self) -> Vec<String> {
        let mut open = Vec::new();
        for server in self.machines.iter().filter_map(Machine::server) {
            for state in ["fetching", "queued", "running"] {
                let address = format!("{}/v1/jobs?state={state}", server.base());
                open.push(format!("{state}: {}", get(&address).await.json()));
            }
        }
        open
    }
}

/// What such machines need.
fn environment_on(ground: &Ground) -> Vec<(String, String)> {
    let mut environment = ground.environment();
    let more = ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned()));
    environment.extend(more);
    let lease = ("PENTIMENTO_CLUSTER_LEASE_SECONDS", LEASE_SECONDS.to_string());
    environment.push((lease.0.to_owned(), lease.1));
    environment
}
