//! Words that are added to a request's prompts where its caller wants that, as many as fit.
//!
//! Invariant: an enhanced prompt begins with the caller's own words, byte for byte; what an enhancer says is only ever put behind
//! them, and never makes a prompt longer than the chunks that the caller's words have begun.

use std::sync::Arc;

use pentimento_engine::{PromptEmbedding, ResolvedModels, TokenCounter, written_in};
use pentimento_types::{Recipe, describe_chain};

use crate::ServiceError;
use crate::inner::Inner;
use crate::off_thread::off_thread;
use crate::prompt_enhancer::{PromptEnhancer, PromptWords};
use crate::style_expansion::StyleExpansion;

impl Inner {
    /// The catalogue's language model where the operator names one, else the list that is always there.
    async fn enhancer(&self) -> Result<Arc<dyn PromptEnhancer>, ServiceError> {
        match &self.config.prompt_enhancer {
            Some(name) => Ok(Arc::new(self.language_enhancer(name).await?)),
            None => Ok(Arc::new(StyleExpansion)),
        }
    }

    /// Adds to the prompts of a recipe what the enhancer says and what fits. The models are those of the caller's own words, which
    /// have been found short enough, and they stay: a phrase that would call a textual inversion is left out.
    pub(crate) async fn enhance(
        &self,
        recipe: &mut Recipe,
        models: &ResolvedModels,
    ) -> Result<(), ServiceError> {
        let fitting = Fitting {
            counter: self.tokens.clone(),
            embeddings: models.embeddings.clone(),
            limit: self.config.max_prompt_tokens,
            reads_negative: self.reads_negative(recipe, models).await?,
        };
        let enhancer = self.enhancer().await?;
        let turn = Arc::clone(&self.enhancing).acquire_owned().await;
        let turn = turn.map_err(ServiceError::internal)?;
        let (catalog, checkpoint) = (Arc::clone(&self.catalog), Arc::clone(&models.checkpoint));
        let mut enhanced = recipe.clone();
        let enhanced = off_thread(move || {
            // It goes along, because this runs on when the caller hangs up.
            let _turn = turn;
            let calls_none =
                |phrase: &str| written_in(catalog.entries(), &checkpoint, [phrase, ""]).is_empty();
            (enhanced.prompt, enhanced.negative_prompt) =
                fitting.enhanced(enhancer.as_ref(), &enhanced, &calls_none)?;
            Ok(enhanced)
        })
        .await?;
        // The tokens of some embeddings stand in files only. One that an added word calls would be there after a restart.
        let names = |models: &ResolvedModels| -> Vec<String> {
            models
                .embeddings
                .iter()
                .map(|embedding| embedding.name().to_owned())
                .collect()
        };
        match self.resolve_models(&enhanced).await {
            Ok((again, _)) if names(&again) == names(models) => *recipe = enhanced,
            Ok(_) => tracing::debug!("no words are added, because they would call an embedding"),
            // No addition is a reason to refuse.
            Err(error) => tracing::info!(error = describe_chain(&error), "no words are added"),
        }
        Ok(())
    }

    /// Whether the negative prompt has a row of its own. Distilled checkpoints take the scale as an input instead.
    async fn reads_negative(&self, recipe: &Recipe, models: &ResolvedModels) -> Result<bool, ServiceError> {
        if !recipe.is_guided() {
            return Ok(false);
        }
        let facts = self.facts_of(&models.checkpoint).await?;
        Ok(facts.is_none_or(|facts| !facts.is_distilled))
    }
}

/// How much fits.
#[derive(Debug)]
struct Fitting {
    counter: TokenCounter,
    /// Those of the caller's words.
    embeddings: Vec<PromptEmbedding>,
    /// Tokens of one prompt.
    limit: usize,
    /// Whether anybody reads the negative prompt.
    reads_negative: bool,
}

