//! The vendors' unmodified clients and what drives a browser, each in an environment of its own below `target/test-clients`.
//!
//! An environment counts as ready once its marker file is written, so an interrupted installation is done again.
//! A machine that cannot prepare one is told so in one line, and the tests go on without it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::shell;

const MARKER: &str = ".ready";

/// How a client is installed.
#[derive(Clone, Copy)]
enum Installer {
    /// A Python virtual environment, from `tests/clients/<folder>.txt`: `<folder>/bin/python` runs it.
    Python,
    /// An npm project with these packages: `<folder>/node_modules`.
    Npm(&'static [&'static str]),
}

/// A client and the name of its folder, which the tests know.
struct Client {
    folder: &'static str,
    installer: Installer,
}

// Each Python client has its own environment: they pin nothing and disagree about dataclass-wizard.
const CLIENTS: &[Client] = &[
    Client {
        folder: "novita-0.5.7",
        installer: Installer::Python,
    },
    Client {
        folder: "novita-0.4.12",
        installer: Installer::Python,
    },
    Client {
        folder: "modelslab-py-0.2.3",
        installer: Installer::Python,
    },
    Client {
        folder: "standardwebhooks-1.1.0",
        installer: Installer::Python,
    },
    Client {
        folder: "openai-3.57.0",
        installer: Installer::Python,
    },
    Client {
        folder: "mcp-2.3.0",
        installer: Installer::Python,
    },
    Client {
        folder: "webuiapi-0.9.17",
        installer: Installer::Python,
    },
    Client {
        folder: "moto-5.2.5",
        installer: Installer::Python,
    },
    // The newest broker; a distribution's older one is found by itself.
    Client {
        folder: "nats-server-2.15.1",
        installer: Installer::Python,
    },
    Client {
        folder: "novita-sdk-1.1.0",
        installer: Installer::Npm(&["novita-sdk@1.1.0"]),
    },
    Client {
        folder: "openai-7.59.0",
        installer: Installer::Npm(&["openai@7.59.0"]),
    },
    // No client of a vendor, but what drives a browser through the playground; the browser is the machine's own.
    Client {
        folder: "playground",
        installer: Installer::Npm(&["playwright-core@1.65.1", "axe-core@4.14.1"]),
    },
];

/// Installs what is missing and gives the names of the clients that are ready.
///
/// `requirements` is the folder of the Python clients' pinned lists.
pub(crate) fn prepare(root: &Path, requirements: &Path) -> Vec<&'static str> {
    for client in CLIENTS {
        let folder = root.join(client.folder);
        if folder.join(MARKER).is_file() {
            continue;
        }
        println!("xtask test: preparing {} in target/test-clients", client.folder);
        let installed = match client.installer {
            Installer::Python => install_python(
                &folder,
                &requirements.join(client.folder).with_added_extension("txt"),
            ),
            Installer::Npm(packages) => install_npm(&folder, packages),
        };
        if let Err(error) = installed.and_then(|()| Ok(fs_err::write(folder.join(MARKER), "")?)) {
            println!(
                "xtask test: {} is not available, its tests are left out: {error:#}",
                client.folder
            );
        }
    }
    ready(root)
}

/// The clients that an earlier run has prepared.
pub(crate) fn ready(root: &Path) -> Vec<&'static str> {
    CLIENTS
        .iter()
        .map(|client| client.folder)
        .filter(|folder| root.join(folder).join(MARKER).is_file())
        .collect()
}

/// Whether a client of that name is one for Python.
pub(crate) fn is_python(name: &str) -> bool {
    CLIENTS
        .iter()
        .any(|client| client.folder == name && matches!(client.installer, Installer::Python))
}

fn install_python(folder: &Path, requirements: &Path) -> anyhow::Result<()> {
    empty(folder)?;
    let python = ["python3", "python"]
        .into_iter()
        .find(|name| shell::output_of(Command::new(name).arg("--version")).is_ok())
        .context("there is no python3")?;
    shell::output_of(Command::new(python).args(["-m", "venv"]).arg(folder))?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--requirement",
    ];
    shell::output_of(Command::new(python_of(folder)).args(pip).arg(requirements))?;
    Ok(())
}

fn python_of(folder: &Path) -> PathBuf {
    folder.join("bin/python")
}

fn install_npm(folder: &Path, packages: &[&str]) -> anyhow::Result<()> {
    shell::output_of(Command::new("npm").arg("--version")).context("there is no npm")?;
    empty(folder)?;
    fs_err::write(folder.join("package.json"), "{ \"private\": true }\n")?;
    let options = [
        "install",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--loglevel=error",
    ];
    shell::output_of(
        Command::new("npm")
            .args(options)
            .args(packages)
            .current_dir(folder),
    )?;
    Ok(())
}

fn empty(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs_err::remove_dir_all(folder)?;
    }
    fs_err::create_dir_all(folder)?;
    Ok(())
}
