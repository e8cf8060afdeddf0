//! Options: those of one call, and those that a caller's key remembers. Nobody else's calls see them, and a restart forgets them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pentimento_service::{Catalog, CatalogError, ModelEntry, ModelKind};
use pentimento_types::{ApiKeyId, ImageFormat, ModelId};
use serde_json::{Value, json};

use super::fields::{
    CLIP_STOP_AT_LAST_LAYERS, IMG2IMG_FIX_STEPS, OPTIONS, SAMPLES_FORMAT, SD_MODEL_CHECKPOINT, SD_VAE,
};
use super::model_names::{title, without_hash};
use super::reader::{name_if_given, refuse_others, whole_if_given};
use crate::dialects::field::names;
use crate::dialects::json::{Fields, Json};
use crate::dialects::lenient::{FieldError, name, object, shorten};

/// Callers whose options are remembered; one more takes the place of one of them.
const MOST_CALLERS: usize = 4096;

/// What a caller has chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// A name of the catalogue.
    pub(super) checkpoint: Option<String>,
    /// The inner None is the checkpoint's own.
    pub(super) vae: Option<Option<String>>,
    pub(super) clip_skip: Option<u32>,
    pub(super) format: Option<ImageFormat>,
}

impl Options {
    /// These, and where they say nothing, the others.
    pub(super) fn over(self, others: &Self) -> Self {
        Self {
            checkpoint: self.checkpoint.or_else(|| others.checkpoint.clone()),
            vae: self.vae.or_else(|| others.vae.clone()),
            clip_skip: self.clip_skip.or(others.clip_skip),
            format: self.format.or(others.format),
        }
    }

    /// Reads `override_settings`, or a body that has the same members: `place` is `override_settings.` or empty. The names of
    /// members that are not known come along.
    pub(super) fn read((place, fields): (&str, &mut Fields), catalog: &Catalog) -> Result<Self, FieldError> {
        let in_place = |mut error: FieldError| {
            if !error.field.starts_with(place) {
                error.field = format!("{place}{}", error.field);
                error.message = format!("{place}{}", error.message);
            }
            error
        };
        let checkpoint = name_if_given(&SD_MODEL_CHECKPOINT, (place, fields))?;
        let checkpoint = checkpoint.map(|given| {
            let found = known(catalog, ModelKind::Checkpoint, without_hash(&given));
            found.map_err(|error| not_found(place, SD_MODEL_CHECKPOINT.name, error))
        });
        let vae = name_if_given(&SD_VAE, (place, fields))?;
        let vae = vae.map(|given| {
            let is_own = ["automatic", "none"]
                .iter()
                .any(|own| given.eq_ignore_ascii_case(own));
            if is_own {
                return Ok(None);
            }
            let found = known(catalog, ModelKind::Vae, &given);
            found
                .map(Some)
                .map_err(|error| not_found(place, SD_VAE.name, error))
        });
        let format_place = format!("{place}{}", SAMPLES_FORMAT.name);
        let format = name(&format_place, fields.take(SAMPLES_FORMAT.name))?;
        let format = format.map(|word| {
            let words = SAMPLES_FORMAT.kind.words.join(", ");
            let wrong = || {
                let found = shorten(&word);
                FieldError::value(
                    &format_place,
                    format_args!("must be one of {words}, got {found:?}"),
                )
            };
            ImageFormat::parse(&word).ok_or_else(wrong)
        });
        refuse_others(&[&IMG2IMG_FIX_STEPS], fields).map_err(in_place)?;
        Ok(Self {
            checkpoint: checkpoint.transpose()?,
            vae: vae.transpose()?,
            clip_skip: whole_if_given(&CLIP_STOP_AT_LAST_LAYERS, fields).map_err(in_place)?,
            format: format.transpose()?,
        })
    }

