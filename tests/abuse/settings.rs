//! Settings that cannot be meant are refused at the start, by name, with the value and what it may be; and the signals that
//! end a server.

use std::process::{Command, Stdio};

/// Exit code and standard error of a server that should not start.
fn refused(setting: (&str, &str)) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_pentimento"))
        .args(["serve", "--data", "data"])
        .env("PENTIMENTO_LISTEN", "127.0.0.1:0")
        .env(setting.0, setting.1)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn every_setting_has_a_range_and_says_it() {
    let endless = "9223372036854775808";
    for (name, value, says) in [
        (
            "LINK_TTL_SECONDS",
            endless,
            "link_ttl_seconds is 9223372036854775808 seconds; it must be 1 seconds to 31536000",
        ),
        ("LINK_TTL_SECONDS", "0", "1 seconds"),
        ("MODELSLAB_HOLD_SECONDS", endless, "3600 seconds"),
        ("GRACE_SECONDS", endless, "86400 seconds"),
        ("HEADER_TIMEOUT_SECONDS", endless, "3600 seconds"),
        ("HEADER_TIMEOUT_SECONDS", "0", "header_timeout_seconds"),
        ("IDLE_TIMEOUT_SECONDS", endless, "idle_timeout_seconds"),
        ("BODY_TIMEOUT_SECONDS", endless, "body_timeout_seconds"),
        ("STALL_SECONDS", "0", "stall_seconds"),
        (
            "LEAST_BYTES_PER_SECOND",
            "0",
            "least_bytes_per_second is 0; it must be 1 to 1048576",
        ),
        (
            "MAX_CONNECTIONS",
            "0",
            "max_connections is 0; it must be 8 to 1000000",
        ),
        ("MAX_CONNECTIONS_PER_ADDRESS", "5000", "it must be 1 to 1024"),
        ("MAX_PROMPT_TOKENS", "0", "75 to 100000"),
        ("RUNNING_JOBS", "0", "running_jobs is 0; it must be 1 to 128"),
        ("MODEL_MEMORY", "0", "model_memory"),
        ("MODEL_KEEP_ALIVE_SECONDS", endless, "31536000 seconds"),
        ("IMAGE_MEMORY", "18446744073709551615", "image_memory"),
        ("BODY_MEMORY", "1", "64 KiB"),
        (
            "PUBLIC_URL",
            "javascript:alert(1)",
            "must begin with http:// or https://",
        ),
        ("PUBLIC_URL", "data:text/html,x", "public_url"),
        ("PUBLIC_URL", "https://me:secret@host/", "leave them out"),
        ("PUBLIC_URL", "https://host/?x=1", "public_url"),
        ("CORS_ORIGINS", "example.com", "is no origin"),
        ("CORS_ORIGINS", "https://example.com/", "is no origin"),
        ("CORS_ORIGINS", "https://example.com:443", "is no origin"),
        ("CORS_ORIGINS", "null", "is no origin"),
        ("CORS_ORIGINS", "*,https://example.com", "stand alone"),
        ("ALLOWED_HOSTS", "http://studio.lan", "without scheme and port"),
        ("ALLOWED_HOSTS", "studio.lan:8080", "without scheme and port"),
        ("LISTEN", "255.255.255.255:80", "this machine"),
        ("LISTEN", "0.0.0.0:0", "PENTIMENTO_KEYS"),
        ("ADMIN_LISTEN", "0.0.0.0:0", "--admin-listen none"),
        ("ADMIN_LISTEN", "here", "PENTIMENTO_ADMIN_LISTEN"),
    ] {
        let (code, text) = refused((&format!("PENTIMENTO_{name}"), value));
        assert_eq!(code, Some(2), "{name}={value}: {text}");
        assert!(text.contains(says), "{name}={value}: {text}");
        assert!(!text.contains("secret@"), "{text}");
    }
}

#[test]
fn an_address_for_health_checks_that_somebody_chose_must_be_free() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, text) = refused(("PENTIMENTO_ADMIN_LISTEN", &address));
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("health checks") && text.contains(&address),
        "{text}"
    );
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_terminal_drains_as_a_stop_does() {
    use crate::support::client::{good_body, http};
    use crate::support::server::TestServer;
    let mut server = TestServer::start();
    let mut body = good_body();
    body["image_num"] = serde_json::json!(4);
    let call = http()
        .post(format!("{}/v3/lcm-img2img", server.base()))
        .json(&body)
        .send();
    let call = tokio::spawn(call);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let told = Command::new("kill")
        .args(["-HUP", &server.process_id().to_string()])
        .status()
        .unwrap();
    assert!(told.success());
    assert_eq!(call.await.unwrap().expect("it is answered").status(), 200);
    for _ in 0..400 {
        if !server.is_alive() {
            assert_eq!(server.exit_code(), Some(0));
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the server does not end");
}

#[cfg(target_os = "linux")]
#[test]
fn under_nohup_a_closed_terminal_stops_nothing() {
    use crate::support::server::first_line;
    let folder = tempfile::tempdir().unwrap();
    // What `nohup` does, without its files.
    let script = format!(
        "trap '' HUP; exec {} serve --listen 127.0.0.1:0 --data data",
        env!("CARGO_BIN_EXE_pentimento")
    );
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    first_line(&mut child);
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-HUP", &id])
            .status()
            .unwrap()
            .success()
    );
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let alive = matches!(child.try_wait(), Ok(None));
    let _ = child.kill();
    let _ = child.wait();
    assert!(alive, "the server ended");
}
