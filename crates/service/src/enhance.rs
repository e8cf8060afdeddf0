//! Words that are added to a request's prompts where its caller wants that, as many as fit.
//!
//! Invariant: an enhanced prompt begins with the caller's own words, byte for byte; what an enhancer says is only ever put behind
//! them, and never makes a prompt longer than the chunks that the caller's words have begun.

use std::sync::Arc;

use pentimento_engine::{PromptEmbedding, ResolvedModels, TokenCounter};
use pentimento_types::{JobNote, Recipe, describe_chain};

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
    /// have been found short enough; those that come back are the ones of all words, since an added word may be that of a textual
    /// inversion.
    pub(crate) async fn enhance(
        &self,
        recipe: &mut Recipe,
        (models, notes): (ResolvedModels, Vec<JobNote>),
    ) -> Result<(ResolvedModels, Vec<JobNote>), ServiceError> {
        let fitting = Fitting {
            counter: self.tokens.clone(),
            embeddings: models.embeddings.clone(),
            limit: self.config.max_prompt_tokens,
        };
        let (enhancer, asked) = (self.enhancer().await?, recipe.clone());
        let (prompt, negative_prompt) =
            off_thread(move || fitting.enhanced(enhancer.as_ref(), &asked)).await?;
        if prompt == recipe.prompt && negative_prompt == recipe.negative_prompt {
            return Ok((models, notes));
        }
        recipe.prompt = prompt;
        recipe.negative_prompt = negative_prompt;
        self.resolve_models(recipe).await
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
}

impl Fitting {
    /// Both prompts with what is added to them.
    fn enhanced(
        &self,
        enhancer: &dyn PromptEnhancer,
        recipe: &Recipe,
    ) -> Result<(String, Option<String>), ServiceError> {
        let words = PromptWords {
            prompt: &recipe.prompt,
            negative_prompt: recipe.negative_text(),
        };
        let chunks = |field, text| self.chunks(field, text).unwrap_or_default();
        // Both prompts take as many chunks as the longer one has, so up to there an addition costs nothing.
        let begun = chunks("prompt", words.prompt).max(chunks("negative_prompt", words.negative_prompt));
        if begun == 0 {
            return Ok((recipe.prompt.clone(), recipe.negative_prompt.clone()));
        }
        let additions = enhancer.additions(words)?;
        let prompt = self.extended(("prompt", words.prompt), &additions.prompt, begun);
        // Without guidance nobody reads it, and the reply would tell of words that had no effect.
        let negative = if recipe.is_guided() {
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

    fn fitting(limit: usize) -> Fitting {
        Fitting {
            counter: TokenCounter::default(),
            embeddings: Vec::new(),
            limit,
        }
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
            let (enhanced, of_negative) = fitting(2400).enhanced(&Many(100, "sharp focus"), &asked).unwrap();
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
        let (prompt, negative) = fitting(2400).enhanced(&Many(1, "8K"), &unguided).unwrap();
        assert_eq!((prompt.as_str(), negative), ("a house, 8K", None));
        // The limit of the server holds for all words together.
        let (prompt, negative) = fitting(4)
            .enhanced(&Many(9, "8K"), &recipe("a house", Some("x")))
            .unwrap();
        assert_eq!((prompt.as_str(), negative.as_deref()), ("a house", Some("x, 8K")));
        // Brackets that would make the caller's own too heavy.
        let heavy = format!("{}a", "(".repeat(72));
        let (prompt, _) = fitting(2400)
            .enhanced(&Many(3, "(((sharp)))"), &recipe(&heavy, None))
            .unwrap();
        assert_eq!(prompt, heavy);
        let none = recipe("a house", Some(""));
        assert_eq!(
            fitting(2400).enhanced(&Many(0, ""), &none).unwrap(),
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
