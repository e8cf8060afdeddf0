//! Who may be sent to now: a bound for each receiver, and a circuit breaker, so that a receiver that is slow or dead takes
//! nothing from the others, however many webhooks wait for it. Pure: time comes in as an argument.
//!
//! After [`FAILURES`] failures in a row a receiver is left alone for a while; then one webhook tries it, and if that fails the
//! while is twice as long.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pentimento_types::ApiKeyId;

/// Sendings to one receiver at a time.
const OF_A_RECEIVER: usize = 4;
/// Failures in a row after which a receiver is left alone.
const FAILURES: u32 = 5;
/// The first while, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// Receivers of which something is remembered; beyond it those are forgotten that may be tried first.
const MOST: usize = 1000;

#[derive(Debug, Default)]
struct Receiver {
    under_way: usize,
    /// In a row.
    failures: u32,
    /// Left alone until then; once that is over, one may try.
    closed_until: Option<Instant>,
}

impl Receiver {
    fn may_be_asked(&self, now: Instant) -> bool {
        match self.closed_until {
            None => self.under_way < OF_A_RECEIVER,
            Some(until) => until <= now && self.under_way == 0,
        }
    }
}

/// What is known of the receivers that are being sent to, or that have failed.
#[derive(Debug, Default)]
pub(super) struct Receivers {
    known: HashMap<String, Receiver>,
    /// The sendings under way of each owner that has some.
    owners: HashMap<ApiKeyId, usize>,
}

impl Receivers {
    /// Those that nothing is sent to now.
    pub(super) fn not_now(&self, now: Instant) -> Vec<String> {
        let known = self.known.iter();
        let busy = known.filter(|(_, receiver)| !receiver.may_be_asked(now));
        busy.map(|(name, _)| name.clone()).collect()
    }

    /// When the next of them may be tried, as far as time alone decides it.
    pub(super) fn next_opening(&self, now: Instant) -> Option<Instant> {
        let closed = self.known.values().filter_map(|receiver| receiver.closed_until);
        closed.filter(|until| *until > now).min()
    }

    /// How many sendings of each owner are under way.
    pub(super) const fn under_way_of_owners(&self) -> &HashMap<ApiKeyId, usize> {
        &self.owners
    }

    pub(super) fn begin(&mut self, name: &str, owner: &ApiKeyId) {
        *self.owners.entry(owner.clone()).or_default() += 1;
        self.known.entry(name.to_owned()).or_default().under_way += 1;
    }

    pub(super) fn end(&mut self, (name, owner): (&str, &ApiKeyId), is_well: bool, now: Instant) {
        if let Some(under_way) = self.owners.get_mut(owner) {
            *under_way -= 1;
        }
        self.owners.retain(|_, under_way| *under_way > 0);
        let receiver = self.known.entry(name.to_owned()).or_default();
        receiver.under_way = receiver.under_way.saturating_sub(1);
        if is_well {
            receiver.failures = 0;
            receiver.closed_until = None;
        } else {
            receiver.failures = receiver.failures.saturating_add(1);
            // Those that were under way when it was closed say nothing new.
            let is_open = receiver.closed_until.is_none_or(|until| until <= now);
            if receiver.failures >= FAILURES && is_open {
                let doublings = (receiver.failures - FAILURES).min(16);
                let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
                receiver.closed_until = Some(now + pause);
            }
        }
        self.known
            .retain(|_, receiver| receiver.under_way > 0 || receiver.failures > 0);
        self.forget_some();
    }

    /// Nothing is under way any more, as far as is known.
    pub(super) fn forget_begun(&mut self) {
        self.owners.clear();
        for receiver in self.known.values_mut() {
            receiver.under_way = 0;
        }
    }

    fn forget_some(&mut self) {
        while self.known.len() > MOST {
            let idle = self.known.iter().filter(|(_, receiver)| receiver.under_way == 0);
            let first = idle.min_by_key(|(_, receiver)| receiver.closed_until);
            let Some(name) = first.map(|(name, _)| name.clone()) else {
                return;
            };
            self.known.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use pentimento_types::{Clock as _, SystemClock};

    use super::*;

    fn owner() -> ApiKeyId {
        ApiKeyId::anonymous()
    }

    fn fail(receivers: &mut Receivers, name: &str, now: Instant) {
        receivers.begin(name, &owner());
        receivers.end((name, &owner()), false, now);
    }

    #[test]
    fn a_receiver_has_a_few_sendings_at_a_time() {
        let (mut receivers, now) = (Receivers::default(), SystemClock.now());
        for _ in 0..OF_A_RECEIVER {
            assert!(receivers.not_now(now).is_empty());
            receivers.begin("slow", &owner());
        }
        receivers.begin("other", &owner());
        assert_eq!(receivers.not_now(now), ["slow"]);
        assert_eq!(receivers.next_opening(now), None, "only an end opens it");
        receivers.end(("slow", &owner()), true, now);
        assert!(receivers.not_now(now).is_empty());
    }

    #[test]
    fn a_dead_receiver_is_tried_ever_more_rarely_and_by_one() {
        let (mut receivers, mut now) = (Receivers::default(), SystemClock.now());
        for _ in 1..FAILURES {
            fail(&mut receivers, "dead", now);
            assert!(receivers.not_now(now).is_empty());
        }
        fail(&mut receivers, "dead", now);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            assert_eq!(receivers.not_now(now), ["dead"]);
            let opening = receivers.next_opening(now).unwrap();
            pauses.push((opening - now).as_secs());
            now = opening;
            assert!(receivers.not_now(now).is_empty());
            receivers.begin("dead", &owner());
            assert_eq!(receivers.not_now(now), ["dead"], "one tries it");
            receivers.end(("dead", &owner()), false, now);
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 600, 600]);
        now = receivers.next_opening(now).unwrap();
        receivers.begin("dead", &owner());
        receivers.end(("dead", &owner()), true, now);
        assert!(receivers.not_now(now).is_empty());
        assert!(receivers.known.is_empty(), "who is well is forgotten");
        assert!(receivers.under_way_of_owners().is_empty());
    }

    #[test]
    fn what_was_under_way_when_it_was_closed_does_not_close_it_longer() {
        let (mut receivers, now) = (Receivers::default(), SystemClock.now());
        for _ in 0..2 * FAILURES {
            receivers.begin("dead", &owner());
        }
        for _ in 0..2 * FAILURES {
            receivers.end(("dead", &owner()), false, now);
        }
        assert_eq!(receivers.next_opening(now), Some(now + FIRST_PAUSE));
    }

    #[test]
    fn callers_cannot_make_it_remember_much() {
        let (mut receivers, now) = (Receivers::default(), SystemClock.now());
        for number in 0..3 * MOST {
            fail(&mut receivers, &format!("{number}.example"), now);
        }
        assert!(receivers.known.len() <= MOST);
    }
}
