//! `pentimento serve`: the server, from the lock on its data folder to the orderly end.
//!
//! The first SIGTERM or SIGINT lets accepted jobs finish within the grace, a second one ends them between two steps.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use pentimento_service::Service;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::config::Config;
use crate::data_folder::DataFolder;
use crate::{assemble, idle, output};

/// How long open connections get for their last reply after the jobs have ended.
const FLUSH: Duration = Duration::from_secs(5);

/// Serves until it is told to stop.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let mut stop = StopSignals::listen()?;
    let server = Server::start(&config).await?;
    output::line(format_args!("listening on http://{}", server.address()));
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
    /// Gives memory back when there is nothing to do; ends when this is dropped.
    _idle: JoinSet<()>,
    // Given back last, when nothing writes into the folder any more.
    _data: DataFolder,
}

impl Server {
    /// Takes the data folder, starts everything, and listens.
    pub(crate) async fn start(config: &Config) -> anyhow::Result<Self> {
        config.check_exposure()?;
        let data = DataFolder::open(&config.data)?;
        let assemble::Parts {
            service,
            engine,
            router,
            api,
        } = assemble::everything(config, &data)?;
        let listen = config.http.listen;
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}"))?;
        let address = listener.local_addr()?;
        let (close, closed) = oneshot::channel::<()>();
        let http = tokio::spawn(assemble::serve(listener, router, api, async move {
            // A dropped sender means the same: stop.
            let _ = closed.await;
        }));
        let mut idle = JoinSet::new();
        idle.spawn(idle::give_memory_back(service.clone()));
        tracing::info!(%address, keys = config.http.keys.len(), data = %data.path().display(), "the server is ready");
        Ok(Self {
            address,
            service,
            engine,
            grace: config.grace,
            close,
            http,
            _idle: idle,
            _data: data,
        })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until a signal comes or the HTTP side ends by itself.
    pub(crate) async fn serve_until(mut self, stop: &mut StopSignals) -> anyhow::Result<()> {
        tokio::select! {
            ended = &mut self.http => {
                ended.context("the HTTP side ended by a fault")?.context("the HTTP side ended")?;
                anyhow::bail!("the HTTP side ended by itself");
            }
            () = stop.next() => {}
        }
        tracing::info!(
            grace_seconds = self.grace.as_secs(),
            "stopping: accepted jobs are finished, nothing new is taken"
        );
        self.stop(stop).await
    }

    /// Refuses what is new, drains what was accepted, then closes the connections.
    pub(crate) async fn stop(self, stop: &mut StopSignals) -> anyhow::Result<()> {
        let drain = self.service.shutdown(self.grace);
        tokio::pin!(drain);
        tokio::select! {
            () = &mut drain => {}
            () = stop.next() => {
                tracing::warn!("told twice to stop: running jobs end after their current step");
                self.service.shutdown(Duration::ZERO).await;
            }
        }
        let _ = self.close.send(());
        if tokio::time::timeout(FLUSH, self.http).await.is_err() {
            tracing::warn!("some connections were still open");
        }
        self.engine.stop().await?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// SIGTERM and SIGINT, one after the other.
#[derive(Debug)]
pub(crate) struct StopSignals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignals {
    /// From here on the signals no longer end the process by themselves.
    #[cfg(unix)]
    pub(crate) fn listen() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    #[cfg(not(unix))]
    pub(crate) fn listen() -> anyhow::Result<Self> {
        Ok(Self {})
    }

    /// Returns with the next one.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
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
