//! The latents of one image on the host, and the arithmetic that update rules do with them.
//!
//! Everything is f32 without a device: a step is a few sums over an array that fits a processor's cache, and each forward
//! has one upload and one download. The rounding of every operation is part of its contract, because it shows in the
//! bits of an image: an f64 coefficient is rounded to f32 before it meets an array, then each product, quotient and sum
//! is rounded to f32 by itself. Nothing is fused, as in PyTorch's element-wise kernels.

use std::fmt;

/// One value per channel, line and column: f32, on the host.
#[derive(Clone, PartialEq)]
pub struct Latents {
    /// Channels, height and width.
    shape: [usize; 3],
    /// Plane by plane, line by line.
    values: Vec<f32>,
}

impl Latents {
    /// `None` when the number of values is not that of the shape `[C, h, w]`.
    #[must_use]
    pub fn new(shape: [usize; 3], values: Vec<f32>) -> Option<Self> {
        (values.len() == elements(shape)).then_some(Self { shape, values })
    }

    /// Nothing but 0.
    #[must_use]
    pub fn zeros(shape: [usize; 3]) -> Self {
        let values = vec![0.0; elements(shape)];
        Self { shape, values }
    }

    /// Channels, height and width.
    #[must_use]
    pub const fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// All values, plane by plane and line by line.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// As [`Self::values`], to be changed in place.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// As [`Self::values`], without a copy.
    #[must_use]
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// Whether no value is NaN or infinite.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.values.iter().all(|x| x.is_finite())
    }

    /// Every value times `factor`: one rounding.
    #[must_use]
    pub fn scaled(mut self, factor: f64) -> Self {
        let factor = rounded(factor);
        for x in &mut self.values {
            *x = product(*x, factor);
        }
        self
    }

    /// Every value over `divisor`, a true division: one rounding. Multiplying by the reciprocal would round twice.
    #[must_use]
    pub(crate) fn divided(mut self, divisor: f64) -> Self {
        let divisor = rounded(divisor);
        for x in &mut self.values {
            *x /= divisor;
        }
        self
    }

    /// `self - other`: one rounding.
    #[must_use]
    pub(crate) fn minus(mut self, other: &Self) -> Self {
        self.assert_same_shape(other);
        for (x, y) in self.values.iter_mut().zip(&other.values) {
            *x -= y;
        }
        self
    }

    /// Every value brought into `-bound..=bound`, exactly, but for the rounding of `bound`. NaN stays NaN.
    #[must_use]
    pub(crate) fn clamped(mut self, bound: f64) -> Self {
        let bound = rounded(bound);
        for x in &mut self.values {
            // Not f32::clamp, which panics where the bound is NaN because a value is.
            if *x < -bound {
                *x = -bound;
            } else if *x > bound {
                *x = bound;
            }
        }
        self
    }

    /// The Euclidean norm, summed in f64 in the order of the values.
    pub(crate) fn norm(&self) -> f64 {
        let squares = self.values.iter().map(|x| f64::from(*x) * f64::from(*x));
        squares.fold(0.0, |sum, square| sum + square).sqrt()
    }

    fn assert_same_shape(&self, other: &Self) {
        assert_eq!(self.shape, other.shape, "one run has latents of one shape");
    }
}

impl fmt::Debug for Latents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The values are thousands, and what holds latents is printed for other reasons.
        f.debug_struct("Latents")
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

