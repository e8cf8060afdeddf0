//! Networks that enlarge pictures: the small one inside the binary, and the two architectures of Real-ESRGAN.

mod compact;
mod picture;
mod residual_dense;
mod rrdb;

pub use compact::{CompactConfig, CompactNet};
pub use residual_dense::ResidualDense;
pub use rrdb::{RrdbConfig, RrdbNet};
