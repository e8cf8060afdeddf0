//! `pentimento models inspect`: what a file, or a model of the catalogue, is.

use std::path::Path;

use pentimento_catalog::{BaseModel, Source};
use pentimento_hub::Found;
use pentimento_types::describe_chain;
use pentimento_weights::{EmbeddingFile, LoraAbout, LoraFile};

use crate::args::ModelsInspectArgs;
use crate::config::Config;
use crate::{assemble, output};

/// How many names of tensors without a place are shown.
const FIRST_STRANGERS: usize = 8;

/// Prints what is known. Fetches nothing.
pub(crate) fn run(args: &ModelsInspectArgs, config: &Config) -> anyhow::Result<()> {
    let path = Path::new(&args.what);
    if path.exists() {
        return about_path(path);
    }
    let (catalog, hub) = (assemble::catalog(config)?, assemble::hub(config)?);
    for entry in super::named(&catalog, &args.what)? {
        output::line(format_args!("name    {}", entry.name));
        if !entry.aliases.is_empty() {
            output::line(format_args!("aliases {}", entry.aliases.join(", ")));
        }
        output::line(format_args!("kind    {}", entry.kind));
        let base = entry.base.map_or("found from the weights", BaseModel::as_str);
        output::line(format_args!("base    {base}"));
        output::line(format_args!("source  {}", entry.source));
        output::line(format_args!("state   {}", super::state_of(&hub, &entry)));
        if let Found::Ready(located) = hub.look(&entry)
            && let Source::Path(path) = &located.source
        {
            about_path(path)?;
        }
    }
    Ok(())
}

fn about_path(path: &Path) -> anyhow::Result<()> {
    output::line(format_args!("path    {}", path.display()));
    let about = fs_err::metadata(path)?;
    if about.is_file() {
        output::line(format_args!("bytes   {}", about.len()));
    }
    if path.join("model_index.json").is_file() {
        output::line("is      a checkpoint in the layout of diffusers");
        return Ok(());
    }
    let no_lora = match LoraFile::open(path) {
        Ok(lora) => {
            about_lora(&lora.about());
            return Ok(());
        }
        Err(error) => error,
    };
    match EmbeddingFile::open(path) {
        Ok(file) => about_embedding(&file),
        // It names what the file is instead, or what is wrong with it.
        Err(_) => output::line(format_args!("is      {}", describe_chain(&no_lora))),
    }
    Ok(())
}

fn about_lora(about: &LoraAbout) {
    output::line("is      a LoRA");
    output::line(format_args!("base    {}", about.base.unwrap_or("nothing tells")));
    output::line(format_args!("format  {}", about.formats.join(", ")));
    let ranks: Vec<String> = about.ranks.iter().map(ToString::to_string).collect();
    output::line(format_args!("ranks   {}", ranks.join(", ")));
    output::line(format_args!("dtypes  {}", about.dtypes.join(", ")));
    let modules: usize = about.modules.values().sum();
    output::line(format_args!("modules {modules}, of {} tensors", about.tensors));
    if !about.tokens.is_empty() {
        output::line(format_args!("tokens  {}", about.tokens.join(", ")));
    }
    if !about.strangers.is_empty() {
        let first = about
            .strangers
            .iter()
            .take(FIRST_STRANGERS)
            .cloned()
            .collect::<Vec<_>>();
        output::line(format_args!(
            "unknown {} tensors have no place: {}",
            about.strangers.len(),
            first.join(", ")
        ));
    }
}

fn about_embedding(file: &EmbeddingFile) {
    output::line("is      a textual inversion");
    for embedding in &file.embeddings {
        output::line(format_args!(
            "token   {}",
            embedding.token.as_deref().unwrap_or("the name in the catalogue")
        ));
    }
}
