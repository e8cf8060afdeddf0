//! The worker: claims jobs, keeps their leases while they run, and takes them out of the queue when they have ended.
//!
//! Many jobs are in its hands at once, as many as the engine admits, because jobs in the engine can share forwards; where machines
//! share jobs, as many as its device can use, since another may have nothing to do. When the server stops and the records outlive
//! it, it claims no more, and ends with the last attempt.

use std::sync::Arc;
use std::time::Duration;

use pentimento_jobs::{Claim, JobsError, Places};
use pentimento_types::{JobId, describe_chain};
use tokio::task::{JoinHandle, JoinSet};

use crate::attempt::{self, Disposition};
use crate::inner::Inner;

/// The lease is renewed so often in its life, so that two lost heartbeats do not lose the job.
const HEARTBEATS_PER_LEASE: u32 = 3;
/// After a queue that cannot be read, or a record.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two looks whether the device can do with more jobs. Short beside a job.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// After a job that this machine has not the models for: others ask many times meanwhile.
const ELSEWHERE: Duration = Duration::from_secs(5);
/// Small beside a job, and long beside a look at whether the other is over.
const BEHIND_ANOTHER: Duration = Duration::from_millis(100);

/// Runs until the service has stopped and everything it ran has ended.
pub(crate) async fn run(inner: Arc<Inner>) {
    let admitted = inner.engine.status().max_jobs;
    // One caller's jobs do not take all slots, or another's would meet the engine's fairness only after one of them ends.
    let slots = Places::new(inner.config.running_jobs.clamp(1, admitted.max(1)));
    let mut running = JoinSet::new();
    loop {
        let left_out = slots.shares_taken();
        let leaves_to_others = attempt::leaves_to_others(&inner);
        let has_enough = inner.nodes.is_some() && has_enough(&inner, running.len());
        let claims = !slots.are_all_taken() && !leaves_to_others && !has_enough;
        let claim = tokio::select! {
            claim = inner.queue.claim(inner.config.lease, &left_out), if claims => claim,
            // It may be able to run jobs again.
            () = inner.clock.sleep_until(inner.clock.now() + PAUSE), if leaves_to_others => continue,
            () = inner.clock.sleep_until(inner.clock.now() + LOOK_AGAIN), if has_enough => continue,
            // A slot is free again, so that there may be another job to claim.
            Some(_) = running.join_next() => continue,
            () = inner.jobs_are_left() => break,
        };
        match claim {
            Ok(claim) => {
                let inner = Arc::clone(&inner);
                let slot = slots.take(claim.owner());
                running.spawn(async move {
                    keep(&inner, claim).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::error!(error = describe_chain(&error), "the job queue cannot be read");
                inner.clock.sleep_until(inner.clock.now() + PAUSE).await;
            }
        }
    }
    while running.join_next().await.is_some() {}
}

/// Whether one more job would only wait for the device of this machine while another may be idle: there are as many as a forward
/// is worth having, and half as many to follow them. Those whose model is being loaded keep none of another model away.
fn has_enough(inner: &Inner, in_hand: usize) -> bool {
    let status = inner.engine.status();
    let wanted = usize::try_from(status.rows_wanted).unwrap_or(usize::MAX);
    let enough = wanted.saturating_add((wanted / 2).max(1));
    let loading = status.jobs_loading.min(enough);
    let jobs = in_hand.saturating_sub(inner.past_device.len() + loading);
    let rows = usize::try_from(status.rows).unwrap_or(usize::MAX);
    jobs.max(rows) >= enough
}

/// Runs one attempt in a task of its own, with heartbeats beside it.
async fn keep(inner: &Arc<Inner>, claim: Claim) {
    let id = claim.job();
    let mut attempt = Aborting(tokio::spawn(attempt::run(Arc::clone(inner), id)));
    let lease = inner.config.lease;
    let disposition = loop {
        let next_beat = inner.clock.now() + lease / HEARTBEATS_PER_LEASE;
        tokio::select! {
            disposition = &mut attempt.0 => break disposition,
            () = inner.clock.sleep_until(next_beat) => match inner.queue.heartbeat(&claim, lease).await {
                Ok(()) => {}
                Err(JobsError::ClaimLost { .. }) => {
                    // Somebody else has the job now. Dropping the attempt takes it out of the engine.
                    tracing::warn!(job = %id, "the lease is lost");
                    return;
                }
                Err(error) => {
                    tracing::warn!(job = %id, error = describe_chain(&error), "a heartbeat failed");
                }
            },
        }
    };
    let disposition = match disposition {
        Ok(disposition) => disposition,
        Err(panic) => {
            // The panic's own text is printed by the panic hook; a caller never sees it.
            tracing::error!(job = %id, %panic, "a worker panicked");
            attempt::after_panic(inner, id).await
        }
    };
    settle(inner, claim, disposition, id).await;
}

async fn settle(inner: &Inner, claim: Claim, disposition: Disposition, id: JobId) {
    let settled = match disposition {
        Disposition::Ended => inner.queue.complete(claim).await,
        Disposition::Again => inner.queue.release(claim, Duration::ZERO).await,
        Disposition::Later => inner.queue.release(claim, PAUSE).await,
        Disposition::Elsewhere => inner.queue.release(claim, ELSEWHERE).await,
        Disposition::BehindAnother => inner.queue.release(claim, BEHIND_ANOTHER).await,
    };
    if let Err(error) = settled {
        // Whoever claims it next sees the job's state and does the right thing.
        tracing::warn!(job = %id, error = describe_chain(&error), "the queue entry stays");
    }
}

/// Ends its task when it is dropped.
struct Aborting(JoinHandle<Disposition>);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}
