//! Pictures in a bucket: links that work, and what happens when the bucket has trouble.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::http::Method;
use serde_json::Value;

use crate::support::client::{addresses, builder, generate, get, good_body, good_modelslab_body, http, send};
use crate::support::s3_server::{BUCKET, S3Server, Trouble};
use crate::support::server::TestServer;

const PLACE: &str = "s3://pictures/of/tests";

/// A server whose pictures are in the bucket of a store at this address.
fn serve(endpoint: &str, more: &[(&str, &str)]) -> TestServer {
    let mut environment = vec![
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "test-key"),
        ("AWS_SECRET_ACCESS_KEY", "test-secret"),
        ("AWS_REGION", "eu-central-1"),
    ];
    environment.extend_from_slice(more);
    TestServer::start_with(&["--images", PLACE], &environment)
}

async fn made(server: &TestServer) -> (String, Value) {
    let reply = generate(server, &good_body()).await;
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    let reply = reply.json();
    (addresses(&reply).remove(0), reply)
}

async fn delete(server: &TestServer, id: &Value) {
    let path = format!("{}/v1/jobs/{}?delete=true", server.base(), id.as_str().unwrap());
    let reply = send(http().delete(path)).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
}

/// What there is after a while, as it must.
async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it does not come");
}

/// What a link must do, wherever its picture is.
async fn a_link_works(server: &TestServer, address: &str) {
    assert!(
        address.starts_with(&format!("{}/files/", server.base())),
        "{address}"
    );
    let whole = get(address).await;
    assert_eq!(
        (whole.status.as_u16(), &whole.headers["content-type"]),
        (200, &"image/png".parse().unwrap())
    );
    assert!(whole.body.starts_with(b"\x89PNG"));
    let part = send(http().get(address).header("range", "bytes=1-3")).await;
    assert_eq!(
        (part.status.as_u16(), part.body.as_ref()),
        (206, b"PNG".as_slice())
    );
    let head = send(http().head(address)).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    let changed = get(&address.replace(".png", ".jpeg")).await;
    assert_eq!(changed.status, 403);
}

