//! HTTP: the dialects, authentication, links and health. Nothing below this crate knows HTTP or a vendor's field names.
//!
//! [`build_router`] makes the whole application, [`serve`] runs it on a socket.
//! The dialects live in folders of their own and do not know each other.

mod access;
mod admin;
mod base_url;
mod bearer;
mod body;
mod client_address;
mod cluster;
mod config;
mod dialects;
mod edge_fault;
mod failure;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod idempotency;
mod jobs;
mod links;
mod mcp;
mod metrics;
mod metrics_page;
mod middleware;
mod models;
mod openapi;
mod origin;
mod pieces;
mod playground;
mod provenance;
mod range;
mod restart;
mod router;
mod server;
mod shape;
mod state;
mod waiting_calls;
mod watch_seats;
mod webhook_calls;
mod webhooks;

pub use config::{ApiConfig, CorsOrigins, LeastSpeed, ModelsLabConfig};
pub use dialects::{Effect, EndpointFields, FieldDescription, endpoint_fields};
pub use metrics::ProcessFigures;
pub use restart::RestartSwitch;
pub use router::{build_admin_router, build_router};
pub use server::{RefusedConnections, ServerLimits, serve};
pub use state::AppState;
pub use webhooks::DialectBodies;
