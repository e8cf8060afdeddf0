//! A bucket of the broker, with compare-and-set: whoever writes says which revision it has seen, and one of two wins.

use async_nats::jetstream::kv::{self, CreateErrorKind, DeleteErrorKind, Operation, UpdateErrorKind};
use bytes::Bytes;
use pentimento_jobs::JobsError;

use crate::failures::{Doubt, failed};

/// A value and the number of the write that it came with.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) bytes: Bytes,
    pub(crate) revision: u64,
}

/// Why a write did not take place.
#[derive(Debug)]
pub(crate) enum NotWritten {
    /// Somebody else has written since.
    Conflict,
    /// Whether it took place is not known.
    Failed(JobsError),
}

/// The library's calls are kept out of the callers' futures, which would be tens of kilobytes large with them.
#[derive(Clone)]
pub(crate) struct Bucket {
    store: kv::Store,
    doubt: Doubt,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket")
            .field("name", &self.store.name)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    pub(crate) const fn new(store: kv::Store, doubt: Doubt) -> Self {
        Self { store, doubt }
    }

    /// None for a key that is not there, or was deleted.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<Value>, JobsError> {
        match Box::pin(self.store.entry(key)).await {
            Ok(entry) => {
                let put = entry.filter(|entry| entry.operation == Operation::Put);
                Ok(put.map(|entry| Value {
                    bytes: entry.value,
                    revision: entry.revision,
                }))
            }
            Err(error) => Err(self.failed("read from the broker", error)),
        }
    }

    /// Writes a value where there is none, and returns its revision.
    pub(crate) async fn create(&self, key: &str, bytes: Bytes) -> Result<u64, NotWritten> {
        match Box::pin(self.store.create(key, bytes)).await {
            Ok(revision) => Ok(revision),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Err(NotWritten::Conflict),
            Err(error) => Err(NotWritten::Failed(self.failed("write to the broker", error))),
        }
    }

    /// Writes a value over the one with this revision.
    pub(crate) async fn update(&self, key: &str, bytes: Bytes, revision: u64) -> Result<u64, NotWritten> {
        match Box::pin(self.store.update(key, bytes, revision)).await {
            Ok(revision) => Ok(revision),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Err(NotWritten::Conflict),
            Err(error) => Err(NotWritten::Failed(self.failed("write to the broker", error))),
        }
    }

    /// Writes a value over whatever is there.
    pub(crate) async fn overwrite(&self, key: &str, bytes: Bytes) -> Result<(), JobsError> {
        let written = Box::pin(self.store.put(key, bytes)).await;
        written.map(drop).map_err(failed("write to the broker"))
    }

    /// Deletes the value with this revision, or whichever is there.
    pub(crate) async fn delete(&self, key: &str, revision: Option<u64>) -> Result<(), NotWritten> {
        match Box::pin(self.store.delete_expect_revision(key, revision)).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == DeleteErrorKind::WrongLastRevision => Err(NotWritten::Conflict),
            Err(error) => Err(NotWritten::Failed(self.failed("delete from the broker", error))),
        }
    }

    /// Every value as it is now, and then every change.
    pub(crate) async fn watch(&self) -> Result<kv::Watch, JobsError> {
        match Box::pin(self.store.watch_with_history(">")).await {
            Ok(watch) => Ok(watch),
            Err(error) => Err(self.failed("follow the jobs of the cluster", error)),
        }
    }

    /// Whether there is nothing in it.
    pub(crate) async fn is_empty(&self) -> Result<bool, JobsError> {
        match Box::pin(self.store.status()).await {
            Ok(status) => Ok(status.values() == 0),
            Err(error) => Err(self.failed("read from the broker", error)),
        }
    }

    /// The bucket may have gone with the broker's disk, which the next use finds out.
    fn failed<E>(&self, what: &'static str, error: E) -> JobsError
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.doubt.raise();
        failed(what)(error)
    }
}
