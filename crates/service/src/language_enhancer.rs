//! The enhancer that goes on with a prompt as a small language model of the catalogue would, in words of a list only.
//!
//! Its files are fetched as those of checkpoints are, and it stays in memory once it is there. The same words always go on in the same way.

use std::sync::Arc;
use std::time::Duration;

use pentimento_catalog::{ModelEntry, Unavailable};
use pentimento_engine::{EngineError, WordModel};
use pentimento_types::{ErrorKind, HasKind as _, ModelId, describe_chain};

use crate::inner::Inner;
use crate::looks::PATIENCE;
use crate::named_models::find;
use crate::off_thread::off_thread;
use crate::prompt_enhancer::{Additions, PromptEnhancer, PromptWords};
use crate::style_expansion::StyleExpansion;
use crate::{ModelRole, ServiceError};

const ROLE: ModelRole = ModelRole::PromptEnhancer;
/// Between two looks whether there is room.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Words and commas that it adds.
const MOST: usize = 24;
/// What may be said: how a picture is made, and nothing of what it shows. Words of more than one token of the model's vocabulary are
/// never said.
const WORDS: &[&str] = &[
    "accurate",
    "airy",
    "ambient",
    "antique",
    "artistic",
    "atmosphere",
    "atmospheric",
    "award",
    "balanced",
    "beautiful",
    "best",
    "bold",
    "bright",
    "brilliant",
    "calm",
    "centered",
    "charming",
    "cinematic",
    "classic",
    "clean",
    "clear",
    "cold",
    "color",
    "colorful",
    "colors",
    "complex",
    "composed",
    "composition",
    "contrast",
    "cool",
    "creative",
    "crisp",
    "dark",
    "decorated",
    "deep",
    "definition",
    "delicate",
    "depth",
    "design",
    "detail",
    "detailed",
    "details",
    "diffuse",
    "dramatic",
    "dreamy",
    "dynamic",
    "elaborate",
    "elegant",
    "enhanced",
    "epic",
    "expressive",
    "exquisite",
    "extremely",
    "fantastic",
    "fine",
    "focus",
    "full",
    "glorious",
    "glossy",
    "glow",
    "glowing",
    "golden",
    "gorgeous",
    "graceful",
    "grand",
    "great",
    "harmonious",
    "high",
    "highly",
    "hour",
    "imposing",
    "impressive",
    "inspired",
    "intense",
    "intricate",
    "layered",
    "light",
    "lighting",
    "lively",
    "lovely",
    "luminous",
    "lush",
    "luxury",
    "magical",
    "magnificent",
    "majestic",
    "marvelous",
    "mood",
    "moody",
    "mystical",
    "natural",
    "noble",
    "ornate",
    "painted",
    "perfect",
    "photo",
    "polished",
    "precise",
    "pristine",
    "professional",
    "pure",
    "quality",
    "quiet",
    "radiant",
    "rare",
    "real",
    "realistic",
    "refined",
    "render",
    "resolution",
    "rich",
    "romantic",
    "scenic",
    "serene",
    "shadows",
    "sharp",
    "shimmering",
    "shining",
    "shiny",
    "silent",
    "smooth",
    "soft",
    "sparkling",
    "spectacular",
    "splendid",
    "still",
    "striking",
    "studio",
    "stunning",
    "style",
    "sublime",
    "subtle",
    "sunny",
    "surreal",
    "symmetrical",
    "symmetry",
    "texture",
    "thoughtful",
    "timeless",
    "tones",
    "tranquil",
    "ultra",
    "unique",
    "vibrant",
    "vintage",
    "vivid",
    "volumetric",
    "warm",
    "wide",
    "winning",
    "wonderful",
];

/// A loaded model.
#[derive(Debug)]
pub(crate) struct LanguageEnhancer(Arc<WordModel>);

impl PromptEnhancer for LanguageEnhancer {
    /// The model knows nothing of negative prompts: those get what they always get.
    fn additions(&self, words: PromptWords<'_>) -> Result<Additions, ServiceError> {
        let prompt = self
            .0
            .phrases(words.prompt, MOST)
            .map_err(ServiceError::internal)?;
        Ok(Additions {
            prompt,
            ..StyleExpansion.additions(words)?
        })
    }
}

impl Inner {
    /// The model of this name, fetched and read where it is not here yet.
    pub(crate) async fn language_enhancer(&self, name: &ModelId) -> Result<LanguageEnhancer, ServiceError> {
        let entry = find(&self.catalog, ROLE, name)?;
        let mut located = self.usable(vec![(ROLE, entry)]).await?;
        let Some(entry) = located.pop() else {
            return Err(ServiceError::internal("an entry has got lost"));
        };
        let until = self.clock.now() + PATIENCE;
        loop {
            let read = tokio::select! {
                read = self.read_enhancer(Arc::clone(&entry)) => read?,
                () = self.clock.sleep_until(until) => {
                    let path = entry.source.to_string().into();
                    let reason = Unavailable::NotAnswering { path }.to_string();
                    return Err(ServiceError::ModelUnavailable { role: ROLE, name: entry.name.clone(), reason });
                }
            };
            match read {
                Ok(model) => return Ok(LanguageEnhancer(model)),
                Err(error) if error.kind() != ErrorKind::Overloaded => {
                    return Err(unavailable(entry.name.clone(), &error));
                }
                // Models in use are in its way, and may end at any moment.
                Err(_) if self.clock.now() < until => {
                    self.clock.sleep_until(self.clock.now() + LOOK_AGAIN).await
                }
                Err(_) => return Err(ServiceError::Overloaded),
            }
        }
    }

    /// Brings the model into memory before jobs take the room, where there is one. It stays there.
    pub(crate) async fn load_enhancer(&self) {
        let Some(entry) = self
            .config
            .prompt_enhancer
            .as_ref()
            .and_then(|name| find(&self.catalog, ROLE, name).ok())
        else {
            return;
        };
        let located = tokio::select! {
            located = self.usable_in_the_end(ROLE, &entry) => located,
            () = self.stopped() => return,
        };
        // What is wrong with it is in the log, and is said to whoever needs it.
        if let Ok(entry) = located {
            let _ = self.read_enhancer(entry).await;
        }
    }

    /// One read at a time, on a blocking thread; whoever comes next finds the model in memory. It runs on when nobody waits.
    async fn read_enhancer(
        &self,
        entry: Arc<ModelEntry>,
    ) -> Result<Result<Arc<WordModel>, EngineError>, ServiceError> {
        let turns = self.plan_turns.get_or_make((ROLE, entry.name.clone()), 1);
        let turn = turns.acquire_owned().await.map_err(ServiceError::internal)?;
        let engine = self.engine.clone();
        off_thread(move || {
            let _turn = turn;
            Ok(engine.word_model(&entry, WORDS))
        })
        .await
    }
}

fn unavailable(name: String, error: &EngineError) -> ServiceError {
    tracing::info!(model = %name, error = describe_chain(error), "a prompt enhancer cannot be used");
    let reason = match error {
        EngineError::Executor(cause) => cause.message(),
        other => other.to_string(),
    };
    ServiceError::ModelUnavailable {
        role: ROLE,
        name,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_and_in_small_letters() {
        assert!(WORDS.is_sorted_by(|a, b| a < b));
        let plain = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase());
        assert!(WORDS.iter().all(plain));
    }
}
