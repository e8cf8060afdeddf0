//! Networks that enlarge pictures: the small one inside the binary, and the two architectures of Real-ESRGAN.

mod compact;
mod picture;
mod residual_dense;
mod rrdb;

/// Asked between two pieces of work: whether anybody still waits for the result.
pub type GoesOn<'a> = &'a (dyn Fn() -> bool + Sync);

/// Ends the work for a result that nobody waits for.
fn check(goes_on: GoesOn<'_>) -> candle_core::Result<()> {
    if goes_on() {
        Ok(())
    } else {
        candle_core::bail!("nobody waits for the enlarged picture any more")
    }
}

pub use compact::{CompactConfig, CompactNet};
pub use residual_dense::ResidualDense;
pub use rrdb::{RrdbConfig, RrdbNet};