/// Also for the real store below.
async fn pictures_live_in_the_bucket(server: &TestServer, redirects: bool) {
    let (address, reply) = made(server).await;
    a_link_works(server, &address).await;
    let patient = builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let first = send(patient.get(&address)).await;
    assert_eq!(first.status.as_u16(), if redirects { 302 } else { 200 });
    if redirects {
        let elsewhere = first.headers["location"].to_str().unwrap();
        assert!(elsewhere.contains("/of/tests/generations/") && elsewhere.contains("X-Amz-Signature="));
        assert_eq!(first.headers["cache-control"], "no-store");
    }
    delete(server, &reply["job_id"]).await;
    assert_eq!(get(&address).await.status, 404, "it is deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_in_a_bucket_come_through_the_server_or_from_the_bucket() {
    for (links, redirects) in [("auto", false), ("redirect", true)] {
        let store = S3Server::start().await;
        let server = serve(&store.address(), &[("PENTIMENTO_IMAGES_LINKS", links)]);
        let (_, reply) = made(&server).await;
        // The input goes after the end, of which the caller has been told.
        let objects = eventually(|| Some(store.objects()).filter(|objects| objects.len() == 1)).await;
        assert!(objects[0].0.starts_with("of/tests/generations/") && objects[0].1 == "image/png");
        delete(&server, &reply["job_id"]).await;
        assert_eq!(store.objects(), []);
        pictures_live_in_the_bucket(&server, redirects).await;
        // Text always comes through the server, and a link is the same before and after.
        let mut body = good_modelslab_body();
        body["base64"] = "yes".into();
        body["init_image"] = crate::support::pictures::base64("small.png").into();
        let path = format!("{}/api/v1/enterprise/img2img", server.base());
        let reply = send(http().post(path).json(&body)).await.json();
        assert_eq!(reply["status"], "success", "{reply}");
        assert_eq!(reply["output"], reply["future_links"]);
        let text = get(reply["output"][0].as_str().unwrap()).await;
        assert!(
            text.status == 200 && text.body.starts_with(b"iVBOR"),
            "a PNG file in base64"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_busy_or_refuses_once_costs_no_picture() {
    let store = S3Server::start().await;
    let server = serve(&store.address(), &[]);
    store.trouble(&Method::PUT, "/inputs/", &[Trouble::SlowDown]);
    store.trouble(
        &Method::PUT,
        "/generations/",
        &[Trouble::SlowDown, Trouble::SlowDown],
    );
    let (address, _) = made(&server).await;
    assert!(store.is_calm());
    store.trouble(&Method::GET, "/generations/", &[Trouble::SlowDown]);
    a_link_works(&server, &address).await;
    // A refusal is not asked again; the job is.
    store.trouble(&Method::PUT, "/generations/", &[Trouble::Refused]);
    let (address, _) = made(&server).await;
    assert!(store.is_calm());
    a_link_works(&server, &address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_refuses_is_told_and_leaves_no_job() {
    let store = S3Server::start().await;
    let server = serve(&store.address(), &[]);
    store.trouble(&Method::PUT, "/inputs/", &[Trouble::Refused]);
    let refused = generate(&server, &good_body()).await;
    assert_eq!(refused.status, 503, "{}", refused.json());
    assert!(refused.headers.contains_key("retry-after"));
    let text = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(
        !text.contains("RequestTimeTooSkewed") && !text.contains("127.0.0.1"),
        "{text}"
    );
    assert!(
        server.log().contains("RequestTimeTooSkewed"),
        "its operator is told"
    );
    let jobs = get(&format!("{}/v1/jobs", server.base())).await.json();
    assert_eq!(jobs["jobs"], Value::Array(Vec::new()));
    let (address, _) = made(&server).await;
    store.trouble(&Method::GET, "/generations/", &[Trouble::Refused]);
    assert_eq!(get(&address).await.status, 503);
    a_link_works(&server, &address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_silent_ends_no_server() {
    let store = S3Server::start().await;
    // Of each call; six are made.
    let server = serve(&store.address(), &[("AWS_TIMEOUT", "300ms")]);
    store.trouble(&Method::PUT, "/inputs/", &[Trouble::Silent; 20]);
    let refused = generate(&server, &good_body()).await;
    assert_eq!(refused.status, 503, "{}", refused.json());
    let health = get(&format!("{}/healthz", server.base())).await;
    assert_eq!(health.status, 200);
    store.calm();
    let (address, _) = made(&server).await;
    a_link_works(&server, &address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_away_at_the_start_is_used_when_it_comes_back() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let server = serve(&format!("http://{free}"), &[]);
    let refused = generate(&server, &good_body()).await;
    assert_eq!(refused.status, 503, "{}", refused.json());
    eventually(|| Some(server.log()).filter(|log| log.contains("the bucket for pictures cannot be used")))
        .await;
    let _store = S3Server::start_at(free).await;
    let (address, _) = made(&server).await;
    a_link_works(&server, &address).await;
}

#[test]
fn a_place_that_is_no_bucket_ends_the_start() {
    let folder = tempfile::tempdir().unwrap();
    for (place, why) in [
        ("pictures", "write s3://bucket"),
        ("s3://Pictures", "no name of a bucket"),
        ("s3://pictures/../x", "prefix"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_pentimento"))
            .args(["serve", "--listen", "127.0.0.1:0", "--images", place])
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(why) && said.contains("images"), "{said}");
    }
}

/// Moto's server of S3, killed when it goes out of scope.
struct Moto {
    process: Child,
    address: String,
}

impl Moto {
    /// None where the test's environment is not prepared.
    fn start() -> Option<Self> {
        let program = crate::clients::clients_folder()?.join("moto-5.2.5/bin/moto_server");
        if !program.exists() {
            println!(
                "{} is not there: NOT run against a real server of S3",
                program.display()
            );
            return None;
        }
        let mut process = Command::new(program)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(process.stderr.take().expect("it is piped")).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, address) = line.split_once("Running on ")?;
            Some(address.trim().to_owned())
        });
        // Nobody reads on, and a full pipe would hold it up.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self {
            process,
            address: address.expect("it says where it is"),
        })
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_of_s3_keeps_pictures() {
    let Some(moto) = Moto::start() else { return };
    let bucket = send(http().put(format!("{}/{BUCKET}", moto.address))).await;
    assert_eq!(bucket.status, 200, "{}", String::from_utf8_lossy(&bucket.body));
    for (links, redirects) in [("stream", false), ("redirect", true)] {
        let server = serve(&moto.address, &[("PENTIMENTO_IMAGES_LINKS", links)]);
        pictures_live_in_the_bucket(&server, redirects).await;
        assert!(!server.log().contains("cannot be used"), "{}", server.log());
    }
    // A bucket that is not there is told at the start.
    let server = TestServer::start_with(
        &["--images", "s3://nobodys"],
        &[
            ("AWS_ENDPOINT_URL", moto.address.as_str()),
            ("AWS_ACCESS_KEY_ID", "k"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
        ],
    );
    let refused = generate(&server, &good_body()).await;
    assert_eq!(refused.status, 503, "{}", refused.json());
}
