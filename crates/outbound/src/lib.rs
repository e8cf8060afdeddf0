//! The only door to an address that a caller gave: input pictures, and webhooks.
//!
//! [`AddressGuard`] decides which addresses and ports may be reached, and is pure.
//! [`GuardedClient`] resolves a name once, checks every answer, and connects to exactly what it has checked, at every
//! redirect again; it bounds bytes and time, in all and for each host, and follows no proxy or cookie.
//! [`ImageFetcher`] gets one picture's bytes through it, [`WebhookSender`] hands one signed message over.
//!
//! The texts of [`OutboundError`] may be shown to the caller: they are the same whether a refused address has an open
//! port, a closed one, or does not exist. The causes behind them are for the log.

mod client;
mod coding;
mod connection;
mod destination;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod host_limits;
mod image_fetch;
mod resolver;
mod webhook;

pub use client::{FetchLimits, GuardedClient, Reply};
pub use destination::{Destination, UrlProblem};
pub use error::{OutboundError, UnreachableCause};
pub use guard::{AddressClass, AddressGuard, Refusal};
pub use image_fetch::ImageFetcher;
pub use resolver::{Resolver, SystemResolver};
pub use webhook::{NotTaken, WebhookMessage, WebhookSecret, WebhookSender};
