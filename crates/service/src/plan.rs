//! What can be said of a recipe's run before anything is stored: that there is no such run, which scheduler it will be, and
//! what in its prompts will have no effect.

use pentimento_engine::{ResolvedModels, RunPlan};
use pentimento_types::{JobNote, Recipe, Size, describe_chain};

use crate::ServiceError;
use crate::forecast::Expected;
use crate::inner::Inner;
use crate::looks::PATIENCE;
use crate::off_thread::off_thread;

/// How much of the device each image takes, whatever its size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceTime {
    rows: u32,
    evaluations: u32,
}

impl DeviceTime {
    /// At most, about, where the checkpoint could not be asked, which its load will explain.
    fn unplanned(recipe: &Recipe) -> Self {
        Self {
            rows: if recipe.is_guided() { 2 } else { 1 },
            evaluations: recipe.steps,
        }
    }

    /// What the job costs in the queue.
    pub(crate) fn work(self, recipe: &Recipe, size: Size) -> u64 {
        recipe.work(size, self.rows, self.evaluations)
    }

    /// What is forecast for it.
    pub(crate) fn expected(self, models: &ResolvedModels, recipe: &Recipe, size: Size) -> Expected {
        Expected::new(
            &models.checkpoint.name,
            (size.pixels(), self.rows),
            (recipe.image_count, self.evaluations),
        )
    }
}

/// How many plans of one model are made at once: so many threads can a disk without an answer hold, however many callers
/// come and go.
const PLANS_AT_ONCE: usize = 4;

impl Inner {
    /// Refuses what the device would refuse later, and names in the recipe what it leaves to the checkpoint, so that who
    /// asks for the job or reads the image's parameters is told what ran.
    pub(crate) async fn plan(
        &self,
        models: &ResolvedModels,
        recipe: &mut Recipe,
    ) -> Result<DeviceTime, ServiceError> {
        let (planned, asked) = (models.clone(), recipe.clone());
        let turns = self
            .plan_turns
            .get_or_make(models.checkpoint.name.clone(), PLANS_AT_ONCE);
        let planned = async move {
            let turn = turns.acquire_owned().await.map_err(ServiceError::internal)?;
            off_thread(move || {
                // It goes along, because this runs on when the caller hangs up.
                let _turn = turn;
                Ok(RunPlan::of(&planned, &asked).map_err(|error| (error.refused_setting(), error)))
            })
            .await
        };
        let planned = tokio::select! {
            planned = planned => planned?,
            // Without a plan the job goes on, and the load says what is wrong.
            () = self.clock.sleep_until(self.clock.now() + PATIENCE) => {
                tracing::warn!(model = %models.checkpoint.name, "a model's disk does not answer; its run is not planned");
                return Ok(DeviceTime::unplanned(recipe));
            }
        };
        match planned {
            Ok(plan) => {
                recipe.scheduler = plan.named(recipe.scheduler);
                Ok(DeviceTime {
                    rows: plan.rows,
                    evaluations: plan.evaluations,
                })
            }
            Err((Some((setting, problem)), _)) => Err(ServiceError::RunRefused { setting, problem }),
            Err((None, error)) => {
                let name = &models.checkpoint.name;
                tracing::debug!(model = %name, error = describe_chain(&error), "no plan yet");
                Ok(DeviceTime::unplanned(recipe))
            }
        }
    }
}

/// What a caller should be told about the prompts: A1111's syntax is read as plain words.
#[must_use]
pub fn prompt_notes(recipe: &Recipe) -> Vec<JobNote> {
    let prompts = [recipe.prompt.as_str(), recipe.negative_text()];
    let any = |found: fn(&str) -> bool| prompts.iter().any(|prompt| found(prompt));
    let mut notes = Vec::new();
    if any(has_weight) {
        notes.push(JobNote::PromptWeights);
    }
    if any(has_break) {
        notes.push(JobNote::PromptBreaks);
    }
    notes
}

/// `(a red house:1.2)`, but for parentheses that are escaped.
fn has_weight(prompt: &str) -> bool {
    let (mut depth, mut after_colon, mut escaped) = (0_usize, None, false);
    for (at, letter) in prompt.char_indices() {
        if std::mem::take(&mut escaped) {
            continue;
        }
        match letter {
            '\\' => escaped = true,
            '(' => depth += 1,
            ':' => after_colon = Some(at + 1),
            ')' if depth > 0 => {
                depth -= 1;
                if after_colon.is_some_and(|from| is_weight(prompt[from..at].trim())) {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

fn is_weight(text: &str) -> bool {
    let digits = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+');
    text.chars().all(digits) && text.parse::<f64>().is_ok()
}

/// The word in capitals that begins a new chunk of the text encoder.
fn has_break(prompt: &str) -> bool {
    let between_words = |c: char| !c.is_alphanumeric() && c != '_';
    prompt.split(between_words).any(|word| word == "BREAK")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_told_from_other_parentheses() {
        for weighted in [
            "(word:1.2)",
            "a (red house:0.8), blue",
            "((word:1.2))",
            "(a (b) c: 1.5 )",
            "x) (y:2)",
            "(:1)",
            "(sky:-1)",
        ] {
            assert!(has_weight(weighted), "{weighted}");
        }
        for plain in [
            "",
            "(word)",
            "((word))",
            "[word]",
            "a 16:9 picture",
            "at 12:30) there",
            "(time: noon)",
            "(word:)",
            "(word:NaN)",
            r"\(word:1.2\)",
            "(word:1.2",
            "smile :)",
        ] {
            assert!(!has_weight(plain), "{plain}");
        }
    }

    #[test]
    fn only_the_word_in_capitals_breaks() {
        for breaking in ["a BREAK b", "BREAK", "a,BREAK,b", "a\nBREAK"] {
            assert!(has_break(breaking), "{breaking}");
        }
        for plain in ["break", "BREAKFAST", "Break a leg", "NO_BREAK", "ÄBREAK"] {
            assert!(!has_break(plain), "{plain}");
        }
    }
}
