//! What the kernels' own tests share.

use candle_core::{DType, Device, Tensor};

use crate::isa::Isa;

/// The sets of the machine and the emulated ones, of which one splits f32.
pub(crate) fn every_set() -> Vec<Isa> {
    Isa::available().into_iter().chain(Isa::emulated()).collect()
}

/// Those that multiply pairs.
pub(crate) fn with_pairs() -> Vec<Isa> {
    every_set()
        .into_iter()
        .filter(|isa| isa.pairs().is_some())
        .collect()
}

/// What is lost where f32 is split, and otherwise `exact`.
pub(crate) fn tolerance(isa: Isa, exact: f64) -> f64 {
    if isa.splits() { 2e-5 } else { exact }
}

/// Pseudo-random numbers in -1..1, without a period that could coincide with the size of a kernel's blocks.
pub(crate) fn noise(shape: &[usize], seed: u64) -> Tensor {
    let count: usize = shape.iter().product();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let values: Vec<f32> = (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            #[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
            let unit = (state >> 40) as f32 / 16_777_216.0;
            2.0 * unit - 1.0
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// All numbers of a tensor in f64, in order.
pub(crate) fn wide(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
    flat.to_vec1().unwrap()
}

/// Every element within `tolerance` times the largest expected magnitude.
pub(crate) fn assert_near(what: &str, found: &Tensor, expected: &[f64], tolerance: f64) {
    let found = wide(found);
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-30_f64, |m, v| m.max(v.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let error = (f - e).abs() / scale;
        assert!(
            error <= tolerance,
            "{what}: element {i} is {f}, expected {e}, error {error:.2e}"
        );
    }
}

/// Row `row` of a batch.
pub(crate) fn row(tensor: &Tensor, row: usize) -> Tensor {
    tensor.narrow(0, row, 1).unwrap().contiguous().unwrap()
}

/// Bit for bit the same.
pub(crate) fn assert_same(what: &str, a: &Tensor, b: &Tensor) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let bits = |t: &Tensor| -> Vec<u32> {
        let values: Vec<f32> = t.flatten_all().unwrap().to_vec1().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    };
    assert!(bits(a) == bits(b), "{what}: not the same bits");
}

/// Asserts that `f` gives these bits on one thread, three and sixteen, for which work is cut into different pieces.
#[track_caller]
pub(crate) fn assert_same_on_threads(whole: &Tensor, f: impl Fn() -> Tensor + Sync) {
    for count in [1, 3, 16] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .build()
            .unwrap();
        assert_same(&format!("{count} threads"), whole, &pool.install(&f));
    }
}
