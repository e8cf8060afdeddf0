//! How a node gets to the broker and what it says who it is. What would leave a cluster open to anybody is refused here.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use url::{Host, Url};

use crate::ClusterError;

/// The broker gives a job to another node after so many leases of silence.
pub(crate) const LEASES_OF_SILENCE: u32 = 2;

/// Beyond it a cluster is better cut in two.
const MOST_STREAMS: u32 = 64;

/// The name of a cluster: what its streams and subjects begin with, so that several can share a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterName(String);

impl ClusterName {
    const LONGEST: usize = 32;

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ClusterName {
    fn default() -> Self {
        Self("pentimento".to_owned())
    }
}

impl FromStr for ClusterName {
    type Err = ClusterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if text.is_empty() || text.len() > Self::LONGEST || !text.bytes().all(is_plain) {
            return Err(ClusterError::Name {
                longest: Self::LONGEST,
            });
        }
        Ok(Self(text.to_owned()))
    }
}

/// What a node shows the broker. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing, which is allowed for a broker on this machine only.
    None,
    /// One secret for all nodes.
    Token(String),
    /// A user of the broker's configuration.
    User {
        /// Its name.
        name: String,
        /// Its password.
        password: String,
    },
    /// The seed of an nkey (it begins with `SU`): the broker knows its public part only.
    NkeySeed(String),
    /// A file of credentials (a JWT and the seed of its nkey), as `nsc` writes it.
    File(PathBuf),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Token(_) => "Token(…)",
            Self::User { .. } => "User(…)",
            Self::NkeySeed(_) => "NkeySeed(…)",
            Self::File(_) => "File(…)",
        })
    }
}

/// How the broker of a cluster is reached, and what is agreed upon in it. Nodes of one cluster need the same values.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// One or more servers of one broker: `nats://host:4222` or `tls://host:4222`, without a user in them.
    pub servers: Vec<Url>,
    /// Who we are.
    pub credentials: Credentials,
    /// Certificates that the broker's may be signed with, in PEM, instead of those of the system.
    pub ca: Option<PathBuf>,
    /// Of the cluster.
    pub name: ClusterName,
    /// How many servers of the broker keep everything, 1 to 5.
    pub replicas: usize,
    /// Over how many streams jobs are spread by their checkpoints, 1 to 64, each with a leader of its own.
    pub streams: u32,
    /// How long a worker may be silent before its job is given to another. The broker counts twice that long.
    pub lease: Duration,
    /// How long the broker keeps the record of a job after its last change.
    pub keep: Duration,
}

impl ClusterSettings {
    /// The defaults beside address and credentials.
    #[must_use]
    pub fn new(servers: Vec<Url>, credentials: Credentials) -> Self {
        Self {
            servers,
            credentials,
            ca: None,
            name: ClusterName::default(),
            replicas: 1,
            streams: 1,
            lease: Duration::from_secs(60),
            keep: Duration::from_secs(2 * 24 * 3600),
        }
    }

    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// [`ClusterError::NoServer`], [`ClusterError::Address`], [`ClusterError::EmptyCredential`],
    /// [`ClusterError::NoCredentials`], [`ClusterError::Replicas`], [`ClusterError::Streams`].
    pub fn check(&self) -> Result<(), ClusterError> {
        if self.servers.is_empty() {
            return Err(ClusterError::NoServer);
        }
        for server in &self.servers {
            check_address(server)?;
        }
        if !(1..=5).contains(&self.replicas) {
            return Err(ClusterError::Replicas { found: self.replicas });
        }
        if !(1..=MOST_STREAMS).contains(&self.streams) {
            return Err(ClusterError::Streams { found: self.streams });
        }
        let is_blank = |secret: &str| secret.trim().is_empty();
        let empty = match &self.credentials {
            Credentials::None => {
                let public = self.servers.iter().find(|server| !is_loopback(server));
                return match public {
                    Some(server) => Err(ClusterError::NoCredentials {
                        server: shown(server),
                    }),
                    None => Ok(()),
                };
            }
            Credentials::Token(token) => is_blank(token).then_some("token"),
            Credentials::User { name, .. } if is_blank(name) => Some("user"),
            Credentials::User { password, .. } => is_blank(password).then_some("password"),
            Credentials::NkeySeed(seed) => is_blank(seed).then_some("nkey seed"),
            Credentials::File(path) => path.as_os_str().is_empty().then_some("credentials file"),
        };
        empty.map_or(Ok(()), |what| Err(ClusterError::EmptyCredential { what }))
    }
}

