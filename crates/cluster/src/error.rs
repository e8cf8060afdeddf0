//! Why a node does not start in a cluster.

use std::error::Error;

/// What is wrong with the cluster's settings, or with what its broker says to them. A broker that cannot be reached is none of
/// these: the node starts without it.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No address.
    #[error("a cluster needs the address of its broker, for example nats://127.0.0.1:4222")]
    NoServer,
    /// An address that cannot be one.
    #[error("{address} is no address of a broker: {why}")]
    Address {
        /// Without secrets.
        address: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A name that cannot be a part of a subject.
    #[error("the name of a cluster has 1 to {longest} lower case letters, digits and \"-\"")]
    Name {
        /// The bound.
        longest: usize,
    },
    /// A secret that everybody knows.
    #[error("the cluster's {what} is empty, so anybody could join; set one, or remove the setting")]
    EmptyCredential {
        /// Which one.
        what: &'static str,
    },
    /// A broker that others can reach, and nothing to show to it.
    #[error(
        "the broker at {server} is not on this machine, and no token, user, nkey or credentials file is set: a cluster that \
         others can reach needs one"
    )]
    NoCredentials {
        /// Without secrets.
        server: String,
    },
    /// More copies than a broker keeps.
    #[error("a broker keeps everything 1 to 5 times, and not {found} times")]
    Replicas {
        /// As set.
        found: usize,
    },
    /// More streams than make sense, or none.
    #[error("jobs are spread over 1 to 64 streams, and not over {found}")]
    Streams {
        /// As set.
        found: u32,
    },
    /// A file of credentials or certificates, or a seed.
    #[error("the cluster's {what} cannot be used")]
    Unusable {
        /// Which one.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The broker does not let us in.
    #[error("the broker at {server} refuses this node's credentials")]
    Refused {
        /// Without secrets.
        server: String,
        /// What it says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The broker cannot be trusted, or speaks no TLS.
    #[error("no secure connection to the broker at {server}")]
    Tls {
        /// Without secrets.
        server: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The broker runs without what keeps messages.
    #[error(
        "the broker at {server} has no JetStream; start it with jetstream in its configuration, or with -js"
    )]
    NoJetStream {
        /// Without secrets.
        server: String,
        /// What it says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The node's own records.
    #[error("the jobs of this node cannot be read")]
    Jobs(#[from] pentimento_jobs::JobsError),
}
