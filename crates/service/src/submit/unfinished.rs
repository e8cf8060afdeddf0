//! What a submit has stored while nobody has its id yet.

use std::sync::Arc;

use pentimento_types::{Job, JobId};

use crate::inner::Inner;

/// Whether a stored job is made though its caller left before the id came: who named the request asks again for the same job,
/// and who gave an address is told of its end there. Cancelling it would use up the name, and tell of an end nobody asked for.
pub(crate) const fn goes_on_alone(job: &Job) -> bool {
    job.idempotency.is_some() || job.delivery.webhook.is_some()
}

/// Takes back what a submit has stored when it fails or its caller goes away before it has the id.
pub(crate) struct Unfinished {
    inner: Option<Arc<Inner>>,
    id: JobId,
}

impl Unfinished {
    pub(crate) fn new(inner: &Arc<Inner>, id: JobId) -> Self {
        Self {
            inner: Some(Arc::clone(inner)),
            id,
        }
    }

    pub(crate) fn done(mut self) {
        self.inner = None;
    }

    /// None where the job goes on whether its id gets to anybody or not.
    pub(crate) fn unless(self, goes_on: bool) -> Option<Self> {
        if goes_on {
            self.done();
            return None;
        }
        Some(self)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        let id = self.id;
        let runtime = inner.runtime.clone();
        runtime.spawn(async move {
            // The job may or may not have been stored; its input is ours in both cases.
            let _ = inner.cancel(id).await;
            inner.delete_input(id).await;
        });
    }
}
