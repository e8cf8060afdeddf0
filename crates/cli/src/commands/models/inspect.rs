//! `pentimento models inspect`: what a file, or a model of the catalogue, is.

use std::path::Path;

use pentimento_catalog::{BaseModel, Source};
use pentimento_hub::Found;

use crate::args::ModelsInspectArgs;
use crate::config::Config;
use crate::{assemble, output};

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
    let what = if about.is_dir() {
        let is_checkpoint = path.join("model_index.json").is_file();
        if is_checkpoint {
            "a folder in the layout of diffusers"
        } else {
            "a folder"
        }
        .to_owned()
    } else {
        format!("a file of {} bytes", about.len())
    };
    output::line(format_args!("is      {what}"));
    Ok(())
}
