//! Golden files, the one tolerance table, and small helpers for numeric tests.
//!
//! Depends on `types` and candle only, so that a crate under test never meets a second copy of its own types.

mod fuzzed;
mod golden;
mod record;
mod tolerance;

pub use fuzzed::each_fuzzed;
pub use golden::{Golden, golden_dir, golden_files};
pub use tolerance::{Difference, Tolerance, assert_close, assert_values_close, compare, compare_values};
