//! What forwards take, by batch key and rows, as measured while they ran; and so how many rows are worth sharing a forward.
//!
//! On a device that a few rows fill, a wider forward takes as many times as long as it has rows: sharing saves nothing, and
//! only keeps a short job waiting for the rows of others. Where that is depends on the device, the model and the size, so it
//! is measured and not said. Only speed depends on it, no image does.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::BatchKey;

/// Measurements of one number of rows that are remembered; their median counts.
const REMEMBERED: usize = 7;
/// Measurements without which nothing is said.
const NEEDED: usize = 3;
/// A wider forward pays when a row takes less than this part of its time in a narrower one.
const PAYS: f64 = 0.9;
/// What is over sooner says more about the clock than about the device.
const SHORTEST: Duration = Duration::from_millis(1);
/// Batch keys that are remembered. With every set of LoRAs there is another.
const KEYS: usize = 64;

/// What the forwards of one batch key took.
#[derive(Debug)]
struct OfKey {
    /// By their rows, with the times of the latest ones.
    by_rows: BTreeMap<u32, VecDeque<(Instant, Duration)>>,
    latest: Instant,
}

/// The measurements.
#[derive(Debug)]
pub(super) struct ForwardCosts {
    lifetime: Duration,
    keys: HashMap<BatchKey, OfKey>,
}

impl ForwardCosts {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self {
            lifetime,
            keys: HashMap::new(),
        }
    }

    /// A forward of so many rows has taken so long.
    pub(super) fn put(&mut self, key: BatchKey, rows: u32, took: Duration, now: Instant) {
        if took < SHORTEST {
            return;
        }
        if !self.keys.contains_key(&key) && self.keys.len() >= KEYS {
            let oldest = self.keys.iter().min_by_key(|(_, of_key)| of_key.latest);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.keys.remove(&oldest);
            }
        }
        let of_key = self.keys.entry(key).or_insert_with(|| OfKey {
            by_rows: BTreeMap::new(),
            latest: now,
        });
        of_key.latest = now;
        let taken = of_key.by_rows.entry(rows).or_default();
        taken.push_back((now, took));
        if taken.len() > REMEMBERED {
            taken.pop_front();
        }
    }

    /// The fewest rows beyond which a forward of this key gains nothing. None where that is not known, or where the widest
    /// forwards that were measured are the best: wider ones may be better still.
    fn rows_that_pay(&mut self, key: &BatchKey, now: Instant) -> Option<u32> {
        let lifetime = self.lifetime;
        let of_key = self.keys.get_mut(key)?;
        for taken in of_key.by_rows.values_mut() {
            taken.retain(|(at, _)| now.saturating_duration_since(*at) < lifetime);
        }
        of_key.by_rows.retain(|_, taken| !taken.is_empty());
        let of_row: Vec<(u32, f64)> = of_key
            .by_rows
            .iter()
            .filter(|(_, taken)| taken.len() >= NEEDED)
            .map(|(rows, taken)| (*rows, median(taken).as_secs_f64() / f64::from(*rows)))
            .collect();
        let best = of_row
            .iter()
            .map(|(_, seconds)| *seconds)
            .min_by(f64::total_cmp)?;
        let (widest, _) = of_row.last()?;
        let (rows, _) = of_row.iter().find(|(_, seconds)| seconds * PAYS <= best)?;
        (rows < widest).then_some(*rows)
    }

    /// What is known of how many rows to put into a forward of this key, and how many to have for it.
    pub(super) fn rows(&mut self, key: &BatchKey, now: Instant) -> Rows {
        let pay = self.rows_that_pay(key, now);
        let to_have = pay.unwrap_or_else(|| {
            let widest = self.keys.get(key).and_then(|of_key| {
                let known = of_key.by_rows.iter().filter(|(_, taken)| taken.len() >= NEEDED);
                known.map(|(rows, _)| *rows).max()
            });
            widest.map_or(1, |rows| rows.saturating_mul(2))
        });
        Rows { pay, to_have }
    }
}

