//! How often one caller may call: a bucket for calls and a generous one for asking how far things are, for each key, or for
//! each address where there are no keys.
//!
//! The generic cell rate algorithm of the crate governor, on the clock that does not jump: a bucket holds a minute's calls
//! and fills evenly. Memory is bounded whatever addresses callers come up with.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::state::InMemoryState;
use governor::state::direct::NotKeyed;
use governor::{NotUntil, Quota, RateLimiter};
use pentimento_types::{ApiKeyId, Clock};

use crate::KeyGrant;
use crate::rate_store::{MOST_CALLERS, RateStore};

/// Between two looks for buckets that can be forgotten, each of which goes through all of them.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(1);

/// What a call is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateBucket {
    /// Makes or changes something, or costs something.
    Calls,
    /// Asks how far a job is, or for a finished picture.
    Polls,
}

impl RateBucket {
    /// A stable lower-case name for metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Polls => "polls",
        }
    }
}

/// Who calls, as far as rates are concerned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RateCaller {
    /// The owner of a key.
    Key(ApiKeyId),
    /// Somebody without one. The address is that of a machine: of IPv6 a /64.
    Address(IpAddr),
}

impl RateCaller {
    /// Whom a grant stands for: an open server tells its callers apart by their address.
    #[must_use]
    pub fn of(grant: &KeyGrant, address: IpAddr) -> Self {
        Self::of_owner(&grant.owner, address)
    }

    /// The same by the owner of the grant.
    #[must_use]
    pub fn of_owner(owner: &ApiKeyId, address: IpAddr) -> Self {
        if *owner == ApiKeyId::anonymous() {
            Self::Address(address)
        } else {
            Self::Key(owner.clone())
        }
    }

    /// A stable lower-case name of the kind, for metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Key(_) => "key",
            Self::Address(_) => "address",
        }
    }
}

/// The rates of callers that have none of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateConfig {
    /// Calls a minute from one address without a key; None is without a bound.
    pub anonymous_requests_per_minute: Option<NonZeroU32>,
    /// Polls a minute of one key or address.
    pub polls_per_minute: NonZeroU32,
}

impl RateConfig {
    /// No bound on calls, and as many polls as the server answers without noticing.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "a component's configuration is passed explicitly"
    )]
    pub const fn new() -> Self {
        Self {
            anonymous_requests_per_minute: None,
            polls_per_minute: NonZeroU32::new(60_000).expect("it is not zero"),
        }
    }
}

/// A caller has used up its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at most {per_minute} {} a minute are taken from one {of}; try again in {} seconds", bucket.as_str(), retry_after.as_secs())]
pub struct RateExceeded {
    /// Which bucket.
    pub bucket: RateBucket,
    /// `key` or `address`.
    pub of: &'static str,
    /// What it holds.
    pub per_minute: u32,
    /// When there is room for one more; whole seconds, rounded up.
    pub retry_after: Duration,
}

/// Our clock as governor wants it.
#[derive(Clone, Debug)]
struct Ticks(Arc<dyn Clock>);

impl GovernorClock for Ticks {
    type Instant = Instant;

    fn now(&self) -> Instant {
        self.0.now()
    }
}

type Direct = RateLimiter<NotKeyed, InMemoryState, Ticks, NoOpMiddleware<Instant>>;

/// One kind of bucket of all callers.
#[derive(Debug)]
struct Keyed {
    limiter: RateLimiter<RateCaller, RateStore<RateCaller>, Ticks, NoOpMiddleware<Instant>>,
    ticks: Ticks,
    swept: Mutex<Option<Instant>>,
}

impl Keyed {
    fn new(per_minute: NonZeroU32, ticks: Ticks) -> Self {
        Self {
            limiter: RateLimiter::new(Quota::per_minute(per_minute), RateStore::new(), ticks.clone()),
            ticks,
            swept: Mutex::default(),
        }
    }

    fn take(&self, caller: &RateCaller) -> Result<(), NotUntil<Instant>> {
        if self.limiter.len() >= MOST_CALLERS && self.may_sweep() {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(caller)
    }

    /// At most once in a while: while the table is full, every call comes by here.
    fn may_sweep(&self) -> bool {
        let now = self.ticks.now();
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        let may = swept.is_none_or(|last| now.saturating_duration_since(last) >= BETWEEN_SWEEPS);
        if may {
            *swept = Some(now);
        }
        may
    }
}

/// The buckets of all callers.
#[derive(Debug)]
pub struct Rates {
    ticks: Ticks,
    polls: Keyed,
    anonymous: Option<Keyed>,
    /// Of keys, with the rate that each was made for.
    keys: Mutex<HashMap<ApiKeyId, (NonZeroU32, Arc<Direct>)>>,
}

impl Rates {
    /// Full buckets for everybody.
    #[must_use]
    pub fn new(config: RateConfig, clock: Arc<dyn Clock>) -> Self {
        let ticks = Ticks(clock);
        let keyed = |per_minute| Keyed::new(per_minute, ticks.clone());
        Self {
            polls: keyed(config.polls_per_minute),
            anonymous: config.anonymous_requests_per_minute.map(keyed),
            keys: Mutex::default(),
            ticks,
        }
    }

