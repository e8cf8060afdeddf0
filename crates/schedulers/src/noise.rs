//! PyTorch's CPU random numbers, bit for bit: `torch.Generator("cpu").manual_seed(seed)` and `torch.randn`.
//!
//! One [`NoiseSource`] belongs to one image, so no image's noise depends on its neighbours.
//! PyTorch on any x86 machine with AVX2 does not use the C library for large tensors but the polynomials of
//! `aten/src/ATen/native/cpu/avx_mathfun.h` (Cephes), compiled so that the multiplications and additions are fused.
//! Those are repeated here, operation by operation, so that every machine gives the image of that one.

use std::f64::consts::PI;

use rand_mt::Mt;

use crate::latents::Latents;

/// How many values `normal_fill` makes at once: eight radii, eight angles.
const BLOCK: usize = 16;

/// The random numbers of one image, in the order in which PyTorch would draw them.
#[derive(Clone, Debug)]
pub struct NoiseSource {
    engine: Mt,
    /// The second value of the last scalar Box-Muller pair. Large draws neither use nor clear it.
    next_normal: Option<f64>,
}

impl NoiseSource {
    /// A generator as after `manual_seed(seed)`. Only the low 32 bits count, as in PyTorch's mt19937.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "at::mt19937 is seeded with the low 32 bits"
    )]
    pub fn new(seed: u64) -> Self {
        Self {
            engine: Mt::new(seed as u32),
            next_normal: None,
        }
    }

    /// `torch.randn(shape, generator=g)`: standard normal values, f32, as PyTorch draws them on the CPU.
    pub fn normal(&mut self, shape: [usize; 3]) -> Latents {
        let values = self.normal_values(shape.iter().product());
        Latents::new(shape, values).expect("as many values as the shape has elements")
    }

    /// As [`Self::normal`], for any shape of `count` elements: PyTorch's values do not depend on how they are arranged.
    fn normal_values(&mut self, count: usize) -> Vec<f32> {
        if count >= BLOCK {
            self.normal_fill(count)
        } else {
            (0..count).map(|_| self.scalar_normal()).collect()
        }
    }

    /// `at::native::templates::cpu::normal_fill_AVX2`: uniforms first, then Box-Muller over blocks of 16.
    /// A tail that does not fill a block is drawn anew together with the values before it.
    fn normal_fill(&mut self, count: usize) -> Vec<f32> {
        let mut values: Vec<f32> = (0..count).map(|_| self.uniform_f32()).collect();
        for block in values.chunks_exact_mut(BLOCK) {
            box_muller(block);
        }
        if !count.is_multiple_of(BLOCK) {
            let tail = &mut values[count - BLOCK..];
            tail.fill_with(|| self.uniform_f32());
            box_muller(tail);
        }
        values
    }

    /// `at::normal_distribution<double>`, which makes two values and keeps the second for the next call.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "PyTorch rounds the double to the tensor's f32"
    )]
    fn scalar_normal(&mut self) -> f32 {
        if let Some(value) = self.next_normal.take() {
            return value as f32;
        }
        let (u1, u2) = (self.uniform_f64(), self.uniform_f64());
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let theta = 2.0 * PI * u1;
        self.next_normal = Some(radius * theta.sin());
        (radius * theta.cos()) as f32
    }

    /// `at::uniform_real_distribution<float>`: 24 bits, in [0, 1).
    #[expect(clippy::cast_precision_loss, reason = "24 bits fit an f32 exactly")]
    fn uniform_f32(&mut self) -> f32 {
        (self.engine.next_u32() & ((1 << 24) - 1)) as f32 / (1_u32 << 24) as f32
    }

    /// `at::uniform_real_distribution<double>`: 53 bits of two draws, the first of them the high word.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
    fn uniform_f64(&mut self) -> f64 {
        let high = u64::from(self.engine.next_u32());
        let low = u64::from(self.engine.next_u32());
        ((high << 32 | low) & ((1 << 53) - 1)) as f64 / (1_u64 << 53) as f64
    }
}

/// `normal_fill_16_AVX2`: the first eight uniforms give radii, the last eight give angles.
fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        // [0, 1) becomes (0, 1], whose logarithm is finite.
        let radius = (-2.0 * log(1.0 - *a)).sqrt();
        let (sin, cos) = sin_cos(std::f32::consts::TAU * *b);
        // PyTorch ends with fma(n, 1, 0), which turns a negative zero into a positive one.
        *a = radius * cos + 0.0;
        *b = radius * sin + 0.0;
    }
}

