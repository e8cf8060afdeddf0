//! `pentimento keys`: makes, lists and revokes the keys of callers in the data folder. A server that runs on the folder
//! follows at once.

use std::time::{Duration, SystemTime};

use pentimento_service::{KeyFile, KeyLimits, NewKey, StoredKey};
use pentimento_types::{Clock as _, SystemClock};
use serde_json::{Value, json};

use crate::args::{KeysAction, KeysArgs, KeysListArgs, KeysNewArgs};
use crate::config::{Config, ConfigError};
use crate::output::{self, table};

/// Runs one of the three.
pub(crate) fn run(args: &KeysArgs, config: &Config) -> anyhow::Result<()> {
    let file = KeyFile::in_folder(&config.data);
    match &args.action {
        KeysAction::New(new) => add(new, &file, config),
        KeysAction::List(list) => show(list, &file),
        KeysAction::Revoke(revoke) => {
            file.revoke(&revoke.label, SystemClock.wall())?;
            output::note(format_args!(
                "the key `{}` is taken back; jobs that it has made come to their end",
                revoke.label
            ));
            Ok(())
        }
    }
}

/// The secret alone goes to the standard output, so that it can be taken from there.
fn add(args: &KeysNewArgs, file: &KeyFile, config: &Config) -> anyhow::Result<()> {
    if config.http.keys.iter().any(|key| key.label == args.label) {
        return Err(ConfigError::KeyLabelTwice {
            label: args.label.clone(),
        }
        .into());
    }
    let new = NewKey {
        label: args.label.clone(),
        life: args.expires,
        limits: KeyLimits {
            jobs_at_once: args.jobs_at_once,
            requests_per_minute: args.requests_per_minute,
        },
        admin: args.admin,
    };
    let secret = file.add(&new, SystemClock.wall())?;
    output::line(secret);
    output::note(format_args!(
        "this is the key `{}`; it is not stored and cannot be shown again",
        args.label
    ));
    Ok(())
}

fn show(args: &KeysListArgs, file: &KeyFile) -> anyhow::Result<()> {
    let keys = file.keys()?.unwrap_or_default();
    let now = SystemClock.wall();
    if args.json {
        let keys: Vec<Value> = keys.iter().map(|key| as_json(key, now)).collect();
        output::line(serde_json::to_string_pretty(&keys)?);
        return Ok(());
    }
    let head = [
        "LABEL",
        "STATE",
        "MADE",
        "ENDS",
        "JOBS AT ONCE",
        "CALLS A MINUTE",
        "ADMIN",
    ];
    let rows = keys.iter().map(|key| as_row(key, now)).collect();
    table(head.map(str::to_owned), rows).iter().for_each(output::line);
    Ok(())
}

fn state_of(key: &StoredKey, now: SystemTime) -> &'static str {
    if key.revoked_at.is_some() {
        "revoked"
    } else if key.is_valid(now) {
        "valid"
    } else {
        "expired"
    }
}

fn as_row(key: &StoredKey, now: SystemTime) -> [String; 7] {
    let limit =
        |limit: Option<std::num::NonZeroU32>| limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
    let limits = key.limits();
    [
        key.label.clone(),
        state_of(key, now).to_owned(),
        written(Some(key.created_at)),
        written(key.revoked_at.or(key.expires_at)),
        limit(limits.jobs_at_once),
        limit(limits.requests_per_minute),
        if key.admin { "yes" } else { "-" }.to_owned(),
    ]
}

fn as_json(key: &StoredKey, now: SystemTime) -> Value {
    let limits = key.limits();
    json!({
        "label": key.label,
        "state": state_of(key, now),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "jobs_at_once": limits.jobs_at_once,
        "requests_per_minute": limits.requests_per_minute,
        "admin": key.admin,
    })
}

/// A time as people and programs read it.
fn written(seconds: Option<u64>) -> String {
    /// The end of the year 9999, behind which no such text is.
    const LAST: u64 = 253_402_300_799;
    match seconds {
        Some(seconds) if seconds <= LAST => {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            humantime::format_rfc3339_seconds(time).to_string()
        }
        _ => "-".to_owned(),
    }
}
