//! The calls beside img2img and inpaint: what the server is, what it knows, and clear answers for what it does not do.

use std::sync::Arc;
use std::time::SystemTime;

use pentimento_service::{ModelEntry, ModelKind, ModelRole, ModelState, ServiceError};
use pentimento_types::{ModelId, SchedulerKind};
use serde_json::{Value, json};

use super::reply::whole_seconds;
use crate::{AppState, cluster};

/// Calls of the vendor that this server does not do, and what to do instead.
pub(super) const NOT_OFFERED: &[(&str, &str)] = &[
    ("text2img", TEXT),
    ("txt2img", TEXT),
    ("controlnet", "send the picture to img2img"),
    ("sync_models", MODELS),
    ("update_server", PROCESS),
    ("update", PROCESS),
    ("update_s3", STORE),
    ("reset_s3", STORE),
];
pub(super) const TEXT: &str = "it makes pictures from pictures only, see img2img";
const MODELS: &str = "models are listed in its models.toml";
/// A server that fetches its own next version would run what a stranger to its machine has chosen.
const PROCESS: &str = "whoever runs it installs another version; restart_server then starts that one";
/// Credentials of a bucket in a call would go through every proxy on the way, and decide where all callers' pictures are.
const STORE: &str =
    "where pictures are kept is set by whoever runs it, `images` of its settings (docs/images-s3.md)";

pub(super) async fn system_details(app: &AppState) -> Value {
    let status = app.service.status().await;
    let mut details = json!({
        "model_count": app.service.catalog().entries().len(),
        "queue_time": whole_seconds(app.service.queue_time()),
        "status": "ok",
        "queue_num": status.jobs.queued,
        "running_num": status.jobs.running,
        "resident_models": status.engine.resident_models,
    });
    // Not in the original: what else there is beside the server that was asked.
    if let Some(nodes) = app.service.nodes() {
        details["nodes"] = cluster::briefly(&nodes).into();
    }
    details
}

pub(super) fn schedulers_list() -> Value {
    let names: Vec<&str> = SchedulerKind::ALL.iter().map(|kind| kind.class_name()).collect();
    json!({"schedulers": names})
}

/// All models, with whether their files are there.
pub(super) async fn all_models(app: &AppState) -> Value {
    let load_data = vendor_date(app.started);
    let describe = |(entry, state): &(Arc<ModelEntry>, ModelState)| {
        json!({
            "load_data": load_data,
            "model_id": entry.name,
            "model_category": entry.kind.as_str(),
            "aliases": entry.aliases,
            // Not in the original: whether its files are there, and what is being done about it.
            "available": state.is_available(),
            "state": state.as_str(),
        })
    };
    let found = app.service.model_states(app.service.catalog().entries()).await;
    let models: Vec<Value> = found.iter().map(describe).collect();
    json!({"models": models, "status": "success"})
}

/// Whether a model of any kind has this name, and its files are there.
pub(super) async fn verify_model(app: &AppState, name: &str) -> Value {
    let catalog = app.service.catalog();
    let name = ModelId::new(name);
    let mut message = "Model not exists on server".to_owned();
    let named = ModelKind::ALL
        .iter()
        .filter_map(|kind| catalog.resolve(&name, *kind).ok());
    let named: Vec<Arc<ModelEntry>> = named.collect();
    for (_, state) in app.service.model_states(&named).await {
        if state.is_available() {
            return json!({"status": "success", "message": "Model exists on server"});
        }
        if let Some(reason) = state.reason() {
            message = format!("Model not exists on server: {reason}");
        }
    }
    json!({"status": "error", "message": message, "messege": message})
}

/// Begins to bring a model of the catalogue into memory: `load_model`, `load_model_v2` and `load_vae`. An address that comes
/// with it is not read; which files a server uses is for its operator to say.
pub(super) async fn load_model(app: &AppState, roles: &[ModelRole], name: &str) -> Result<(), ServiceError> {
    let name = ModelId::new(name);
    let mut refused = None;
    for role in roles {
        match app.service.begin_to_load(*role, &name).await {
            // The first role is what is most likely meant.
            Err(error @ ServiceError::ModelNotFound { .. }) => refused = refused.or(Some(error)),
            other => return other,
        }
    }
    refused.map_or(Ok(()), Err)
}

/// Throws a checkpoint out of memory unless the catalogue pins it. Its files, its entry in the catalogue and what is on its way
/// stay.
pub(super) async fn delete_model(app: &AppState, name: &str) -> Result<Value, ServiceError> {
    let freed = app.service.unload_unpinned(&ModelId::new(name)).await?;
    let message = match freed {
        Some(_) => "Model deleted on server",
        None => "Model stays on server: its models.toml pins it",
    };
    Ok(json!({"status": "success", "message": message}))
}

/// `01/25/2023 11:52:22`, in UTC.
fn vendor_date(time: SystemTime) -> String {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of year 0, in eras of 400 years (Hinnant, "chrono-compatible low-level date algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    format!("{month:02}/{day:02}/{year} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_written_as_the_vendor_does() {
        let at = |seconds| vendor_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(1_674_647_542), "01/25/2023 11:52:22");
        assert_eq!(at(0), "01/01/1970 00:00:00");
        assert_eq!(at(951_782_399), "02/28/2000 23:59:59");
        assert_eq!(at(951_782_400), "02/29/2000 00:00:00");
        assert_eq!(at(4_102_444_799), "12/31/2099 23:59:59");
    }
}
