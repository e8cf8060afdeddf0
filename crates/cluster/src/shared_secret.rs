//! Secrets that all nodes have to agree on: links and webhooks are signed with the same ones, so that any node answers for any.
//!
//! The first node that answers callers gives its own. Whoever may use the broker's account can read them, as it can read every job.

use std::time::Duration;

use async_nats::jetstream::stream::StorageType;
use pentimento_jobs::JobsError;

use crate::bucket::{Bucket, NotWritten};
use crate::connection::Connection;
use crate::envelope::{plain, read_plain};
use crate::failures::{away, failed};

impl Connection {
    /// The cluster's secret of this name, which is `ours` where there is none yet; None where there is none and none is
    /// offered.
    ///
    /// # Errors
    /// [`JobsError::Backend`], at once while the broker is away.
    pub async fn shared_secret(
        &self,
        name: &'static str,
        ours: Option<[u8; 32]>,
    ) -> Result<Option<[u8; 32]>, JobsError> {
        let what = "agree on the cluster's secrets";
        if !self.is_up() {
            return Err(away());
        }
        let (name_of_bucket, kept) = (
            self.subjects().secrets_bucket(),
            (Duration::ZERO, StorageType::File),
        );
        let description = "what nodes of pentimento sign links and webhooks with";
        let store = self.make_bucket(name_of_bucket, description, kept).await?;
        let bucket = Bucket::new(store, self.doubt());
        if let Some(ours) = ours {
            match bucket.create(name, plain(&ours)).await {
                Ok(_) => return Ok(Some(ours)),
                Err(NotWritten::Conflict) => {}
                Err(NotWritten::Failed(error)) => return Err(error),
            }
        }
        let Some(found) = bucket.get(name).await? else {
            return Ok(None);
        };
        let found = read_plain(&found.bytes);
        found
            .map(Some)
            .ok_or_else(|| failed(what)("what is kept there is no secret"))
    }
}
