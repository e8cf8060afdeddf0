//! The webhooks of a cluster's jobs: each node sends those of the jobs that it has accepted, from its own journal, so that the
//! end of a job is told once.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use pentimento_jobs::{JobsError, Outbox, OutboxEntry, OutboxFilter, SendingTurn, Settlement};
use pentimento_types::WebhookId;

use crate::ClusterJobs;

#[async_trait]
impl Outbox for ClusterJobs {
    async fn take(&self, lease: Duration, turn: &SendingTurn) -> Result<OutboxEntry, JobsError> {
        self.own().take(lease, turn).await
    }

    async fn settle(
        &self,
        id: WebhookId,
        sending: u32,
        settlement: Settlement,
    ) -> Result<OutboxEntry, JobsError> {
        self.own().settle(id, sending, settlement).await
    }

    async fn give_up(&self, round_began_before: SystemTime, problem: &str) -> Result<usize, JobsError> {
        self.own().give_up(round_began_before, problem).await
    }

    async fn replay(&self, id: WebhookId) -> Result<OutboxEntry, JobsError> {
        self.own().replay(id).await
    }

    async fn webhooks(&self, filter: &OutboxFilter) -> Result<Vec<OutboxEntry>, JobsError> {
        self.own().webhooks(filter).await
    }
}
