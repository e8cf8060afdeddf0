//! Writes down what every comparison with a reference has found, for the tables of `cargo xtask parity`.

use std::io::Write as _;
use std::panic::Location;

/// Names the file to which comparisons are appended; without it nothing is written.
const VARIABLE: &str = "PENTIMENTO_PARITY";

/// One line: the test's file, what was compared, the largest and the mean difference, and after them what they may be.
#[expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "for tests, which fail by panicking; no product reads this variable"
)]
pub(crate) fn record(place: &Location<'_>, what: &str, found: [f64; 2], allowed: [f64; 2]) {
    let Some(path) = std::env::var_os(VARIABLE) else {
        return;
    };
    let what = what.replace(['\t', '\n'], " ");
    let line = format!(
        "{}\t{what}\t{:e}\t{:e}\t{:e}\t{:e}\n",
        place.file(),
        found[0],
        found[1],
        allowed[0],
        allowed[1]
    );
    let file = fs_err::OpenOptions::new().append(true).create(true).open(path);
    // One write, so that the lines of several processes do not mix.
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("the file of comparisons can be written");
}
