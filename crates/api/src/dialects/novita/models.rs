//! `GET /v3/model` and `/v3/models`: what the catalogue offers, filtered and in pages.

use std::sync::Arc;

use pentimento_service::{BaseModel, ModelEntry, ModelKind, ModelState};
use serde::Serialize;

use super::fields::OWN_SOURCE;
use super::query::ModelQuery;

/// One page.
#[derive(Debug, Serialize)]
pub(super) struct ModelPage {
    models: Vec<ModelItem>,
    pagination: Pagination,
}

/// An object always; Python raises on null.
#[derive(Debug, Serialize)]
struct Pagination {
    /// Empty on the last page.
    next_cursor: String,
}

#[derive(Debug, Serialize)]
struct TypeItem {
    name: &'static str,
    display_name: &'static str,
}

/// One model, with every key that Python demands (`id`, `name`, `sd_name`, `type`, `status`).
#[derive(Debug, Serialize)]
struct ModelItem {
    id: u32,
    name: String,
    hash_sha256: String,
    sd_name: String,
    r#type: TypeItem,
    categories: [String; 0],
    /// The number 1 when a request may name it, else 0; Python knows no other value.
    status: u8,
    download_url: &'static str,
    tags: [String; 0],
    cover_url: &'static str,
    source: &'static str,
    base_model: &'static str,
    base_model_type: &'static str,
    download_url_ttl: u32,
    /// What `model_name` takes.
    sd_name_in_api: String,
    is_sdxl: bool,
}

impl ModelPage {
    /// The page that `query` asks for. `c_<offset>` is the cursor, because Python computes it so by itself.
    pub(super) fn of(models: &[(Arc<ModelEntry>, ModelState)], query: &ModelQuery) -> Self {
        let found: Vec<_> = models.iter().filter(|(entry, _)| wanted(entry, query)).collect();
        let page = found.iter().skip(query.offset).take(query.limit);
        let end = query.offset.saturating_add(query.limit);
        Self {
            models: page
                .filter_map(|(entry, now)| ModelItem::of(entry, now))
                .collect(),
            pagination: Pagination {
                next_cursor: if end < found.len() {
                    format!("c_{end}")
                } else {
                    String::new()
                },
            },
        }
    }
}

impl ModelItem {
    fn of(entry: &ModelEntry, now: &ModelState) -> Option<Self> {
        let name = shown_name(entry);
        Some(Self {
            id: stable_id(&entry.name),
            name: name.to_owned(),
            hash_sha256: entry.sha256.clone().unwrap_or_default(),
            sd_name: name.to_owned(),
            r#type: type_of(entry.kind)?,
            categories: [],
            status: u8::from(can_be_named(now)),
            download_url: "",
            tags: [],
            cover_url: "",
            source: OWN_SOURCE,
            base_model: match entry.base {
                Some(BaseModel::Sd15) => "SD 1.5",
                Some(BaseModel::Sd2) => "SD 2.1",
                Some(BaseModel::Sdxl) => "SDXL 1.0",
                None => "",
            },
            base_model_type: "Standard",
            download_url_ttl: 0,
            sd_name_in_api: name.to_owned(),
            is_sdxl: is_sdxl(entry),
        })
    }
}

/// Naming it is what has its files fetched, so a client has to see it.
const fn can_be_named(now: &ModelState) -> bool {
    !matches!(now, ModelState::Failed(_))
}

/// The vendor's word for a kind; None for kinds that its list does not have.
fn type_of(kind: ModelKind) -> Option<TypeItem> {
    let (name, display_name) = match kind {
        ModelKind::Checkpoint => ("checkpoint", "Checkpoint"),
        ModelKind::Vae => ("vae", "VAE"),
        ModelKind::Lora => ("lora", "LoRA"),
        ModelKind::Embedding => ("textualinversion", "Textual Inversion"),
        ModelKind::IpAdapter
        | ModelKind::ImageEncoder
        | ModelKind::SafetyChecker
        | ModelKind::PromptEnhancer
        | ModelKind::Upscaler => return None,
    };
    Some(TypeItem { name, display_name })
}

/// LoRAs and embeddings are named without their ending, checkpoints and VAEs with it.
pub(super) fn shown_name(entry: &ModelEntry) -> &str {
    let without = || {
        let endings = [".safetensors", ".ckpt", ".pt"];
        endings.iter().find_map(|ending| entry.name.strip_suffix(ending))
    };
    match entry.kind {
        ModelKind::Lora | ModelKind::Embedding => without().unwrap_or(&entry.name),
        ModelKind::Checkpoint
        | ModelKind::Vae
        | ModelKind::IpAdapter
        | ModelKind::ImageEncoder
        | ModelKind::SafetyChecker
        | ModelKind::PromptEnhancer
        | ModelKind::Upscaler => &entry.name,
    }
}

fn is_sdxl(entry: &ModelEntry) -> bool {
    entry.base == Some(BaseModel::Sdxl)
}

