//! The safety checker on a picture's way out: what the request wants, what the operator allows, and what is found.
//!
//! It fails closed: where a picture cannot be looked at, its job fails, and nothing is handed out.

mod actions;
mod notice;

use std::sync::{Arc, Mutex, PoisonError};

use pentimento_catalog::ModelEntry;
use pentimento_engine::{PipelineError, ReferenceSafetyChecker, SafetyChecker};
use pentimento_types::{Findings, JobNote, ModelId, RgbImage, SafetyAction, SafetyLevel, SafetyPolicy};

/// Whether the operator leaves the safety checker to the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SafetyRule {
    /// As each request says.
    #[default]
    Auto,
    /// Every picture is looked at, and no unsafe one is handed out as it is.
    Required,
    /// No picture is looked at.
    Off,
}

/// What the operator says about the safety checker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafetySettings {
    /// Who decides.
    pub rule: SafetyRule,
    /// The catalogue's entry of the reference checker that looks; None is the small one inside the binary.
    pub model: Option<ModelId>,
    /// From which score of the small checker on a picture is unsafe, in thousandths; lower finds more. The reference checker has
    /// thresholds of its own.
    pub threshold: u16,
}

impl Default for SafetySettings {
    /// The requests decide; docs/safety-checker.md counts what the threshold finds.
    fn default() -> Self {
        Self {
            rule: SafetyRule::Auto,
            model: None,
            threshold: 700,
        }
    }
}

impl SafetySettings {
    /// Whether a picture of such a request may be shown while it is made: what becomes of it is known at its end only.
    #[must_use]
    pub(crate) fn shows_previews(&self, asked: SafetyPolicy) -> bool {
        match self.policy(asked) {
            SafetyPolicy::Off => true,
            SafetyPolicy::On { action, .. } => action == SafetyAction::Keep,
        }
    }

    /// What happens to a picture of a request that wants `asked`.
    #[must_use]
    pub fn policy(&self, asked: SafetyPolicy) -> SafetyPolicy {
        match (self.rule, asked) {
            (SafetyRule::Off, _) => SafetyPolicy::Off,
            (SafetyRule::Auto, asked) => asked,
            (SafetyRule::Required, SafetyPolicy::Off) => SafetyPolicy::On {
                action: SafetyAction::default(),
                level: SafetyLevel::default(),
            },
            (SafetyRule::Required, SafetyPolicy::On { action, level }) => SafetyPolicy::On {
                action: match action {
                    SafetyAction::Keep => SafetyAction::default(),
                    SafetyAction::SensitiveContentText
                    | SafetyAction::Blur
                    | SafetyAction::Pixelate
                    | SafetyAction::Black => action,
                },
                level,
            },
        }
    }
}

/// What a caller should know who gets something else than asked for.
pub(crate) fn note(asked: SafetyPolicy, given: SafetyPolicy) -> Option<JobNote> {
    (asked != given).then_some(if given == SafetyPolicy::Off {
        JobNote::SafetyCheckerOff
    } else {
        JobNote::SafetyCheckerRequired
    })
}

/// The checker, read when the first picture is to be looked at.
#[derive(Debug)]
pub(crate) struct Safety {
    settings: SafetySettings,
    /// One picture at a time, so that many that are finished at once take the memory of one.
    checker: Mutex<Option<Checker>>,
}

#[derive(Debug)]
enum Checker {
    Small(SafetyChecker),
    Reference(Box<ReferenceSafetyChecker>),
}

/// The reference checker's entry with its files on this machine; None where the small checker looks, or nobody.
#[derive(Clone, Debug, Default)]
pub(crate) struct CheckerFiles(pub(crate) Option<Arc<ModelEntry>>);

impl Safety {
    pub(crate) fn new(settings: SafetySettings) -> Self {
        Self {
            settings,
            checker: Mutex::new(None),
        }
    }

    /// The picture as it may be stored, and what was found in it. `policy` is [`SafetySettings::policy`]'s, of now and not of when
    /// the job came. Takes tens of milliseconds with the small checker.
    pub(crate) fn pass(
        &self,
        picture: RgbImage,
        policy: SafetyPolicy,
        files: &CheckerFiles,
    ) -> Result<(RgbImage, Findings), PipelineError> {
        let SafetyPolicy::On { action, level } = policy else {
            return Ok((picture, Findings::default()));
        };
        let findings = self.findings(&picture, level, self.settings.threshold, files)?;
        if findings.nsfw != Some(true) {
            return Ok((picture, findings));
        }
        let findings = Findings {
            action: Some(action),
            ..findings
        };
        Ok((actions::apply(action, picture), findings))
    }

    /// What the checker finds, whatever the operator's rule. `threshold` in thousandths is the caller's own.
    pub(crate) fn look(
        &self,
        picture: &RgbImage,
        threshold: Option<u16>,
        files: &CheckerFiles,
    ) -> Result<Findings, PipelineError> {
        let threshold = threshold.unwrap_or(self.settings.threshold);
        self.findings(picture, SafetyLevel::default(), threshold, files)
    }

