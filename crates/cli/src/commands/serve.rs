//! `pentimento serve`: the server, from the lock on its data folder to the orderly end.
//!
//! The first SIGTERM, SIGINT or SIGHUP lets running jobs finish within the grace, a second one ends them between two steps.
//! Jobs that have not ended wait for the next start.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use pentimento_api::{ApiConfig, RefusedConnections, RestartSwitch};
use pentimento_service::{KeyRing, Service};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::admin_server::AdminServer;
use crate::cluster::Membership;
use crate::config::{Config, ConfigError};
use crate::data_folder::DataFolder;
use crate::telemetry::Telemetry;
use crate::{assemble, idle, output};

/// How long open connections get for their last reply after the jobs have ended.
const FLUSH: Duration = Duration::from_secs(5);
/// Between two looks whether the data folder is still there.
const LOOK_AT_FOLDER: Duration = Duration::from_secs(1);

/// What is to come after a server that has ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing: it was told to stop.
    Nothing,
    /// Another one in its place.
    StartAgain,
    /// Another process, which alone can use the device again.
    DeviceLost,
}

/// Runs jobs of a cluster until it is told to stop, and answers health checks alone.
pub(crate) async fn work(config: Config, telemetry: &Telemetry) -> anyhow::Result<Next> {
    let config = Config {
        runs_jobs: true,
        ..config
    };
    if config.cluster.is_none() {
        let problem = "a worker needs a cluster to work for: --cluster nats://HOST:4222".to_owned();
        return Err(ConfigError::Arguments { problem }.into());
    }
    let mut stop = StopSignals::listen()?;
    let server = Server::start_as(&config, telemetry, Role::Worker).await?;
    match &server.admin {
        Some(admin) => output::line(format_args!(
            "working; health checks on http://{}",
            admin.address()
        )),
        None => output::line(format_args!("working")),
    }
    server.serve_until(&mut stop).await
}

/// Whether callers reach a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Server,
    Worker,
}

/// Serves until it is told to stop.
pub(crate) async fn run(config: Config, telemetry: &Telemetry) -> anyhow::Result<Next> {
    let mut stop = StopSignals::listen()?;
    let server = Server::start(&config, telemetry).await?;
    server.restart.heed();
    output::line(format_args!("listening on http://{}", server.address()));
    if let Some(admin) = &server.admin {
        output::line(format_args!("health checks on http://{}", admin.address()));
    }
    server.serve_until(&mut stop).await
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    service: Service,
    engine: assemble::Engine,
    grace: Duration,
    close: oneshot::Sender<()>,
    http: JoinHandle<std::io::Result<()>>,
    /// Answers until the end of everything above.
    admin: Option<AdminServer>,
    restart: RestartSwitch,
    membership: Option<Membership>,
    /// Gives memory back when there is nothing to do, and looks after the data folder; ends when this is dropped.
    _idle: JoinSet<()>,
    // Given back last, when nothing writes into the folder any more.
    _data: Arc<DataFolder>,
}

impl Server {
    /// Takes the data folder, starts everything, and listens.
    pub(crate) async fn start(config: &Config, telemetry: &Telemetry) -> anyhow::Result<Self> {
        Self::start_as(config, telemetry, Role::Server).await
    }

    async fn start_as(config: &Config, telemetry: &Telemetry, role: Role) -> anyhow::Result<Self> {
        let keys = Arc::new(assemble::key_ring(config)?);
        config.check_exposure(keys.is_open())?;
        let data = Arc::new(DataFolder::open(&config.data)?);
        // Before any job is taken up: a start that fails would count as a crash of those that ran.
        let listen = match role {
            Role::Server => config.http.listen,
            // Of a worker only the address for health checks is heard.
            Role::Worker => (std::net::Ipv4Addr::LOCALHOST, 0).into(),
        };
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}"))?;
        let address = listener.local_addr()?;
        let admin_listener = AdminServer::bind(&config.http)?;
        let assemble::Parts {
            service,
            engine,
            router,
            admin_router,
            api,
            refused_connections,
            restart,
            membership,
        } = assemble::everything(
            config,
            &data,
            (Arc::clone(&keys), role == Role::Server),
            telemetry,
        )
        .await?;
        let started = follow_and_answer(
            &keys,
            admin_listener,
            (admin_router, refused_connections.clone()),
            &api,
        );
        let admin = match started {
            Ok(admin) => admin,
            Err(error) => {
                // Jobs that were begun are put back.
                service.shutdown(Duration::ZERO).await;
                engine.stop().await?;
                return Err(error);
            }
        };
        if role == Role::Server
            && let Some(warning) = config.http.plain_text_warning()
        {
            tracing::warn!("{warning}");
        }
        let (close, closed) = oneshot::channel::<()>();
        let closed = async move {
            // A dropped sender means the same: stop.
            let _ = closed.await;
        };
        let http = match role {
            Role::Server => tokio::spawn(assemble::serve(
                listener,
                router,
                (api, refused_connections),
                closed,
            )),
            // The listener and its calls end here.
            Role::Worker => tokio::spawn(closed.map(Ok)),
        };
        let mut idle = JoinSet::new();
        idle.spawn(idle::give_memory_back(service.clone()));
        idle.spawn(watch_folder(Arc::clone(&data), service.clone()));
        tracing::info!(%address, works = config.runs_jobs, keys = keys.count(), data = %data.path().display(), "the server is ready");
        Ok(Self {
            address,
            service,
            engine,
            grace: config.grace,
            close,
            http,
            admin,
            restart,
            membership,
            _idle: idle,
            _data: data,
        })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until a signal comes, an operator's call asks for a restart, or the HTTP side ends by itself.
    pub(crate) async fn serve_until(mut self, stop: &mut StopSignals) -> anyhow::Result<Next> {
        let next = tokio::select! {
            ended = &mut self.http => {
                ended.context("the HTTP side ended by a fault")?.context("the HTTP side ended")?;
                anyhow::bail!("the HTTP side ended by itself");
            }
            () = stop.next() => Next::Nothing,
            () = self.restart.asked() => Next::StartAgain,
            () = self.engine.handle.lost() => Next::DeviceLost,
        };
        if next == Next::DeviceLost {
            tracing::error!(
                "the device is lost: this process ends, and jobs that have not ended wait for the next one"
            );
        }
        tracing::info!(
            starts_again = next == Next::StartAgain,
            grace_seconds = self.grace.as_secs(),
            "stopping: running jobs are finished, the others wait for the next start"
        );
        let told = self.stop(stop).await?;
        // Whoever wants it to end has the last word.
        Ok(if told { Next::Nothing } else { next })
    }