/// `sum of coefficient * latents`, from left to right: each product is rounded, then each sum.
///
/// A coefficient of 1 does not round. Terms whose coefficient is 0 are left out, so that an infinite array does no harm.
pub(crate) fn weighted_sum(terms: &[(f64, &Latents)]) -> Latents {
    let (_, first) = terms.first().expect("every update has at least one term");
    let mut sum: Option<Latents> = None;
    for (coefficient, latents) in terms.iter().filter(|(coefficient, _)| *coefficient != 0.0) {
        first.assert_same_shape(latents);
        let factor = rounded(*coefficient);
        match &mut sum {
            None if *coefficient == 1.0 => sum = Some((*latents).clone()),
            None => {
                let values = latents.values.iter().map(|x| product(*x, factor)).collect();
                sum = Some(Latents {
                    shape: latents.shape,
                    values,
                });
            }
            Some(sum) if *coefficient == 1.0 => {
                for (sum, x) in sum.values.iter_mut().zip(&latents.values) {
                    *sum += x;
                }
            }
            Some(sum) => {
                for (sum, x) in sum.values.iter_mut().zip(&latents.values) {
                    *sum += product(*x, factor);
                }
            }
        }
    }
    sum.unwrap_or_else(|| Latents::zeros(first.shape))
}

/// A rounded product whose zero is never negative.
fn product(x: f32, factor: f32) -> f32 {
    x * factor + 0.0
}

/// A coefficient as it meets an array.
#[expect(clippy::cast_possible_truncation, reason = "the rounding is the purpose")]
fn rounded(coefficient: f64) -> f32 {
    coefficient as f32
}

fn elements(shape: [usize; 3]) -> usize {
    shape.iter().product()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(values: &[f32]) -> Latents {
        Latents::new([1, 1, values.len()], values.to_vec()).unwrap()
    }

    fn bits(latents: &Latents) -> Vec<u32> {
        latents.values().iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn the_number_of_values_is_that_of_the_shape() {
        assert!(Latents::new([4, 2, 3], vec![0.0; 24]).is_some());
        assert!(Latents::new([4, 2, 3], vec![0.0; 23]).is_none());
        assert_eq!(Latents::zeros([2, 1, 3]).values(), [0.0; 6]);
    }

    #[test]
    fn a_sum_rounds_each_coefficient_each_product_and_each_sum() {
        let (a, b) = (0.1_f32, 0.3_f32);
        let (of_a, of_b) = (1.0 / 3.0, -0.7_f64);
        let found = weighted_sum(&[(of_a, &line(&[a])), (of_b, &line(&[b]))]);
        #[expect(clippy::cast_possible_truncation, reason = "as the sum rounds them")]
        let expected = a * of_a as f32 + b * of_b as f32;
        assert_eq!(bits(&found), [expected.to_bits()]);
    }

    #[test]
    fn what_counts_nothing_is_left_out_and_what_counts_once_stays_as_it_is() {
        let (infinite, plain) = (line(&[f32::INFINITY]), line(&[-0.0]));
        assert_eq!(
            bits(&weighted_sum(&[(0.0, &infinite), (1.0, &plain)])),
            [0x8000_0000]
        );
        assert_eq!(
            bits(&weighted_sum(&[(1.0, &line(&[2.0])), (0.0, &infinite)])),
            [2.0_f32.to_bits()]
        );
        assert_eq!(weighted_sum(&[(0.0, &infinite), (0.0, &infinite)]), line(&[0.0]));
        // Any other coefficient takes the sign off a zero.
        assert_eq!(bits(&weighted_sum(&[(2.0, &plain)])), [0]);
        assert_eq!(bits(&plain.scaled(1.0)), [0]);
    }

    #[test]
    fn a_division_is_not_a_product_with_the_reciprocal() {
        let found = line(&[5.0]).divided(3.0);
        assert_eq!(bits(&found), [(5.0_f32 / 3.0).to_bits()]);
        assert_ne!(found, line(&[5.0]).scaled(1.0 / 3.0));
    }

    #[test]
    fn differences_bounds_and_norms() {
        let latents = line(&[3.0, -4.0, f32::NAN]);
        let found = latents.clone().minus(&line(&[1.0, 1.0, 1.0])).clamped(2.5);
        assert_eq!(found.values()[..2], [2.0, -2.5]);
        assert!(found.values()[2].is_nan());
        assert!(!latents.is_finite());
        assert_eq!(line(&[3.0, -4.0]).norm(), 5.0);
        assert!(line(&[3.0, -4.0]).is_finite());
    }
}
