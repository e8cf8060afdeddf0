//! `pentimento jobs watch`: what a job does, until it has ended, also over a restart of the server.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::client::{Client, text};
use super::events::{Event, Reader};
use super::{how_far, path_of};
use crate::args::JobsShowArgs;
use crate::output;

/// Before the server is asked again after a connection that broke, and how often without an event in between.
const PAUSE: Duration = Duration::from_secs(2);
const TRIES: u32 = 30;

/// Fails when the job has no pictures in the end.
pub(super) async fn run(client: &Client, args: &JobsShowArgs) -> anyhow::Result<()> {
    let path = format!("{}/events", path_of(&args.id)?);
    let mut last: Option<String> = None;
    let mut tries = 0;
    loop {
        let response = match client.events(&path, last.as_deref()).await {
            Ok(Some(response)) => response,
            Ok(None) => return Ok(()),
            // The first time, it is not there at all.
            Err(error) if last.is_none() || tries >= TRIES => return Err(error),
            Err(_) => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let mut response = response;
        let mut reader = Reader::default();
        // A connection that breaks and one that ends are the same.
        while let Ok(Some(piece)) = response.chunk().await {
            for event in reader.take(&piece)? {
                tries = 0;
                if event.id.is_some() {
                    last.clone_from(&event.id);
                }
                if let Some(job) = tell(&event, args.json)? {
                    return ended(&job);
                }
            }
        }
        if tries >= TRIES {
            bail!("the server ends the connection before the job has ended");
        }
        tries += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Prints an event. Gives the job when it is the last.
fn tell(event: &Event, as_json: bool) -> anyhow::Result<Option<Value>> {
    let data: Value = serde_json::from_str(&event.data).context("the server sends no JSON")?;
    if as_json {
        output::line(json!({"event": event.name, "data": data}));
    } else {
        output::line(in_words(&event.name, &data));
    }
    Ok((event.name == "end").then_some(data))
}

fn in_words(name: &str, data: &Value) -> String {
    match name {
        "progress" => format!("{} evaluations", how_far(&json!({"progress": data}))),
        "end" if data["deleted"] == json!(true) => "deleted".to_owned(),
        "end" => {
            let images = data["images"].as_array().into_iter().flatten();
            let lines: Vec<String> = std::iter::once(text(&data["state"]))
                .chain(images.map(|image| text(&image["url"])))
                .collect();
            lines.join("\n")
        }
        _ => {
            let more = [
                ("position", &data["queue_position"]),
                ("seconds left", &data["seconds_left"]),
            ];
            let more = more.iter().filter(|(_, value)| !value.is_null());
            let more: String = more
                .map(|(what, value)| format!(", {what} {}", text(value)))
                .collect();
            format!("{}{more}", text(&data["state"]))
        }
    }
}

fn ended(job: &Value) -> anyhow::Result<()> {
    match job["state"].as_str() {
        Some("succeeded") => Ok(()),
        Some("failed") => bail!("the job failed: {}", text(&job["error"]["message"])),
        Some("cancelled") => bail!("the job was cancelled"),
        _ => bail!("the job was deleted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_in_words() {
        for (name, data, words) in [
            ("progress", json!({"done": 3, "total": 8}), "3/8 evaluations"),
            (
                "state",
                json!({"state": "queued", "queue_position": 2, "seconds_left": 4.5}),
                "queued, position 2, seconds left 4.5",
            ),
            (
                "end",
                json!({"state": "succeeded", "images": [{"url": "http://x/a.png"}]}),
                "succeeded\nhttp://x/a.png",
            ),
            ("end", json!({"deleted": true}), "deleted"),
        ] {
            assert_eq!(in_words(name, &data), words);
        }
        assert!(ended(&json!({"state": "succeeded"})).is_ok());
        let failed = ended(&json!({"state": "failed", "error": {"message": "no room"}}));
        assert!(failed.unwrap_err().to_string().contains("no room"));
    }
}
