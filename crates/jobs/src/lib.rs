//! Job records, the queue of who runs next, and the outbox of webhooks, behind three traits.
//!
//! Invariant: a job's state changes only through [`Transition`], a webhook's only through [`OutboxEntry`], and every
//! implementation passes the `conformance` suite.

mod age_clock;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod error;
mod fair_line;
mod idempotency;
mod local_queue;
mod memory;
mod outbox;
mod places;
mod queue;
mod sending_leases;
mod sending_turn;
mod sqlite;
mod state_machine;
mod store;

pub use age_clock::AgeClock;
pub use error::JobsError;
pub use fair_line::FairLine;
pub use idempotency::{KEY_LIFE, key_stands, known_request};
pub use local_queue::LocalQueue;
pub use memory::MemoryJobs;
pub use outbox::{Outbox, OutboxEntry, OutboxFilter, OutboxState, Settlement};
pub use places::{JobPlace, Places};
pub use queue::{Claim, JobQueue, ModelsBeside, QueueEntry};
pub use sending_turn::SendingTurn;
pub use sqlite::{Recovery, SqliteJobs};
pub use state_machine::{Refusal, Transition, TransitionRefused, is_later};
pub use store::{Inserted, JobCounts, JobFilter, JobLimits, JobStore};
