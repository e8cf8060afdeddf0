//! Secrets that all nodes have to agree on: links and webhooks are signed with the same ones, so that any node answers for any.
//!
//! The node that comes first gives its own. Whoever may use the broker's account can read them, as it can read every job.

use async_nats::jetstream::kv;
use async_nats::jetstream::stream::StorageType;
use pentimento_jobs::JobsError;

use crate::bucket::{Bucket, NotWritten};
use crate::connection::{Connection, away, failed};
use crate::envelope::{plain, read_plain};

impl Connection {
    /// The cluster's secret of this name, which is `ours` where there is none yet.
    ///
    /// # Errors
    /// [`JobsError::Backend`], at once while the broker is away.
    pub async fn shared_secret(&self, name: &'static str, ours: [u8; 32]) -> Result<[u8; 32], JobsError> {
        let what = "agree on the cluster's secrets";
        if !self.is_up() {
            return Err(away());
        }
        let config = kv::Config {
            bucket: self.subjects().secrets_bucket(),
            description: "what nodes of pentimento sign links and webhooks with".to_owned(),
            history: 1,
            storage: StorageType::File,
            num_replicas: self.settings().replicas,
            ..kv::Config::default()
        };
        let store = self.jetstream().create_or_update_key_value(config).await;
        let bucket = Bucket::new(store.map_err(failed(what))?, self.clone());
        match bucket.create(name, plain(&ours)).await {
            Ok(_) => return Ok(ours),
            Err(NotWritten::Conflict) => {}
            Err(NotWritten::Failed(error)) => return Err(error),
        }
        let found = bucket.get(name).await?;
        let found = found.and_then(|value| read_plain(&value.bytes));
        found.ok_or_else(|| failed(what)("what is kept there is no secret"))
    }
}
