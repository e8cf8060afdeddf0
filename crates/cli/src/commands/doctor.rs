//! `pentimento doctor`: what this machine offers, what the settings mean, and what would go wrong with them.
//!
//! It starts nothing and leaves nothing behind; a finding that would stop the server makes the exit code 1.

use std::net::TcpListener;
use std::path::Path;

use pentimento_catalog::{Catalog, ModelKind};
use pentimento_engine::{DeviceReport, Precision};
use pentimento_gpu::Gpu;

use crate::args::DoctorArgs;
use crate::commands::models::{is_usable, state_of};
use crate::config::Config;
use crate::data_folder::DataFolder;
use crate::machine::{Machine, gibibytes};
use crate::{admin_server, assemble, cluster, device, output};

/// Memory that a Stable Diffusion 1.5 checkpoint in float32 takes while it makes a 512x512 picture, about.
const SD15_BYTES: u64 = 6 << 30;

/// What was found, in the order in which it was looked for.
#[derive(Debug, Default)]
struct Findings {
    /// The server would not start, or could make no picture.
    faults: Vec<String>,
    /// It would start, and somebody may be surprised.
    hints: Vec<String>,
}

/// Prints the report; fails when something would go wrong.
pub(crate) async fn run(_args: &DoctorArgs, config: &Config) -> anyhow::Result<()> {
    let mut findings = Findings::default();
    let machine = Machine::look();
    show("version", env!("CARGO_PKG_VERSION"));
    let gpus = look_at_devices(config, &mut findings);
    show(
        "processor",
        format_args!("{}, {} threads", machine.isa, machine.cores),
    );
    show("memory", memory(&machine));
    let weights = assemble::memory_budget(config, &gpus).weights;
    show("models in", format_args!("up to {} of it", gibibytes(weights)));
    show(
        "settings",
        config
            .file
            .as_deref()
            .map_or("none; defaults".into(), Path::to_string_lossy),
    );
    look_at_machine(&machine, &mut findings);
    if gpus.is_empty() && machine.memory_total.is_some_and(|total| weights > total) {
        findings.hints.push(format!(
            "--model-memory lets weights take {}, which is more than the machine has",
            gibibytes(weights)
        ));
    }
    look_at_memory(assemble::memory_budget(config, &gpus).bodies, &mut findings);
    look_at_models(config, &mut findings);
    look_at_data(config, &mut findings);
    look_at_bucket(config, &mut findings).await;
    look_at_broker(config, &mut findings).await;
    look_at_network(config, &mut findings);
    for hint in &findings.hints {
        show("note", hint);
    }
    for fault in &findings.faults {
        show("WRONG", fault);
    }
    anyhow::ensure!(
        findings.faults.is_empty(),
        "with these settings the server would not do its work"
    );
    show("verdict", "nothing found that would go wrong");
    Ok(())
}

fn show(what: &str, text: impl std::fmt::Display) {
    output::line(format_args!("{what:<10} {text}"));
}

fn memory(machine: &Machine) -> String {
    let text = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), gibibytes);
    format!(
        "{} free of {}",
        text(machine.memory_available),
        text(machine.memory_total)
    )
}

/// Opens the devices and lets go of them. Says what may be used of each GPU's memory.
fn look_at_devices(config: &Config, findings: &mut Findings) -> Vec<u64> {
    let opened = match device::look(config) {
        Ok(opened) => opened,
        Err(error) => {
            show("device", "none");
            show_libraries();
            findings.faults.push(error.to_string());
            return Vec::new();
        }
    };
    if let (Some(device), Ok(catalog)) = (opened.devices.first(), assemble::catalog(config)) {
        findings
            .hints
            .extend(device::not_as_asked(device, catalog.entries()));
    }
    let budgets = opened.gpu_budgets();
    if budgets.is_empty() {
        match &opened.why_cpu {
            Some(why) => show("device", format_args!("cpu, since no GPU can be used: {why}")),
            None => {
                let in_which = opened
                    .devices
                    .first()
                    .map(|device| DeviceReport::of(device).precision);
                show(
                    "device",
                    format_args!("cpu, in {}", in_which.unwrap_or(Precision::F32)),
                );
            }
        }
        if opened.why_cpu.is_some() {
            show_libraries();
        }
        return budgets;
    }
    for (index, device) in opened.devices.iter().enumerate() {
        show_gpu(index, &DeviceReport::of(device));
    }
    show_libraries();
    for (device, why) in &opened.left_out {
        findings
            .hints
            .push(format!("{device} cannot be used, the others are: {why}"));
    }
    findings.hints.push(
        "this program has not yet run on a GPU: compare its pictures with those of --device cpu first"
            .to_owned(),
    );
    budgets
}

/// One of several is told by its place among them, which is its label in `/metrics`.
fn show_gpu(index: usize, report: &DeviceReport) {
    let Some(gpu) = &report.gpu else { return };
    let (major, minor) = gpu.capability;
    show(
        "device",
        format_args!(
            "{index}: {}, compute capability {major}.{minor}, in {}",
            report.name, report.precision
        ),
    );
    show(
        "GPU memory",
        format_args!(
            "{} of {} may be used",
            gibibytes(gpu.budget_bytes),
            gibibytes(gpu.memory_bytes)
        ),
    );
}

/// What CUDA needs, and what there is of it; nothing in a build without CUDA.
fn show_libraries() {
    for (name, found) in Gpu::libraries() {
        match found {
            Ok(version) => show("", format_args!("{name} {version}")),
            Err(why) => show("", format_args!("{name}: {why}")),
        }
    }
}

