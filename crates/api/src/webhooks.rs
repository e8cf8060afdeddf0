//! What webhooks say: each dialect tells the end of its own jobs.

use std::sync::Arc;

use bytes::Bytes;
use pentimento_service::{LastingLink, WebhookBodies, finished_images};
use pentimento_types::Job;
use serde_json::json;

use crate::config::ApiConfig;
use crate::dialects::modelslab;

/// The bodies of all dialects.
#[derive(Clone, Debug)]
pub struct DialectBodies {
    config: Arc<ApiConfig>,
}

impl DialectBodies {
    /// With the settings by which the replies are made.
    #[must_use]
    pub fn new(config: ApiConfig) -> Self {
        Self {
            config: Arc::new(config),
        }
    }
}

impl WebhookBodies for DialectBodies {
    fn body(&self, job: &Job, link: LastingLink<'_>) -> Bytes {
        if job.dialect.name == modelslab::NAME {
            return modelslab::webhook_body(link, &self.config.modelslab, job);
        }
        // No other dialect takes an address.
        let told = json!({"job_id": job.id.to_string(), "succeeded": finished_images(job).is_ok()});
        told.to_string().into()
    }
}
