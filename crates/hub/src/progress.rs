//! How far the work on a model has come: bytes, and how fast they arrive.

use std::time::{Duration, Instant};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It waits for another download to end, of this process or of another one.
    Waiting,
    /// Its files are fetched.
    Downloading,
    /// Its sha256 is computed.
    Checking,
}

impl Stage {
    /// In a list.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Downloading => "downloading",
            Self::Checking => "checking",
        }
    }
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is done.
    pub stage: Stage,
    /// Bytes that are here.
    pub done_bytes: u64,
    /// Bytes of everything; None until the hub has told.
    pub total_bytes: Option<u64>,
    /// Over the last seconds.
    pub bytes_per_second: u64,
}

impl Progress {
    pub(crate) const fn waiting() -> Self {
        Self {
            stage: Stage::Waiting,
            done_bytes: 0,
            total_bytes: None,
            bytes_per_second: 0,
        }
    }

    /// Whether the files are here and are compared with their sha256.
    #[must_use]
    pub const fn is_checking(&self) -> bool {
        matches!(self.stage, Stage::Checking)
    }

    /// Whole percent, where the total is known.
    #[must_use]
    pub fn percent(&self) -> Option<u64> {
        let total = self.total_bytes.filter(|total| *total > 0)?;
        let percent = u128::from(self.done_bytes) * 100 / u128::from(total);
        u64::try_from(percent.min(100)).ok()
    }

    /// What is done, as a sentence without its end: "it is being downloaded: 25 %, 1.2 of 5.0 MB".
    #[must_use]
    pub fn doing(&self) -> String {
        match self.stage {
            Stage::Waiting => "it waits for another download to end".to_owned(),
            Stage::Downloading => format!("it is being downloaded: {self}"),
            Stage::Checking => format!("its sha256 is being compared: {self}"),
        }
    }

    /// How long it will take at this rate; None while nothing can be said.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        let left = self.total_bytes?.saturating_sub(self.done_bytes);
        (self.bytes_per_second > 0).then(|| Duration::from_secs(left.div_ceil(self.bytes_per_second)))
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let done = megabytes(self.done_bytes);
        match (self.percent(), self.total_bytes) {
            (Some(percent), Some(total)) => {
                write!(f, "{percent} %, {done} of {} MB", megabytes(total))?;
            }
            _ => write!(f, "{done} MB")?,
        }
        if self.bytes_per_second > 0 {
            write!(f, ", {} MB/s", megabytes(self.bytes_per_second))?;
        }
        Ok(())
    }
}

fn megabytes(bytes: u64) -> String {
    let tenths = bytes.saturating_add(50_000) / 100_000;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// The rate over about the last five seconds.
#[derive(Debug)]
pub(crate) struct Rate {
    since: Instant,
    bytes: u64,
    rate: Option<f64>,
}

impl Rate {
    const WINDOW: Duration = Duration::from_secs(1);
    /// The weight of the last window.
    const NEW: f64 = 0.3;

    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            since: now,
            bytes: 0,
            rate: None,
        }
    }

    /// Counts bytes that have just arrived, and says the rate.
    pub(crate) fn count(&mut self, bytes: u64, now: Instant) -> u64 {
        self.bytes += bytes;
        let time = now.saturating_duration_since(self.since);
        if time >= Self::WINDOW {
            #[expect(clippy::cast_precision_loss, reason = "a rate is shown with two digits")]
            let last = self.bytes as f64 / time.as_secs_f64();
            let rate = self.rate.map_or(last, |rate| rate + Self::NEW * (last - rate));
            (self.rate, self.since, self.bytes) = (Some(rate), now, 0);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is positive, and no disk is that fast"
        )]
        let rate = self.rate.unwrap_or(0.0) as u64;
        rate
    }
}

#[cfg(test)]
mod tests {
    use pentimento_types::{Clock as _, SystemClock};

    use super::*;

    #[test]
    fn progress_says_how_far_and_how_long() {
        let progress = Progress {
            stage: Stage::Downloading,
            done_bytes: 1_250_000_000,
            total_bytes: Some(5_000_000_000),
            bytes_per_second: 25_000_000,
        };
        assert_eq!(progress.to_string(), "25 %, 1250.0 of 5000.0 MB, 25.0 MB/s");
        assert_eq!(progress.time_left(), Some(Duration::from_secs(150)));
        let unknown = Progress::waiting();
        assert_eq!(unknown.to_string(), "0.0 MB");
        assert_eq!((unknown.percent(), unknown.time_left()), (None, None));
    }

    #[test]
    fn the_rate_follows_the_last_seconds() {
        let start = SystemClock.now();
        let mut rate = Rate::new(start);
        assert_eq!(
            rate.count(500, start + Duration::from_millis(500)),
            0,
            "too early to say"
        );
        assert_eq!(rate.count(500, start + Duration::from_secs(1)), 1000);
        let slower = rate.count(100, start + Duration::from_secs(2));
        assert!((100..1000).contains(&slower), "{slower}");
    }
}