/// A server without anything secret that may stand in its address.
pub(crate) fn shown(server: &Url) -> String {
    let host = server.host_str().unwrap_or_default();
    let port = server.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}", server.scheme())
}

fn check_address(server: &Url) -> Result<(), ClusterError> {
    let refused = |why| {
        let address = shown(server);
        Err(ClusterError::Address { address, why })
    };
    if !matches!(server.scheme(), "nats" | "tls") {
        return refused("it must begin with nats:// or tls://");
    }
    if server.host_str().is_none_or(str::is_empty) {
        return refused("it names no host");
    }
    if !server.username().is_empty() || server.password().is_some() {
        // It would be printed with the address one day.
        return refused("credentials do not belong into the address; set them by themselves");
    }
    if !matches!(server.path(), "" | "/") || server.query().is_some() {
        return refused("nothing may follow host and port");
    }
    Ok(())
}

fn is_loopback(server: &Url) -> bool {
    match server.host() {
        Some(Host::Domain(name)) => match name.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => name.eq_ignore_ascii_case("localhost"),
        },
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(server: &str, credentials: Credentials) -> ClusterSettings {
        ClusterSettings::new(vec![server.parse().unwrap()], credentials)
    }

    #[test]
    fn an_empty_credential_is_refused_and_none_only_beyond_this_machine() {
        let near = "nats://127.0.0.1:4222";
        let user = |name: &str, password: &str| Credentials::User {
            name: name.to_owned(),
            password: password.to_owned(),
        };
        for empty in [
            Credentials::Token(String::new()),
            Credentials::Token(" \n".to_owned()),
            user("", "x"),
            user("x", ""),
            Credentials::NkeySeed(String::new()),
            Credentials::File(PathBuf::new()),
        ] {
            let refused = settings(near, empty).check();
            assert!(
                matches!(refused, Err(ClusterError::EmptyCredential { .. })),
                "{refused:?}"
            );
        }
        for near in [
            near,
            "nats://localhost:4222",
            "nats://[::1]:4222",
            "tls://127.9.9.9",
        ] {
            settings(near, Credentials::None).check().unwrap();
        }
        for far in [
            "nats://10.0.0.7:4222",
            "nats://nats:4222",
            "nats://127.0.0.1.example:4222",
        ] {
            let refused = settings(far, Credentials::None).check();
            assert!(
                matches!(refused, Err(ClusterError::NoCredentials { .. })),
                "{far}"
            );
            settings(far, Credentials::Token("t".to_owned())).check().unwrap();
        }
    }

    #[test]
    fn an_address_that_cannot_be_meant_is_refused_and_its_secrets_are_not_repeated() {
        for odd in [
            "http://h:1",
            "ws://h:1",
            "nats://u:hidden@h:1",
            "nats://h:1/path",
            "nats://h:1?a=b",
        ] {
            let refused = settings(odd, Credentials::Token("t".to_owned()))
                .check()
                .unwrap_err();
            assert!(matches!(refused, ClusterError::Address { .. }), "{refused:?}");
            assert!(!refused.to_string().contains("hidden"), "{refused}");
        }
        assert!(
            ClusterSettings::new(Vec::new(), Credentials::None)
                .check()
                .is_err()
        );
        let mut many = settings("nats://127.0.0.1", Credentials::None);
        many.replicas = 6;
        assert!(matches!(many.check(), Err(ClusterError::Replicas { found: 6 })));
        many.replicas = 1;
        for streams in [0, 65] {
            many.streams = streams;
            assert!(matches!(many.check(), Err(ClusterError::Streams { .. })));
        }
        assert!("a.b".parse::<ClusterName>().is_err() && "".parse::<ClusterName>().is_err());
    }

    #[test]
    fn secrets_are_not_printed() {
        let settings = settings("nats://127.0.0.1", Credentials::Token("hidden".to_owned()));
        assert!(!format!("{settings:?}").contains("hidden"));
    }
}
