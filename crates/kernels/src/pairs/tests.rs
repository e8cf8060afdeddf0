//! The reference of pairs against f64, and every unit of the machine against the reference.

use super::{PAIRS, PairProduct, PairUnit, Parts, Rounding, STEP, interleave, narrow};
use crate::isa::Isa;
use crate::simd::{Accumulate, Kernel, PANEL, Prefetch, Product, Rows, Simd};
use crate::testing::noise;

/// Rows (rows, k) times columns (k, 16 · panels), each operand in parts.
#[derive(Clone, Copy)]
struct Multiplied<'a> {
    unit: PairUnit,
    split: bool,
    x: &'a [f32],
    w: &'a [f32],
    rows: usize,
    panels: usize,
    /// What the sums begin with.
    before: &'a [f32],
    accumulate: Accumulate,
}

impl Kernel for Multiplied<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        let k = self.x.len() / self.rows;
        let padded = k.next_multiple_of(STEP);
        let room = self.rows.next_multiple_of(super::ROWS) * padded / 2;
        let (mut x, mut x_low) = (vec![0.0_f32; room], vec![0.0_f32; room]);
        let width = padded / 2 * PANEL;
        let (mut w, mut w_low) = (
            vec![0.0_f32; self.panels * width],
            vec![0.0_f32; self.panels * width],
        );
        let parts = |high: &mut Vec<f32>, low: &mut Vec<f32>| Parts {
            high: high.as_mut_ptr(),
            low: self.split.then_some(low.as_mut_ptr()),
        };
        let (x, w) = (parts(&mut x, &mut x_low), parts(&mut w, &mut w_low));
        let mut c = self.before.to_vec();
        // SAFETY: the vectors have room for what is stated.
        unsafe {
            for row in 0..self.rows {
                let to = x.at(row * padded / 2);
                narrow(
                    s,
                    self.unit.rounding(),
                    self.x[row * k..].as_ptr(),
                    (k, padded),
                    to,
                );
            }
            for panel in 0..self.panels {
                let columns = &self.w[panel * k * PANEL..];
                interleave(
                    s,
                    self.unit.rounding(),
                    columns.as_ptr(),
                    (k, padded),
                    w.at(panel * width),
                );
            }
            let product = Product {
                a: Rows {
                    first: x.high,
                    stride: padded / 2,
                    step: 1,
                    count: self.rows,
                },
                k: padded / 2,
                panels: self.panels,
                w: w.high,
                next_w: width,
                c: c.as_mut_ptr(),
                stride: PANEL,
                next_c: self.rows * PANEL,
                accumulate: self.accumulate,
                prefetch: Prefetch::NONE,
            };
            let low = x.low.zip(w.low);
            let low = low.map(|(x, w)| (x.cast_const(), w.cast_const()));
            PairProduct { product, low }.run(s, &self.unit.begin());
        }
        c
    }
}

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    noise(&[count], seed).to_vec1().unwrap()
}

/// The sums in f64, as \[panel\]\[row\]\[16\].
fn exact(x: &[f32], w: &[f32], rows: usize, panels: usize) -> Vec<f64> {
    let k = x.len() / rows;
    let mut sums = Vec::new();
    for panel in 0..panels {
        for row in 0..rows {
            for column in 0..PANEL {
                let term =
                    |i: usize| f64::from(x[row * k + i]) * f64::from(w[(panel * k + i) * PANEL + column]);
                sums.push((0..k).map(term).sum());
            }
        }
    }
    sums
}

/// The root of the mean square of the differences over that of what is expected.
#[expect(clippy::cast_precision_loss, reason = "a few thousand")]
fn relative_rms(found: &[f32], expected: &[f64]) -> f64 {
    let mean = |squares: f64| squares / expected.len() as f64;
    let off = found.iter().zip(expected);
    let off = off.map(|(f, e)| (f64::from(*f) - e).powi(2)).sum();
    (mean(off) / mean(expected.iter().map(|e| e * e).sum())).sqrt()
}

/// Every set with a reference of pairs, and what the machine has.
fn units() -> Vec<(Isa, PairUnit)> {
    let sets = Isa::available();
    let references = Isa::emulated().into_iter().filter_map(Isa::pairs);
    let mut units: Vec<_> = references
        .flat_map(|unit| sets.iter().map(move |isa| (*isa, unit)))
        .collect();
    units.extend(sets.iter().filter_map(|isa| Some((*isa, isa.pairs()?))));
    units
}

#[test]
fn errors_are_those_of_the_number_of_bits() {
    for (isa, unit) in units() {
        for k in [320, 1280, 5120] {
            let (rows, panels) = (4, 1);
            let (x, w) = (numbers(rows * k, 1), numbers(panels * k * PANEL, 2));
            let expected = exact(&x, &w, rows, panels);
            for split in [false, true] {
                if split && unit.order() == super::Order::Chain {
                    continue;
                }
                let found = isa.run(Multiplied {
                    unit,
                    split,
                    x: &x,
                    w: &w,
                    rows,
                    panels,
                    before: &vec![f32::NAN; rows * PANEL],
                    accumulate: Accumulate::Overwrite,
                });
                let error = relative_rms(&found, &expected);
                println!("{isa} {unit:?} {k} {split}: {error:.2e}");
                let range = if split { 5e-7..6e-6 } else { 1e-3..3e-3 };
                assert!(range.contains(&error), "{isa} {unit:?} {k}: {error:.2e}");
            }
        }
    }
}

