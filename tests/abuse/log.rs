//! A log that nobody takes: its pipe closed, its disk full, its reader asleep. Requests are answered all the same, and
//! the server says what was lost.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::client::{get, good_body, good_modelslab_body, http, send};
use crate::support::server::first_line;

/// A server whose standard error is what the test gives it.
struct Served {
    child: Child,
    base: String,
    _folder: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary(folder: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pentimento"));
    command.current_dir(folder.path()).stdin(Stdio::null());
    command
}

fn serve(log: &str, stderr: impl Into<Stdio>) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let mut child = binary(&folder)
        .args(["serve", "--listen", "127.0.0.1:0", "--data", "data", "--log", log])
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .unwrap();
    let line = first_line(&mut child);
    let base = line
        .trim()
        .strip_prefix("listening on ")
        .unwrap_or_else(|| panic!("not ready: {line:?}"));
    Served {
        base: base.to_owned(),
        child,
        _folder: folder,
    }
}

/// Both dialects make pictures, refusals are answered, and all of that again.
async fn assert_serves(server: &mut Served) {
    let client = http();
    for round in 0..2 {
        let novita = client
            .post(format!("{}/v3/lcm-img2img", server.base))
            .json(&good_body());
        assert_eq!(send(novita).await.status, 200, "round {round}");
        let modelslab = client.post(format!("{}/api/v1/enterprise/img2img", server.base));
        let reply = send(modelslab.json(&good_modelslab_body())).await.json();
        assert_eq!(reply["status"], "success", "round {round}: {reply}");
        for path in ["/v3/nothing", "/v3/lcm-img2img", "/api/v1/enterprise/nothing"] {
            assert!(
                get(&format!("{}{path}", server.base))
                    .await
                    .status
                    .is_client_error()
            );
        }
        assert_eq!(get(&format!("{}/readyz", server.base)).await.status, 200);
    }
    assert!(
        matches!(server.child.try_wait(), Ok(None)),
        "the server still runs"
    );
}

async fn lost_lines(server: &Served) -> u64 {
    let status: Value = get(&format!("{}/readyz", server.base)).await.json();
    status["log"]["lost_lines"].as_u64().expect("a number of lines")
}

#[cfg(unix)]
fn terminate(server: &mut Served) -> Option<i32> {
    let told = Command::new("kill")
        .args(["-TERM", &server.child.id().to_string()])
        .status()
        .unwrap();
    assert!(told.success());
    for _ in 0..400 {
        if let Some(status) = server.child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the server does not end");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pipe_costs_lines_only() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut server = serve("debug", writer);
    // As `2>&1 | head -1` does.
    let mut first = String::new();
    BufReader::new(reader).read_line(&mut first).unwrap();
    assert_ne!(first, "");
    assert_serves(&mut server).await;
    assert!(lost_lines(&server).await > 10);
    assert_eq!(terminate(&mut server), Some(0));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_lines_only() {
    let full = fs_err::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut server = serve("info", full.into_parts().0);
    assert_serves(&mut server).await;
    assert!(lost_lines(&server).await > 10);
    assert_eq!(terminate(&mut server), Some(0));
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_that_nobody_empties_blocks_nobody() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut server = serve("trace", writer);
    // More than the pipe and the queue hold together; at this level a call logs some kilobytes.
    let client = http();
    for _ in 0..200 {
        let calls = (0..20).map(|_| client.get(format!("{}/v3/nothing", server.base)).send());
        for reply in futures::future::join_all(calls).await {
            assert_eq!(reply.expect("it is answered").status(), 404);
        }
        if lost_lines(&server).await > 0 {
            break;
        }
    }
    assert!(lost_lines(&server).await > 0, "the queue was never full");
    assert_serves(&mut server).await;
    // When it flows again, the log itself says what is missing.
    let lines = std::thread::spawn(move || {
        let lines = BufReader::new(reader).lines().map_while(Result::ok);
        lines
            .filter(|line| line.contains("lines of the log were lost"))
            .count()
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(terminate(&mut server), Some(0));
    assert!(lines.join().unwrap() > 0);
}

#[cfg(unix)]
#[test]
fn commands_whose_output_nobody_takes_end_without_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        &["models", "list"][..],
        &["doctor", "--listen", "127.0.0.1:0"],
        &["serve", "--listen", "0.0.0.0:0"],
        &["generate", "--image", "missing.png", "--prompt", "x"],
        &["--help"],
        &["nonsense"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = binary(&folder)
            .args(args)
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .status()
            .unwrap();
        // 101 is a panic's.
        assert!(matches!(status.code(), Some(0..=2)), "{args:?}: {status}");
    }
}
