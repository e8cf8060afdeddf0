//! Writing while the disk is full, read-only or away: an attempt that has made its pictures waits for room with growing
//! pauses, up to a bound, since making them again would need the same room and the device's time besides.

use std::time::Duration;

use pentimento_types::{ErrorKind, HasKind, JobId, describe_chain};

use crate::inner::{Inner, Lifecycle};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

impl Inner {
    /// Writes something of a job that runs, again and again while that may help. Returns early with the error when the
    /// service stops or the job has ended.
    pub(crate) async fn patiently<T, E: HasKind, F>(&self, id: JobId, write: impl Fn() -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let give_up = self.clock.now() + self.config.save_patience;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match write().await {
                Err(error) if error.kind() == ErrorKind::Unavailable => error,
                written => return written,
            };
            let next = self.clock.now() + pause;
            if next > give_up || self.lifecycle() == Lifecycle::Stopped {
                return Err(error);
            }
            tracing::warn!(job = %id, error = describe_chain(&error), "cannot save yet; trying again");
            tokio::select! {
                () = self.clock.sleep_until(next) => {}
                () = self.stopped() => return Err(error),
                _ = self.store.wait_until_ended(id) => return Err(error),
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }
}
