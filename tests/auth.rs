//! Keys: in both spellings, missing, wrong, and no path around them.

use serde_json::{Value, json};

use crate::support::client::{Reply, good_body, http, send};
use crate::support::server::TestServer;

const KEY: &str = "sk_test_0123456789";

async fn call(server: &TestServer, path: &str, header: Option<&str>) -> Reply {
    let mut request = http().post(format!("{}{path}", server.base())).json(&good_body());
    if let Some(header) = header {
        request = request.header("authorization", header);
    }
    send(request).await
}

fn reason(reply: &Reply) -> Value {
    reply.json()["reason"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_asked_for_everywhere_and_told_nowhere() {
    let server = TestServer::start_with(&["--key", &format!("tests={KEY}")], &[]);
    for header in [format!("Bearer {KEY}"), KEY.to_owned(), format!("bearer  {KEY}")] {
        assert_eq!(
            call(&server, "/v3/lcm-img2img", Some(&header)).await.status,
            200,
            "{header}"
        );
    }
    // However the path is written, it is either not found or asks for the key.
    let paths = [
        "/v3/lcm-img2img",
        "//v3//lcm-img2img/",
        "/v3/lcm-img2img/?x",
        "/v3/./lcm-img2img",
        "/V3/lcm-img2img",
    ];
    let tricks = [
        "/v3%2Flcm-img2img",
        "/x/../v3/lcm-img2img",
        "/v3/lcm-img2img;x",
        "/v3/lcm-img2img%00",
    ];
    for path in paths.into_iter().chain(tricks) {
        let missing = call(&server, path, None).await;
        let answer = (missing.status.as_u16(), reason(&missing));
        let known = [(400, json!("MISSING_API_KEY")), (404, json!("API_NOT_FOUND"))];
        assert!(known.contains(&answer), "{path}: {answer:?}");
        assert!(!String::from_utf8_lossy(&missing.body).contains(KEY));
    }
    for header in [
        "Bearer wrong",
        "wrong",
        &KEY[1..],
        &format!("{KEY}x"),
        &format!("Basic {KEY}"),
        "Bearer Bearer",
    ] {
        let wrong = call(&server, "/v3/lcm-img2img", Some(header)).await;
        assert_eq!(
            (wrong.status.as_u16(), reason(&wrong)),
            (403, json!("INVALID_API_KEY")),
            "{header}"
        );
    }
    for header in ["", "Bearer", "Bearer "] {
        let missing = call(&server, "/v3/lcm-img2img", Some(header)).await;
        assert_eq!(
            (missing.status.as_u16(), reason(&missing)),
            (400, json!("MISSING_API_KEY")),
            "{header:?}"
        );
    }
    for path in ["/v3/model", "/v3/models", "/v3/user", "/v2/models"] {
        let address = format!("{}{path}", server.base());
        assert_eq!(send(http().get(&address)).await.status, 400, "{path}");
        assert_eq!(
            send(http().get(&address).header("authorization", KEY))
                .await
                .status,
            200,
            "{path}"
        );
    }
    for path in ["/healthz", "/readyz", "/"] {
        assert_eq!(
            send(http().get(format!("{}{path}", server.base()))).await.status,
            200,
            "{path}"
        );
    }
    assert!(!server.log().contains(KEY), "the key is in the log");
}
