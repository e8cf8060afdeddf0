//! The binary as its users meet it: help, pipes, exit codes, the demo, and the orderly end of a server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PHOTO: &[u8] = include_bytes!("images/photo.png");

/// The binary in a folder of its own, without any settings of this machine.
fn pentimento(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pentimento"));
    command.args(args).current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PENTIMENTO_") {
            command.env_remove(name);
        }
    }
    command
}

fn run(folder: &Path, args: &[&str]) -> Output {
    pentimento(folder, args).output().unwrap()
}

fn run_with_input(folder: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut command = pentimento(folder, args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A program that refuses its arguments may have closed the pipe already.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A server on a free port; killed when a test ends before it does.
struct Served {
    child: Child,
    // Kept open: a server that writes to a closed pipe would be told so.
    _stdout: BufReader<ChildStdout>,
    address: String,
}

impl Served {
    fn start(folder: &Path) -> Self {
        let mut command = pentimento(folder, &["serve", "--listen", "127.0.0.1:0", "--data", "data"]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line
            .trim()
            .strip_prefix("listening on ")
            .unwrap_or_else(|| panic!("not ready: {line:?}"));
        Self {
            address: address.to_owned(),
            child,
            _stdout: stdout,
        }
    }

    fn terminate(&self) {
        let status = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// The exit code, once the process has ended.
    fn ended_within(&mut self, limit: Duration) -> Option<i32> {
        #[expect(clippy::disallowed_methods, reason = "a test waits for another process")]
        let now = Instant::now;
        let start = now();
        while now() - start < limit {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the server was still running after {limit:?}");
    }

    /// Returns when a job runs, or has been answered already.
    fn runs_a_job<T>(&self, reply: &std::thread::JoinHandle<T>) {
        let url = format!("{}/readyz", self.address);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let client = crate::support::client::builder().no_proxy().build().unwrap();
            while !reply.is_finished() {
                let status = client.get(&url).send().await.unwrap().bytes().await.unwrap();
                let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
                if status["jobs"]["running"].as_u64() > Some(0) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }

    /// Sends a request from another thread; gives status and body, or nothing when the connection broke.
    fn ask(&self, image_num: u32) -> std::thread::JoinHandle<Option<(u16, String)>> {
        use base64::Engine as _;
        let body = serde_json::json!({
            "model_name": "demo", "input_image": base64::prelude::BASE64_STANDARD.encode(PHOTO),
            "prompt": "mountains", "image_num": image_num, "steps": 8, "seed": 1, "guidance_scale": 2, "strength": 1,
        });
        let url = format!("{}/v3/lcm-img2img", self.address);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let client = crate::support::client::builder().no_proxy().build().unwrap();
                let response = client.post(url).json(&body).send().await.ok()?;
                Some((response.status().as_u16(), response.text().await.ok()?))
            })
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn help_is_what_the_documents_say() {
    let folder = folder();
    for words in [
        "",
        "serve",
        "demo",
        "generate",
        "models",
        "models list",
        "keys",
        "keys new",
        "jobs",
        "jobs list",
        "jobs cancel",
        "doctor",
        "bench",
    ] {
        let args: Vec<&str> = words.split_whitespace().chain(["--help"]).collect();
        let output = run(folder.path(), &args);
        assert!(output.status.success(), "{words}");
        let name = format!(
            "help-{}",
            if words.is_empty() {
                "all".to_owned()
            } else {
                words.replace(' ', "-")
            }
        );
        insta::assert_snapshot!(name, text(&output.stdout));
    }
}

#[test]
fn the_demo_makes_its_pictures_over_http_and_ends() {
    let folder = folder();
    let output = run(folder.path(), &["demo", "--once", "--out", "out"]);
    let stdout = text(&output.stdout);
    assert!(output.status.success(), "{stdout}{}", text(&output.stderr));
    assert!(stdout.contains("curl -s http://127.0.0.1:"), "{stdout}");

    let picture = |name: &str| {
        image::open(folder.path().join("out").join(name))
            .unwrap()
            .to_rgb8()
    };
    let (before, after, both) = (
        picture("before.png"),
        picture("after.png"),
        picture("side-by-side.png"),
    );
    assert_eq!(before, image::load_from_memory(PHOTO).unwrap().to_rgb8());
    assert_eq!(before.dimensions(), after.dimensions());
    assert_ne!(before, after);
    assert_eq!(both.width(), before.width() + 8 + after.width());
    assert!(
        folder.path().join("out/request.json").is_file(),
        "the curl line needs it"
    );
}

#[test]
fn the_demo_with_strength_0_gives_the_photograph_back() {
    let folder = folder();
    let output = run(folder.path(), &["demo", "--once", "--strength", "0"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let picture = |name: &str| {
        image::open(folder.path().join("demo-output").join(name))
            .unwrap()
            .to_rgb8()
    };
    assert_eq!(picture("before.png"), picture("after.png"));
}

#[test]
fn a_demo_that_fails_says_why() {
    let folder = folder();
    let output = run(folder.path(), &["demo", "--once", "--image", "missing.png"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("missing.png"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn generate_with_a_mask_changes_nothing_else() {
    let folder = folder();
    let scene = include_bytes!("images/scene.png");
    let mask = include_bytes!("images/mask.png");
    fs_err::write(folder.path().join("in.png"), scene).unwrap();
    fs_err::write(folder.path().join("mask.png"), mask).unwrap();
    let args = [
        "generate",
        "--image",
        "in.png",
        "--mask",
        "mask.png",
        "--prompt",
        "a lake",
        "--steps",
        "3",
        "--strength",
        "1",
        "--soft-edge",
        "4",
    ];
    let output = run(folder.path(), &args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rgb = |bytes: &[u8]| image::load_from_memory(bytes).unwrap().to_rgb8();
    let (before, after) = (
        rgb(scene),
        rgb(&fs_err::read(folder.path().join("out.png")).unwrap()),
    );
    let changed: Vec<_> = before
        .enumerate_pixels()
        .filter(|(x, y, p)| after.get_pixel(*x, *y) != *p)
        .collect();
    assert!(changed.len() > 500, "{}", changed.len());
    let mask = rgb(mask);
    assert!(changed.iter().all(|(x, y, _)| mask.get_pixel(*x, *y).0[0] > 127));
}

#[test]
fn generate_without_a_picture_makes_one_from_the_prompt() {
    let folder = folder();
    let args = [
        "generate", "--prompt", "a lake", "--steps", "3", "--seed", "7", "--out", "-",
    ];
    let picture = |more: &[&'static str]| {
        let output = run(folder.path(), &[args.as_slice(), more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        output.stdout
    };
    let first = picture(&["--width", "64", "--height", "48"]);
    let decoded = image::load_from_memory(&first).unwrap();
    assert_eq!((decoded.width(), decoded.height()), (64, 48));
    assert_eq!(first, picture(&["--width", "64", "--height", "48"]));
    // What the demo model was trained on.
    let decoded = image::load_from_memory(&picture(&[])).unwrap();
    assert_eq!((decoded.width(), decoded.height()), (128, 128));
    fs_err::write(folder.path().join("made.png"), &first).unwrap();
    let verified = run(folder.path(), &["verify", "--json", "made.png"]);
    let said: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(said["digital_source_type"], "trainedAlgorithmicMedia");
    assert_eq!(said["parameters"]["task"], "text_to_image");
}

#[test]
fn generate_reads_and_writes_pipes_and_repeats_itself() {
    let folder = folder();
    let args = [
        "generate", "--image", "-", "--prompt", "a lake", "--steps", "2", "--seed", "7", "--out", "-",
    ];
    let first = run_with_input(folder.path(), &args, PHOTO);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let picture = image::load_from_memory(&first.stdout).unwrap();
    assert_eq!((picture.width(), picture.height()), (192, 128));
    let second = run_with_input(folder.path(), &args, PHOTO);
    assert_eq!(
        first.stdout, second.stdout,
        "the same request gives the same bytes"
    );

    fs_err::write(folder.path().join("in.png"), PHOTO).unwrap();
    let args = [
        "generate", "--image", "in.png", "--prompt", "a lake", "--steps", "2", "--seed", "7", "--count", "2",
    ];
    let files = run(folder.path(), &args);
    assert!(files.status.success(), "{}", text(&files.stderr));
    assert_eq!(text(&files.stdout), "out.png\nout-1.png\n");
    assert_eq!(fs_err::read(folder.path().join("out.png")).unwrap(), first.stdout);
    assert_ne!(
        fs_err::read(folder.path().join("out-1.png")).unwrap(),
        first.stdout
    );
}

#[test]
fn wrong_arguments_have_exit_code_2_and_a_way_out() {
    let folder = folder();
    fs_err::write(folder.path().join("slip.toml"), "# settings\nlisten_on = \"x\"\n").unwrap();
    let generate = ["generate", "--image", "x.png", "--prompt", "p"];
    let with = |more: &[&'static str]| [generate.as_slice(), more].concat();
    let cases: &[(Vec<&str>, &str)] = &[
        (vec![], "Usage"),
        (vec!["generate"], "--prompt"),
        (vec!["generate", "--prompt", "p", "--strength", "0.5"], "--image"),
        (vec!["generate", "--prompt", "p", "--mask", "m.png"], "--image"),
        (
            vec!["generate", "--prompt", "p", "--width", "60"],
            "multiple of 8",
        ),
        (with(&["--width", "64"]), "--width"),
        (with(&["--strength", "1.5"]), "0..=1"),
        (with(&["--scheduler", "Nonsense"]), "LCMScheduler"),
        (with(&["--out", "a.tiff"]), "--format"),
        (with(&["--out", "-", "--count", "2"]), "--count"),
        (vec!["serve", "--listen", "0.0.0.0:0"], "PENTIMENTO_KEYS"),
        (vec!["serve", "--listen", "here"], "--listen"),
        (vec!["--config", "slip.toml", "models", "list"], "line 2"),
        (vec!["--config", "missing.toml", "models", "list"], "missing.toml"),
    ];
    for (args, says) in cases {
        let output = run(folder.path(), args);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
}

#[test]
fn what_cannot_be_done_has_exit_code_1_and_a_reason() {
    let folder = folder();
    let unknown = ["generate", "--image", "-", "--prompt", "p", "--model", "dem"];
    let output = run_with_input(folder.path(), &unknown, PHOTO);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("did you mean `demo`"),
        "{}",
        text(&output.stderr)
    );

    let output = run_with_input(
        folder.path(),
        &["generate", "--image", "-", "--prompt", "p"],
        b"not a picture",
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("cannot be read"),
        "{}",
        text(&output.stderr)
    );
    assert!(!folder.path().join("out.png").exists());
}

#[test]
fn doctor_tells_what_would_go_wrong() {
    let folder = folder();
    let fine = run(folder.path(), &["doctor", "--listen", "127.0.0.1:0"]);
    assert!(
        fine.status.success(),
        "{}{}",
        text(&fine.stdout),
        text(&fine.stderr)
    );
    assert!(text(&fine.stdout).contains("nothing found that would go wrong"));
    assert_eq!(
        fs_err::read_dir(folder.path()).unwrap().count(),
        0,
        "it leaves nothing behind"
    );

    let exposed = run(folder.path(), &["doctor", "--listen", "0.0.0.0:0"]);
    assert_eq!(exposed.status.code(), Some(1));
    assert!(
        text(&exposed.stdout).contains("PENTIMENTO_KEYS"),
        "{}",
        text(&exposed.stdout)
    );

    let model = "[[model]]\nname = \"mine\"\nkind = \"checkpoint\"\nsource = \"nowhere\"\n";
    fs_err::write(folder.path().join("models.toml"), model).unwrap();
    let missing = run(folder.path(), &["doctor", "--listen", "127.0.0.1:0"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        text(&missing.stdout).contains("`mine`"),
        "{}",
        text(&missing.stdout)
    );
}

#[test]
fn a_start_on_a_taken_port_does_not_touch_the_jobs() {
    let folder = folder();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for ways in [
        ["--listen", &address, "--admin-listen", "none"],
        ["--listen", "127.0.0.1:0", "--admin-listen", &address],
    ] {
        let mut args = vec!["serve", "--data", "data"];
        args.extend(ways);
        let refused = run(folder.path(), &args);
        assert_eq!(refused.status.code(), Some(1));
        assert!(
            text(&refused.stderr).contains(&format!("cannot listen on {address}")),
            "{}",
            text(&refused.stderr)
        );
        assert!(!folder.path().join("data/jobs.sqlite").exists(), "{ways:?}");
    }
}

#[test]
fn a_data_folder_has_one_server() {
    let folder = folder();
    let mut first = Served::start(folder.path());
    let second = run(
        folder.path(),
        &["serve", "--listen", "127.0.0.1:0", "--data", "data"],
    );
    assert_eq!(second.status.code(), Some(1));
    assert!(
        text(&second.stderr).contains("another pentimento server"),
        "{}",
        text(&second.stderr)
    );
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    // A killed server leaves no lock behind.
    let third = Served::start(folder.path());
    third.terminate();
}

#[test]
fn an_idle_server_ends_at_once_when_told() {
    let folder = folder();
    let mut served = Served::start(folder.path());
    served.terminate();
    assert_eq!(served.ended_within(Duration::from_secs(20)), Some(0));
}

#[test]
fn a_server_that_is_told_to_stop_finishes_what_it_accepted() {
    let folder = folder();
    let mut served = Served::start(folder.path());
    let reply = served.ask(1);
    served.runs_a_job(&reply);
    served.terminate();
    let (status, body) = reply.join().unwrap().expect("the running request is answered");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("image_url"), "{body}");
    assert_eq!(served.ended_within(Duration::from_secs(60)), Some(0));
}

#[test]
fn a_server_that_is_told_twice_does_not_wait_for_long_jobs() {
    let folder = folder();
    let mut served = Served::start(folder.path());
    let reply = served.ask(16);
    served.runs_a_job(&reply);
    served.terminate();
    std::thread::sleep(Duration::from_millis(300));
    served.terminate();
    assert_eq!(served.ended_within(Duration::from_secs(20)), Some(0));
    // Either the job was quick, or its caller is told that the server stops.
    if let Some((status, body)) = reply.join().unwrap() {
        assert!(status == 200 || status == 503, "{status} {body}");
    }
}
