//! `GET /v2/models`: the older list, which the JS client 1.1.0 (`getModels`) and Python 0.5.7 (`models`) call.

use std::sync::Arc;

use pentimento_service::{ModelEntry, ModelKind, ModelState};
use serde::Serialize;

use super::models::shown_name;

/// The old envelope: `code` 0 is success.
#[derive(Debug, Serialize)]
pub(super) struct OldModelPage {
    code: u8,
    msg: &'static str,
    data: OldModels,
}

#[derive(Debug, Serialize)]
struct OldModels {
    models: Vec<OldModelItem>,
}

#[derive(Debug, Serialize)]
struct OldModelItem {
    name: String,
    hash: String,
    civitai_version_id: u8,
    sd_name: String,
    third_source: &'static str,
    download_status: u8,
    download_name: String,
    dependency_status: u8,
    r#type: &'static str,
    civitai_nsfw: bool,
}

impl OldModelPage {
    /// All models, or those of `kind` (the query's `type`), with whether their files are there.
    pub(super) fn of(entries: &[(Arc<ModelEntry>, ModelState)], kind: Option<&str>) -> Self {
        let wanted = |item: &OldModelItem| kind.is_none_or(|kind| kind.eq_ignore_ascii_case(item.r#type));
        let models = entries
            .iter()
            .filter_map(|(entry, state)| OldModelItem::of(entry, state))
            .filter(wanted);
        Self {
            code: 0,
            msg: "",
            data: OldModels {
                models: models.collect(),
            },
        }
    }
}

impl OldModelItem {
    fn of(entry: &ModelEntry, state: &ModelState) -> Option<Self> {
        let r#type = match entry.kind {
            ModelKind::Checkpoint => "checkpoint",
            ModelKind::Vae => "vae",
            ModelKind::Lora => "lora",
            ModelKind::Embedding => "textualinversion",
            ModelKind::IpAdapter
            | ModelKind::ImageEncoder
            | ModelKind::SafetyChecker
            | ModelKind::PromptEnhancer
            | ModelKind::Upscaler => return None,
        };
        let name = shown_name(entry).to_owned();
        Some(Self {
            hash: entry.sha256.clone().unwrap_or_default(),
            civitai_version_id: 0,
            sd_name: name.clone(),
            third_source: "",
            download_status: u8::from(state.is_available()),
            download_name: name.clone(),
            dependency_status: 1,
            civitai_nsfw: false,
            name,
            r#type,
        })
    }
}
