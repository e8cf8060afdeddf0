//! Looks at finished pictures for what not everybody may want to see.
//!
//! The checker that is always there is a small classifier inside the binary. It computes on the CPU, whatever the device.

use pentimento_models::MobileNetV2;
use pentimento_types::{RgbImage, SafetyLevel};

use crate::PipelineError;

/// A loaded checker, about 11 MB. It holds no state of any picture.
#[derive(Debug)]
pub struct SafetyChecker {
    classifier: MobileNetV2,
}

/// Probabilities of the embedded classifier's classes, which sum to one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SafetyScores {
    /// Drawings without sexual content.
    pub drawing: f32,
    /// Drawings with sexual content.
    pub hentai: f32,
    /// Photographs without sexual content.
    pub neutral: f32,
    /// Photographs of sexual acts and of uncovered genitals.
    pub porn: f32,
    /// Photographs that suggest: underwear, swimwear, poses.
    pub sexy: f32,
}

impl SafetyScores {
    /// How likely the picture is unsafe, 0 to 1: what of the probability lies in the classes that `level` looks for.
    #[must_use]
    pub fn unsafe_share(self, level: SafetyLevel) -> f32 {
        let explicit = self.hentai + self.porn;
        match level {
            SafetyLevel::Explicit => explicit,
            SafetyLevel::Suggestive => explicit + self.sexy / 2.0,
            SafetyLevel::Revealing => explicit + self.sexy,
        }
    }
}

impl SafetyChecker {
    /// The one inside the binary.
    ///
    /// # Errors
    /// When the binary is damaged.
    pub fn embedded() -> Result<Self, PipelineError> {
        let classifier = MobileNetV2::from_safetensors(pentimento_embedded_nets::NSFW_MOBILENET_V2)?;
        Ok(Self { classifier })
    }

    /// What the checker sees in a picture of any size.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn scores(&self, picture: &RgbImage) -> Result<SafetyScores, PipelineError> {
        let [drawing, hentai, neutral, porn, sexy] = self.classifier.classify(picture)?;
        Ok(SafetyScores {
            drawing,
            hentai,
            neutral,
            porn,
            sexy,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stricter_level_never_finds_less() {
        let scores = SafetyScores {
            drawing: 0.1,
            hentai: 0.2,
            neutral: 0.2,
            porn: 0.1,
            sexy: 0.4,
        };
        let shares = [
            SafetyLevel::Explicit,
            SafetyLevel::Suggestive,
            SafetyLevel::Revealing,
        ]
        .map(|level| scores.unsafe_share(level));
        assert!(shares.is_sorted(), "{shares:?}");
        assert!((shares[0] - 0.3).abs() < 1e-6 && (shares[2] - 0.7).abs() < 1e-6);
    }
}
