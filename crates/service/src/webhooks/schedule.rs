//! When a webhook that was not taken is sent again.

use std::hash::BuildHasher as _;
use std::time::{Duration, SystemTime};

use pentimento_jobs::{OutboxEntry, Settlement};
use pentimento_outbound::NotTaken;

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
/// After the first sending, the second, and so on, in seconds: the schedule of Standard Webhooks' authors, which takes a day
/// and some hours.
const DELAYS: [u64; 7] = [
    5,
    5 * MINUTE,
    30 * MINUTE,
    2 * HOUR,
    5 * HOUR,
    10 * HOUR,
    10 * HOUR,
];
/// A receiver may ask for a longer pause, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(12 * HOUR);
/// What is older is given up, however few sendings it had: a receiver that is left alone because it does not answer has few.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(36 * HOUR);
/// What is written down then.
pub(crate) const TOO_OLD: &str = "the receiver did not take it in 36 hours";

/// What becomes of a webhook whose latest sending has ended like this.
pub(super) fn after(webhook: &OutboxEntry, not_taken: NotTaken, now: SystemTime) -> Settlement {
    let NotTaken {
        problem,
        is_gone,
        retry_after,
        ..
    } = not_taken;
    let ended = webhook.in_round.saturating_sub(1) as usize;
    match DELAYS.get(ended) {
        Some(delay) if !is_gone => {
            let delay = jittered(Duration::from_secs(*delay), webhook);
            let asked_for = retry_after.unwrap_or_default().min(LONGEST_PAUSE);
            Settlement::Again {
                due: now + delay.max(asked_for),
                problem,
            }
        }
        _ => Settlement::Dead { problem },
    }
}

/// Up to a fifth longer, so that what failed together does not come back together.
fn jittered(delay: Duration, webhook: &OutboxEntry) -> Duration {
    // Its keys are random, and nothing here has to be the same twice.
    let random = std::hash::RandomState::new().hash_one((webhook.id, webhook.sendings));
    delay + delay.mul_f64(f64::from((random >> 32) as u32) / f64::from(u32::MAX) / 5.0)
}

#[cfg(test)]
mod tests {
    use pentimento_jobs::conformance::sample_job;
    use pentimento_types::{JobId, JobState};

    use super::*;

    fn webhook(in_round: u32) -> OutboxEntry {
        let mut job = sample_job(JobId::from_u128(1), SystemTime::UNIX_EPOCH);
        job.state = JobState::Cancelled;
        job.delivery.webhook = Some("https://a.example/".to_owned());
        let mut webhook = OutboxEntry::of(&job, SystemTime::UNIX_EPOCH).unwrap();
        webhook.in_round = in_round;
        webhook.sendings = 100 + in_round;
        webhook
    }

    fn not_taken(is_gone: bool, retry_after: Option<u64>) -> NotTaken {
        NotTaken {
            problem: "it is away".to_owned(),
            cause: String::new(),
            is_gone,
            is_well: false,
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    /// Seconds until it is sent again.
    fn pause(in_round: u32, not_taken: NotTaken) -> Option<f64> {
        match after(&webhook(in_round), not_taken, SystemTime::UNIX_EPOCH) {
            Settlement::Again { due, .. } => {
                Some(due.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64())
            }
            Settlement::Dead { problem } => {
                assert_eq!(problem, "it is away");
                None
            }
            Settlement::Delivered => panic!("it was not taken"),
        }
    }

    #[test]
    fn the_pauses_grow_and_end_after_a_day() {
        let mut total = 0.0;
        for (sending, delay) in (1..).zip(DELAYS) {
            let pause = pause(sending, not_taken(false, None)).unwrap();
            let delay = delay as f64;
            assert!((delay..=delay * 1.2).contains(&pause), "{sending}: {pause}");
            total += pause;
        }
        assert!((24.0..36.0).contains(&(total / 3600.0)), "{total}");
        assert_eq!(pause(8, not_taken(false, None)), None);
        assert_eq!(pause(1, not_taken(true, None)), None, "gone at once");
    }

    #[test]
    fn a_receiver_may_ask_for_a_longer_pause_and_not_for_a_shorter_or_endless_one() {
        assert_eq!(pause(1, not_taken(false, Some(60))), Some(60.0));
        assert!(pause(2, not_taken(false, Some(1))).unwrap() >= 300.0);
        assert_eq!(
            pause(1, not_taken(false, Some(u64::MAX))),
            Some(LONGEST_PAUSE.as_secs_f64())
        );
    }
}
