//! `pentimento jobs`: what can be done about the jobs of a running server, through its own calls.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use crate::args::{JobsAction, JobsArgs, ReplayWebhookArgs};
use crate::config::Config;
use crate::{assemble, output};

/// A server on this machine answers at once.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Runs one of the actions.
pub(crate) async fn run(args: &JobsArgs, config: &Config) -> anyhow::Result<()> {
    match &args.action {
        JobsAction::ReplayWebhook(replay) => replay_webhook(replay, config).await,
        JobsAction::WebhookSecret(_) => {
            // For who verifies what this server sends.
            output::line(format_args!(
                "{}",
                assemble::webhook_secret(config, &config.data)?.expose()
            ));
            Ok(())
        }
    }
}

async fn replay_webhook(args: &ReplayWebhookArgs, config: &Config) -> anyhow::Result<()> {
    let server = match &args.server {
        Some(server) => server.as_str().trim_end_matches('/').to_owned(),
        None => format!("http://{}", config.http.listen),
    };
    let url = format!("{server}/v1/webhooks/{}/replay", args.id);
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
    let mut last = None;
    // A webhook is its owner's, and the settings do not say whose it is.
    for key in keys(args, config)? {
        let mut request = client.post(&url);
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        let answer = request.send().await.with_context(|| {
            format!("no server answers at {server}; is it running, or is --server another one?")
        })?;
        let status = answer.status();
        let body: Value = answer.json().await.context("the server's answer is no JSON")?;
        if status.is_success() {
            let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
            output::line(format_args!("{} is sent again to {}", text("id"), text("url")));
            return Ok(());
        }
        let message = body["error"]["message"].as_str().unwrap_or("no reason is given");
        last = Some(anyhow::anyhow!("{message} (status {status})"));
        if status != reqwest::StatusCode::NOT_FOUND {
            break;
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("no key to ask with")))
}

/// The key that is given; else all that the settings have, which no other server gets to see; else none.
fn keys(args: &ReplayWebhookArgs, config: &Config) -> anyhow::Result<Vec<Option<String>>> {
    match args.key.as_deref() {
        Some("-") => {
            let mut line = String::new();
            let read = std::io::stdin().read_line(&mut line);
            read.context("no key can be read from the standard input")?;
            return Ok(vec![Some(line.trim().to_owned())]);
        }
        Some(key) => return Ok(vec![Some(key.to_owned())]),
        None => {}
    }
    anyhow::ensure!(
        args.server.is_none() || config.http.keys.is_empty(),
        "the settings' keys are not sent to the address of --server; give the job's key with --key, or --key - to type it"
    );
    let of_settings = config.http.keys.iter();
    let mut keys: Vec<_> = of_settings
        .map(|key| Some(key.secret.expose().to_owned()))
        .collect();
    if keys.is_empty() {
        keys.push(None);
    }
    Ok(keys)
}
