//! What webhooks say: each dialect tells the end of its own jobs.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pentimento_service::{Service, ServiceError, WebhookBodies, finished_images};
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

#[async_trait]
impl WebhookBodies for DialectBodies {
    async fn body(&self, service: &Service, job: &Job) -> Result<Bytes, ServiceError> {
        if job.dialect.name == modelslab::NAME {
            return Ok(modelslab::webhook_body(service, &self.config.modelslab, job));
        }
        // No other dialect takes an address.
        let told = json!({"job_id": job.id.to_string(), "succeeded": finished_images(job).is_ok()});
        Ok(told.to_string().into())
    }
}
