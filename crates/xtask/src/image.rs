//! `cargo xtask image`: builds the container image with buildah, in a chroot and without a daemon or a registry, makes a
//! picture in it, and checks its size and its user. The image for NVIDIA cards is built in the same way, and computes on the CPU here.
//!
//! The base is a Debian made by debootstrap, and the program is compiled outside, so that both are there offline but for
//! Debian's packages. Needs root, buildah and debootstrap. The storage is a folder of its own under `target`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::{shell, tree};

/// One of the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    Cpu,
    Cuda,
}

impl Flavour {
    const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }

    /// Without models; NVIDIA's libraries take 1.35 GB.
    const fn most_bytes(self) -> u64 {
        match self {
            Self::Cpu => 60_000_000,
            Self::Cuda => 1_400 << 20,
        }
    }

    /// The stages of its file that are made outside: those that compile or fetch.
    const fn cut_stages(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Cpu => &[("FROM ${RUST} AS compiled", "FROM ${BINARY} AS binary")],
            Self::Cuda => &[
                ("FROM ${RUST} AS compiled", "FROM ${BASE} AS fetched"),
                ("FROM ${BASE} AS fetched", "FROM ${BINARY} AS binary"),
            ],
        }
    }
}

const RELEASE: &str = "bookworm";
const KEY: &str = "an-image-on-trial";
/// For a start on a busy machine.
const LOOKS: u32 = 1200;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// Builds, runs and checks.
pub(crate) fn run(binary: Option<&Path>, flavour: Flavour, libraries: Option<&Path>) -> anyhow::Result<()> {
    for tool in ["buildah", "debootstrap", "objcopy", "curl"] {
        let found = Command::new(tool).arg("--version").stdout(Stdio::null()).status();
        ensure!(found.is_ok(), "`{tool}` is not installed");
    }
    let root = tree::root();
    let trial = Trial {
        folder: root.join("target/image"),
        root,
        flavour,
    };
    fs_err::create_dir_all(&trial.folder)?;
    trial.base()?;
    trial.binary(binary)?;
    trial.libraries(libraries)?;
    trial.build()?;
    let bytes = trial.unpacked_bytes()?;
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("xtask image: {:.1} MiB unpacked", mebibytes(bytes));
    let compressed = trial.compressed_bytes()?;
    println!(
        "xtask image: {:.1} MiB compressed, which is what a registry holds",
        mebibytes(compressed)
    );
    ensure!(
        bytes <= flavour.most_bytes(),
        "the image takes {bytes} bytes; {} are allowed",
        flavour.most_bytes()
    );
    trial.serve()
}

struct Trial {
    root: PathBuf,
    folder: PathBuf,
    flavour: Flavour,
}

impl Trial {
    fn buildah(&self) -> Command {
        let mut command = Command::new("buildah");
        command
            .current_dir(&self.root)
            .env("STORAGE_DRIVER", "vfs")
            .env("BUILDAH_ISOLATION", "chroot")
            .arg("--root")
            .arg(self.folder.join("storage"))
            .arg("--runroot")
            .arg(self.folder.join("run"));
        command
    }

    /// An image made of one folder.
    fn of_folder(&self, name: &str, folder: &Path) -> anyhow::Result<()> {
        let container = shell::output_of(self.buildah().args(["from", "scratch"]))?;
        let container = container.trim();
        shell::output_of(
            self.buildah()
                .args(["add", "--quiet", container])
                .arg(folder)
                .arg("/"),
        )?;
        shell::output_of(
            self.buildah()
                .args(["commit", "--quiet", "--rm", container, name]),
        )?;
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        shell::output_of(self.buildah().args(["inspect", "--type", "image", name])).is_ok()
    }

    fn base(&self) -> anyhow::Result<()> {
        if self.has("localhost/base") {
            return Ok(());
        }
        println!("xtask image: making a Debian");
        let folder = self.folder.join("debian");
        if !folder.join("etc/ssl/certs/ca-certificates.crt").is_file() {
            let mut debootstrap = Command::new("debootstrap");
            debootstrap
                .args(["--variant=minbase", "--include=ca-certificates", RELEASE])
                .arg(&folder)
                .stdout(Stdio::null());
            shell::run(&mut debootstrap)?;
        }
        self.of_folder("localhost/base", &folder)
    }

    fn binary(&self, compiled: Option<&Path>) -> anyhow::Result<()> {
        let built = self.root.join("target/dist/pentimento");
        if compiled.is_none() {
            let mut build = shell::cargo(&self.root);
            build.args(["build", "--profile", "dist", "--locked", "--bin", "pentimento"]);
            build.env("PENTIMENTO_FOR_IMAGE", "1");
            if self.flavour == Flavour::Cuda {
                build.args(["--features", "cuda"]);
            }
            shell::run(&mut build)?;
        }
        let out = self.folder.join("binary/out");
        fs_err::create_dir_all(&out)?;
        let mut strip = Command::new("objcopy");
        strip
            .arg("--strip-all")
            .arg(compiled.unwrap_or(&built))
            .arg(out.join("pentimento"));
        shell::run(&mut strip)?;
        self.of_folder("localhost/binary", &self.folder.join("binary"))
    }

