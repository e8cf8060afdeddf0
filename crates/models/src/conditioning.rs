//! What steers a UNet beside latent and timestep, and the shape of it.

use crate::ModelError;
use crate::layers::HostTensor;

/// The conditioning of one row. Which parts a network takes depends on its architecture: those of Stable Diffusion 1.x
/// and 2.x take the token states of one text encoder and nothing else.
#[derive(Clone, Debug, Default)]
pub struct Conditioning {
    /// The hidden states of each text encoder, (1, T, `D_i`), all of as many tokens; they are joined along D.
    pub token_states: Vec<HostTensor>,
    /// The pooled state of the text, (1, P).
    pub pooled: Option<HostTensor>,
    /// Original size, crop and target size, height before width: diffusers' `add_time_ids`.
    pub size_conditions: Option<[f32; 6]>,
    /// What the row is shown beside the text.
    pub image_tokens: Option<ImageTokens>,
}

/// Tokens of an image prompt, as [`IpAdapter::tokens`](crate::IpAdapter::tokens) makes them.
#[derive(Clone, Debug)]
pub struct ImageTokens {
    /// (1, N, D)
    pub tokens: HostTensor,
    /// How much they count beside the text: 1 as trained, 0 not at all.
    pub scale: f32,
}

impl Conditioning {
    /// A text alone: the states (1, T, D) of one encoder.
    #[must_use]
    pub fn from_text(states: HostTensor) -> Self {
        Self {
            token_states: vec![states],
            ..Self::default()
        }
    }

    /// Its shape.
    ///
    /// # Errors
    /// When there are no token states, or a tensor has another rank, another number of rows than one, or another number
    /// of tokens than the first encoder's states.
    pub fn shape(&self) -> Result<ConditioningShape, ModelError> {
        let wrong = |tensor, found: &[usize], expected: &str| ModelError::Shape {
            tensor,
            found: found.to_vec(),
            expected: expected.to_owned(),
        };
        let Some(first) = self.token_states.first() else {
            return Err(wrong(
                "token states",
                &[],
                "(1, T, D) of one text encoder or more",
            ));
        };
        let tokens = match *first.dims() {
            [1, tokens, width] if tokens * width > 0 => tokens,
            _ => return Err(wrong("token states", first.dims(), "(1, T, D)")),
        };
        for other in &self.token_states[1..] {
            if !matches!(*other.dims(), [1, t, width] if t == tokens && width > 0) {
                return Err(wrong("token states", other.dims(), &format!("(1, {tokens}, D)")));
            }
        }
        let pooled = match self.pooled.as_ref().map(HostTensor::dims) {
            None => None,
            Some(&[1, width]) if width > 0 => Some(width),
            Some(found) => return Err(wrong("pooled state", found, "(1, P)")),
        };
        let image_tokens = self.image_tokens.as_ref();
        let image_tokens = match image_tokens.map(|image| image.tokens.dims()) {
            None => 0,
            Some(&[1, count, width]) if count * width > 0 => count,
            Some(found) => return Err(wrong("image tokens", found, "(1, N, D)")),
        };
        Ok(ConditioningShape {
            tokens,
            pooled,
            size_conditions: self.size_conditions.is_some(),
            image_tokens,
        })
    }
}

/// What must be equal for two conditionings to be rows of one forward. The widths of the states are the model's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConditioningShape {
    /// T: tokens of the text.
    pub tokens: usize,
    /// P: width of the pooled state, if there is one.
    pub pooled: Option<usize>,
    /// Whether there are size conditions.
    pub size_conditions: bool,
    /// N: tokens of an image prompt, 0 without one.
    pub image_tokens: usize,
}

impl ConditioningShape {
    /// A text alone, of `tokens` tokens.
    #[must_use]
    pub const fn of_text(tokens: usize) -> Self {
        Self {
            tokens,
            pooled: None,
            size_conditions: false,
            image_tokens: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::host_tensor;

    fn zeros(dims: &[usize]) -> HostTensor {
        host_tensor(vec![0.0; dims.iter().product()], dims).unwrap()
    }

    #[test]
    fn every_part_shows_in_the_shape() {
        let conditioning = Conditioning {
            token_states: vec![zeros(&[1, 77, 8]), zeros(&[1, 77, 12])],
            pooled: Some(zeros(&[1, 12])),
            size_conditions: Some([512.0, 512.0, 0.0, 0.0, 512.0, 512.0]),
            image_tokens: Some(ImageTokens {
                tokens: zeros(&[1, 4, 20]),
                scale: 1.0,
            }),
        };
        let shape = ConditioningShape {
            tokens: 77,
            pooled: Some(12),
            size_conditions: true,
            image_tokens: 4,
        };
        assert_eq!(conditioning.shape().unwrap(), shape);
        let text = Conditioning::from_text(zeros(&[1, 154, 8]));
        assert_eq!(text.shape().unwrap(), ConditioningShape::of_text(154));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let text = || Conditioning::from_text(zeros(&[1, 77, 8]));
        let error = |conditioning: Conditioning| conditioning.shape().unwrap_err().to_string();
        assert!(error(Conditioning::default()).starts_with("token states has shape []"));
        let rows = Conditioning::from_text(zeros(&[2, 77, 8]));
        assert_eq!(
            error(rows),
            "token states has shape [2, 77, 8], expected (1, T, D)"
        );
        let mut uneven = text();
        uneven.token_states.push(zeros(&[1, 78, 8]));
        assert_eq!(
            error(uneven),
            "token states has shape [1, 78, 8], expected (1, 77, D)"
        );
        let pooled = Conditioning {
            pooled: Some(zeros(&[1, 2, 8])),
            ..text()
        };
        assert!(error(pooled).starts_with("pooled state has shape [1, 2, 8]"));
        let image = Conditioning {
            image_tokens: Some(ImageTokens {
                tokens: zeros(&[1, 0, 8]),
                scale: 1.0,
            }),
            ..text()
        };
        assert!(error(image).starts_with("image tokens has shape [1, 0, 8]"));
    }
}
