//! Functions of a vector: powers of two, error function, and the activations made of them.

use super::Simd;

/// 2^x for x up to 126, to about one unit in the last place; below 2^-126, 2^-126 or less.
#[inline(always)]
pub(crate) fn exp2<S: Simd>(s: S, x: S::V) -> S::V {
    if S::SCALES_TO_ZERO {
        exp2_above_least(s, x)
    } else {
        exp2_above_least(s, s.max(x, s.splat(-126.0)))
    }
}

/// 2^x for x in -126..=126. The polynomial, 1 at 0, has the smallest largest error on 0..1, 1.3e-8 of the result.
#[inline(always)]
fn exp2_above_least<S: Simd>(s: S, x: S::V) -> S::V {
    let r = s.fraction(x);
    let p = s.splat(2.161_292e-4);
    let p = s.fma(p, r, s.splat(1.246_784_5e-3));
    let p = s.fma(p, r, s.splat(9.675_452e-3));
    let p = s.fma(p, r, s.splat(5.548_528_2e-2));
    let p = s.fma(p, r, s.splat(2.402_293_1e-1));
    let p = s.fma(p, r, s.splat(6.931_470_6e-1));
    let p = s.fma(p, r, s.splat(1.0));
    s.scale_exp2(p, x)
}

/// The error function as a ratio of polynomials on -4..4 (Eigen's single-precision coefficients), to 5e-7.
#[inline(always)]
pub(crate) fn erf<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.max(s.min(x, s.splat(4.0)), s.splat(-4.0));
    let x2 = s.mul(x, x);
    let p = s.splat(-2.726_142_3e-10);
    let p = s.fma(p, x2, s.splat(2.770_681_4e-8));
    let p = s.fma(p, x2, s.splat(-2.101_024e-6));
    let p = s.fma(p, x2, s.splat(-5.692_506_2e-5));
    let p = s.fma(p, x2, s.splat(-7.349_906_4e-4));
    let p = s.fma(p, x2, s.splat(-2.954_6e-3));
    let p = s.mul(x, s.fma(p, x2, s.splat(-1.609_603_3e-2)));
    let q = s.splat(-1.456_607_2e-5);
    let q = s.fma(q, x2, s.splat(-2.133_740_5e-4));
    let q = s.fma(q, x2, s.splat(-1.682_827e-3));
    let q = s.fma(q, x2, s.splat(-7.373_329_3e-3));
    let q = s.fma(q, x2, s.splat(-1.426_473_9e-2));
    s.div(p, q)
}

/// x · sigmoid(f · x): SiLU for f = 1, CLIP's quick GELU for f = 1.702.
#[inline(always)]
pub(crate) fn swish<S: Simd>(s: S, x: S::V, f: f32) -> S::V {
    // As a power of two, whose argument needs no reduction: what that loses grows with x, as its share of the result falls.
    let power = s.mul(x, s.splat(-f * std::f32::consts::LOG2_E));
    let power = s.max(s.min(power, s.splat(126.0)), s.splat(-126.0));
    s.mul(x, s.reciprocal(s.add(s.splat(1.0), exp2_above_least(s, power))))
}

/// GELU with the error function, as PyTorch's default: x · (1 + erf(x / √2)) / 2.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    let e = erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
    s.mul(s.mul(x, s.splat(0.5)), s.add(s.splat(1.0), e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::simd::{Kernel, PANEL};

    enum Function {
        Swish,
        Exp2,
        Erf,
    }

    /// A function of a vector at 16 places.
    struct At<'a>(&'a [f32; PANEL], Function);

    impl Kernel for At<'_> {
        type Output = [f32; PANEL];

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> [f32; PANEL] {
            let mut out = [0.0; PANEL];
            for i in (0..PANEL).step_by(S::LANES) {
                // SAFETY: both arrays have 16 numbers.
                unsafe {
                    let x = s.load(self.0.as_ptr().add(i));
                    let y = match self.1 {
                        Function::Swish => swish(s, x, 1.702),
                        Function::Exp2 => exp2(s, x),
                        Function::Erf => erf(s, x),
                    };
                    s.store(out.as_mut_ptr().add(i), y);
                }
            }
            out
        }
    }

    #[test]
    fn the_sigmoid_loses_a_unit_in_the_last_place_for_each_of_its_argument() {
        for isa in Isa::available() {
            for step in -5000_i16..5000 {
                let x = f32::from(step) * 0.01;
                let found = f64::from(isa.run(At(&[x; PANEL], Function::Swish))[PANEL - 1]);
                let expected = f64::from(x) / (1.0 + (-1.702 * f64::from(x)).exp());
                let bound = 2.4e-7 + 1.2e-7 * f64::from(-x).max(0.0);
                assert!(
                    (found - expected).abs() <= bound * expected.abs(),
                    "{isa}: swish {x} is {found}, not {expected}"
                );
            }
            let far = isa.run(At(&[-1e4; PANEL], Function::Swish))[0];
            assert!(far.abs() < 1e-33, "{isa}: {far}");
            let far = isa.run(At(&[1e4; PANEL], Function::Swish))[0];
            assert!((far - 1e4).abs() < 2e-3, "{isa}: {far}");
        }
    }

    #[test]
    fn powers_of_two_are_good_to_two_units_in_the_last_place() {
        for isa in Isa::available() {
            for step in -12600_i16..=12600 {
                let x = f32::from(step) * 0.01;
                let found = f64::from(isa.run(At(&[x; PANEL], Function::Exp2))[0]);
                let expected = f64::from(x).exp2();
                assert!(
                    ((found - expected) / expected).abs() < 2.4e-7,
                    "{isa}: 2^{x} is {found}"
                );
            }
            let least = isa.run(At(&[f32::NEG_INFINITY; PANEL], Function::Exp2))[0];
            assert!(least < 1.2e-38, "{isa}: {least}");
        }
    }

    #[test]
    fn the_error_function_is_good_to_five_in_ten_million() {
        // erf at 0.25, 0.5, 1, 1.5, 2, 3 (Abramowitz and Stegun, table 7.1).
        let known = [
            (0.25, 0.276_326_390_2),
            (0.5, 0.520_499_877_8),
            (1.0, 0.842_700_792_9),
            (1.5, 0.966_105_146_5),
            (2.0, 0.995_322_265_0),
            (3.0, 0.999_977_909_5),
            (9.0, 1.0),
        ];
        for isa in Isa::available() {
            for (x, expected) in known {
                for sign in [1.0, -1.0] {
                    let found = isa.run(At(&[sign * x; PANEL], Function::Erf))[0];
                    assert!(
                        (f64::from(found * sign) - expected).abs() < 5e-7,
                        "{isa}: erf {x} is {found}"
                    );
                }
            }
        }
    }
}