    /// NVIDIA's libraries, from a folder that holds them, or fetched as the image's file does it.
    fn libraries(&self, folder: Option<&Path>) -> anyhow::Result<()> {
        if self.flavour == Flavour::Cpu || (folder.is_none() && self.has("localhost/libraries")) {
            return Ok(());
        }
        let place = self.folder.join("libraries/out/nvidia");
        fs_err::create_dir_all(&place)?;
        match folder {
            Some(folder) => {
                let mut copy = Command::new("cp");
                copy.arg("--recursive")
                    .arg("--dereference")
                    .arg(folder.join("."))
                    .arg(&place);
                shell::run(&mut copy)?;
            }
            None => self.fetch_libraries(&place)?,
        }
        self.of_folder("localhost/libraries", &self.folder.join("libraries"))
    }

    fn fetch_libraries(&self, place: &Path) -> anyhow::Result<()> {
        println!("xtask image: fetching NVIDIA's libraries, 1.1 GB");
        let wheels = self.folder.join("wheels");
        let mut fetch = Command::new("python3");
        fetch
            .args([
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--require-hashes",
            ])
            .args(["--only-binary", ":all:", "--dest"])
            .arg(&wheels)
            .arg("-r")
            .arg(self.root.join("docker/cuda-libraries.txt"));
        shell::run(&mut fetch)?;
        let unpacked = self.folder.join("unpacked");
        for wheel in fs_err::read_dir(&wheels)? {
            let mut unpack = Command::new("python3");
            unpack
                .args(["-m", "zipfile", "-e"])
                .arg(wheel?.path())
                .arg(&unpacked);
            shell::run(&mut unpack)?;
        }
        for part in ["cudnn", "cu13"] {
            for file in fs_err::read_dir(unpacked.join("nvidia").join(part).join("lib"))? {
                let file = file?;
                let name = file.file_name().to_string_lossy().into_owned();
                if is_wanted(&name) {
                    fs_err::copy(file.path(), place.join(&name))?;
                }
            }
        }
        Ok(())
    }

    fn build(&self) -> anyhow::Result<()> {
        let name = self.flavour.name();
        // Stages that nothing uses are built by older versions of buildah, so they are cut off.
        let mut file = fs_err::read_to_string(self.root.join(format!("docker/{name}.Dockerfile")))?;
        for (from, to) in self.flavour.cut_stages() {
            let (head, rest) = file
                .split_once(from)
                .with_context(|| format!("no stage `{from}`"))?;
            let (_, rest) = rest.split_once(to).with_context(|| format!("no stage `{to}`"))?;
            file = format!("{head}{to}{rest}");
        }
        let cut = self.folder.join("Dockerfile");
        fs_err::write(&cut, file)?;
        let mut build = self.buildah();
        build
            .args(["build", "--quiet", "--pull-never", "--format", "docker"])
            .args(["--build-arg", "BASE=localhost/base"])
            .args(["--build-arg", "BINARY=localhost/binary"]);
        if self.flavour == Flavour::Cuda {
            build.args(["--build-arg", "LIBRARIES=localhost/libraries"]);
        }
        build
            .args(["--tag", &self.image(), "--file"])
            .arg(&cut)
            .arg(self.folder.join("binary"));
        shell::output_of(&mut build).map(drop)
    }

    fn image(&self) -> String {
        format!("localhost/pentimento:{}", self.flavour.name())
    }

    fn unpacked_bytes(&self) -> anyhow::Result<u64> {
        self.in_container(|place| {
            let counted = shell::output_of(Command::new("du").args(["--bytes", "--summarize"]).arg(place))?;
            let bytes = counted.split_whitespace().next().context("du says nothing")?;
            Ok(bytes.parse()?)
        })
    }

    /// As gzip makes it, which is what is pushed to a registry and pulled from it.
    fn compressed_bytes(&self) -> anyhow::Result<u64> {
        self.in_container(|place| {
            let mut pack = Command::new("sh");
            pack.args(["-c", "tar --create --directory \"$0\" . | gzip | wc -c"])
                .arg(place);
            Ok(shell::output_of(&mut pack)?.trim().parse()?)
        })
    }

    fn in_container<T>(&self, look: impl FnOnce(&Path) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let container = shell::output_of(self.buildah().args(["from", &self.image()]))?;
        let container = container.trim();
        let place = shell::output_of(self.buildah().args(["mount", container]))?;
        let seen = look(Path::new(place.trim()));
        shell::output_of(self.buildah().args(["rm", container]))?;
        seen
    }

