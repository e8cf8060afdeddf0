//! `scripts/gpu.sh` from its beginning to its end on the emulated device, so that the day with a card is not spent on it.

#![cfg(unix)]

use std::path::Path;
use std::process::Command;

#[test]
fn the_script_for_a_card_runs_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (kit, out) = (folder.path().join("kit"), folder.path().join("out"));
    fs_err::create_dir(&kit).unwrap();
    let check = Path::new(env!("CARGO_BIN_EXE_gpu-check"));
    std::os::unix::fs::symlink(check, kit.join("gpu-check")).unwrap();
    // Built beside it when the whole workspace is tested.
    let server = check.with_file_name("pentimento");
    let has_server = server.is_file();
    if has_server {
        std::os::unix::fs::symlink(server, kit.join("pentimento")).unwrap();
    }
    // The tiny checkpoint of the golden runs under the demo's name: the emulator is slow.
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models/tiny");
    let catalogue = folder.path().join("models.toml");
    let golden = golden.canonicalize().unwrap();
    let model = format!(
        "[[model]]\nname = \"demo\"\nkind = \"checkpoint\"\nsource = \"{}\"\n",
        golden.display()
    );
    fs_err::write(&catalogue, model).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/gpu.sh");
    let run = Command::new("bash")
        .arg(script)
        .envs([("GPU_SCRIPT_REHEARSE", "1"), ("PYTHON", "python3")])
        .env("PENTIMENTO_MODELS", &catalogue)
        .env("KIT", &kit)
        .env("OUT", &out)
        .output()
        .unwrap();
    let summary = fs_err::read_to_string(out.join("summary.txt")).unwrap();
    println!("{summary}");
    assert!(
        run.status.success(),
        "{summary}{}",
        String::from_utf8_lossy(&run.stderr)
    );
    for (step, file) in [
        ("smoke", "smoke"),
        ("company", "company"),
        ("exactness", "exactness"),
        ("speed", "speed"),
        ("speed-sdxl", "sdxl/speed"),
    ] {
        assert!(summary.contains(&format!("{step}: ok")), "{step} in\n{summary}");
        let json = Command::new("tar")
            .args(["--extract", "--to-stdout", "--file"])
            .arg(out.join("results.tar"))
            .arg(format!("./{file}.json"))
            .output()
            .unwrap();
        serde_json::from_slice::<serde_json::Value>(&json.stdout).unwrap();
    }
    let server = if has_server && !summary.contains("there is no curl") {
        "ok"
    } else {
        "left out"
    };
    assert!(summary.contains(&format!("server: {server}")), "{summary}");
    assert!(summary.contains("all: "), "{summary}");
}