    /// The options of a call in an object, with the names of those that are not known.
    pub(super) fn read_member(
        (field, value): (&str, Json),
        catalog: &Catalog,
    ) -> Result<(Self, Vec<String>), FieldError> {
        let Some(members) = object(field, value)? else {
            return Ok((Self::default(), Vec::new()));
        };
        let mut fields = Fields::from_object(members, &names(&[OPTIONS]));
        let place = format!("{field}.");
        let options = Self::read((&place, &mut fields), catalog)?;
        let ignored = fields.into_ignored();
        Ok((
            options,
            ignored.into_iter().map(|name| format!("{place}{name}")).collect(),
        ))
    }

    /// As `GET /sdapi/v1/options` shows them.
    pub(super) fn described(&self, catalog: &Catalog) -> Value {
        let entry = checkpoint(catalog, self.checkpoint.as_deref());
        let vae = self.vae.clone().flatten();
        json!({
            SD_MODEL_CHECKPOINT.name: entry.as_ref().map(|entry| title(entry)),
            "sd_checkpoint_hash": entry.as_ref().and_then(|entry| entry.sha256.clone()),
            SD_VAE.name: vae.unwrap_or_else(|| "Automatic".to_owned()),
            CLIP_STOP_AT_LAST_LAYERS.name: self.clip_skip.unwrap_or(1),
            SAMPLES_FORMAT.name: self.format.unwrap_or_default().as_str(),
            IMG2IMG_FIX_STEPS.name: false,
            "randn_source": "CPU",
            "eta_noise_seed_delta": 0,
        })
    }
}

/// Of all callers. One lives as long as the process.
#[derive(Debug, Default)]
pub(crate) struct AllOptions(Mutex<HashMap<ApiKeyId, Options>>);

impl AllOptions {
    pub(super) fn of(&self, owner: &ApiKeyId) -> Options {
        self.lock().get(owner).cloned().unwrap_or_default()
    }

    /// Remembers what is said, over what was said before.
    pub(super) fn set(&self, owner: &ApiKeyId, options: Options) {
        let mut all = self.lock();
        let before = all.get(owner).cloned().unwrap_or_default();
        if all.len() >= MOST_CALLERS && !all.contains_key(owner) {
            let other = all.keys().next().cloned();
            other.and_then(|other| all.remove(&other));
        }
        all.insert(owner.clone(), options.over(&before));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ApiKeyId, Options>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one that is named, or the first.
pub(super) fn checkpoint(catalog: &Catalog, name: Option<&str>) -> Option<std::sync::Arc<ModelEntry>> {
    let named = name.and_then(|name| catalog.resolve(&ModelId::new(name), ModelKind::Checkpoint).ok());
    let first = || {
        let mut all = catalog.entries().iter();
        all.find(|entry| entry.kind == ModelKind::Checkpoint).cloned()
    };
    named.or_else(first)
}

fn known(catalog: &Catalog, kind: ModelKind, name: &str) -> Result<String, CatalogError> {
    let entry = catalog.resolve(&ModelId::new(name), kind)?;
    Ok(entry.name.clone())
}

fn not_found(place: &str, field: &str, error: CatalogError) -> FieldError {
    FieldError::value(
        &format!("{place}{field}"),
        format_args!("cannot be that: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_its_own_options_and_they_add_up() {
        let all = AllOptions::default();
        let (one, other) = (ApiKeyId::new("one"), ApiKeyId::new("other"));
        all.set(
            &one,
            Options {
                clip_skip: Some(2),
                ..Options::default()
            },
        );
        all.set(
            &one,
            Options {
                vae: Some(None),
                ..Options::default()
            },
        );
        let found = all.of(&one);
        assert_eq!((found.clip_skip, found.vae), (Some(2), Some(None)));
        assert_eq!(all.of(&other), Options::default());
        for caller in 0..2 * MOST_CALLERS {
            all.set(&ApiKeyId::new(format!("{caller}")), Options::default());
        }
        assert!(all.lock().len() <= MOST_CALLERS);
    }
}