/// `log256_ps` for one lane, x > 0.
#[expect(
    clippy::excessive_precision,
    reason = "the digits of Cephes; shortened ones once rounded to a neighbour, in two constants"
)]
fn log(x: f32) -> f32 {
    const COEFFICIENTS: [f32; 9] = [
        7.037_683_629_2e-2,
        -1.151_461_031_0e-1,
        1.167_699_874_0e-1,
        -1.242_014_084_6e-1,
        1.424_932_278_7e-1,
        -1.666_805_766_5e-1,
        2.000_071_476_5e-1,
        -2.499_999_399_3e-1,
        3.333_333_117_4e-1,
    ];
    /// ln 2 in two parts, so that the sum keeps its low bits.
    const LN_2_LOW: f32 = -2.121_944_40e-4;
    const LN_2_HIGH: f32 = 0.693_359_375;

    let bits = x.max(f32::MIN_POSITIVE).to_bits();
    // The exponent of a mantissa in [0.5, 1).
    #[expect(clippy::cast_precision_loss, reason = "an exponent is a small whole number")]
    let mut exponent = ((bits >> 23) as f32 - 127.0) + 1.0;
    let mut m = f32::from_bits((bits & !0x7f80_0000) | 0x3f00_0000);
    if m < std::f32::consts::FRAC_1_SQRT_2 {
        exponent -= 1.0;
        m = (m - 1.0) + m;
    } else {
        m -= 1.0;
    }
    let square = m * m;
    let mut y = COEFFICIENTS[0];
    for c in &COEFFICIENTS[1..] {
        y = y.mul_add(m, *c);
    }
    y = (y * m).mul_add(square, exponent * LN_2_LOW);
    y = square.mul_add(-0.5, y);
    exponent.mul_add(LN_2_HIGH, m + y)
}

/// `sincos256_ps` for one lane, x >= 0.
#[expect(clippy::excessive_precision, reason = "the digits of Cephes")]
fn sin_cos(x: f32) -> (f32, f32) {
    /// π/4 in three parts: the remainder after whole octants keeps more bits than an f32 product would.
    const QUARTER_PI: [f32; 3] = [
        -0.785_156_25,
        -2.418_756_484_985_351_562_5e-4,
        -3.774_894_977_445_941_08e-8,
    ];

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "x is in [0, 2π], so the octant is at most 8"
    )]
    let octant = ((x * std::f32::consts::FRAC_2_PI * 2.0) as u32 + 1) & !1;
    #[expect(clippy::cast_precision_loss, reason = "a small whole number")]
    let whole = octant as f32;
    let r = QUARTER_PI.iter().fold(x, |r, part| whole.mul_add(*part, r));

    let z = r * r;
    let c = 2.443_315_711_809_948e-5_f32.mul_add(z, -1.388_731_625_493_765e-3);
    let c = c.mul_add(z, 4.166_664_568_298_827e-2) * z;
    let c = c.mul_add(z, -(z * 0.5)) + 1.0;
    let s = (-1.951_529_589_1e-4_f32).mul_add(z, 8.332_160_873_6e-3);
    let s = s.mul_add(z, -1.666_665_461_1e-1) * z;
    let s = s.mul_add(r, r);

    let (sin, cos) = if octant & 2 == 0 { (s, c) } else { (c, s) };
    let sin = if octant & 4 == 0 { sin } else { -sin };
    // Octants 2 and 4 (the second and third quadrant) have a negative cosine.
    let cos = if octant.wrapping_sub(2) & 4 == 0 {
        -cos
    } else {
        cos
    };
    (sin, cos)
}

#[cfg(test)]
mod tests {
    use pentimento_testkit::{Golden, Tolerance, compare_values};

    use super::*;

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|x| x.to_bits()).collect()
    }

    /// `about.cases` lists seeds and the shapes drawn one after the other; `<case>.<draw>` is what PyTorch gave.
    #[test]
    fn every_draw_has_pytorch_s_bits() {
        let golden = Golden::open("noise/randn.safetensors");
        let cases = golden.about()["cases"].as_array().unwrap();
        assert!(cases.len() > 50, "{}", cases.len());
        for (number, case) in cases.iter().enumerate() {
            let mut source = NoiseSource::new(case["seed"].as_u64().unwrap());
            for (draw, shape) in case["shapes"].as_array().unwrap().iter().enumerate() {
                let shape: Vec<usize> = serde_json::from_value(shape.clone()).unwrap();
                let found = source.normal_values(shape.iter().product());
                let expected = golden.values::<f32>(&format!("{number}.{draw}"));
                let difference = compare_values(&found, &expected).unwrap();
                assert!(
                    bits(&found) == bits(&expected),
                    "case {number} {case}, draw {draw}: differs by up to {:e}",
                    difference.max
                );
                assert!(difference.max <= Tolerance::EXACT.max);
            }
        }
    }

    #[test]
    fn an_empty_shape_draws_nothing() {
        let mut source = NoiseSource::new(7);
        let nothing = source.normal([4, 0, 2]);
        assert_eq!(nothing.shape(), [4, 0, 2]);
        assert_eq!(source.normal([1, 1, 3]), NoiseSource::new(7).normal([1, 1, 3]));
    }
}
