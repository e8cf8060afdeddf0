//! The judgement of the reference safety checker (diffusers `safety_checker.py`, `StableDiffusionSafetyChecker`): how near a
//! picture's CLIP embedding is to those of seventeen unsafe concepts, and of three for which special care is taken.

use crate::ModelError;
use crate::error::During;
use crate::layers::{HostTensor, LayerSource, Result, to_f32};

const CONCEPTS: usize = 17;
const SPECIAL: usize = 3;
/// What is added to every concept's score when special care is due.
const CARE: f32 = 0.01;

/// Embeddings of concepts with the cosines from which on a picture has them.
#[derive(Clone, Debug)]
pub struct SafetyConcepts {
    concepts: Near,
    special: Near,
}

/// Unit vectors and thresholds.
#[derive(Clone, Debug)]
struct Near {
    /// (P, n)
    directions: HostTensor,
    thresholds: Vec<f32>,
}

/// By how much a picture is nearer than the thresholds, rounded to thousandths as the reference does it: above zero is too
/// near.
#[derive(Clone, Debug, PartialEq)]
pub struct ConceptScores {
    /// Of the concepts that make a picture unsafe, with what special care adds.
    pub concepts: Vec<f32>,
    /// Of those that only make the others stricter.
    pub special: Vec<f32>,
}

impl ConceptScores {
    /// Whether the picture is too near to any concept.
    #[must_use]
    pub fn is_unsafe(&self) -> bool {
        // What is no number is too near.
        self.concepts.iter().any(|score| *score > 0.0 || score.is_nan())
    }
}

impl SafetyConcepts {
    /// Reads them from `from`, at the root of the checker, for embeddings of `width` numbers.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(width: usize, from: &LayerSource<'_>) -> std::result::Result<Self, ModelError> {
        let load = || -> Result<Self> {
            Ok(Self {
                concepts: Near::load(CONCEPTS, width, "concept_embeds", from)?,
                special: Near::load(SPECIAL, width, "special_care_embeds", from)?,
            })
        };
        load().during("loading the safety checker")
    }

    /// The scores of a picture by its embedding (1, P).
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn scores(&self, embedding: &HostTensor) -> std::result::Result<ConceptScores, ModelError> {
        let scores = || -> Result<ConceptScores> {
            let special = self.special.scores(embedding, 0.0)?;
            let care = if special.iter().any(|score| *score > 0.0) {
                CARE
            } else {
                0.0
            };
            Ok(ConceptScores {
                concepts: self.concepts.scores(embedding, care)?,
                special,
            })
        };
        scores().during("comparing a picture with concepts")
    }
}

impl Near {
    fn load(count: usize, width: usize, name: &str, from: &LayerSource<'_>) -> Result<Self> {
        let embeddings = to_f32(&from.get(&[count, width], name)?)?;
        let thresholds = from.get(&[count], &format!("{name}_weights"))?;
        Ok(Self {
            directions: unit(&embeddings)?.t()?.contiguous()?,
            thresholds: to_f32(&thresholds)?.to_vec1()?,
        })
    }

    fn scores(&self, embedding: &HostTensor, care: f32) -> Result<Vec<f32>> {
        let cosines = unit(embedding)?.matmul(&self.directions)?;
        let cosines = cosines.squeeze(0)?.to_vec1::<f32>()?;
        let above = cosines.iter().zip(&self.thresholds);
        Ok(above
            // Python's round of a float32: to thousandths, ties to even.
            .map(|(cosine, threshold)| ((cosine - threshold + care) * 1000.0).round_ties_even() / 1000.0)
            .collect())
    }
}

/// Rows of length one, as torch's `normalize` makes them.
fn unit(rows: &HostTensor) -> Result<HostTensor> {
    let length = rows.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(1e-12)?;
    Ok(rows.broadcast_div(&length)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Device;
    use pentimento_testkit::{Golden, Tolerance, assert_values_close};
    use std::collections::HashMap;

    /// The model's concepts with the thresholds of a case.
    fn concepts(cases: &Golden, index: usize, care: &str) -> SafetyConcepts {
        let model = Golden::open("safety_checker/model/model.safetensors");
        let tensors = HashMap::from([
            (
                "concept_embeds".to_owned(),
                model.tensor("concept_embeds").clone(),
            ),
            (
                "special_care_embeds".to_owned(),
                model.tensor("special_care_embeds").clone(),
            ),
            (
                "concept_embeds_weights".to_owned(),
                cases.tensor(&format!("weights.{index}")).clone(),
            ),
            (
                "special_care_embeds_weights".to_owned(),
                cases.tensor(&format!("{care}.{index}.special_weights")).clone(),
            ),
        ]);
        let source = LayerSource::from_tensors(tensors, &Device::Cpu);
        SafetyConcepts::new(24, &source).expect("loads")
    }

    #[test]
    fn each_concept_is_judged_as_in_the_reference() {
        let cases = Golden::open("safety_checker/cases.safetensors");
        let embeddings = cases.tensor("embeddings");
        let mut judged = 0;
        for index in 0..embeddings.dims()[0] {
            let embedding = embeddings.narrow(0, index, 1).expect("a row");
            for care in ["plain", "care"] {
                let found = concepts(&cases, index, care).scores(&embedding).expect("runs");
                let bad: Vec<u8> = found
                    .concepts
                    .iter()
                    .map(|score| u8::from(*score > 0.0))
                    .collect();
                assert_eq!(
                    bad,
                    cases.values::<u8>(&format!("{care}.{index}.bad")),
                    "{care} {index}"
                );
                assert_eq!(found.special.iter().any(|score| *score > 0.0), care == "care");
                assert!(found.is_unsafe());
                judged += bad.len();
            }
        }
        assert_eq!(judged, 6 * 2 * CONCEPTS);
    }

    #[test]
    fn cosines_are_the_references() {
        let cases = Golden::open("safety_checker/cases.safetensors");
        let concepts = concepts(&cases, 0, "plain");
        let rows = unit(cases.tensor("embeddings")).expect("runs");
        let found = rows.matmul(&concepts.concepts.directions);
        let found = found
            .and_then(|found| found.flatten_all()?.to_vec1::<f32>())
            .expect("runs");
        assert_values_close("cosines", &found, &cases.values("concepts"), Tolerance::CLIP);
    }

    #[test]
    fn what_is_no_number_is_unsafe() {
        let cases = Golden::open("safety_checker/cases.safetensors");
        let nan = (cases.tensor("embeddings").narrow(0, 0, 1).expect("a row") * f64::NAN).expect("a tensor");
        assert!(
            concepts(&cases, 0, "plain")
                .scores(&nan)
                .expect("runs")
                .is_unsafe()
        );
    }
}