    /// Takes one out of the caller's bucket.
    ///
    /// # Errors
    /// [`RateExceeded`] when it is empty.
    pub fn take(
        &self,
        caller: &RateCaller,
        bucket: RateBucket,
        requests_per_minute: Option<NonZeroU32>,
    ) -> Result<(), RateExceeded> {
        let taken = match (bucket, caller) {
            (RateBucket::Polls, _) => self.polls.take(caller),
            (RateBucket::Calls, RateCaller::Address(_)) => match &self.anonymous {
                Some(limiter) => limiter.take(caller),
                None => Ok(()),
            },
            (RateBucket::Calls, RateCaller::Key(owner)) => match requests_per_minute {
                Some(rate) => self.of_key(owner, rate).check(),
                None => Ok(()),
            },
        };
        taken.map_err(|not_until| self.exceeded(caller, bucket, &not_until))
    }

    /// A key that was made anew with another rate begins with a full bucket.
    fn of_key(&self, owner: &ApiKeyId, rate: NonZeroU32) -> Arc<Direct> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || RateLimiter::direct_with_clock(Quota::per_minute(rate), self.ticks.clone());
        if keys.get(owner).is_none_or(|(of, _)| *of != rate) {
            keys.insert(owner.clone(), (rate, Arc::new(made())));
        }
        keys.get(owner)
            .map_or_else(|| Arc::new(made()), |(_, limiter)| Arc::clone(limiter))
    }

    fn exceeded(
        &self,
        caller: &RateCaller,
        bucket: RateBucket,
        not_until: &NotUntil<Instant>,
    ) -> RateExceeded {
        let wait = not_until.wait_time_from(self.ticks.now());
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        RateExceeded {
            bucket,
            of: caller.kind(),
            per_minute: not_until.quota().burst_size().get(),
            retry_after: Duration::from_secs(seconds.max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use pentimento_types::ManualClock;

    use super::*;

    fn key(label: &str) -> RateCaller {
        RateCaller::Key(ApiKeyId::new(label))
    }

    fn address(last: u32) -> RateCaller {
        RateCaller::Address(IpAddr::from(last.to_be_bytes()))
    }

    fn rates(config: RateConfig) -> (Rates, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH));
        (Rates::new(config, Arc::clone(&clock) as Arc<dyn Clock>), clock)
    }

    #[test]
    fn a_bucket_ends_at_its_number_and_the_hint_is_true() {
        let (rates, clock) = rates(RateConfig::new());
        let rate = NonZeroU32::new(6);
        let take = |who: &str| rates.take(&key(who), RateBucket::Calls, rate);
        for _ in 0..6 {
            take("a").unwrap();
        }
        let refused = take("a").unwrap_err();
        assert_eq!((refused.per_minute, refused.of), (6, "key"));
        assert_eq!(refused.retry_after, Duration::from_secs(10));
        assert_eq!(take("a").unwrap_err(), refused, "a refusal costs nothing");
        take("b").unwrap();
        clock.advance(Duration::from_secs(9));
        assert!(take("a").is_err());
        clock.advance(Duration::from_secs(1));
        take("a").unwrap();
        assert!(take("a").is_err());
        // The whole bucket is there again after a minute, and never more.
        clock.advance(Duration::from_secs(100_000));
        assert_eq!((0..10).filter(|_| take("a").is_ok()).count(), 6);
        rates.take(&key("a"), RateBucket::Calls, None).unwrap();
        rates.take(&key("a"), RateBucket::Polls, rate).unwrap();
    }

    #[test]
    fn a_key_with_another_rate_has_another_bucket() {
        let (rates, _) = rates(RateConfig::new());
        let take = |rate| rates.take(&key("a"), RateBucket::Calls, NonZeroU32::new(rate));
        take(1).unwrap();
        assert!(take(1).is_err());
        take(2).unwrap();
    }

    #[test]
    fn addresses_are_told_apart_and_never_take_more_memory_than_there_is() {
        let (rates, clock) = rates(RateConfig {
            anonymous_requests_per_minute: NonZeroU32::new(2),
            ..RateConfig::new()
        });
        let take = |who: u32| rates.take(&address(who), RateBucket::Calls, None);
        let all = u32::try_from(MOST_CALLERS).unwrap();
        for who in 0..all {
            take(who).unwrap();
        }
        let remembered = || rates.anonymous.as_ref().unwrap().limiter.len();
        // From here on newcomers share buckets, and one of them can take a few of the others' only.
        take(all).unwrap();
        take(all).unwrap();
        assert!(take(all).is_err());
        let free = (all + 1..all + 101).filter(|who| take(*who).is_ok());
        assert!(free.count() > 80);
        // Those who were there before keep theirs.
        for who in [0, all - 1] {
            take(who).unwrap();
            assert!(take(who).is_err());
        }
        assert_eq!(remembered(), MOST_CALLERS);
        clock.advance(Duration::from_secs(3600));
        take(all + 1).unwrap();
        assert!(remembered() < 10, "who is back at full is forgotten");
    }
}