    fn findings(
        &self,
        picture: &RgbImage,
        level: SafetyLevel,
        threshold: u16,
        files: &CheckerFiles,
    ) -> Result<Findings, PipelineError> {
        let mut checker = self.checker.lock().unwrap_or_else(PoisonError::into_inner);
        let checker = match &mut *checker {
            Some(checker) => checker,
            none => none.insert(match (&files.0, &self.settings.model) {
                (Some(entry), _) => Checker::Reference(Box::new(ReferenceSafetyChecker::open(entry)?)),
                (None, None) => Checker::Small(SafetyChecker::embedded()?),
                // The small one would judge all pictures from now on.
                (None, Some(model)) => {
                    return Err(PipelineError::UnsupportedSource {
                        name: model.as_str().to_owned(),
                        reason: "nobody has looked for its files".to_owned(),
                    });
                }
            }),
        };
        let (nsfw, score) = match checker {
            Checker::Small(checker) => {
                let share = checker.scores(picture)?.unsafe_share(level);
                let score = (f64::from(share) * 1000.0).round() as u16;
                // What is no number is unsafe.
                (score >= threshold || share.is_nan(), Some(score))
            }
            // Its scores are distances from thresholds, and no shares of one.
            Checker::Reference(checker) => (checker.scores(picture)?.is_unsafe(), None),
        };
        Ok(Findings {
            nsfw: Some(nsfw),
            score,
            action: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pentimento_types::Size;

    fn asked(action: SafetyAction) -> SafetyPolicy {
        SafetyPolicy::On {
            action,
            level: SafetyLevel::Explicit,
        }
    }

    fn settings(rule: SafetyRule, threshold: u16) -> SafetySettings {
        SafetySettings {
            rule,
            threshold,
            model: None,
        }
    }

    /// A picture without anything in it: the checker is not sure, its score is above zero.
    fn grey() -> RgbImage {
        let size = Size {
            width: 40,
            height: 24,
        };
        let pixels = (0..size.rgb_bytes()).map(|at| 100 + (at % 50) as u8).collect();
        RgbImage::new(size, pixels).expect("the bytes fit")
    }

    #[test]
    fn the_operators_rule_comes_before_the_request() {
        let rules = |asked| {
            [SafetyRule::Auto, SafetyRule::Required, SafetyRule::Off]
                .map(|rule| settings(rule, 700).policy(asked))
        };
        let text = asked(SafetyAction::SensitiveContentText);
        assert_eq!(
            rules(SafetyPolicy::Off),
            [SafetyPolicy::Off, text, SafetyPolicy::Off]
        );
        let keep = asked(SafetyAction::Keep);
        assert_eq!(rules(keep), [keep, text, SafetyPolicy::Off]);
        let blur = asked(SafetyAction::Blur);
        assert_eq!(rules(blur), [blur, blur, SafetyPolicy::Off]);
    }

    #[test]
    fn a_low_threshold_finds_and_a_high_one_does_not() {
        let low = Safety::new(settings(SafetyRule::Auto, 0));
        let (picture, findings) = low
            .pass(grey(), asked(SafetyAction::Black), &CheckerFiles::default())
            .expect("runs");
        assert!(picture.pixels().iter().all(|value| *value == 0));
        assert_eq!(
            (findings.nsfw, findings.action),
            (Some(true), Some(SafetyAction::Black))
        );
        let (picture, findings) = low
            .pass(grey(), asked(SafetyAction::Keep), &CheckerFiles::default())
            .expect("runs");
        assert!(picture == grey());
        assert_eq!(
            (findings.nsfw, findings.action),
            (Some(true), Some(SafetyAction::Keep))
        );
        let high = Safety::new(SafetySettings::default());
        let (picture, findings) = high
            .pass(grey(), asked(SafetyAction::Black), &CheckerFiles::default())
            .expect("runs");
        assert!(picture == grey());
        assert_eq!((findings.nsfw, findings.action), (Some(false), None));
        assert!(findings.score.is_some_and(|score| score < 700), "{findings:?}");
    }

    #[test]
    fn nobody_looks_where_nobody_asks() {
        let safety = Safety::new(settings(SafetyRule::Auto, 0));
        let (picture, findings) = safety
            .pass(grey(), SafetyPolicy::Off, &CheckerFiles::default())
            .expect("runs");
        assert!(picture == grey() && findings == Findings::default());
        assert!(
            safety.checker.lock().expect("no panic").is_none(),
            "it was read for nothing"
        );
    }

    #[test]
    fn the_small_checker_never_stands_in_for_the_one_that_the_operator_names() {
        let safety = Safety::new(SafetySettings {
            model: Some(ModelId::new("reference")),
            ..settings(SafetyRule::Required, 700)
        });
        assert!(
            safety
                .pass(grey(), asked(SafetyAction::Black), &CheckerFiles::default())
                .is_err()
        );
        assert!(safety.checker.lock().expect("no panic").is_none());
    }

    #[test]
    fn nothing_is_shown_early_that_may_be_replaced_in_the_end() {
        let shows = |rule, asked| settings(rule, 700).shows_previews(asked);
        assert!(shows(SafetyRule::Auto, SafetyPolicy::Off));
        assert!(shows(SafetyRule::Auto, asked(SafetyAction::Keep)));
        assert!(!shows(SafetyRule::Auto, asked(SafetyAction::Blur)));
        assert!(!shows(SafetyRule::Required, SafetyPolicy::Off));
        assert!(!shows(SafetyRule::Required, asked(SafetyAction::Keep)));
        assert!(shows(SafetyRule::Off, asked(SafetyAction::Blur)));
    }
}
