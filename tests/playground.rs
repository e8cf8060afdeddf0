//! The playground in a real Chromium, driven by `tests/clients/playground.mjs`: the whole way from a dropped picture to a
//! result, a mask, a cancelled job, a reload, a wrong key, a phone, the keyboard, and no serious finding of axe-core.
//!
//! It needs Node, a Chromium and the packages that `cargo xtask test` prepares; without them it says that it did not run.

use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};

use crate::support::client::http;
use crate::support::server::TestServer;
use crate::support::tests_folder;

const SECRET: &str = "sk_playground";

/// Debian's, Ubuntu's and Google's names.
fn browser() -> Option<PathBuf> {
    let names = [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    ];
    let folders = ["/usr/bin", "/usr/local/bin", "/snap/bin"];
    let mut places = names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| Path::new(folder).join(name)));
    places.find(|place| place.exists())
}

/// The driver beside its packages, where Node looks for them.
fn driver() -> Option<PathBuf> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's own switch, not a setting of the program"
    )]
    let folder = std::env::var_os("PENTIMENTO_TEST_CLIENTS").map(PathBuf::from)?;
    let folder = folder.join("playground");
    if !folder.join("node_modules").exists() {
        return None;
    }
    let driver = folder.join("playground.mjs");
    fs_err::copy(tests_folder().join("clients/playground.mjs"), &driver).unwrap();
    Some(driver)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_gets_a_picture_in_a_browser() {
    let (Some(driver), Some(browser)) = (driver(), browser()) else {
        println!(
            "no Chromium, or its driver is not prepared: the playground was NOT tried (cargo xtask test prepares it)"
        );
        return;
    };
    let open = TestServer::start();
    let keyed = TestServer::start_with(&["--key", &format!("visitor={SECRET}")], &[]);
    let output = Command::new("node")
        .arg(driver)
        .env("B", open.base())
        .env("KEYED", keyed.base())
        .env("SECRET", SECRET)
        .env("IMG", tests_folder().join("images/photo.png"))
        .env("CHROMIUM", browser)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complaint}");
    assert!(said.contains("all calls were understood"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_get_the_page_programs_the_index_and_both_with_a_policy_for_either() {
    let server = TestServer::start();
    let client = http();
    let get = |path: &str| client.get(format!("{}{path}", server.base()));

    let page = get("/")
        .header(ACCEPT, "text/html,*/*;q=0.8")
        .send()
        .await
        .unwrap();
    assert_eq!(page.status(), 200);
    assert_eq!(page.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
    assert!(page.headers().get_all(VARY).iter().any(|value| value == "accept"));
    let policy = page.headers()[CONTENT_SECURITY_POLICY]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("http"),
        "{policy}"
    );
    let tag = page.headers()[ETAG].clone();
    let again = get("/").header(ACCEPT, "text/html").header(IF_NONE_MATCH, tag);
    assert_eq!(again.send().await.unwrap().status(), 304);

    let index = get("/").send().await.unwrap();
    assert_eq!(index.headers()[CONTENT_TYPE], "application/json");
    assert!(index.text().await.unwrap().contains("POST /v3/lcm-img2img"));

    let script = get("/playground/main.js").send().await.unwrap();
    assert_eq!(script.headers()[CONTENT_TYPE], "text/javascript; charset=utf-8");
    assert_eq!(script.headers()["x-content-type-options"], "nosniff");
    let missing = get("/playground/..%2Findex.html").send().await.unwrap();
    assert_eq!(missing.status(), 404);
    assert!(
        missing
            .text()
            .await
            .unwrap()
            .contains("there is nothing at this path")
    );
}
