//! Images are read and resized as Pillow does it, which diffusers uses. `docs/image-parity.md` has the numbers.

#![expect(clippy::unwrap_used, reason = "a test that fails by stopping")]

#[path = "support/pillow.rs"]
mod pillow;

use pillow::{Case, Difference};

/// The largest difference where both do the same arithmetic but round in other places.
const JPEG_ROUNDING: u8 = 3;
/// The largest mean of such a file.
const JPEG_MEAN: f64 = 0.35;

/// The cases that are further off than `allowed`.
fn failures(cases: &[Case], allowed: impl Fn(&str) -> u8) -> Vec<String> {
    let failure = |case: &Case| match case.difference.clone() {
        Ok(difference) => {
            let allowed = allowed(&case.name);
            let (largest, mean) = (difference.largest, Difference::mean(&[difference]));
            let is_close = largest <= allowed && (mean <= JPEG_MEAN || allowed > JPEG_ROUNDING);
            (!is_close).then(|| format!("{}: {largest} off, {mean:.3} in the mean", case.name))
        }
        Err(reason) => Some(format!("{}: {reason}", case.name)),
    };
    cases.iter().filter_map(failure).collect()
}

/// libjpeg repeats colours where they are at most two samples wide, and blends them elsewhere; here they are always blended.
fn is_too_narrow_to_blend(name: &str) -> bool {
    name.starts_with("420-") && (name.ends_with("-tiny-3x3") || name.ends_with("-tiny-1x17"))
}

#[test]
fn every_jpeg_layout_is_read_as_pillow_reads_it() {
    let cases = pillow::jpeg_files();
    assert!(cases.len() > 250);
    let allowed = |name: &str| {
        if is_too_narrow_to_blend(name) {
            40
        } else {
            JPEG_ROUNDING
        }
    };
    assert_eq!(failures(&cases, allowed), [""; 0]);
}

#[test]
fn what_pillow_turns_is_turned_and_nothing_else() {
    let cases = pillow::turned_files();
    assert!(cases.len() > 150);
    let allowed = |name: &str| {
        if name.starts_with("jpeg") {
            JPEG_ROUNDING
        } else {
            0
        }
    };
    assert_eq!(failures(&cases, allowed), [""; 0]);
}

#[test]
fn resizing_gives_the_bytes_of_pillow() {
    let cases = pillow::resized_pictures();
    assert!(cases.len() > 90);
    assert_eq!(failures(&cases, |_| 0), [""; 0]);
}
