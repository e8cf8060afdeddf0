//! `pentimento jobs`: the jobs of a running server, over its own calls.

mod client;
mod events;
mod watch;

use serde_json::{Value, json};

use self::client::{Client, text};
use crate::args::{JobsAction, JobsCancelArgs, JobsListArgs, JobsShowArgs, ReplayWebhookArgs};
use crate::config::Config;
use crate::{assemble, output};

/// Runs one of the actions.
pub(crate) async fn run(action: &JobsAction, config: &Config) -> anyhow::Result<()> {
    let client = Client::new(&config.client)?;
    match action {
        JobsAction::List(args) => list(&client, args).await,
        JobsAction::Show(args) => show(&client, args).await,
        JobsAction::Cancel(args) => cancel(&client, args).await,
        JobsAction::Watch(args) => watch::run(&client, args).await,
        JobsAction::ReplayWebhook(args) => replay_webhook(&client, args).await,
        JobsAction::WebhookSecret(_) => {
            // For who verifies what this server sends.
            output::line(assemble::webhook_secret(config, &config.data)?.expose());
            Ok(())
        }
    }
}

async fn replay_webhook(client: &Client, args: &ReplayWebhookArgs) -> anyhow::Result<()> {
    let sent = client.post(&format!("v1/webhooks/{}/replay", args.id)).await?;
    output::line(format_args!(
        "{} is sent again to {}",
        text(&sent["id"]),
        text(&sent["url"])
    ));
    Ok(())
}

async fn list(client: &Client, args: &JobsListArgs) -> anyhow::Result<()> {
    let mut query = vec![("limit", args.limit.to_string())];
    query.extend(args.state.clone().map(|state| ("state", state)));
    query.extend(args.after.clone().map(|after| ("after", after)));
    let found = client.get("v1/jobs", &query).await?;
    if args.json {
        output::line(serde_json::to_string_pretty(&found)?);
        return Ok(());
    }
    let jobs = found["jobs"].as_array().cloned().unwrap_or_default();
    let rows = jobs.iter().map(|job| {
        [
            text(&job["id"]),
            text(&job["state"]),
            how_far(job),
            text(&job["dialect"]),
            text(&job["recipe"]["model"]),
            text(&job["created_at"]),
        ]
    });
    let head = ["ID", "STATE", "DONE", "DIALECT", "MODEL", "CREATED"].map(str::to_owned);
    for line in output::table(head, rows.collect()) {
        output::line(line);
    }
    if let Some(next) = found["next"].as_str() {
        output::note(format_args!("there are older ones: --after {next}"));
    }
    Ok(())
}

async fn show(client: &Client, args: &JobsShowArgs) -> anyhow::Result<()> {
    let job = client.get(&path_of(&args.id)?, &[]).await?;
    if args.json {
        output::line(serde_json::to_string_pretty(&job)?);
    } else {
        lines_of(&job).iter().for_each(output::line);
    }
    Ok(())
}

/// All that is known of a job, a line for each thing that is not plain.
fn lines_of(job: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let mut say = |what: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("{what:<12} {value}"));
        }
    };
    say("id", text(&job["id"]));
    say("state", text(&job["state"]));
    say("attempt", text(&job["attempt"]));
    say("done", how_far(job));
    say("position", text(&job["queue_position"]));
    say("seconds left", text(&job["seconds_left"]));
    say("created", text(&job["created_at"]));
    say("started", text(&job["started_at"]));
    say("finished", text(&job["finished_at"]));
    let members = job["recipe"].as_object().cloned().unwrap_or_default();
    for (name, value) in members {
        let is_empty = value.as_array().is_some_and(Vec::is_empty);
        if !is_empty {
            say(&name, text(&value));
        }
    }
    for note in job["notes"].as_array().into_iter().flatten() {
        say("note", text(note));
    }
    for image in job["images"].as_array().into_iter().flatten() {
        say("image", text(&image["url"]));
    }
    say("error", text(&job["error"]["message"]));
    lines
}

/// Cancels all that can be; the first that cannot is the error.
async fn cancel(client: &Client, args: &JobsCancelArgs) -> anyhow::Result<()> {
    let query: &[(&str, String)] = if args.delete {
        &[("delete", "true".to_owned())]
    } else {
        &[]
    };
    let mut first = None;
    for id in &args.ids {
        match client.delete(&path_of(id)?, query).await {
            Ok(job) if job["deleted"] == json!(true) => output::line(format_args!("{id} deleted")),
            Ok(job) => output::line(format_args!("{id} {}", text(&job["state"]))),
            Err(error) => {
                first.get_or_insert_with(|| error.context(format!("{id} could not be cancelled")));
            }
        }
    }
    first.map_or(Ok(()), Err)
}

/// Of a job. What stands in a path must not lead elsewhere.
fn path_of(id: &str) -> anyhow::Result<String> {
    let is_id = !id.is_empty()
        && id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    anyhow::ensure!(
        is_id,
        "{id:?} is no id of a job; `pentimento jobs list` shows them"
    );
    Ok(format!("v1/jobs/{id}"))
}

/// `3/8`, where it is known.
fn how_far(job: &Value) -> String {
    let progress = &job["progress"];
    match (&progress["done"], &progress["total"]) {
        (Value::Number(done), Value::Number(total)) => format!("{done}/{total}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_shown_without_what_is_not_known() {
        let job = json!({
            "id": "job_1", "state": "running", "attempt": 1, "progress": {"done": 3, "total": 8},
            "queue_position": null, "seconds_left": 1.5, "notes": ["Mind this."], "images": [], "error": null,
            "recipe": {"model": "demo", "loras": [], "vae": null},
        });
        assert_eq!(
            lines_of(&job),
            [
                "id           job_1",
                "state        running",
                "attempt      1",
                "done         3/8",
                "seconds left 1.5",
                "model        demo",
                "note         Mind this.",
            ]
        );
        assert_eq!(path_of("job_1a").unwrap(), "v1/jobs/job_1a");
        for wrong in ["", "../models", "a/b", "a?b"] {
            assert!(path_of(wrong).is_err(), "{wrong}");
        }
    }
}
