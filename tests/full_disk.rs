//! A disk that is really full: a small file system of the test's own in a namespace, which needs no right beyond making one.
//!
//! Left out, with a word, where the system allows no such namespace. Linux only.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::{generate, get, good_body, good_modelslab_body, http, pictures_of, send};
use crate::support::server::TestServer;

/// A namespace with a small file system at `home/data`, as long as this lives.
struct SmallDisk {
    holder: Child,
    home: TempDir,
}

impl SmallDisk {
    /// None where the system allows none.
    fn mount() -> Option<Self> {
        let home = tempfile::tempdir().expect("a folder for the server");
        fs_err::create_dir(home.path().join("data")).expect("a folder to mount on");
        let script = "mount -t tmpfs -o size=12m,mode=0700 none \"$0\" && echo mounted && exec sleep 3600";
        let holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .arg(home.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut disk = Self {
            holder: holder.ok()?,
            home,
        };
        let mut said = String::new();
        let output = disk.holder.stdout.take()?;
        BufReader::new(output).read_line(&mut said).ok()?;
        let there = said == "mounted\n" && disk.enter("true").status().is_ok_and(|status| status.success());
        there.then_some(disk)
    }

    /// A program inside.
    fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--user", "--mount", "--preserve-credentials", "--target"])
            .arg(self.holder.id().to_string())
            .arg(program);
        command
    }

    fn server(&self) -> TestServer {
        let mut program = self.enter(env!("CARGO_BIN_EXE_pentimento"));
        program.env("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "0");
        TestServer::start_as(program, (self.home.path(), &[]))
    }

    /// The data folder, from outside.
    fn data(&self) -> PathBuf {
        let data = self.home.path().join("data");
        let within = data.strip_prefix("/").expect("an absolute path");
        Path::new("/proc")
            .join(self.holder.id().to_string())
            .join("root")
            .join(within)
    }

    /// Leaves no byte free.
    fn fill(&self) {
        let mut file =
            fs_err::File::create(self.data().join("in-the-way")).expect("there is room for a name");
        let mut size = 1 << 16;
        while size > 0 {
            // Where only a part has room, the part is written.
            if file.write_all(&vec![7; size]).is_err() {
                size /= 2;
            }
        }
    }

    fn free(&self) {
        fs_err::remove_file(self.data().join("in-the-way")).expect("it can be deleted");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn modelslab(seed: u32, steps: u32, side: u32) -> Value {
    let mut body = good_modelslab_body();
    body["seed"] = json!(seed);
    body["num_inference_steps"] = json!(steps);
    (body["width"], body["height"]) = (json!(side), json!(side));
    body
}

async fn ask(server: &TestServer, body: &Value) -> Value {
    let address = format!("{}/api/v1/enterprise/img2img", server.base());
    send(http().post(address).json(body)).await.json()
}

async fn jobs(server: &TestServer) -> Value {
    get(&format!("{}/readyz", server.base())).await.json()["jobs"].clone()
}

/// The picture of a job, once it is there.
async fn picture(server: &TestServer, accepted: &Value) -> bytes::Bytes {
    let address = format!("{}/api/v1/enterprise/fetch/{}", server.base(), accepted["id"]);
    loop {
        let reply = send(http().post(&address).json(&json!({"key": "any"})))
            .await
            .json();
        match reply["status"].as_str() {
            Some("processing") => tokio::time::sleep(Duration::from_millis(50)).await,
            Some("success") => return get(reply["output"][0].as_str().expect("a link")).await.body,
            _ => panic!("{accepted} ended so: {reply}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_whole_requests_loses_nothing_that_was_accepted_and_recovers_by_itself() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("left out: this system lets no test mount a file system of its own");
        return;
    };
    let server = disk.server();
    let before = pictures_of(&server, &good_body()).await;
    // One that is running when the disk is full, and one behind it.
    let running = ask(&server, &modelslab(1, 40, 256)).await;
    assert_eq!(running["status"], "processing", "{running}");
    while jobs(&server).await["running"] != json!(1) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let second = ask(&server, &modelslab(2, 40, 256)).await;
    disk.fill();
    for _ in 0..3 {
        let refused = generate(&server, &good_body()).await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
        assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
        let refused = ask(&server, &modelslab(3, 3, 64)).await;
        assert_eq!(refused["status"], "error", "{refused}");
    }
    let held = jobs(&server).await;
    let unfinished = held["queued"].as_u64().zip(held["running"].as_u64());
    let unfinished = unfinished.map(|(queued, running)| queued + running);
    assert_eq!(
        unfinished,
        Some(2),
        "nothing is half accepted, and nothing has ended: {held}"
    );
    disk.free();
    let pictures = [picture(&server, &running).await, picture(&server, &second).await];
    assert_eq!(pictures_of(&server, &good_body()).await, before);

    // Killed while its disk is full, with a job that it has accepted.
    let third = ask(&server, &modelslab(1, 40, 256)).await;
    assert_eq!(third["status"], "processing", "{third}");
    disk.fill();
    server.kill();
    disk.free();
    let server = disk.server();
    assert_eq!(picture(&server, &third).await, pictures[0]);
    let again = ask(&server, &modelslab(2, 40, 256)).await;
    assert_eq!(picture(&server, &again).await, pictures[1]);
}
