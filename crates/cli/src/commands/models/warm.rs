//! `pentimento models warm`: compiles our kernels for the card, which are kept, runs a checkpoint on it once, and says to the byte
//! what it takes of the memory.

use anyhow::Context as _;
use pentimento_catalog::{Catalog, ModelKind};
use pentimento_engine::DeviceReport;
use pentimento_hub::Hub;
use pentimento_pipeline::{Device, ResolvedModels, StableDiffusion};
use pentimento_types::ModelId;

use crate::args::ModelsWarmArgs;
use crate::commands::bench;
use crate::commands::fetch::fetch;
use crate::config::Config;
use crate::data_folder::DataFolder;
use crate::machine::gibibytes;
use crate::{assemble, device, output};

/// Warms the named checkpoints, one after the other.
pub(crate) async fn run(args: &ModelsWarmArgs, config: &Config) -> anyhow::Result<()> {
    let (catalog, hub) = (assemble::catalog(config)?, assemble::hub(config)?);
    // The kernels are kept in it; a server that runs has them already, and its lock.
    let _data = DataFolder::open(&config.data)?;
    let opened = device::open(config)?;
    let budgets = opened.gpu_budgets();
    if budgets.is_empty() {
        let why = opened.why_cpu.map_or_else(String::new, |why| format!(": {why}"));
        output::line(format_args!("nothing to warm, since the processor computes{why}"));
        return Ok(());
    }
    for (device, why) in &opened.left_out {
        output::line(format_args!("{device} cannot be used: {why}"));
    }
    for (device, budget) in opened.devices.iter().zip(budgets) {
        let report = DeviceReport::of(device);
        output::line(format_args!(
            "{} in {}, {} of its memory",
            report.name,
            report.precision,
            gibibytes(budget)
        ));
        for name in &args.names {
            let models = checkpoint(&catalog, &hub, name).await?;
            let (device, args, name) = (device.clone(), args.clone(), name.clone());
            let warmed = tokio::task::spawn_blocking(move || warm(&models, &device, (&name, &args)));
            warmed.await??;
        }
    }
    Ok(())
}

async fn checkpoint(catalog: &Catalog, hub: &Hub, name: &str) -> anyhow::Result<ResolvedModels> {
    let entry = catalog.resolve(&ModelId::new(name), ModelKind::Checkpoint)?;
    Ok(ResolvedModels::checkpoint(fetch(hub, &entry).await?))
}

fn warm(
    models: &ResolvedModels,
    device: &Device,
    (name, args): (&str, &ModelsWarmArgs),
) -> anyhow::Result<()> {
    let used = || device.gpu().map_or(0, |gpu| gpu.used_bytes() as u64);
    let before = used();
    let model = StableDiffusion::load(models, device).with_context(|| format!("of `{name}`"))?;
    output::line(format_args!("`{name}` weights {}", gibibytes(used() - before)));
    let picture = bench::gradient(args.size)?;
    let mut states = model.prepare(&bench::plain_recipe(args.rows), &picture)?;
    let mut rows = 1;
    loop {
        let some: Vec<_> = states.iter().take(rows).collect();
        let Some(memory) = model.measure(&some)? else {
            break;
        };
        output::line(format_args!(
            "`{name}` {size}x{size}, {rows} rows: {} and {} for the results{}",
            bytes(memory.arena_bytes),
            bytes(memory.output_bytes),
            if memory.fits { "" } else { "; it does not fit" },
            size = args.size,
        ));
        if rows >= states.len() {
            break;
        }
        rows = (2 * rows).min(states.len());
    }
    let mut first = states.swap_remove(0);
    drop(states);
    model.denoise(&mut [&mut first])?;
    model.finish(first)?;
    output::line(format_args!("`{name}` is warm: {} in all", gibibytes(used())));
    Ok(())
}

/// To the byte, as what is said here is to be compared with.
fn bytes(count: u64) -> String {
    format!("{count} bytes")
}
