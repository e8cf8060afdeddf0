//! `pentimento completions` and `pentimento man`: what the program says of itself, in the forms of shells and of `man`.

use std::io::Write as _;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Args;

const NAME: &str = "pentimento";

/// A script for a shell, on the standard output.
pub(crate) fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), NAME, &mut script);
    written(&script)
}

/// The page of the program and of every command in it.
pub(crate) fn man() -> anyhow::Result<()> {
    let mut command = Args::command();
    command.build();
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command.clone());
    man.render(&mut page).context("cannot make the page")?;
    for part in command
        .get_subcommands()
        .filter(|part| !part.is_hide_set() && part.get_name() != "help")
    {
        let part = part.clone().display_name(format!("{NAME} {}", part.get_name()));
        let man = clap_mangen::Man::new(part);
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_options_section(&mut page)?;
    }
    written(&page)
}

fn written(text: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let done = out.write_all(text).and_then(|()| out.flush());
    match done {
        // Whoever reads on may have had enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to the standard output"),
    }
}
