//! The line to the broker: kept for the life of the process, made again whenever it breaks, and never waited for.
//!
//! Each time it stands is an epoch. At the beginning of one whatever is missing on the broker is made, so that a broker
//! which comes back with an empty disk is as good as another. A line that stands to a broker that keeps nothing, because its
//! disk is full or its quorum is gone, counts as none after a while.

mod rooms;

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream;
use async_nats::jetstream::context::RequestErrorKind;
use async_nats::jetstream::response::Response;
use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, Event};
use pentimento_types::{Clock as _, SystemClock, describe_chain};
use rand::Rng as _;
use tokio::sync::{Notify, watch};

use crate::ClusterError;
use crate::failures::Doubt;
use crate::settings::{ClusterSettings, Credentials, LEASES_OF_SILENCE, shown};
use crate::subjects::Subjects;
use crate::tasks::Tasks;

use rooms::Standing;

/// A broker that does not answer for so long counts as away.
const ANSWER: Duration = Duration::from_secs(3);
/// Between two looks for silence on a connection that looks open: a cable that was pulled says nothing.
const PING: Duration = Duration::from_secs(10);
/// The longest wait before another try to connect; half of it is chance, or a thousand nodes would come at once.
const LONGEST_WAIT: Duration = Duration::from_secs(4);
/// The line to the broker. Clones share it.
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Arc<Shared>,
    _tasks: Arc<Tasks>,
}

struct Shared {
    client: Client,
    jetstream: jetstream::Context,
    settings: ClusterSettings,
    subjects: Subjects,
    epochs: Arc<watch::Sender<u64>>,
    epoch: watch::Receiver<u64>,
    standing: watch::Sender<Standing>,
    /// Wakes who makes what is missing.
    wanted: Notify,
    doubt: Doubt,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects. A broker that is away is tried again from then on and keeps nobody from starting; one that does not let
    /// this node in does.
    ///
    /// # Errors
    /// As [`ClusterSettings::check`], and [`ClusterError::Unusable`], [`ClusterError::Refused`], [`ClusterError::Tls`],
    /// [`ClusterError::NoJetStream`].
    pub async fn open(settings: ClusterSettings) -> Result<Self, ClusterError> {
        settings.check()?;
        let (epochs, epoch) = watch::channel(0);
        let epochs = Arc::new(epochs);
        let first = options(&settings, &epochs).await?;
        let client = match first.connect(settings.servers.clone()).await {
            Ok(client) => client,
            Err(error) => {
                let server = servers(&settings);
                // The library says of a handshake that went wrong only that reading or writing did.
                let kind = if is_of_tls(&error) {
                    ConnectErrorKind::Tls
                } else {
                    error.kind()
                };
                match kind {
                    ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                        let source = error.into();
                        return Err(ClusterError::Refused { server, source });
                    }
                    ConnectErrorKind::Tls => {
                        let source = error.into();
                        return Err(ClusterError::Tls { server, source });
                    }
                    ConnectErrorKind::ServerParse
                    | ConnectErrorKind::Dns
                    | ConnectErrorKind::TimedOut
                    | ConnectErrorKind::Io
                    | ConnectErrorKind::MaxReconnects => {}
                }
                tracing::warn!(
                    server,
                    error = describe_chain(&error),
                    "the broker cannot be reached; this node works alone until it can"
                );
                let later = options(&settings, &epochs).await?.retry_on_initial_connect();
                let connected = later.connect(settings.servers.clone()).await;
                connected.map_err(|error| ClusterError::Unusable {
                    what: "address",
                    source: error.into(),
                })?
            }
        };
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(ANSWER);
        let shared = Shared {
            subjects: Subjects::of(&settings.name, settings.streams),
            client,
            jetstream,
            settings,
            epochs,
            epoch,
            standing: watch::Sender::new(Standing::default()),
            wanted: Notify::new(),
            doubt: Doubt::default(),
        };
        let shared = Arc::new(shared);
        let tasks = Tasks::default();
        tasks.spawn(rooms::look_after(Arc::clone(&shared)));
        let connection = Self {
            shared,
            _tasks: Arc::new(tasks),
        };
        connection.check_jetstream().await?;
        Ok(connection)
    }

    /// Whether the broker was there a moment ago. One that has kept nothing for as long as a node may be silent is not, however
    /// well the line to it stands.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.shared.is_connected() && !self.shared.is_silent()
    }

    /// Changes each time the line stands (again).
    #[must_use]
    pub fn epochs(&self) -> watch::Receiver<u64> {
        self.shared.epoch.clone()
    }

    /// For messages that need not be kept.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// For messages that are kept, and for other buckets of the cluster.
    #[must_use]
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.shared.jetstream
    }

    /// What the cluster was set up with.
    #[must_use]
    pub fn settings(&self) -> &ClusterSettings {
        &self.shared.settings
    }

    pub(crate) fn subjects(&self) -> &Subjects {
        &self.shared.subjects
    }

    /// What raises doubts about the rooms, for those who speak to the broker beside them.
    pub(crate) fn doubt(&self) -> Doubt {
        self.shared.doubt.clone()
    }

    /// Something was not where it should be: it is looked for, and made, with the next use.
    pub(crate) fn distrust_rooms(&self) {
        self.shared.doubt.raise();
    }

    /// A broker without JetStream will not grow one.
    async fn check_jetstream(&self) -> Result<(), ClusterError> {
        if !self.is_up() {
            return Ok(());
        }
        let report = self.shared.jetstream.request("INFO", &()).await;
        let why: Box<dyn std::error::Error + Send + Sync> = match report {
            Ok(Response::Ok::<serde_json::Value>(_)) => return Ok(()),
            Ok(Response::Err { error }) => error.into(),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => error.into(),
            // It may be on its way up.
            Err(_) => return Ok(()),
        };
        Err(ClusterError::NoJetStream {
            server: servers(&self.shared.settings),
            source: why,
        })
    }
}

