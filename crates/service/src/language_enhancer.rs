//! The enhancer that goes on with a prompt as a small language model of the catalogue would, in words of a list only.
//!
//! Its files are fetched, and it is kept in memory, as those of checkpoints. The same words always go on in the same way.

use std::sync::Arc;

use pentimento_engine::{EngineError, WordModel};
use pentimento_types::{ModelId, describe_chain};

use crate::inner::Inner;
use crate::named_models::find;
use crate::off_thread::off_thread;
use crate::prompt_enhancer::{Additions, PromptEnhancer, PromptWords};
use crate::style_expansion::StyleExpansion;
use crate::{ModelRole, ServiceError};

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
        let role = ModelRole::PromptEnhancer;
        let entry = find(&self.catalog, role, name)?;
        let mut located = self.usable(vec![(role, entry)]).await?;
        let Some(entry) = located.pop() else {
            return Err(ServiceError::internal("an entry has got lost"));
        };
        // One at a time: whoever comes next finds it in memory.
        let turns = self.plan_turns.get_or_make(entry.name.clone(), 1);
        let turn = turns.acquire_owned().await.map_err(ServiceError::internal)?;
        let engine = self.engine.clone();
        off_thread(move || {
            let _turn = turn;
            let model = engine.word_model(&entry, WORDS);
            model
                .map(LanguageEnhancer)
                .map_err(|error| unavailable(entry.name.clone(), &error))
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
        role: ModelRole::PromptEnhancer,
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
