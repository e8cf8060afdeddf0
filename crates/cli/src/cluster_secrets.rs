//! The secrets that all machines of a cluster sign links and webhooks with: each is in a file of the data folder, and the same one
//! is on the broker.
//!
//! They are agreed on again whenever the line to the broker stands anew: it may not have been there at the start, or have lost its
//! disk. A machine that has the cluster's secrets already gives them to an empty broker at once; one that has only its own looks
//! for those of others first, or links that are out would end with the first machine that is added. One that answers nobody
//! offers nothing.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pentimento_cluster::Connection;
use pentimento_service::{WebhookSecret, WebhookSender};
use pentimento_storage::{LinkSigner, replace_secret_file, secret_file};
use pentimento_types::{Clock as _, SystemClock, describe_chain};

/// What links and webhooks are signed with, in the data folder.
pub(crate) const LINK_SECRET: &str = "link-secret";
pub(crate) const WEBHOOK_SECRET: &str = "webhook-secret";
/// What stands behind the name of a secret's file in that of the file that says that it is the cluster's.
const AGREED: &str = "agreed";
/// So long does a machine with secrets of its own look for those of others; all of them have found the broker by then.
const GRACE: Duration = Duration::from_secs(5);
/// So long does it wait at its start for a broker to ask.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries at the start, and later.
const AGAIN: Duration = Duration::from_millis(500);
const LATER: Duration = Duration::from_secs(2);

/// Where a secret is used.
#[derive(Clone, Debug)]
pub(crate) enum User {
    /// None before there is one.
    Links(Option<LinkSigner>),
    Webhooks(Option<WebhookSender>),
}

/// Those of one machine.
#[derive(Clone, Debug)]
pub(crate) struct Secrets {
    folder: PathBuf,
    users: Vec<User>,
    offers: bool,
    /// Since when the broker has answered that it has one of them not.
    missed_since: Option<Instant>,
}

impl User {
    const fn name(&self) -> &'static str {
        match self {
            Self::Links(_) => "links",
            Self::Webhooks(_) => "webhooks",
        }
    }

    const fn file(&self) -> &'static str {
        match self {
            Self::Links(_) => LINK_SECRET,
            Self::Webhooks(_) => WEBHOOK_SECRET,
        }
    }

    fn take(&self, secret: [u8; 32]) {
        match self {
            Self::Links(Some(signer)) => signer.replace(secret),
            Self::Webhooks(Some(sender)) => sender.replace_secret(&WebhookSecret::new(secret)),
            Self::Links(None) | Self::Webhooks(None) => {}
        }
    }
}

impl Secrets {
    /// In a data folder. A machine whose webhooks have a secret of the settings has nothing to agree on for them.
    pub(crate) fn new(folder: &Path, (offers, has_webhook_secret): (bool, bool)) -> Self {
        let mut users = vec![User::Links(None)];
        users.extend((!has_webhook_secret).then_some(User::Webhooks(None)));
        Self {
            folder: folder.to_owned(),
            users,
            offers,
            missed_since: None,
        }
    }

    /// Who is told of a change from now on.
    pub(crate) fn used_by(&mut self, links: &LinkSigner, webhooks: &WebhookSender) {
        for user in &mut self.users {
            match user {
                User::Links(signer) => *signer = Some(links.clone()),
                User::Webhooks(sender) => *sender = Some(webhooks.clone()),
            }
        }
    }

    /// At the start. A machine that has none of the cluster's waits for the broker, though not for long.
    pub(crate) async fn agree_at_start(&mut self, connection: &Connection) -> anyhow::Result<()> {
        let end = SystemClock.now() + PATIENCE;
        while !self.agree(connection).await? {
            let must_wait = self.offers && !self.users.iter().all(|user| self.was_agreed(user));
            if !must_wait || SystemClock.now() >= end {
                tracing::warn!(
                    "the cluster's secrets of links and webhooks are not known yet; until they are, this machine signs with those \
                     in its data folder"
                );
                break;
            }
            SystemClock.sleep_until(SystemClock.now() + AGAIN).await;
        }
        Ok(())
    }

    /// Again on every line to the broker, for as long as the machine is in the cluster.
    pub(crate) async fn keep_agreed(mut self, connection: Connection) {
        let mut epochs = connection.epochs();
        loop {
            epochs.mark_unchanged();
            let is_agreed = self.agree(&connection).await.unwrap_or_else(|error| {
                tracing::error!(
                    error = describe_chain(&*error),
                    "a secret of the cluster cannot be kept"
                );
                false
            });
            tokio::select! {
                changed = epochs.changed() => if changed.is_err() { return },
                () = SystemClock.sleep_until(SystemClock.now() + LATER), if !is_agreed => {}
            }
        }
    }

    /// Whether all are the cluster's now. An error is one of the data folder.
    async fn agree(&mut self, connection: &Connection) -> anyhow::Result<bool> {
        let is_patient = |since: Instant| SystemClock.now().saturating_duration_since(since) < GRACE;
        let has_looked = self.missed_since.is_some_and(|since| !is_patient(since));
        let (mut are_agreed, mut is_missed) = (true, false);
        for user in &self.users {
            let file = self.folder.join(user.file());
            let ours = secret_file(&file)?;
            let offers = self.offers && (has_looked || self.was_agreed(user));
            match connection
                .shared_secret(user.name(), offers.then_some(ours))
                .await
            {
                Ok(Some(theirs)) => {
                    if theirs != ours {
                        tracing::info!(secret = user.name(), "the cluster's secret is taken over");
                        replace_secret_file(&file, &theirs)?;
                    }
                    user.take(theirs);
                    fs_err::write(self.mark(user), "")?;
                }
                Ok(None) => (are_agreed, is_missed) = (false, true),
                Err(error) => {
                    tracing::debug!(
                        secret = user.name(),
                        error = describe_chain(&error),
                        "the cluster cannot be asked for it"
                    );
                    are_agreed = false;
                }
            }
        }
        self.missed_since = is_missed.then(|| self.missed_since.unwrap_or_else(|| SystemClock.now()));
        Ok(are_agreed)
    }

    fn mark(&self, user: &User) -> PathBuf {
        self.folder.join(user.file()).with_extension(AGREED)
    }

    fn was_agreed(&self, user: &User) -> bool {
        self.mark(user).exists()
    }
}