    /// Starts the server in the image as its own user, and has it make a picture.
    fn serve(&self) -> anyhow::Result<()> {
        let container = shell::output_of(self.buildah().args(["from", &self.image()]))?;
        let container = container.trim().to_owned();
        let user = shell::output_of(self.buildah().args([
            "inspect",
            "--format",
            "{{.OCIv1.Config.User}}",
            &container,
        ]))?;
        ensure!(
            user.trim() == "10001:10001",
            "the image's user is `{}`",
            user.trim()
        );
        // The network is this machine's here, so a port that is free there is free in the image.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut server = self.buildah();
        server
            .args(["run", "--env", &format!("PENTIMENTO_LISTEN=127.0.0.1:{port}")])
            .args(["--env", "PENTIMENTO_ADMIN_LISTEN=none"])
            .args(["--env", &format!("PENTIMENTO_KEYS=trial={KEY}"), &container, "--"])
            .args(["/usr/bin/pentimento", "serve"])
            .stdin(Stdio::null());
        let server = Running(server.spawn().context("cannot start the image")?);
        let base = format!("http://127.0.0.1:{port}");
        let mut is_ready = Command::new("curl");
        is_ready.args(["-sf", &format!("{base}/readyz")]);
        let mut looks = (0..LOOKS).map(|_| {
            std::thread::sleep(BETWEEN_LOOKS);
            shell::output_of(&mut is_ready).is_ok()
        });
        ensure!(
            looks.any(|ready| ready),
            "the server in the image does not get ready"
        );
        let picture = self.root.join("tests/images/photo.png");
        let reply = self.folder.join("reply.json");
        let body = self.folder.join("body.json");
        write_body(&picture, &body)?;
        let mut call = Command::new("curl");
        call.args(["-sS", "--fail-with-body", "--max-time", "120"])
            .args([
                "-H",
                "Content-Type: application/json",
                "-H",
                &format!("Authorization: Bearer {KEY}"),
            ])
            .arg("--data-binary")
            .arg(format!("@{}", body.display()))
            .arg("--output")
            .arg(&reply)
            .arg(format!("{base}/v3/lcm-img2img"));
        shell::run(&mut call)?;
        let answer: serde_json::Value = serde_json::from_slice(&fs_err::read(&reply)?)?;
        let link = answer["images"][0]["image_url"].as_str();
        let Some(link) = link else {
            bail!("no picture in the reply: {answer}")
        };
        let made = self.folder.join("picture.png");
        shell::run(
            Command::new("curl")
                .args(["-sS", "--fail", "--output"])
                .arg(&made)
                .arg(link),
        )?;
        ensure!(
            fs_err::read(&made)?.starts_with(b"\x89PNG"),
            "the link leads to no PNG"
        );
        println!("xtask image: a picture made in the image is {}", made.display());
        drop(server);
        shell::output_of(self.buildah().args(["rm", &container])).map(drop)
    }
}

/// What of NVIDIA's packages is opened, as in the image's own file.
fn is_wanted(library: &str) -> bool {
    let parts = [
        "libcudnn",
        "libcublasLt.",
        "libnvrtc.so.",
        "libnvrtc-builtins.so.",
    ];
    // The old interface of cuDNN, of which nothing is called.
    let unused = ["libcudnn_adv", "libcudnn_cnn", "libcudnn_ops", "libcudnn_ext"];
    let starts = |parts: &[&str]| parts.iter().any(|part| library.starts_with(part));
    starts(&parts) && !starts(&unused)
}

/// The request of the demo, with base64 from the system's program.
fn write_body(picture: &Path, body: &Path) -> anyhow::Result<()> {
    let text = shell::output_of(Command::new("base64").arg("--wrap=0").arg(picture))?;
    let request = serde_json::json!({
        "model_name": "demo", "prompt": "the sea at sunset", "input_image": text.trim(),
        "steps": 4, "strength": 0.7, "guidance_scale": 2, "seed": 1,
    });
    fs_err::write(body, request.to_string())?;
    Ok(())
}

/// Stopped when dropped, with what runs in the image.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // buildah passes the signal on.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied_is_what_the_program_opens() {
        for wanted in [
            "libcudnn.so.9",
            "libcudnn_graph.so.9",
            "libcudnn_heuristic.so.9",
            "libcudnn_engines_precompiled.so.9",
            "libcublasLt.so.13",
            "libnvrtc.so.13",
            "libnvrtc-builtins.so.13.0",
        ] {
            assert!(is_wanted(wanted), "{wanted}");
        }
        for other in [
            "libcudnn_ops.so.9",
            "libcudnn_adv.so.9",
            "libcublas.so.13",
            "libnvrtc.alt.so.13",
            "libnvblas.so.13",
        ] {
            assert!(!is_wanted(other), "{other}");
        }
    }
}