    /// Refuses what is new, drains what was accepted, then closes the connections. Says whether a signal came meanwhile.
    pub(crate) async fn stop(self, stop: &mut StopSignals) -> anyhow::Result<bool> {
        let hurried = async {
            tracing::warn!("told twice to stop: running jobs end after their current step");
            self.service.shutdown(Duration::ZERO).await;
        };
        let mut told = unless_told_again(self.service.shutdown(self.grace), stop.next(), hurried).await;
        if let Some(membership) = self.membership {
            membership.leave().await;
        }
        let _ = self.close.send(());
        if tokio::time::timeout(FLUSH, self.http).await.is_err() {
            tracing::warn!("some connections were still open");
        }
        self.engine.stop().await?;
        // The runtime may have heard of one that nobody has asked for yet.
        tokio::task::yield_now().await;
        tokio::select! {
            biased;
            () = stop.next() => told = true,
            () = std::future::ready(()) => {}
        }
        tracing::info!("stopped");
        Ok(told)
    }
}

/// The threads beside the server: one looks after the keys, one answers health checks.
fn follow_and_answer(
    keys: &Arc<KeyRing>,
    listener: Option<std::net::TcpListener>,
    (router, refused): (axum::Router, RefusedConnections),
    api: &ApiConfig,
) -> anyhow::Result<Option<AdminServer>> {
    keys.follow_file()
        .context("a thread for the keys could not be started")?;
    listener
        .map(|listener| AdminServer::start(listener, router, api, refused))
        .transpose()
}

/// Lets the service take nothing while the data folder is not where it was: its jobs and pictures would go to two places.
async fn watch_folder(data: Arc<DataFolder>, service: Service) {
    let mut was_in_place = true;
    loop {
        tokio::time::sleep(LOOK_AT_FOLDER).await;
        let folder = Arc::clone(&data);
        let look = tokio::task::spawn_blocking(move || folder.is_in_place()).await;
        let is_in_place = look.unwrap_or(true);
        if is_in_place == was_in_place {
            continue;
        }
        was_in_place = is_in_place;
        if is_in_place {
            tracing::warn!(data = %data.path().display(), "the data folder is in its place again");
            service.set_outage(None);
        } else {
            tracing::error!(
                data = %data.path().display(),
                "the data folder was moved, replaced or stripped of its lock; nothing is taken until it is back, or start again"
            );
            service.set_outage(Some("the data folder of the server was moved or replaced"));
        }
    }
}

/// Does the first, and when it is told again before that is done, the second. The first is gone by then: it may stand
/// in a line before the second, and nobody would take its turn. Says whether it was told.
async fn unless_told_again(
    first: impl Future<Output = ()>,
    again: impl Future<Output = ()>,
    second: impl Future<Output = ()>,
) -> bool {
    // The futures belong to `select!` and end with it.
    let done = tokio::select! {
        () = first => true,
        () = again => false,
    };
    if !done {
        second.await;
    }
    !done
}

/// SIGTERM, SIGINT and SIGHUP, one after the other.
#[derive(Debug)]
pub(crate) struct StopSignals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    /// The terminal was closed. None under `nohup`, whose users want the server to outlive it.
    #[cfg(unix)]
    hangup: Option<tokio::signal::unix::Signal>,
}

impl StopSignals {
    /// From here on the signals no longer end the process by themselves.
    #[cfg(unix)]
    pub(crate) fn listen() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: if ignores_hangup() {
                None
            } else {
                Some(signal(SignalKind::hangup())?)
            },
        })
    }

    #[cfg(not(unix))]
    pub(crate) fn listen() -> anyhow::Result<Self> {
        Ok(Self {})
    }

    /// Returns with the next one.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hangup => {}
        }
    }

    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) {
        // An error means that nobody will ever ask us to stop this way.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Whether whoever started this process made it ignore SIGHUP. Only Linux says so.
#[cfg(unix)]
fn ignores_hangup() -> bool {
    const HANGUP: u64 = 1;
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & HANGUP != 0)
}

#[cfg(test)]
mod tests {
    use tokio::sync::RwLock;

    use super::*;

    #[tokio::test]
    async fn who_is_told_again_does_not_wait_behind_what_it_was_told_first() {
        let line = RwLock::new(());
        let reader = line.read().await;
        let write = || async { drop(line.write().await) };
        // The first stands in line when the second call comes, and the reader leaves after that.
        let told = async {
            tokio::task::yield_now().await;
            drop(reader);
        };
        let stopped = unless_told_again(write(), told, write());
        let stopped = tokio::time::timeout(Duration::from_secs(10), stopped).await;
        assert!(stopped.is_ok(), "the second waits for the first");
    }
}
