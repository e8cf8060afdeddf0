//! Brokers that ask who comes, and whose own identity is asked for: with what is right a node gets in, and with anything else
//! it does not start and says why.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use nkeys::KeyPair as Nkey;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use super::*;
use crate::ClusterError;

/// An authority that signs certificates of brokers.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

fn pem(label: &str, der: &[u8]) -> String {
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        BASE64_STANDARD.encode(der)
    )
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let file = folder.join(format!("{name}.pem"));
        fs_err::write(&file, pem("CERTIFICATE", certificate.der())).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            file,
        }
    }

    /// What a broker's configuration says of a certificate for this address or name.
    fn tls(&self, folder: &Path, name: &str) -> String {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (of_certificate, of_key) = (
            folder.join(format!("broker-{name}.pem")),
            folder.join(format!("broker-{name}.key")),
        );
        fs_err::write(&of_certificate, pem("CERTIFICATE", certificate.der())).unwrap();
        fs_err::write(&of_key, pem("PRIVATE KEY", &key.serialize_der())).unwrap();
        format!("tls {{ cert_file: {of_certificate:?}, key_file: {of_key:?} }}")
    }
}

async fn open(
    url: url::Url,
    ca: Option<&Path>,
    credentials: Credentials,
) -> Result<Connection, ClusterError> {
    let settings = ClusterSettings {
        ca: ca.map(Path::to_owned),
        ..ClusterSettings::new(vec![url], credentials)
    };
    Connection::open(settings).await
}

