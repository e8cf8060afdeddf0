//! The vendors' own clients, unmodified, against the real binary.
//!
//! They need their Python environments: `cargo xtask test` prepares them and names their folder in
//! `PENTIMENTO_TEST_CLIENTS`; `tests/clients/README.md` says how to make them by hand.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::server::TestServer;
use crate::support::tests_folder;

/// The prepared folder; says so when there is none.
pub(crate) fn clients_folder() -> Option<PathBuf> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's own switch, not a setting of the program"
    )]
    let folder = std::env::var_os("PENTIMENTO_TEST_CLIENTS").map(PathBuf::from);
    if folder.is_none() {
        println!(
            "PENTIMENTO_TEST_CLIENTS is not set: the vendors' clients were NOT run (cargo xtask test runs them)"
        );
    }
    folder
}

/// What webhooks are signed with, for the drivers that verify them.
const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Runs a driver; it ends with 0 when the client got its pictures and parsed every reply.
fn drive(program: &Path, driver: &str, folder: &Path, server: &TestServer) {
    drive_with(program, driver, folder, (server, "images/photo.png"));
}

fn drive_with(program: &Path, driver: &str, folder: &Path, (server, picture): (&TestServer, &str)) {
    let output = Command::new(program)
        .arg(tests_folder().join("clients").join(driver))
        .env("B", server.base())
        .env("IMG", tests_folder().join(picture))
        .env("SECRET", WEBHOOK_SECRET)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{}:\n{said}", program.display());
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{} failed:\n{said}\n{complaint}",
        program.display()
    );
    assert!(said.contains("all calls were understood"), "{said}");
}

/// The same for a client of npm.
fn drive_node(folder: &Path, (client, driver): (&str, &str)) {
    let modules = folder.join(client);
    if !modules.join("node_modules").exists() {
        println!(
            "{} is not there: the JavaScript client was NOT run",
            modules.display()
        );
        return;
    }
    // Node looks for packages from the driver's own folder upwards, so the driver is put beside them.
    let copy = modules.join(driver);
    fs_err::copy(tests_folder().join("clients").join(driver), &copy).expect("the folder can be written");
    let server = TestServer::start();
    drive(Path::new("node"), &copy.display().to_string(), &modules, &server);
}

#[tokio::test(flavor = "multi_thread")]
async fn novitas_python_client_gets_its_pictures() {
    let Some(folder) = clients_folder() else { return };
    let server = TestServer::start();
    let mut ran = 0;
    for version in ["novita-0.5.7", "novita-0.4.12"] {
        let python = folder.join(version).join("bin/python");
        if python.exists() {
            drive(&python, "novita_python.py", &folder, &server);
            ran += 1;
        } else {
            println!("{} is not there: not run", python.display());
        }
    }
    assert!(ran > 0, "{} holds no Python client", folder.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn novitas_javascript_client_gets_its_pictures() {
    let Some(folder) = clients_folder() else { return };
    drive_node(&folder, ("novita-sdk-1.1.0", "novita_js.mjs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn openais_python_client_gets_its_pictures() {
    let Some(folder) = clients_folder() else { return };
    let python = folder.join("openai-3.57.0/bin/python");
    if !python.exists() {
        println!(
            "{} is not there: OpenAI's Python client was NOT run",
            python.display()
        );
        return;
    }
    let server = TestServer::start_with(&["--key", "tests=sk_openai_0123456789"], &[]);
    drive(&python, "openai_python.py", &folder, &server);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_mcp_sdk_uses_the_tools() {
    let Some(folder) = clients_folder() else { return };
    let python = folder.join("mcp-2.3.0/bin/python");
    if !python.exists() {
        println!("{} is not there: the SDK of MCP was NOT run", python.display());
        return;
    }
    let server = TestServer::start();
    drive(&python, "mcp_python.py", &folder, &server);
}

#[tokio::test(flavor = "multi_thread")]
async fn openais_javascript_client_gets_its_pictures() {
    let Some(folder) = clients_folder() else { return };
    drive_node(&folder, ("openai-7.59.0", "openai_js.mjs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn modelslabs_python_client_gets_its_pictures() {
    let Some(folder) = clients_folder() else { return };
    let python = folder.join("modelslab-py-0.2.3/bin/python");
    if !python.exists() {
        println!(
            "{} is not there: ModelsLab's client was NOT run",
            python.display()
        );
        return;
    }
    let server = TestServer::start();
    drive_with(
        &python,
        "modelslab_python.py",
        &folder,
        (&server, "images/scene.png"),
    );
    // Nothing is held, so that every call is answered `processing`, and its pictures come by `fetch`.
    let server = TestServer::start_with(&[], &[("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "0")]);
    let output = Command::new(&python)
        .arg(tests_folder().join("clients/modelslab_processing.py"))
        .env("B", server.base())
        .env("IMG", tests_folder().join("images/scene.png"))
        .current_dir(&folder)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("all calls were understood"),
        "{output:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_web_uis_python_client_gets_its_pictures() {
    let Some(folder) = clients_folder() else { return };
    let python = folder.join("webuiapi-0.9.17/bin/python");
    if !python.exists() {
        println!(
            "{} is not there: the web UI's client was NOT run",
            python.display()
        );
        return;
    }
    let home = tempfile::tempdir().expect("a folder for the catalogue");
    let catalogue = crate::lora::catalogue_with_a_lora(home.path());
    let server = TestServer::start_with(&["--models", &catalogue], &[]);
    drive_with(
        &python,
        "webuiapi_python.py",
        &folder,
        (&server, "images/scene.png"),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_library_verifies_what_a_receiver_gets() {
    let Some(folder) = clients_folder() else { return };
    let python = folder.join("standardwebhooks-1.1.0/bin/python");
    if !python.exists() {
        println!(
            "{} is not there: the library of Standard Webhooks was NOT run",
            python.display()
        );
        return;
    }
    let settings = [
        ("PENTIMENTO_ALLOW_PRIVATE_URLS", "true"),
        ("PENTIMENTO_WEBHOOK_SECRET", WEBHOOK_SECRET),
    ];
    let server = TestServer::start_with(&[], &settings);
    drive_with(
        &python,
        "webhook_receiver.py",
        &folder,
        (&server, "images/scene.png"),
    );
}