/// Odd shapes, and every way to store, against the reference on the machine's best set.
#[test]
fn every_unit_gives_the_bits_of_its_reference() {
    for (isa, unit) in units() {
        let reference = PairUnit::Reference(unit.order());
        for (rows, k, panels) in [(1, 1, 1), (5, 33, 2), (16, 64, 3), (37, 100, 2), (61, 320, 5)] {
            let (x, w) = (numbers(rows * k, 3), numbers(panels * k * PANEL, 4));
            let before = numbers(panels * rows * PANEL, 5);
            for split in [false, true] {
                if split && unit.order() == super::Order::Chain {
                    continue;
                }
                for accumulate in [Accumulate::Overwrite, Accumulate::Continue, Accumulate::Add] {
                    let product = Multiplied {
                        unit,
                        split,
                        x: &x,
                        w: &w,
                        rows,
                        panels,
                        before: &before,
                        accumulate,
                    };
                    let found = isa.run(product);
                    let expected = Isa::detect().run(Multiplied {
                        unit: reference,
                        ..product
                    });
                    let same = found
                        .iter()
                        .zip(&expected)
                        .all(|(f, e)| f.to_bits() == e.to_bits());
                    assert!(same, "{isa} {unit:?} {rows}x{k} {panels} {split} {accumulate:?}");
                }
            }
        }
    }
}

/// A row among others and alone.
#[test]
fn a_row_does_not_depend_on_its_neighbours() {
    let (rows, k, panels) = (45, 96, 2);
    let (x, w) = (numbers(rows * k, 6), numbers(panels * k * PANEL, 7));
    for (isa, unit) in units() {
        let all = |x: &[f32], rows: usize| {
            isa.run(Multiplied {
                unit,
                split: unit.order() == super::Order::Tile,
                x,
                w: &w,
                rows,
                panels,
                before: &vec![0.0; panels * rows * PANEL],
                accumulate: Accumulate::Overwrite,
            })
        };
        let together = all(&x, rows);
        for row in 0..rows {
            let alone = all(&x[row * k..][..k], 1);
            for panel in 0..panels {
                let among = &together[(panel * rows + row) * PANEL..][..PANEL];
                let alone = &alone[panel * PANEL..][..PANEL];
                assert!(
                    among.iter().zip(alone).all(|(a, b)| a.to_bits() == b.to_bits()),
                    "{isa} {unit:?} row {row}"
                );
            }
        }
    }
}

/// Rounds numbers in the three ways that there are.
struct Rounded<'a>(&'a [f32], Rounding);

impl Kernel for Rounded<'_> {
    type Output = [Vec<u16>; 2];

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> [Vec<u16>; 2] {
        let count = self.0.len();
        let padded = count.next_multiple_of(STEP);
        let (mut high, mut low) = (vec![0.0_f32; padded / 2], vec![0.0_f32; padded / 2]);
        let parts = Parts {
            high: high.as_mut_ptr(),
            low: Some(low.as_mut_ptr()),
        };
        // SAFETY: there is room for all.
        unsafe { narrow(s, self.1, self.0.as_ptr(), (count, padded), parts) };
        let halves = |words: Vec<f32>| -> Vec<u16> {
            let halves = words.into_iter().flat_map(|word| {
                let [a, b, c, d] = word.to_bits().to_le_bytes();
                [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])]
            });
            halves.take(count).collect()
        };
        [halves(high), halves(low)]
    }
}

#[test]
fn numbers_are_rounded_to_the_nearest_and_split_without_loss() {
    let mut given = numbers(1000, 8);
    given.extend([0.0, -0.0, 1.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-37]);
    // Ties: halfway between two numbers, of which the even one is taken.
    given.extend([f32::from_bits(0x3f80_8000), f32::from_bits(0x3f81_8000)]);
    let nans = [0x7fc0_0000, 0x7fff_ffff, 0xff80_0001].map(f32::from_bits);
    let bf16 = |x: f32| half::bf16::from_f32(x).to_bits();
    let roundings = Isa::available().into_iter().flat_map(|isa| {
        let own = isa.pairs().map(PairUnit::rounding);
        [Some(Rounding::Numbers), own]
            .into_iter()
            .flatten()
            .map(move |rounding| (isa, rounding))
    });
    for (isa, rounding) in roundings {
        let [high, low] = isa.run(Rounded(&given, rounding));
        for ((x, high), low) in given.iter().zip(high).zip(low) {
            assert_eq!(high, bf16(*x), "{isa} {x}");
            let widened = half::bf16::from_bits(high).to_f32();
            // A machine's own rounding leaves nothing of a rest below 2^-126.
            if x.is_finite() && widened.is_finite() && (*x == 0.0 || x.abs() > 1e-30) {
                assert_eq!(low, bf16(x - widened), "{isa} {x}");
            }
        }
        let [high, _] = isa.run(Rounded(&nans, rounding));
        assert!(high.iter().all(|x| half::bf16::from_bits(*x).is_nan()), "{isa}");
        // What f16 has, eleven bits, are a high part of eight and a low one.
        let halves: Vec<f32> = given.iter().map(|x| half::f16::from_f32(*x).to_f32()).collect();
        let [high, low] = isa.run(Rounded(&halves, rounding));
        let wide = |bits: u16| half::bf16::from_bits(bits).to_f32();
        for (i, x) in halves
            .iter()
            .enumerate()
            .filter(|(_, x)| x.is_finite() && x.abs() > 1e-4)
        {
            assert!(
                (wide(high[i]) + wide(low[i])).to_bits() == x.to_bits(),
                "{isa} {x}"
            );
        }
    }
    assert_eq!(PAIRS * 2, STEP);
}
