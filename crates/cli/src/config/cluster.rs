//! The settings of a cluster: where its broker is, and what this machine shows it.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::{ConfigError, Secret, Settings, checks};

/// How long a worker may be silent, in seconds, where the settings do not say.
const LEASE: u64 = 60;

/// How this machine gets into its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterConfig {
    pub(crate) servers: Vec<Url>,
    pub(crate) credentials: ClusterCredentials,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) name: String,
    pub(crate) replicas: usize,
    pub(crate) streams: u32,
    /// The same on all machines of the cluster.
    pub(crate) lease: Duration,
}

/// What it shows the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClusterCredentials {
    None,
    Token(Secret),
    TokenFile(PathBuf),
    NkeyFile(PathBuf),
    File(PathBuf),
}

/// The cluster that the settings name, if they do.
pub(super) fn cluster(settings: &Settings) -> Result<Option<ClusterConfig>, ConfigError> {
    let Some(servers) = settings.cluster.clone().filter(|servers| !servers.is_empty()) else {
        return without_cluster(settings).map(|()| None);
    };
    let shown = || {
        let servers: Vec<String> = servers
            .iter()
            .map(|server| server.host_str().unwrap_or_default().to_owned())
            .collect();
        servers.join(", ")
    };
    let refused = |problem| {
        Err(ConfigError::Refused {
            name: "cluster",
            value: shown(),
            problem,
        })
    };
    if settings.images.is_none() {
        return refused(
            "needs a place for pictures that all its machines reach; set images = \"s3://bucket/prefix\"",
        );
    }
    let given = [
        settings.cluster_token.clone().map(ClusterCredentials::Token),
        settings
            .cluster_token_file
            .clone()
            .map(ClusterCredentials::TokenFile),
        settings
            .cluster_nkey_file
            .clone()
            .map(ClusterCredentials::NkeyFile),
        settings.cluster_credentials.clone().map(ClusterCredentials::File),
    ];
    let mut given = given.into_iter().flatten();
    let credentials = given.next().unwrap_or(ClusterCredentials::None);
    if given.next().is_some() {
        return refused(
            "is entered with one of cluster_token, cluster_token_file, cluster_nkey_file and cluster_credentials; leave the others out",
        );
    }
    let replicas = settings.cluster_replicas.unwrap_or(1);
    let lease = checks::seconds(
        "cluster_lease_seconds",
        settings.cluster_lease_seconds,
        LEASE,
        checks::LEASE,
    )?;
    Ok(Some(ClusterConfig {
        credentials,
        ca: settings.cluster_ca.clone(),
        name: settings
            .cluster_name
            .clone()
            .unwrap_or_else(|| "pentimento".to_owned()),
        replicas: usize::try_from(replicas).unwrap_or(usize::MAX),
        streams: u32::try_from(settings.cluster_streams.unwrap_or(1)).unwrap_or(u32::MAX),
        lease,
        servers,
    }))
}

/// What is said about a cluster that there is none of is most likely a slip.
fn without_cluster(settings: &Settings) -> Result<(), ConfigError> {
    let said = [
        ("cluster_token", settings.cluster_token.is_some()),
        ("cluster_token_file", settings.cluster_token_file.is_some()),
        ("cluster_nkey_file", settings.cluster_nkey_file.is_some()),
        ("cluster_credentials", settings.cluster_credentials.is_some()),
        ("cluster_ca", settings.cluster_ca.is_some()),
        ("cluster_name", settings.cluster_name.is_some()),
        ("cluster_replicas", settings.cluster_replicas.is_some()),
        ("cluster_streams", settings.cluster_streams.is_some()),
        ("cluster_lease_seconds", settings.cluster_lease_seconds.is_some()),
        ("runs_jobs", settings.runs_jobs == Some(false)),
    ];
    match said.into_iter().find(|(_, is_said)| *is_said) {
        None => Ok(()),
        Some((name, _)) => Err(ConfigError::Refused {
            name,
            value: "set".to_owned(),
            problem: "means nothing without a cluster; set cluster = [\"nats://host:4222\"], or leave it out",
        }),
    }
}
