//! Signed pictures from the real binary: a build with `--features c2pa` only, see `cargo xtask features`.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::support::client::{generate, get, good_body, http, send};
use crate::support::server::TestServer;

fn testdata(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../service/testdata/c2pa");
    folder.join(name).display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_of_a_server_with_a_key_are_signed_and_verified() {
    let (chain, key) = (testdata("chain.pem"), testdata("key.pem"));
    let environment = [
        ("PENTIMENTO_C2PA_CERTIFICATES", chain.as_str()),
        ("PENTIMENTO_C2PA_KEY", key.as_str()),
    ];
    let server = TestServer::start_with(&[], &environment);
    let folder = tempfile::tempdir().unwrap();
    for kind in ["png", "jpeg", "webp"] {
        let mut body = good_body();
        body["extra"] = json!({"response_image_type": kind});
        let reply = generate(&server, &body).await.json();
        let picture = get(reply["images"][0]["image_url"].as_str().unwrap()).await;
        let address = format!("{}/v1/provenance/verify", server.base());
        let found = send(http().post(address).body(picture.body.clone())).await.json();
        let credentials = &found["content_credentials"];
        assert_eq!(credentials["intact"], true, "{kind}: {found}");
        assert_eq!(credentials["signed_by"], "pictures.example", "{kind}");
        assert_eq!(
            credentials["digital_source_type"], "compositeWithTrainedAlgorithmicMedia",
            "{kind}"
        );
        assert_eq!(found["parameters"]["prompt"], body["prompt"], "{kind}");
        let path = folder.path().join(format!("picture.{kind}"));
        fs_err::write(&path, &picture.body).unwrap();
        let verify = Command::new(env!("CARGO_BIN_EXE_pentimento"))
            .arg("verify")
            .arg(&path)
            .output();
        let said = String::from_utf8(verify.unwrap().stdout).unwrap();
        assert!(
            said.contains("content credentials: intact, signed by pictures.example, Example studio"),
            "{kind}: {said}"
        );
    }
}

#[test]
fn a_key_that_cannot_sign_ends_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let refused = Command::new(env!("CARGO_BIN_EXE_pentimento"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data", "data"])
        .env("PENTIMENTO_C2PA_CERTIFICATES", testdata("chain.pem"))
        .env("PENTIMENTO_C2PA_KEY", testdata("chain.pem"))
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("c2pa_key") && said.contains("PKCS#8"), "{said}");
}
