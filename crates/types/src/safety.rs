//! Whether finished images are looked at for unsafe content, and what is done with one that has it.

use serde::{Deserialize, Serialize};

/// What a request wants of the safety checker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SafetyPolicy {
    /// Nobody looks.
    #[default]
    Off,
    /// Every finished image is looked at.
    On {
        /// What is done with an unsafe one.
        action: SafetyAction,
        /// What is unsafe.
        level: SafetyLevel,
    },
}

/// What is done with an unsafe image before it is stored. Its size stays, and the original is kept nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SafetyAction {
    /// It is handed out, and the reply says what was found.
    Keep,
    /// A grey image that says so stands in for it.
    #[default]
    SensitiveContentText,
    /// It is blurred until only colours are left.
    Blur,
    /// It is drawn in a few large squares.
    Pixelate,
    /// A black image stands in for it.
    Black,
}

/// What counts as unsafe; each level has what is in those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SafetyLevel {
    /// Sexual acts and uncovered genitals, photographed or drawn.
    #[default]
    Explicit,
    /// And what mostly suggests such.
    Suggestive,
    /// And underwear, swimwear and poses.
    Revealing,
}
