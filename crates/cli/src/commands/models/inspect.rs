//! `pentimento models inspect`: what a file, or a model of the catalogue, is.

use std::path::Path;

use pentimento_catalog::{BaseModel, Source};
use pentimento_hub::Found;
use pentimento_weights::{EmbeddingAbout, IpAdapterKind, LoraAbout, WeightsKind, kind_of};

use super::list::state_of;
use super::names::named;
use crate::args::ModelsInspectArgs;
use crate::config::Config;
use crate::{assemble, output};

/// How many names of tensors without a place are shown.
const FIRST_UNPLACED: usize = 8;

/// Prints what is known. Fetches nothing.
pub(crate) fn run(args: &ModelsInspectArgs, config: &Config) -> anyhow::Result<()> {
    let path = Path::new(&args.what);
    if path.exists() {
        return about_path(path);
    }
    let (catalog, hub) = (assemble::catalog(config)?, assemble::hub(config)?);
    for entry in named(&catalog, &args.what)? {
        output::line(format_args!("name    {}", entry.name));
        if !entry.aliases.is_empty() {
            output::line(format_args!("aliases {}", entry.aliases.join(", ")));
        }
        output::line(format_args!("kind    {}", entry.kind));
        let base = entry.base.map_or("found from the weights", BaseModel::as_str);
        output::line(format_args!("base    {base}"));
        output::line(format_args!("source  {}", entry.source));
        output::line(format_args!("state   {}", state_of(&hub, &entry)));
        if let Found::Ready(located) = hub.look(&entry)
            && let Source::Path(path) = &located.source
        {
            // A VAE's folder, for example, is nothing that tells its kind by itself.
            if let Err(error) = about_path(path) {
                output::line(format_args!("is      {error:#}"));
            }
        }
    }
    Ok(())
}

fn about_path(path: &Path) -> anyhow::Result<()> {
    output::line(format_args!("path    {}", path.display()));
    let about = kind_of(path)?;
    output::line(format_args!("is      {}", described(&about.kind)));
    output::line(format_args!("format  {}", about.format));
    if let WeightsKind::Lora(lora) = &about.kind {
        about_lora(lora);
    }
    if let WeightsKind::Embedding(words) = &about.kind {
        words.iter().for_each(about_word);
    }
    if !about.dtypes.is_empty() {
        output::line(format_args!("dtypes  {}", about.dtypes.join(", ")));
    }
    if about.tensors > 0 {
        output::line(format_args!("tensors {}", about.tensors));
    }
    if !about.unplaced.is_empty() {
        let first = about.unplaced.iter().take(FIRST_UNPLACED);
        let first: Vec<&str> = first.map(String::as_str).collect();
        output::line(format_args!(
            "unknown {} tensors have no place: {}",
            about.unplaced.len(),
            first.join(", ")
        ));
    }
    Ok(())
}

/// With its article.
pub(super) fn described(kind: &WeightsKind) -> String {
    match kind {
        WeightsKind::Checkpoint {
            base,
            variant,
            is_folder,
        } => {
            let words = ["a checkpoint"]
                .into_iter()
                .chain(base.map(|_| "of"))
                .chain(*base)
                .chain(variant.map(|_| "for"))
                .chain(*variant)
                .chain(is_folder.then_some("in the layout of diffusers"));
            words.collect::<Vec<_>>().join(" ")
        }
        WeightsKind::Component(what) => format!("{what} of a diffusers folder"),
        WeightsKind::Lora(about) => match about.base {
            Some(base) => format!("a LoRA for {base}"),
            None => "a LoRA".to_owned(),
        },
        WeightsKind::Embedding(_) => "a textual inversion".to_owned(),
        WeightsKind::Vae => "a VAE".to_owned(),
        WeightsKind::TinyAutoencoder => "a tiny autoencoder".to_owned(),
        WeightsKind::Hypernetwork => "a hypernetwork, which is not used here".to_owned(),
        WeightsKind::ControlNet => "a ControlNet, which is not used here".to_owned(),
        WeightsKind::IpAdapter(Some(about)) => {
            let kind = match about.kind {
                IpAdapterKind::Projection { .. } => "a projection",
                IpAdapterKind::Resampler { .. } => "a resampler",
            };
            let base = about
                .base()
                .map_or_else(String::new, |base| format!(" for {base}"));
            format!("an IP-Adapter{base} with {kind} to {} tokens", about.tokens)
        }
        WeightsKind::Upscaler(Some(about)) => format!("an upscaler, {} times", about.scale()),
        WeightsKind::Upscaler(None) => "an upscaler of a kind that is not used here".to_owned(),
        WeightsKind::IpAdapter(None) => "an IP-Adapter of a kind that is not used here".to_owned(),
        WeightsKind::Other(what) => (*what).to_owned(),
        WeightsKind::Unknown => "nothing that is known by its names".to_owned(),
        _ => "of another kind".to_owned(),
    }
}

fn about_lora(about: &LoraAbout) {
    output::line(format_args!("forms   {}", about.formats.join(", ")));
    let ranks: Vec<String> = about.ranks.iter().map(ToString::to_string).collect();
    if !ranks.is_empty() {
        output::line(format_args!("ranks   {}", ranks.join(", ")));
    }
    output::line(format_args!("modules {}", about.modules.values().sum::<usize>()));
    if !about.tokens.is_empty() {
        output::line(format_args!("tokens  {}", about.tokens.join(", ")));
    }
}

fn about_word(word: &EmbeddingAbout) {
    let token = word
        .token
        .as_deref()
        .unwrap_or("(none: the name in the catalogue)");
    let sizes: Vec<String> = word
        .vectors
        .iter()
        .map(|(_, count, width)| format!("{count} x {width}"))
        .collect();
    output::line(format_args!("token   {token}: {}", sizes.join(" and ")));
    if let Some(base) = word.base {
        output::line(format_args!("base    {base}"));
    }
}
