//! Brings a model's files here while the user looks on: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use pentimento_catalog::ModelEntry;
use pentimento_hub::{Found, Hub, HubError, ModelWork, Progress, Stage};

use crate::output;

/// Between two lines where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(10);
/// Between two looks at the progress.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// The entry with the place of its files on this machine; they are fetched, or compared with their sha256, where they must be.
pub(crate) async fn fetch(hub: &Hub, entry: &Arc<ModelEntry>) -> anyhow::Result<Arc<ModelEntry>> {
    let refused = |error: Arc<HubError>| {
        anyhow!(error).context(format!("the {} `{}` cannot be used", entry.kind, entry.name))
    };
    // Once to fetch, and once more where a file that came from elsewhere has to be compared.
    for _ in 0..2 {
        let found = hub.look(entry);
        match &found {
            Found::Ready(located) => return Ok(Arc::clone(located)),
            Found::Wrong(error) => return Err(refused(Arc::clone(error))),
            Found::Unavailable(reason) => {
                return Err(anyhow!(reason.clone()))
                    .with_context(|| format!("the {} `{}` cannot be used", entry.kind, entry.name));
            }
            Found::Absent | Found::Unchecked => {
                let work = hub.begin(entry, &found).map_err(refused)?;
                attend(hub, entry, work).await.map_err(refused)?;
            }
        }
    }
    anyhow::bail!(
        "the files of the {} `{}` change while they are looked at",
        entry.kind,
        entry.name
    )
}

/// Waits for the end, and shows how far it is. Ctrl-C ends it; what has arrived is kept.
async fn attend(hub: &Hub, entry: &ModelEntry, mut work: ModelWork) -> Result<(), Arc<HubError>> {
    let shown = Shown::new(&entry.name);
    let mut ended = work.clone();
    let ended = ended.end();
    tokio::pin!(ended);
    let mut stop = std::pin::pin!(tokio::signal::ctrl_c());
    let mut last_line = None;
    let result = loop {
        tokio::select! {
            result = &mut ended => break result,
            _ = &mut stop => {
                hub.cancel(entry);
                break Err(Arc::new(HubError::Cancelled));
            }
            () = tokio::time::sleep(BETWEEN_LOOKS) => shown.show(&work.progress(), &mut last_line),
        }
    };
    shown.show(&work.progress(), &mut None);
    shown.end();
    let _ = work.changed().await;
    result.map(|_| ())
}

/// Where the progress is shown.
enum Shown {
    Bar(ProgressBar),
    Lines(String),
}

impl Shown {
    fn new(name: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines(name.to_owned());
        }
        let template = "{prefix} {bar:30} {bytes}/{total_bytes} {msg}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(0).with_style(style).with_prefix(name.to_owned());
        Self::Bar(bar)
    }

    fn show(&self, progress: &Progress, last_line: &mut Option<tokio::time::Instant>) {
        match self {
            Self::Bar(bar) => {
                bar.set_length(progress.total_bytes.unwrap_or(progress.done_bytes));
                bar.set_position(progress.done_bytes);
                bar.set_message(match (progress.stage, progress.time_left()) {
                    (Stage::Waiting, _) => "waiting for another download".to_owned(),
                    (Stage::Checking, _) => "comparing its sha256".to_owned(),
                    (Stage::Downloading, Some(left)) => {
                        format!("{:.1} MB/s, {} s left", rate_of(progress), left.as_secs())
                    }
                    (Stage::Downloading, None) => String::new(),
                });
            }
            Self::Lines(name) => {
                if last_line.is_none_or(|last| last.elapsed() >= BETWEEN_LINES) {
                    output::note(format_args!("{name}: {} {progress}", progress.stage.as_str()));
                    *last_line = Some(tokio::time::Instant::now());
                }
            }
        }
    }

    fn end(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn rate_of(progress: &Progress) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
    let rate = progress.bytes_per_second as f64;
    rate / 1e6
}