/// What was measured says of the rows of a forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    /// The fewest rows beyond which a forward gains nothing. None where that is not known.
    pub(super) pay: Option<u32>,
    /// The most rows that are worth having, as far as is known: those that pay, or twice the widest that were measured, since
    /// wider ones may be better still; 1 where nothing was.
    pub(super) to_have: u32,
}

fn median(taken: &VecDeque<(Instant, Duration)>) -> Duration {
    let mut times: Vec<Duration> = taken.iter().map(|(_, took)| *took).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use pentimento_types::{Clock as _, SystemClock};

    use super::*;
    use crate::{ConditioningShape, LatentSize, ModelKey, ProgramsId};

    const LIFETIME: Duration = Duration::from_secs(600);

    fn key(name: &str) -> BatchKey {
        BatchKey {
            model: ModelKey::checkpoint(name),
            programs: ProgramsId::default(),
            latent: LatentSize {
                height: 64,
                width: 64,
            },
            conditioning: ConditioningShape::of_text(77),
        }
    }

    /// What a forward of so many rows takes.
    type Device = fn(u32) -> u64;

    fn measured(device: Device, rows: &[u32], now: Instant) -> ForwardCosts {
        let mut costs = ForwardCosts::new(LIFETIME);
        for rows in rows {
            for noise in [0, 400, 3] {
                let took = Duration::from_millis(device(*rows) + noise);
                costs.put(key("a"), *rows, took, now);
            }
        }
        costs
    }

    #[test]
    fn a_device_that_one_row_fills_gets_one_and_a_wide_one_gets_more() {
        let now = SystemClock.now();
        let linear: Device = |rows| 1000 * u64::from(rows);
        let flat: Device = |_| 1000;
        let fills_at_four: Device = |rows| 1000 * u64::from(rows.max(4)) / 4;
        for (device, rows, expected) in [
            (linear, &[1, 2, 4][..], Some(1)),
            (linear, &[2, 3], Some(2)),
            (flat, &[1, 2, 8], None),
            (fills_at_four, &[1, 2, 4, 8, 16], Some(4)),
            // Too little is known.
            (linear, &[1], None),
            (linear, &[4], None),
        ] {
            let mut costs = measured(device, rows, now);
            assert_eq!(costs.rows_that_pay(&key("a"), now), expected, "{rows:?}");
            assert_eq!(costs.rows_that_pay(&key("b"), now), None);
        }
    }

    #[test]
    fn what_is_worth_having_grows_with_what_is_known() {
        let now = SystemClock.now();
        let linear: Device = |rows| 1000 * u64::from(rows);
        let flat: Device = |_| 1000;
        for (device, rows, expected) in [
            (flat, &[][..], 1),
            (flat, &[1], 2),
            (flat, &[1, 2, 8], 16),
            (linear, &[1, 2], 1),
        ] {
            let mut costs = measured(device, rows, now);
            assert_eq!(costs.rows(&key("a"), now).to_have, expected, "{rows:?}");
        }
        let mut costs = measured(flat, &[8], now);
        assert_eq!(
            costs.rows(&key("a"), now + LIFETIME).to_have,
            1,
            "what is old says nothing"
        );
    }

    #[test]
    fn what_is_old_is_measured_again() {
        let now = SystemClock.now();
        let mut costs = measured(|rows| 1000 * u64::from(rows), &[1, 2], now);
        assert_eq!(costs.rows_that_pay(&key("a"), now + LIFETIME / 2), Some(1));
        assert_eq!(costs.rows_that_pay(&key("a"), now + LIFETIME), None);
    }

    #[test]
    fn two_measurements_say_nothing_and_the_keys_are_bounded() {
        let now = SystemClock.now();
        let mut costs = ForwardCosts::new(LIFETIME);
        for rows in [1, 2, 1, 2] {
            costs.put(key("a"), rows, Duration::from_secs(u64::from(rows)), now);
        }
        assert_eq!(costs.rows_that_pay(&key("a"), now), None);
        for number in 0..1000_u64 {
            let at = now + Duration::from_millis(number);
            costs.put(key(&number.to_string()), 1, Duration::from_secs(1), at);
        }
        assert_eq!(costs.keys.len(), KEYS);
        assert!(costs.keys.contains_key(&key("999")) && !costs.keys.contains_key(&key("a")));
    }
}