impl Shared {
    fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    fn is_silent(&self) -> bool {
        let silence = self.settings.lease * LEASES_OF_SILENCE;
        let since = self.standing.borrow().fails_since();
        since.is_some_and(|since| SystemClock.now().saturating_duration_since(since) >= silence)
    }
}

/// Whether the certificate of the broker was refused, or it spoke something else than TLS.
fn is_of_tls(error: &ConnectError) -> bool {
    use async_nats::rustls::Error as TlsError;
    let mut cause = error.source();
    while let Some(found) = cause {
        // What an input or output error holds is not its source but the source of that.
        let inside = found
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        if found.is::<TlsError>() || inside.is_some_and(|inside| inside.is::<TlsError>()) {
            return true;
        }
        cause = found.source();
    }
    false
}

fn servers(settings: &ClusterSettings) -> String {
    let servers: Vec<String> = settings.servers.iter().map(shown).collect();
    servers.join(", ")
}

async fn options(
    settings: &ClusterSettings,
    epochs: &Arc<watch::Sender<u64>>,
) -> Result<ConnectOptions, ClusterError> {
    let unusable = |what| {
        move |error: std::io::Error| ClusterError::Unusable {
            what,
            source: error.into(),
        }
    };
    let options = ConnectOptions::new();
    let options = match &settings.credentials {
        Credentials::None => options,
        Credentials::Token(token) => options.token(token.trim().to_owned()),
        Credentials::User { name, password } => options.user_and_password(name.clone(), password.clone()),
        Credentials::NkeySeed(seed) => options.nkey(seed.trim().to_owned()),
        Credentials::File(path) => {
            let read = options.credentials_file(path).await;
            read.map_err(unusable("credentials file"))?
        }
    };
    let options = match &settings.ca {
        Some(path) => {
            // Looked at now: the client would say so with each of its tries.
            fs_err::tokio::metadata(path).await.map_err(unusable("ca"))?;
            options.add_root_certificates(path.clone())
        }
        None => options,
    };
    let epochs = Arc::clone(epochs);
    Ok(options
        .name("pentimento")
        .connection_timeout(ANSWER)
        .request_timeout(Some(ANSWER))
        .ping_interval(PING)
        .max_reconnects(None)
        .reconnect_delay_callback(wait_before)
        .event_callback(move |event| {
            tell(&event, &epochs);
            std::future::ready(())
        }))
}

/// How long to wait before the `attempt`th try in a row.
fn wait_before(attempt: usize) -> Duration {
    let Some(doublings) = attempt.checked_sub(2) else {
        return Duration::ZERO;
    };
    let doublings = u32::try_from(doublings.min(16)).unwrap_or(16);
    let longest = LONGEST_WAIT.min(Duration::from_millis(50) * 2_u32.pow(doublings));
    longest.mul_f64(rand::rng().random_range(0.5..=1.0))
}

fn tell(event: &Event, epochs: &watch::Sender<u64>) {
    match event {
        Event::Connected => {
            tracing::info!("the broker of the cluster is there");
            epochs.send_modify(|epoch| *epoch += 1);
        }
        Event::Disconnected => tracing::warn!("the broker of the cluster is gone; this node works alone"),
        Event::ServerError(error) => tracing::error!(%error, "the broker of the cluster complains"),
        Event::ClientError(error) => tracing::debug!(%error, "the broker of the cluster cannot be reached"),
        Event::SlowConsumer(_) => tracing::warn!("news of the cluster come faster than they are read"),
        Event::LameDuckMode | Event::Draining | Event::Closed => {
            tracing::info!(%event, "the broker of the cluster");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_are_not_all_the_same() {
        assert_eq!(wait_before(1), Duration::ZERO);
        for attempt in [2, 5, 10, 1_000_000] {
            let wait = wait_before(attempt);
            assert!(
                wait >= Duration::from_millis(25) && wait <= LONGEST_WAIT,
                "{attempt}: {wait:?}"
            );
        }
        let waits: std::collections::HashSet<_> = (0..20).map(|_| wait_before(12)).collect();
        assert!(waits.len() > 10, "{waits:?}");
    }
}
