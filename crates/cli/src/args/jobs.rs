//! What `pentimento jobs` takes.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use pentimento_types::WebhookId;
use url::Url;

use crate::config::Secret;

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct JobsArgs {
    #[command(subcommand)]
    pub(crate) action: JobsAction,

    /// The server [default: the address that this machine's settings make it listen on]
    #[arg(long, global = true, value_name = "URL")]
    pub(super) server: Option<Url>,

    /// The key to call it with; other users of this machine can read flags, so PENTIMENTO_KEY is better [default: the first of
    /// the settings' keys]
    #[arg(long, global = true, value_name = "SECRET")]
    pub(super) key: Option<Secret>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum JobsAction {
    /// Lists the jobs of the key, the newest first
    List(JobsListArgs),
    /// Says all that is known of a job
    Show(JobsShowArgs),
    /// Cancels jobs that have not ended
    Cancel(JobsCancelArgs),
    /// Shows how a job goes on until it has ended; ends with 1 when it has no pictures then
    Watch(JobsShowArgs),
    /// Sends the webhook of a job again, under the id that it had, whatever has become of it
    ReplayWebhook(ReplayWebhookArgs),
    /// Shows the secret with which a receiver checks that webhooks come from this server; made when there is none yet
    WebhookSecret(WebhookSecretArgs),
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ReplayWebhookArgs {
    /// Of the webhook (msg_…) or of its job (job_…)
    #[arg(value_name = "ID")]
    pub(crate) id: WebhookId,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct WebhookSecretArgs {
    /// The server's folder, where the secret is when no setting gives one [default: pentimento-data]
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct JobsListArgs {
    /// Only those that are fetching, queued, running, succeeded, failed or cancelled
    #[arg(long, value_name = "STATE,...")]
    pub(crate) state: Option<String>,

    /// At most so many
    #[arg(long, value_name = "JOBS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) limit: u32,

    /// Only jobs that are older than this one
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<String>,

    /// One JSON document instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct JobsShowArgs {
    /// As the reply's X-Job-Id header and the list say it
    #[arg(value_name = "ID")]
    pub(crate) id: String,

    /// JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct JobsCancelArgs {
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,

    /// Deletes them, too, with their pictures; also those that have ended
    #[arg(long)]
    pub(crate) delete: bool,
}
