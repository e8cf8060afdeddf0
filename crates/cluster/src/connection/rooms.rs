//! What a cluster has on its broker, made where it is missing, by one task for all who need it.
//!
//! A line that stands says nothing of what is behind it: without a quorum, or with a disk that is full or hangs, the broker takes
//! requests and is silent. So whoever finds something amiss raises a doubt, and the task makes everything once more, and writes,
//! until that goes well. Meanwhile callers are told at once that the broker is away: one after the other would wait for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::kv;
use async_nats::jetstream::stream::{self, DiscardPolicy, RetentionPolicy, StorageType};
use bytes::Bytes;
use pentimento_jobs::JobsError;
use pentimento_types::{Clock as _, SystemClock, describe_chain};

use super::{ANSWER, Connection, Shared};
use crate::bucket::Bucket;
use crate::failures::{away, failed, silent};
use crate::subjects::WorkStream;

/// Between two tries to make what is missing.
const PAUSE: Duration = Duration::from_millis(500);
/// No name of a job: those are hashes.
const PROOF: &str = "proof";
/// How long what nobody could use is kept for whoever looks into it.
const KEEP_DEAD: Duration = Duration::from_secs(14 * 24 * 3600);
/// Messages nobody could use, in bytes.
const DEAD_BYTES: i64 = 64 << 20;

/// What a cluster has on its broker.
#[derive(Clone, Debug)]
pub(crate) struct Rooms {
    pub(crate) jobs: Bucket,
    pub(crate) leases: Bucket,
    pub(crate) names: Bucket,
    /// By their numbers.
    pub(crate) work: Vec<(WorkStream, stream::Stream)>,
}

impl Rooms {
    /// The stream with the jobs of a checkpoint.
    pub(crate) fn work_of(&self, stream: WorkStream) -> Result<&stream::Stream, JobsError> {
        let found = self.work.iter().find(|(number, _)| *number == stream);
        // All are made at once.
        found.map(|(_, stream)| stream).ok_or_else(away)
    }
}

/// How it stands with the rooms.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// Of which epoch they are.
    rooms: Option<(u64, Rooms)>,
    /// Since when they could not be made.
    fails_since: Option<Instant>,
}

impl Standing {
    pub(super) const fn fails_since(&self) -> Option<Instant> {
        self.fails_since
    }
}

impl Connection {
    /// The streams and buckets, made where they are missing.
    ///
    /// # Errors
    /// [`JobsError::Backend`], at once while the broker is away or known not to answer, and else within [`ANSWER`].
    pub(crate) async fn rooms(&self) -> Result<Rooms, JobsError> {
        let mut standing = self.shared.standing.subscribe();
        let found = async {
            loop {
                if !self.is_up() {
                    return Err(away());
                }
                let epoch = *self.shared.epoch.borrow();
                let found = {
                    let standing = standing.borrow_and_update();
                    if standing.fails_since.is_some() {
                        return Err(silent());
                    }
                    self.shared.fit(&standing, epoch)
                };
                if let Some(rooms) = found {
                    return Ok(rooms);
                }
                self.shared.wanted.notify_one();
                // The sender lives as long as this.
                let _ = standing.changed().await;
            }
        };
        tokio::time::timeout(ANSWER, found)
            .await
            .unwrap_or_else(|_| Err(silent()))
    }

    /// A bucket whose entries live for so long, without end where that is zero.
    pub(crate) async fn make_bucket(
        &self,
        bucket: String,
        description: &str,
        kept: (Duration, StorageType),
    ) -> Result<kv::Store, JobsError> {
        self.shared.make_bucket(bucket, description, kept).await
    }
}

/// Makes what is missing, whenever somebody wants it, for as long as the line is kept.
pub(super) async fn look_after(shared: Arc<Shared>) {
    loop {
        shared.wanted.notified().await;
        while shared.is_connected() {
            let epoch = *shared.epoch.borrow();
            if shared.fit(&shared.standing.borrow(), epoch).is_some() {
                break;
            }
            // Doubts that come up from here on are of what is made here.
            shared.doubt.take();
            shared.standing.send_modify(|standing| standing.rooms = None);
            let began = SystemClock.now();
            match Box::pin(shared.make_rooms()).await {
                Ok(rooms) => shared.have(epoch, rooms),
                Err(error) => {
                    shared.have_not(began, &error);
                    SystemClock.sleep_until(SystemClock.now() + PAUSE).await;
                }
            }
        }
        if !shared.is_connected() {
            // From here on the line itself says it.
            shared.standing.send_replace(Standing::default());
        }
    }
}

