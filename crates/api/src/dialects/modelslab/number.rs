//! The integer by which this dialect's callers name a job. It is stored with the job, so that it leads there after a restart.
//!
//! Drawn at random, so that it tells nothing about others; nine or ten digits, so that it looks like the vendor's; and in the
//! signed 32 bits of clients' databases. What keeps others from using it is that `fetch` asks whose job it is.

use std::ops::RangeInclusive;

use pentimento_types::Job;

const RANGE: RangeInclusive<u64> = 100_000_000..=(1 << 31) - 1;

/// A number, which another job may have.
pub(super) fn draw() -> u64 {
    let random = uuid::Uuid::new_v4().as_u64_pair().1;
    RANGE.start() + random % (RANGE.end() - RANGE.start() + 1)
}

/// The number of a job of this dialect; 0 for any other.
pub(super) fn of(job: &Job) -> u64 {
    job.dialect.number.unwrap_or_default()
}

/// A number as a client has written it, maybe after it had read it as a float.
pub(super) fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let whole = text.parse::<u64>().ok();
    let float = || {
        let float = text.parse::<f64>().ok()?;
        let is_number = float.fract() == 0.0 && (1.0..=*RANGE.end() as f64).contains(&float);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is a whole number of 31 bits"
        )]
        is_number.then_some(float as u64)
    };
    whole.or_else(float).filter(|number| RANGE.contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_a_signed_column_and_fill_their_range() {
        let numbers: Vec<u64> = (0..100).map(|_| draw()).collect();
        assert!(numbers.iter().all(|number| RANGE.contains(number)));
        let large = numbers.iter().filter(|number| **number > 1 << 30).count();
        assert!((20..90).contains(&large), "{numbers:?}");
    }

    #[test]
    fn a_number_is_read_back_in_the_spellings_of_clients() {
        for (text, number) in [
            ("2147483647", Some(2_147_483_647)),
            (" 134439270 ", Some(134_439_270)),
            ("134439270.0", Some(134_439_270)),
            // Go prints a float like this.
            ("2.147483647e+09", Some(2_147_483_647)),
            ("1.3443927e+08", Some(134_439_270)),
            ("2147483648", None),
            ("18446744073709551616", None),
            ("0", None),
            ("-134439270", None),
            ("134439270.5", None),
            ("nan", None),
            ("inf", None),
            ("seven", None),
            ("", None),
        ] {
            assert_eq!(parse(text), number, "{text}");
        }
    }
}