/// Whether a node that is let in has all that a cluster needs.
async fn is_in(opened: Result<Connection, ClusterError>) -> bool {
    let connection = opened.unwrap();
    connection.is_up() && connection.rooms().await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_trusted_by_its_certificate_alone() {
    for program in programs() {
        let folder = tempfile::tempdir().unwrap();
        let ours = Authority::new(folder.path(), "ours");
        let other = Authority::new(folder.path(), "other");
        let broker = Broker::start(program.clone(), &ours.tls(folder.path(), "127.0.0.1"));
        let none = || Credentials::None;
        assert!(is_in(open(broker.url_with("tls"), Some(&ours.file), none()).await).await);
        // The broker asks for it, whatever the address says.
        assert!(is_in(open(broker.url(), Some(&ours.file), none()).await).await);
        for ca in [None, Some(other.file.as_path())] {
            let refused = open(broker.url_with("tls"), ca, none()).await;
            assert!(matches!(refused, Err(ClusterError::Tls { .. })), "{refused:?}");
        }
        let no_certificates = folder.path().join("empty.pem");
        fs_err::write(&no_certificates, "nothing of the kind\n").unwrap();
        let refused = open(broker.url_with("tls"), Some(&no_certificates), none()).await;
        assert!(matches!(refused, Err(ClusterError::Tls { .. })), "{refused:?}");
        let missing = folder.path().join("missing.pem");
        let refused = open(broker.url_with("tls"), Some(&missing), none()).await;
        assert!(
            matches!(refused, Err(ClusterError::Unusable { what: "ca", .. })),
            "{refused:?}"
        );
        // One that has another name, and one that speaks no TLS.
        let elsewhere = Broker::start(program.clone(), &ours.tls(folder.path(), "elsewhere.example"));
        let plain = Broker::start(program, "");
        for broker in [elsewhere, plain] {
            let refused = open(broker.url_with("tls"), Some(&ours.file), none()).await;
            assert!(matches!(refused, Err(ClusterError::Tls { .. })), "{refused:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nkey_lets_its_user_in_and_no_other() {
    for program in programs() {
        let user = Nkey::new_user();
        let known = format!("authorization {{ users: [ {{ nkey: {} }} ] }}", user.public_key());
        let broker = Broker::start(program, &known);
        let with = async |seed: String| open(broker.url(), None, Credentials::NkeySeed(seed)).await;
        // With the line's end of its file.
        assert!(is_in(with(format!("{}\n", user.seed().unwrap())).await).await);
        let stranger = Nkey::new_user().seed().unwrap();
        for wrong in [stranger, "SUNOSEED".to_owned(), "no seed".to_owned()] {
            let refused = with(wrong).await;
            assert!(
                matches!(
                    refused,
                    Err(ClusterError::Refused { .. } | ClusterError::Unusable { .. })
                ),
                "{refused:?}"
            );
        }
        let refused = open(broker.url(), None, Credentials::None).await;
        assert!(
            matches!(refused, Err(ClusterError::Refused { .. })),
            "{refused:?}"
        );
    }
}

/// A token as NATS has it: a JWT that a nkey signs.
fn jwt(signer: &Nkey, subject: &Nkey, nats: Value) -> String {
    let head = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let mut claims = json!({
        "jti": subject.public_key(),
        "iat": 1_700_000_000,
        "iss": signer.public_key(),
        "name": "test",
        "sub": subject.public_key(),
        "nats": nats,
    });
    claims["nats"]["version"] = 2.into();
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&head), part(&claims));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(signer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

fn account(operator: &Nkey, account: &Nkey, may_keep: i64) -> String {
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": may_keep, "disk_storage": may_keep, "streams": may_keep, "consumer": may_keep,
    });
    jwt(operator, account, json!({"type": "account", "limits": limits}))
}

fn credentials(file: &Path, (signer, user): (&Nkey, &Nkey), claims: Value) -> Credentials {
    let token = jwt(signer, user, claims);
    let seed = user.seed().unwrap();
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    fs_err::write(file, text).unwrap();
    Credentials::File(file.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_credentials_lets_its_user_in_and_no_forged_or_outdated_one() {
    for program in programs() {
        let folder = tempfile::tempdir().unwrap();
        let (operator, system, cluster, other) = (
            Nkey::new_operator(),
            Nkey::new_account(),
            Nkey::new_account(),
            Nkey::new_account(),
        );
        let settings = format!(
            "operator: {}\nresolver: MEMORY\nsystem_account: {}\nresolver_preload {{\n  {}: {}\n  {}: {}\n}}",
            jwt(&operator, &operator, json!({"type": "operator"})),
            system.public_key(),
            system.public_key(),
            account(&operator, &system, 0),
            cluster.public_key(),
            account(&operator, &cluster, -1),
        );
        let broker = Broker::start(program, &settings);
        let file = |name: &str| folder.path().join(name);
        let claims = || json!({"type": "user", "subs": -1, "data": -1, "payload": -1});
        let user = Nkey::new_user();
        let right = credentials(&file("right"), (&cluster, &user), claims());
        assert!(is_in(open(broker.url(), None, right).await).await);
        // Signed by nobody whom the operator knows.
        let forged = credentials(&file("forged"), (&other, &user), claims());
        let refused = open(broker.url(), None, forged).await;
        assert!(
            matches!(refused, Err(ClusterError::Refused { .. })),
            "{refused:?}"
        );
        // Another user's token with this user's seed.
        let text = fs_err::read_to_string(file("right")).unwrap();
        let stranger = Nkey::new_user().seed().unwrap();
        fs_err::write(file("mixed"), text.replace(&user.seed().unwrap(), &stranger)).unwrap();
        let refused = open(broker.url(), None, Credentials::File(file("mixed"))).await;
        assert!(
            matches!(refused, Err(ClusterError::Refused { .. })),
            "{refused:?}"
        );
        fs_err::write(file("empty"), "").unwrap();
        fs_err::write(file("odd"), "no credentials\n").unwrap();
        for name in ["empty", "odd", "missing"] {
            let refused = open(broker.url(), None, Credentials::File(file(name))).await;
            assert!(
                matches!(
                    refused,
                    Err(ClusterError::Unusable {
                        what: "credentials file",
                        ..
                    })
                ),
                "{name}: {refused:?}"
            );
        }
        // One who may come in and keep nothing.
        let guest = credentials(&file("guest"), (&system, &user), claims());
        let refused = open(broker.url(), None, guest).await;
        assert!(
            matches!(refused, Err(ClusterError::NoJetStream { .. })),
            "{refused:?}"
        );
    }
}
