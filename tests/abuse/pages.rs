//! A web page that the user of a server without keys visits, and what it may not do with that server.

use reqwest::Method;

use crate::support::client::{Reply, addresses, generate, get, good_body, good_modelslab_body, http, send};
use crate::support::server::TestServer;

const EVIL: &str = "https://evil.example";
const NOVITA: &str = "/v3/lcm-img2img";
const MODELSLAB: &str = "/api/v1/enterprise/img2img";

async fn call(server: &TestServer, path: &str, headers: &[(&str, &str)]) -> Reply {
    let address = format!("{}{path}", server.base());
    let mut request = match path {
        NOVITA => http().post(address).json(&good_body()),
        MODELSLAB => http().post(address).json(&good_modelslab_body()),
        _ => http().get(address),
    };
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_names_of_elsewhere_are_refused_without_keys() {
    let server = TestServer::start();
    for path in [
        NOVITA,
        MODELSLAB,
        "/v1/models",
        "/v3/model",
        "/readyz",
        "/api/v1/enterprise/fetch/1",
    ] {
        for (headers, way_out) in [
            (&[("origin", EVIL)][..], "--cors-origins"),
            (&[("origin", "null")], "--cors-origins"),
            (&[("sec-fetch-site", "cross-site")], "--cors-origins"),
            (&[("host", "evil.example")], "--allowed-hosts"),
            (
                &[
                    ("host", "evil.example:8080"),
                    ("origin", "http://evil.example:8080"),
                ],
                "--allowed-hosts",
            ),
        ] {
            let refused = call(&server, path, headers).await;
            let text = String::from_utf8_lossy(&refused.body).into_owned();
            assert_eq!(refused.status, 403, "{path} {headers:?}: {text}");
            assert!(text.contains(way_out), "{path} {headers:?}: {text}");
            assert!(
                !refused.headers.contains_key("access-control-allow-origin"),
                "{path} {headers:?}"
            );
        }
    }
    for (path, word) in [
        (NOVITA, "FEATURE_NOT_ALLOWED"),
        (MODELSLAB, "\"status\":\"error\""),
    ] {
        let refused = call(&server, path, &[("origin", EVIL)]).await;
        assert!(String::from_utf8_lossy(&refused.body).contains(word), "{path}");
    }
    // The page's browser asks first, and is told no.
    let preflight = http()
        .request(Method::OPTIONS, format!("{}{NOVITA}", server.base()))
        .header("origin", EVIL)
        .header("access-control-request-method", "POST");
    assert!(
        !send(preflight)
            .await
            .headers
            .contains_key("access-control-allow-origin")
    );
    // A tool of this machine's user, in a browser and out of it.
    let local = [
        ("origin", "http://localhost:3000"),
        ("sec-fetch-site", "cross-site"),
    ];
    let made = call(&server, NOVITA, &local).await;
    assert_eq!(made.status, 200);
    assert_eq!(
        made.headers["access-control-allow-origin"],
        "http://localhost:3000"
    );
    assert_eq!(
        call(&server, NOVITA, &[("host", "localhost:8080")]).await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_link_opens_from_any_page() {
    let server = TestServer::start();
    let made = generate(&server, &good_body()).await;
    let link = &addresses(&made.json())[0];
    for headers in [
        &[
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ][..],
        &[
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "no-cors"),
            ("sec-fetch-dest", "image"),
        ],
        &[("origin", EVIL)],
        &[],
    ] {
        let mut request = http().get(link);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        assert_eq!(send(request).await.status, 200, "{headers:?}");
    }
    // Somebody follows a link to the server itself.
    let visit = [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ];
    assert_eq!(call(&server, "/", &visit).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_may_call_and_with_keys_every_page_may_that_has_one() {
    let flags = ["--cors-origins", EVIL, "--allowed-hosts", "studio.lan"];
    let server = TestServer::start_with(&flags, &[]);
    let listed = call(&server, NOVITA, &[("origin", EVIL), ("host", "studio.lan:8080")]).await;
    assert_eq!(listed.status, 200);
    assert_eq!(listed.headers["access-control-allow-origin"], EVIL);
    assert_eq!(
        call(&server, NOVITA, &[("origin", "https://other.example")])
            .await
            .status,
        403
    );

    let keyed = TestServer::start_with(&["--key", "tests=sk_1"], &[]);
    let page = [
        ("origin", EVIL),
        ("host", "pictures.example"),
        ("sec-fetch-site", "cross-site"),
    ];
    let with_key: Vec<_> = page
        .into_iter()
        .chain([("authorization", "Bearer sk_1")])
        .collect();
    assert_eq!(call(&keyed, NOVITA, &with_key).await.status, 200);
    assert_eq!(call(&keyed, "/v1/models", &with_key).await.status, 200);
    assert_eq!(call(&keyed, "/v1/models", &page).await.status, 401);
    let wrong = call(&keyed, "/v1/models", &[("authorization", "sk_2")]).await;
    assert_eq!(wrong.status, 401);
    assert_eq!(get(&format!("{}/readyz", keyed.base())).await.status, 200);
}
