//! Job records and the queue of who runs next, behind two traits.
//!
//! Invariant: a job's state changes only through [`Transition`], and every implementation passes the `conformance` suite.

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod error;
mod fair_line;
mod local_queue;
mod memory;
mod places;
mod queue;
mod sqlite;
mod state_machine;
mod store;

pub use error::JobsError;
pub use memory::{MemoryJobs, MemoryLimits};
pub use places::{JobPlace, Places};
pub use queue::{Claim, JobQueue, QueueEntry};
pub use sqlite::{Recovery, SqliteJobs};
pub use state_machine::{Refusal, Transition, TransitionRefused};
pub use store::{JobCounts, JobFilter, JobStore};
