//! Certificates: a good one, and every reason to refuse one.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;

/// An authority of our own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }

    /// A server with a certificate for `name`, valid until the given year.
    async fn server(&self, name: &str, until: i32, answer: &'static str) -> Server {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Server::start_with(Some(TlsAcceptor::from(Arc::new(config))), move |_| {
            Told::bytes(answer)
        })
        .await
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecure";

async fn fetch_securely(server: &Server, roots: RootCertStore) -> Result<Reply, OutboundError> {
    let guard = AddressGuard::permitting(vec![server.address]);
    let resolver = Arc::new(FakeResolver::always(NAME, &["127.0.0.1"]));
    let client = GuardedClient::with(guard, resolver, roots);
    client
        .get(&format!("https://{NAME}:{}/", server.address.port()), &quick())
        .await
}

#[tokio::test]
async fn a_valid_certificate_is_accepted_and_the_name_is_checked_though_the_address_is_pinned() {
    let authority = Authority::named("ours");
    let server = authority.server(NAME, 2100, OK).await;
    assert_eq!(
        fetch_securely(&server, authority.roots()).await.unwrap().body,
        "secure"
    );
}

#[tokio::test]
async fn expired_foreign_and_misnamed_certificates_are_refused() {
    let authority = Authority::named("ours");
    let expired = authority.server(NAME, 2001, OK).await;
    let misnamed = authority.server("other.example", 2100, OK).await;
    let foreign = Authority::named("foreign").server(NAME, 2100, OK).await;
    for (server, why) in [
        (expired, "Expired"),
        (misnamed, "NotValidForName"),
        (foreign, "UnknownIssuer"),
    ] {
        let error = fetch_securely(&server, authority.roots()).await.unwrap_err();
        assert!(
            matches!(error, OutboundError::Unreachable(UnreachableCause::Tls(_))),
            "{why}: {error:?}"
        );
        assert!(format!("{error:?}").contains(why), "{why}: {error:?}");
        assert_eq!(error.to_string(), "the address could not be reached");
        assert_eq!(
            server.requests().len(),
            0,
            "nothing is sent over a connection that is not trusted"
        );
    }
}

#[tokio::test]
async fn a_plain_server_behind_https_is_refused() {
    let server = Server::answering_raw(OK).await;
    let error = fetch_securely(&server, Authority::named("ours").roots())
        .await
        .unwrap_err();
    assert!(matches!(error, OutboundError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn https_never_falls_back_to_http() {
    let authority = Authority::named("ours");
    let server = authority
        .server(
            NAME,
            2100,
            "HTTP/1.1 302 X\r\nLocation: http://example.com/\r\nContent-Length: 0\r\n\r\n",
        )
        .await;
    let error = fetch_securely(&server, authority.roots()).await.unwrap_err();
    assert!(
        matches!(
            error,
            OutboundError::Redirect {
                problem: UrlProblem::Downgrade
            }
        ),
        "{error:?}"
    );
}

#[test]
fn the_public_roots_are_compiled_in() {
    assert!(connection::public_roots().len() > 50);
}