fn look_at_machine(machine: &Machine, findings: &mut Findings) {
    if machine.isa.contains("portable") {
        findings.hints.push(
            "the kernels use no extension of this processor; pictures will take several times longer"
                .to_owned(),
        );
    }
    if machine.memory_available.is_some_and(|bytes| bytes < SD15_BYTES) {
        findings.hints.push(format!(
            "a Stable Diffusion 1.5 checkpoint takes about {} for a 512x512 picture, which is more than is free",
            gibibytes(SD15_BYTES)
        ));
    }
}

fn look_at_memory(bodies: u64, findings: &mut Findings) {
    let largest = pentimento_api::ApiConfig::new().largest_body_memory();
    if bodies < largest {
        findings.hints.push(format!(
            "{} of memory for the bodies of all callers is less than the largest one may take ({}); large images are refused",
            gibibytes(bodies),
            gibibytes(largest)
        ));
    }
}

fn look_at_models(config: &Config, findings: &mut Findings) {
    let catalog: Catalog = match assemble::catalog(config) {
        Ok(catalog) => catalog,
        Err(error) => {
            findings.faults.push(format!("{error:#}"));
            return;
        }
    };
    let hub = match assemble::hub(config) {
        Ok(hub) => hub,
        Err(error) => {
            findings.faults.push(format!("{error:#}"));
            return;
        }
    };
    let from = config
        .models
        .as_deref()
        .map_or("built in".into(), Path::to_string_lossy);
    let ready = catalog
        .entries()
        .iter()
        .filter(|entry| state_of(&hub, entry).starts_with("ready"));
    show(
        "models",
        format_args!("{} of {} ready ({from})", ready.count(), catalog.entries().len()),
    );
    for entry in catalog.entries() {
        show(
            "",
            format_args!("{} `{}`: {}", entry.kind, entry.name, state_of(&hub, entry)),
        );
    }
    let mut checkpoints = catalog
        .entries()
        .iter()
        .filter(|entry| entry.kind == ModelKind::Checkpoint);
    if !checkpoints.any(|entry| is_usable(&hub, entry)) {
        findings
            .faults
            .push("the catalogue has no checkpoint that can be used; every request would fail".to_owned());
    }
}

fn look_at_data(config: &Config, findings: &mut Findings) {
    if !config.data.exists() {
        // Looking must not leave anything behind, so the folder is not made.
        show("data", format_args!("{} (will be made)", config.data.display()));
        let existing = config.data.ancestors().find(|path| path.exists());
        let locked = existing
            .and_then(|path| path.metadata().ok())
            .is_some_and(|data| data.permissions().readonly());
        if locked {
            findings.faults.push(format!(
                "the data folder {} cannot be made",
                config.data.display()
            ));
        }
        return;
    }
    match DataFolder::open(&config.data) {
        Ok(folder) => show("data", format_args!("{} (writable)", folder.path().display())),
        Err(error) => {
            show("data", config.data.display());
            findings.faults.push(format!("{error:#}"));
        }
    }
}

async fn look_at_broker(config: &Config, findings: &mut Findings) {
    let Some(broker) = &config.cluster else { return };
    let servers: Vec<&str> = broker.servers.iter().map(url::Url::as_str).collect();
    match cluster::reach(broker).await {
        Ok(true) => show(
            "cluster",
            format_args!("{}, which lets this machine in", servers.join(", ")),
        ),
        Ok(false) => {
            show("cluster", servers.join(", "));
            let hint = "the broker of the cluster does not answer; this machine works alone until it does";
            findings.hints.push(hint.to_owned());
        }
        Err(error) => findings.faults.push(format!("{error:#}")),
    }
}

async fn look_at_bucket(config: &Config, findings: &mut Findings) {
    let Some(bucket) = &config.images else { return };
    let looked = match assemble::images(config, &config.data) {
        Ok(images) => images.check().await.map_err(anyhow::Error::from),
        Err(error) => Err(error),
    };
    match looked {
        Ok(()) => show("pictures", format_args!("{bucket} (it lets us in)")),
        Err(error) => {
            show("pictures", bucket);
            findings
                .faults
                .push(format!("the bucket {bucket} cannot be used: {error:#}"));
        }
    }
}

fn look_at_network(config: &Config, findings: &mut Findings) {
    let ring = match assemble::key_ring(config) {
        Ok(ring) => ring,
        Err(error) => {
            findings.faults.push(format!("{error:#}"));
            return;
        }
    };
    let keys = ring.count();
    show(
        "listen",
        format_args!("http://{} ({keys} keys)", config.http.listen),
    );
    if let Err(error) = config.check_exposure(ring.is_open()) {
        findings.faults.push(error.to_string());
    }
    if let Err(error) = TcpListener::bind(config.http.listen) {
        findings
            .faults
            .push(format!("cannot listen on {}: {error}", config.http.listen));
    }
    if let Some(address) = admin_server::address(&config.http) {
        show("health", format_args!("http://{address}"));
        if let Err(error) = TcpListener::bind(address) {
            let text = format!("cannot listen on {address} for health checks: {error}");
            // The default is left out when it is taken.
            let list = match config.http.admin_listen {
                Some(_) => &mut findings.faults,
                None => &mut findings.hints,
            };
            list.push(text);
        }
    }
    findings.hints.extend(config.http.plain_text_warning());
    if keys > 0 && config.http.public_url.is_none() && !config.http.listen.ip().is_loopback() {
        findings
            .hints
            .push("without --public-url, links begin with the Host header of each request".to_owned());
    }
}
