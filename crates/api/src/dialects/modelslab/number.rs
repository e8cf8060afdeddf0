//! The integer by which this dialect's callers name a job. It is stored with the job, so that it leads there after a restart.
//!
//! 53 random bits: nobody guesses another's, and every client reads it exactly, also where all numbers are floats
//! (JavaScript, and Go without a type).

use pentimento_types::Job;

/// The largest whole number below which a float has all of them, less one.
const MOST: u64 = (1 << 53) - 1;

/// A new number, at least 1.
pub(super) fn draw() -> u64 {
    // One bit more would be lost in a float; 0 is no number of a job, and means none to some clients.
    (uuid::Uuid::new_v4().as_u64_pair().1 & MOST).max(1)
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
        let is_number = float.fract() == 0.0 && (1.0..=MOST as f64).contains(&float);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is a whole number from 1 to 2^53 - 1"
        )]
        is_number.then_some(float as u64)
    };
    whole.or_else(float).filter(|number| (1..=MOST).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_exact_in_every_client_and_told_from_others() {
        let numbers: Vec<u64> = (0..100).map(|_| draw()).collect();
        for number in &numbers {
            assert!((1..=MOST).contains(number));
            assert_eq!(*number as f64 as u64, *number);
        }
        let large = numbers.iter().filter(|number| **number >= 1 << 40).count();
        assert!(large > 90, "they fill their range: {numbers:?}");
    }

    #[test]
    fn a_number_is_read_back_in_the_spellings_of_clients() {
        for (text, number) in [
            ("9007199254740991", Some(MOST)),
            (" 7 ", Some(7)),
            ("7.0", Some(7)),
            // Go prints a float like this.
            ("9.007199254740991e+15", Some(MOST)),
            ("1.3443927e+07", Some(13_443_927)),
            ("9007199254740992", None),
            ("18446744073709551616", None),
            ("0", None),
            ("-7", None),
            ("7.5", None),
            ("nan", None),
            ("inf", None),
            ("seven", None),
            ("", None),
        ] {
            assert_eq!(parse(text), number, "{text}");
        }
    }
}
