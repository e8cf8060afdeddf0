//! Webhooks as their owners see them: what has become of them, and sending one again.

use pentimento_jobs::{JobsError, OutboxEntry, OutboxFilter};
use pentimento_types::{ApiKeyId, WebhookId};

use crate::{Service, ServiceError};

impl Service {
    /// Webhooks that fit the filter, by ascending id.
    ///
    /// # Errors
    /// [`ServiceError::Store`].
    pub async fn webhooks(&self, filter: &OutboxFilter) -> Result<Vec<OutboxEntry>, ServiceError> {
        let found = self.inner.outbox.webhooks(filter).await;
        found.map_err(ServiceError::store("read the webhooks"))
    }

    /// Sends a webhook of this owner again, whatever has become of it, under the id that it had.
    ///
    /// # Errors
    /// [`ServiceError::WebhookNotFound`], also for one of somebody else.
    pub async fn replay_webhook(&self, owner: &ApiKeyId, id: WebhookId) -> Result<OutboxEntry, ServiceError> {
        let filter = OutboxFilter {
            owner: Some(owner.clone()),
            job: Some(id.job()),
            ..OutboxFilter::default()
        };
        if self.webhooks(&filter).await?.is_empty() {
            return Err(ServiceError::WebhookNotFound { id });
        }
        match self.inner.outbox.replay(id).await {
            Ok(webhook) => Ok(webhook),
            Err(JobsError::WebhookNotFound { id }) => Err(ServiceError::WebhookNotFound { id }),
            Err(error) => Err(ServiceError::store("send the webhook again")(error)),
        }
    }
}
