//! Previews for callers who ask now and then how a job looks, and hold no connection between.
//!
//! Who asks is taken for somebody who watches for a few seconds more: previews are made only while somebody wants them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pentimento_service::{Preview, Seen, Service};
use pentimento_types::{ApiKeyId, JobId};
use tokio::time::Instant;

/// After the last time that somebody asked. Clients ask every second or two.
const WANTED_FOR: Duration = Duration::from_secs(10);

/// The jobs that are looked at.
#[derive(Debug, Default)]
pub(crate) struct LivePreviews(Mutex<HashMap<JobId, Looked>>);

#[derive(Debug)]
struct Looked {
    asked: Instant,
    latest: Option<Arc<Preview>>,
}

impl LivePreviews {
    /// The latest preview of a job, and from now on there will be more.
    pub(super) fn of(
        self: &Arc<Self>,
        service: &Service,
        (owner, id): (&ApiKeyId, JobId),
    ) -> Option<Arc<Preview>> {
        let mut jobs = self.lock();
        if let Some(looked) = jobs.get_mut(&id) {
            looked.asked = Instant::now();
            return looked.latest.clone();
        }
        let looked = Looked {
            asked: Instant::now(),
            latest: None,
        };
        jobs.insert(id, looked);
        let (all, service, owner) = (Arc::clone(self), service.clone(), owner.clone());
        tokio::spawn(async move {
            all.look(&service, &owner, id).await;
            all.lock().remove(&id);
        });
        None
    }

    /// Keeps the latest preview until the job has ended or nobody asks any more.
    async fn look(&self, service: &Service, owner: &ApiKeyId, id: JobId) {
        let Ok(mut watcher) = service.watch(owner, id, true).await else {
            return;
        };
        loop {
            let until = self.lock().get(&id).map(|looked| looked.asked + WANTED_FOR);
            let Some(until) = until.filter(|until| *until > Instant::now()) else {
                return;
            };
            tokio::select! {
                seen = watcher.next() => match seen {
                    Ok(Seen::News(news)) => {
                        if let (Some(preview), Some(looked)) = (news.preview, self.lock().get_mut(&id)) {
                            looked.latest = Some(preview);
                        }
                    }
                    Ok(Seen::Ended(_) | Seen::Leaving) | Err(_) => return,
                },
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Looked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