impl Fitting {
    /// Both prompts with what is added to them.
    fn enhanced(
        &self,
        enhancer: &dyn PromptEnhancer,
        recipe: &Recipe,
        may_be_added: &dyn Fn(&str) -> bool,
    ) -> Result<(String, Option<String>), ServiceError> {
        let words = PromptWords {
            prompt: &recipe.prompt,
            negative_prompt: recipe.negative_text(),
        };
        let chunks = |field, text| self.chunks(field, text).unwrap_or_default();
        // Both prompts take as many chunks as the longer one has, so up to there an addition costs nothing.
        let of_negative = match self.reads_negative {
            true => chunks("negative_prompt", words.negative_prompt),
            false => 0,
        };
        let of_prompt = chunks("prompt", words.prompt);
        let begun = of_prompt.max(of_negative);
        if of_prompt == 0 || self.reads_negative && of_negative == 0 {
            return Ok((recipe.prompt.clone(), recipe.negative_prompt.clone()));
        }
        let mut additions = enhancer.additions(words)?;
        for phrases in [&mut additions.prompt, &mut additions.negative_prompt] {
            phrases.retain(|phrase| may_be_added(phrase));
        }
        let prompt = self.extended(("prompt", words.prompt), &additions.prompt, begun);
        // Without guidance nobody reads it, and the reply would tell of words that had no effect.
        let negative = if self.reads_negative {
            self.extended(
                ("negative_prompt", words.negative_prompt),
                &additions.negative_prompt,
                begun,
            )
        } else {
            None
        };
        Ok((
            prompt.unwrap_or_else(|| recipe.prompt.clone()),
            negative.or_else(|| recipe.negative_prompt.clone()),
        ))
    }

    /// The text with as many of the phrases as fit; None where none does.
    fn extended(
        &self,
        (field, text): (&'static str, &str),
        phrases: &[String],
        begun: usize,
    ) -> Option<String> {
        let with = |count: usize| joined(text, &phrases[..count]);
        let counts: Vec<usize> = (1..=phrases.len()).collect();
        // A long prompt is cut into tokens a few times only.
        let fitting = counts.partition_point(|count| self.fits(field, &with(*count), begun));
        (fitting > 0).then(|| with(fitting))
    }

    fn fits(&self, field: &'static str, text: &str, begun: usize) -> bool {
        let within = self
            .counter
            .check(field, text, &self.embeddings, self.limit)
            .is_ok();
        within && self.chunks(field, text).is_some_and(|chunks| chunks <= begun)
    }

    /// None where it cannot be counted: added brackets may make a weight of the caller's too heavy.
    fn chunks(&self, field: &'static str, text: &str) -> Option<usize> {
        let counted = self.counter.chunks(field, text, &self.embeddings);
        counted
            .map_err(|error| tracing::debug!(error = describe_chain(&error), "no words are added"))
            .ok()
    }
}

/// The phrases behind the text, with commas between them.
fn joined(text: &str, phrases: &[String]) -> String {
    let mut all = text.to_owned();
    for phrase in phrases {
        let said = all.trim_end();
        if said.ends_with(',') {
            all.push(' ');
        } else if !said.is_empty() {
            all.push_str(", ");
        }
        all.push_str(phrase);
    }
    all
}

#[cfg(test)]
mod tests {
    use pentimento_types::ModelId;

    use super::*;
    use crate::prompt_enhancer::Additions;

