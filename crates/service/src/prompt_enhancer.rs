//! Who finds words to add to a request's prompts. How many of them fit is decided in `enhance.rs`.

use std::fmt;

use crate::ServiceError;

/// The prompts of a request as its caller wrote them.
#[derive(Clone, Copy, Debug)]
pub struct PromptWords<'a> {
    /// What the image should show.
    pub prompt: &'a str,
    /// What it should not show, empty where nothing is said.
    pub negative_prompt: &'a str,
}

/// Phrases to be added, those that matter most first: the last ones are left out where a prompt is long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Additions {
    /// To what the image should show.
    pub prompt: Vec<String>,
    /// To what it should not show.
    pub negative_prompt: Vec<String>,
}

/// Finds words that make pictures better. The same words get the same additions, whatever the seed, so that pictures which
/// differ in the seed differ in nothing else.
pub trait PromptEnhancer: fmt::Debug + Send + Sync {
    /// What could be added. Runs on a blocking thread, and may take as long as a prompt takes.
    ///
    /// # Errors
    /// [`ServiceError::Internal`], for a fault of ours.
    fn additions(&self, words: PromptWords<'_>) -> Result<Additions, ServiceError>;
}