impl Shared {
    /// The rooms, if they are of this epoch and nobody doubts them.
    fn fit(&self, standing: &Standing, epoch: u64) -> Option<Rooms> {
        let (made, rooms) = standing.rooms.as_ref()?;
        (*made == epoch && !self.doubt.is_raised()).then(|| rooms.clone())
    }

    fn have(&self, mut epoch: u64, rooms: Rooms) {
        if self.is_silent() {
            tracing::info!("the broker of the cluster answers again");
            // Whoever has worked alone meanwhile does what is done when the line stands again.
            self.epochs.send_modify(|latest| {
                if *latest == epoch {
                    epoch += 1;
                }
                *latest += 1;
            });
        }
        self.standing.send_replace(Standing {
            rooms: Some((epoch, rooms)),
            fails_since: None,
        });
    }

    fn have_not(&self, began: Instant, error: &JobsError) {
        if self.standing.borrow().fails_since.is_none() {
            tracing::warn!(
                error = describe_chain(error),
                "the broker of the cluster is connected and keeps nothing; this node works alone unless that ends soon"
            );
        }
        self.standing.send_modify(|standing| {
            standing.fails_since.get_or_insert(began);
        });
    }

    async fn make_rooms(&self) -> Result<Rooms, JobsError> {
        let Shared {
            subjects, settings, ..
        } = self;
        let mut work = Vec::new();
        for number in subjects.work_streams() {
            let config = stream::Config {
                name: subjects.work_stream(number),
                description: Some("jobs of pentimento that wait or run".to_owned()),
                subjects: vec![subjects.all_work(number)],
                retention: RetentionPolicy::WorkQueue,
                storage: StorageType::File,
                num_replicas: settings.replicas,
                duplicate_window: Duration::from_secs(120),
                ..stream::Config::default()
            };
            work.push((number, self.make_stream(config).await?));
        }
        let dead = stream::Config {
            name: subjects.dead_stream(),
            description: Some("messages that no node of pentimento could use, with the reason".to_owned()),
            subjects: vec![subjects.all_dead()],
            storage: StorageType::File,
            num_replicas: settings.replicas,
            max_age: KEEP_DEAD,
            max_bytes: DEAD_BYTES,
            ..stream::Config::default()
        };
        self.make_stream(dead).await?;
        let bucket = async |bucket: String, description: &str| {
            let kept = (settings.keep, StorageType::File);
            let store = self.make_bucket(bucket, description, kept).await?;
            Ok::<_, JobsError>(Bucket::new(store, self.doubt.clone()))
        };
        let rooms = Rooms {
            jobs: bucket(subjects.jobs_bucket(), "records of jobs of pentimento").await?,
            leases: bucket(subjects.leases_bucket(), "who runs which job of pentimento").await?,
            names: bucket(subjects.names_bucket(), "names of jobs of pentimento, hashed").await?,
            work,
        };
        // What is there can be read where nothing can be written.
        rooms.names.overwrite(PROOF, Bytes::new()).await?;
        Ok(rooms)
    }

    /// A bucket whose entries live for so long, without end where that is zero.
    async fn make_bucket(
        &self,
        bucket: String,
        description: &str,
        (max_age, storage): (Duration, StorageType),
    ) -> Result<kv::Store, JobsError> {
        // As the library would set it up, which asks servers of before 2.10 for a report that it cannot read.
        let config = stream::Config {
            name: format!("KV_{bucket}"),
            description: Some(description.to_owned()),
            subjects: vec![format!("$KV.{bucket}.>")],
            max_messages_per_subject: 1,
            max_age,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            storage,
            num_replicas: self.settings.replicas,
            ..stream::Config::default()
        };
        self.make_stream(config).await?;
        let made = self.jetstream.get_key_value(bucket).await;
        made.map_err(failed("set the cluster's buckets up"))
    }

    async fn make_stream(&self, config: stream::Config) -> Result<stream::Stream, JobsError> {
        let what = "set the cluster's streams up";
        let name = config.name.clone();
        self.jetstream
            .create_or_update_stream(config)
            .await
            .map_err(failed(what))?;
        self.jetstream.get_stream(name).await.map_err(failed(what))
    }
}