fn wanted(entry: &ModelEntry, query: &ModelQuery) -> bool {
    let Some(kind) = type_of(entry.kind) else {
        return false;
    };
    let of_type = query.types.is_empty() || query.types.iter().any(|wanted| wanted == kind.name);
    // All models are public: Python lists public and private one after the other and would show each twice.
    let visible = query.visibility.as_deref() != Some("private");
    let names = || std::iter::once(&entry.name).chain(&entry.aliases);
    let text = |text: &String| names().any(|name| name.to_lowercase().contains(text));
    let from = query.sources.is_empty() || query.sources.iter().any(|wanted| wanted == OWN_SOURCE);
    of_type
        && visible
        && from
        && query.text.as_ref().is_none_or(text)
        && query.is_sdxl.is_none_or(|wanted| wanted == is_sdxl(entry))
        // Nothing in the catalogue is marked as an inpainting model or as unsafe.
        && query.is_inpainting != Some(true)
        && query.is_nsfw != Some(true)
}

/// A number that stays with the name (FNV-1a, 31 bits, never 0): clients keep these ids.
fn stable_id(name: &str) -> u32 {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (hash & 0x7fff_ffff).max(1)
}

#[cfg(test)]
mod tests {
    use pentimento_service::Source;
    use serde_json::{Value, json};

    use super::*;

    fn entry(name: &str, kind: ModelKind, base: Option<BaseModel>) -> Arc<ModelEntry> {
        Arc::new(ModelEntry {
            aliases: vec![format!("{name}-alias")],
            base,
            ..ModelEntry::new(name, kind, Source::Embedded("demo".to_owned()))
        })
    }

    fn entries() -> Vec<Arc<ModelEntry>> {
        vec![
            entry(
                "dreamshaper_8_93211.safetensors",
                ModelKind::Checkpoint,
                Some(BaseModel::Sd15),
            ),
            entry(
                "sd_xl_base_1.0.safetensors",
                ModelKind::Checkpoint,
                Some(BaseModel::Sdxl),
            ),
            entry("vae-ft-mse.safetensors", ModelKind::Vae, None),
            entry(
                "more_details_59655.safetensors",
                ModelKind::Lora,
                Some(BaseModel::Sd15),
            ),
            entry("AS-YoungV2.pt", ModelKind::Embedding, None),
            entry("checker", ModelKind::SafetyChecker, None),
        ]
    }

    fn page(query: &str) -> Value {
        let query = ModelQuery::parse(query).unwrap();
        let models = entries().into_iter().map(|entry| (entry, ModelState::Available));
        serde_json::to_value(ModelPage::of(&models.collect::<Vec<_>>(), &query)).unwrap()
    }

    fn names(query: &str) -> Vec<String> {
        let page = page(query);
        let models = page["models"].as_array().unwrap();
        models
            .iter()
            .map(|model| model["sd_name_in_api"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn every_filter_filters() {
        assert_eq!(names("").len(), 5);
        assert_eq!(names("filter.types=lora"), ["more_details_59655"]);
        assert_eq!(
            names("type=textualinversion&type=vae"),
            ["vae-ft-mse.safetensors", "AS-YoungV2"]
        );
        assert_eq!(names("filter.types=controlnet"), [""; 0]);
        assert_eq!(
            names("filter.type=checkpoint&filter.is_sdxl=True"),
            ["sd_xl_base_1.0.safetensors"]
        );
        assert_eq!(names("filter.query=DREAM"), ["dreamshaper_8_93211.safetensors"]);
        assert_eq!(names("filter.query=youngv2.pt-alias"), ["AS-YoungV2"]);
        assert_eq!(names("filter.visibility=private"), [""; 0]);
        assert_eq!(names("filter.source=uploading").len(), 5);
        assert_eq!(names("filter.source=civitai"), [""; 0]);
        assert_eq!(names("filter%5Bsource%5D=training,Uploading").len(), 5);
        assert_eq!(names("filter.source=").len(), 5);
        assert_eq!(names("filter.is_inpainting=False").len(), 5);
        assert_eq!(names("filter.is_inpainting=true").len(), 0);
    }

    #[test]
    fn pages_end() {
        let first = page("pagination.limit=2");
        assert_eq!(first["pagination"]["next_cursor"], "c_2");
        assert_eq!(
            page("pagination.limit=2&pagination.cursor=c_c_4")["pagination"],
            json!({"next_cursor": ""})
        );
        assert_eq!(page("pagination.limit=5")["pagination"]["next_cursor"], "");
        assert_eq!(page("pagination.cursor=c_100")["models"], json!([]));
    }

    #[test]
    fn an_item_has_what_python_demands() {
        let model = page("filter.query=dream")["models"][0].clone();
        assert_eq!(model["status"], 1);
        assert_eq!(
            model["type"],
            json!({"name": "checkpoint", "display_name": "Checkpoint"})
        );
        assert_eq!(model["base_model"], "SD 1.5");
        assert!(model["id"].as_u64().unwrap() > 0);
        assert_eq!(stable_id("demo"), stable_id("demo"));
        assert_ne!(stable_id("demo"), stable_id("demp"));
    }
}