    /// As many phrases as it is told.
    #[derive(Debug)]
    struct Many(usize, &'static str);

    impl PromptEnhancer for Many {
        fn additions(&self, _: PromptWords<'_>) -> Result<Additions, ServiceError> {
            Ok(Additions {
                prompt: vec![self.1.to_owned(); self.0],
                negative_prompt: vec![self.1.to_owned(); self.0],
            })
        }
    }

    fn enhanced(limit: usize, enhancer: &Many, recipe: &Recipe) -> (String, Option<String>) {
        let fitting = Fitting {
            counter: TokenCounter::default(),
            embeddings: Vec::new(),
            limit,
            reads_negative: recipe.is_guided(),
        };
        fitting
            .enhanced(enhancer, recipe, &|phrase| phrase != "called")
            .unwrap()
    }

    fn recipe(prompt: &str, negative: Option<&str>) -> Recipe {
        Recipe {
            prompt: prompt.to_owned(),
            negative_prompt: negative.map(str::to_owned),
            guidance_scale: 7.5,
            ..Recipe::of_model(ModelId::new("demo"))
        }
    }

    fn tokens(text: &str) -> usize {
        TokenCounter::default().count("prompt", text, &[]).unwrap()
    }

    #[test]
    fn the_callers_words_stay_and_no_chunk_is_begun_for_others() {
        let words = |count: usize| "a house ".repeat(count / 2);
        for (prompt, negative) in [
            ("a red house".to_owned(), None),
            (words(70), Some("blurry".to_owned())),
            (words(74), None),
            ("x".to_owned(), Some(words(140))),
            ("a house,".to_owned(), Some(String::new())),
            ("a (house BREAK".to_owned(), Some("  ".to_owned())),
        ] {
            let asked = recipe(&prompt, negative.as_deref());
            let (enhanced, of_negative) = enhanced(2400, &Many(100, "sharp focus"), &asked);
            let of_negative = of_negative.unwrap();
            assert!(enhanced.starts_with(&prompt), "{enhanced}");
            assert!(
                of_negative.starts_with(negative.as_deref().unwrap_or_default()),
                "{of_negative}"
            );
            let begun =
                |prompt: &str, negative: &str| tokens(prompt).max(tokens(negative)).max(1).div_ceil(75);
            assert_eq!(
                begun(&enhanced, &of_negative),
                begun(&prompt, negative.as_deref().unwrap_or_default()),
                "{enhanced} / {of_negative}"
            );
            // Full but for less than one phrase.
            assert!(
                tokens(&enhanced) % 75 >= 72 || tokens(&enhanced) % 75 == 0,
                "{enhanced}"
            );
        }
    }

    #[test]
    fn what_is_read_by_nobody_or_does_not_fit_is_not_added() {
        let unguided = Recipe {
            guidance_scale: 1.0,
            ..recipe("a house", None)
        };
        let (prompt, negative) = enhanced(2400, &Many(1, "8K"), &unguided);
        assert_eq!((prompt.as_str(), negative), ("a house, 8K", None));
        // What would call an embedding.
        let asked = recipe("a house", None);
        assert_eq!(
            enhanced(2400, &Many(2, "called"), &asked),
            (asked.prompt.clone(), None)
        );
        // A long negative prompt that nobody reads is no reason for more chunks.
        let long = "a ".repeat(140);
        let unread = Recipe {
            guidance_scale: 1.0,
            ..recipe("a house", Some(&long))
        };
        let (prompt, negative) = enhanced(2400, &Many(100, "sharp focus"), &unread);
        assert!(tokens(&prompt) <= 75, "{prompt}");
        assert_eq!(negative, Some(long));
        // The limit of the server holds for all words together.
        let (prompt, negative) = enhanced(4, &Many(9, "8K"), &recipe("a house", Some("x")));
        assert_eq!((prompt.as_str(), negative.as_deref()), ("a house", Some("x, 8K")));
        // Brackets that would make the caller's own too heavy.
        let heavy = format!("{}a", "(".repeat(72));
        let (prompt, _) = enhanced(2400, &Many(3, "(((sharp)))"), &recipe(&heavy, None));
        assert_eq!(prompt, heavy);
        let none = recipe("a house", Some(""));
        assert_eq!(
            enhanced(2400, &Many(0, ""), &none),
            (none.prompt.clone(), none.negative_prompt.clone())
        );
    }

    #[test]
    fn phrases_have_one_comma_between_them() {
        let phrases = ["b".to_owned(), "c".to_owned()];
        for (text, expected) in [
            ("a", "a, b, c"),
            ("a,", "a, b, c"),
            ("a, ", "a,  b, c"),
            ("", "b, c"),
            ("a \n", "a \n, b, c"),
        ] {
            assert_eq!(joined(text, &phrases), expected, "{text:?}");
        }
    }
}
