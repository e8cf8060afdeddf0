//! The layers on the emulated device against those of the CPU, on odd shapes, in both precisions.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::Device as HostDevice;
use pentimento_gpu::{Emulation, Gpu};
use pentimento_kernels::{
    Activation, AttnMask, Conv2d, ConvFusion, Device, GpuDevice, GroupNorm, HostTensor, InputList,
    KernelError, LayerNorm, Linear, Padding, Precision, Programs, Result, SingleHeadAttention, Tensor,
    TokenMerge, attend, channels_first, channels_last, join_channels, relu,
};
use pentimento_testkit::{Tolerance, assert_close};

/// Sums in another order, and Winograd's method on the CPU.
const F32: Tolerance = Tolerance {
    max: 2e-5,
    mean: 4e-6,
};
/// Inputs, weights and results are rounded to 11 bits.
const F16: Tolerance = Tolerance {
    max: 5e-3,
    mean: 1e-3,
};

/// Numbers in -1..1, others for each seed.
fn noise(dims: &[usize], seed: u64) -> HostTensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        #[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
        let unit = (state >> 40) as f32 / 16_777_216.0;
        2.0 * unit - 1.0
    };
    let values: Vec<f32> = (0..dims.iter().product()).map(|_| next()).collect();
    HostTensor::from_vec(values, dims, &HostDevice::Cpu).unwrap()
}

fn emulated(precision: Precision) -> Device {
    let gpu = Gpu::emulated(Emulation::default());
    Device::Gpu(GpuDevice::new(gpu, precision))
}

/// What `body` makes of `inputs` on a device.
fn compute(
    device: &Device,
    inputs: &[&HostTensor],
    body: impl FnOnce(&[Tensor]) -> Result<Tensor>,
) -> Result<HostTensor> {
    let mut given = InputList::default();
    let places: Vec<_> = inputs.iter().map(|x| given.host((*x).clone())).collect();
    let programs = Programs::new(device);
    let y = programs.run_one((), given, |inputs| {
        let x = places.iter().map(|place| inputs.take(*place));
        body(&x.collect::<Result<Vec<_>>>()?)
    })?;
    y.into_host()
}

/// That `body`, which makes its layers on the device that it is given, is the same on the emulated one as on the CPU.
#[track_caller]
fn assert_alike(what: &str, inputs: &[&HostTensor], body: impl Fn(&Device, &[Tensor]) -> Result<Tensor>) {
    let expected = compute(&Device::Cpu, inputs, |x| body(&Device::Cpu, x)).unwrap();
    for (precision, tolerance) in [(Precision::F32, F32), (Precision::F16, F16)] {
        let device = emulated(precision);
        let found = compute(&device, inputs, |x| body(&device, x)).unwrap();
        let what = format!("{what} in {precision:?}");
        assert_close(&what, &found, &expected, tolerance);
    }
}

#[test]
fn linear_layers_are_alike() {
    for (dims, outputs) in [(&[2, 5, 7][..], 3), (&[1, 33], 16), (&[3, 1, 20], 41)] {
        let inputs = dims[dims.len() - 1];
        let x = noise(dims, 1);
        let (weight, bias) = (noise(&[outputs, inputs], 2), noise(&[outputs], 3));
        let mut shape = dims.to_vec();
        shape[dims.len() - 1] = outputs;
        let residual = noise(&shape, 4);
        let (down, up) = (noise(&[2, inputs], 5), noise(&[outputs, 2], 6));
        for activation in [
            Activation::None,
            Activation::Silu,
            Activation::QuickGelu,
            Activation::Gelu,
        ] {
            for (beside, residual) in [
                (false, None),
                (true, None),
                (false, Some(&residual)),
                (true, Some(&residual)),
            ] {
                let what = format!(
                    "{dims:?} to {outputs}, {activation:?}, {beside}, {}",
                    residual.is_some()
                );
                let inputs: Vec<_> = std::iter::once(&x).chain(residual).collect();
                assert_alike(&what, &inputs, |device, x| {
                    let layer = Linear::new(&weight, Some(&bias), device)?;
                    let branch = beside.then(|| layer.branch(&down, &up)).transpose()?;
                    layer.forward_beside(&x[0], branch.as_ref(), activation, x.get(1))
                });
            }
        }
    }
}

#[test]
fn gated_layers_are_alike() {
    let (x, weight, bias) = (noise(&[2, 3, 9], 1), noise(&[34, 9], 2), noise(&[34], 3));
    let (down, up) = (noise(&[3, 9], 5), noise(&[34, 3], 6));
    for beside in [false, true] {
        assert_alike(&format!("GEGLU, {beside}"), &[&x], |device, x| {
            let layer = Linear::geglu(&weight, Some(&bias), device)?;
            let branch = beside.then(|| layer.branch(&down, &up)).transpose()?;
            layer.forward_beside(&x[0], branch.as_ref(), Activation::None, None)
        });
    }
}

#[test]
fn convolutions_are_alike_with_all_that_is_around_them() {
    let after = Padding { before: 0, after: 1 };
    for (inputs, outputs, size, how, upsample) in [
        (4, 8, (5, 7), (1, Padding::SAME), None),
        (32, 20, (6, 5), (1, Padding::SAME), None),
        (32, 16, (4, 3), (1, Padding::SAME), Some((8, 6))),
        (32, 16, (4, 3), (1, Padding::SAME), Some((7, 6))),
        (32, 16, (9, 7), (2, Padding::SAME), None),
        (32, 16, (8, 6), (2, after), None),
    ] {
        let x = noise(&[2, size.0, size.1, inputs], 1);
        let (weight, bias) = (noise(&[outputs, inputs, 3, 3], 2), noise(&[outputs], 3));
        let (scale, shift) = (noise(&[inputs], 4), noise(&[inputs], 5));
        let plain = compute(&Device::Cpu, &[&x], |x| {
            let fusion = ConvFusion {
                upsample,
                ..ConvFusion::default()
            };
            Conv2d::new(&weight, None, how, &Device::Cpu)?.forward(&x[0], fusion)
        });
        let residual = noise(plain.unwrap().dims(), 6);
        let row_bias = noise(&[2, 1, outputs], 7);
        let what = format!("{inputs} to {outputs} at {size:?}, {how:?}, {upsample:?}");
        assert_alike(&what, &[&x, &residual, &row_bias], |device, x| {
            let norm = GroupNorm::new(&scale, &shift, (4, 1e-5), device)?;
            let norm = norm.normalisation(&x[0])?.with_silu();
            let fusion = ConvFusion {
                norm: Some(&norm),
                upsample,
                row_bias: Some(&x[2]),
                residual: Some(&x[1]),
            };
            Conv2d::new(&weight, Some(&bias), how, device)?.forward(&x[0], fusion)
        });
    }
}

#[test]
fn norms_are_alike() {
    let (weight, bias) = (noise(&[12], 1), noise(&[12], 2));
    for dims in [&[2, 5, 7, 12][..], &[1, 1, 1, 12], &[3, 11, 12]] {
        let x = (noise(dims, 3) + 1.0).unwrap();
        assert_alike(&format!("group norm of {dims:?}"), &[&x], |device, x| {
            let norm = GroupNorm::new(&weight, &bias, (3, 1e-5), device)?;
            norm.normalisation(&x[0])?.apply(&x[0])
        });
        assert_alike(&format!("layer norm of {dims:?}"), &[&x], |device, x| {
            LayerNorm::new(&weight, &bias, 1e-5, device)?.forward(&x[0])
        });
    }
}

#[test]
fn attentions_are_alike() {
    for (rows, queries, keys, heads, width, mask) in [
        (2, 5, 77, 2, 40, AttnMask::None),
        (1, 33, 33, 1, 72, AttnMask::None),
        (2, 9, 9, 3, 8, AttnMask::Causal),
        (1, 1, 1, 1, 1, AttnMask::None),
    ] {
        let q = noise(&[rows, queries, heads * width], 1);
        let (k, v) = (
            noise(&[rows, keys, heads * width], 2),
            noise(&[rows, keys, heads * width], 3),
        );
        let what = format!("{queries} over {keys}, {heads} heads of {width}, {mask:?}");
        assert_alike(&what, &[&q, &k, &v], |_, x| {
            attend((&x[0], &x[1], &x[2]), heads, mask, Precision::F32)
        });
    }
    let weights = || [1, 2, 3, 4].map(|seed| (noise(&[24, 24], seed), noise(&[24], seed + 9)));
    let x = noise(&[1, 15, 24], 7);
    let residual = noise(&[1, 5, 3, 24], 8);
    assert_alike("one head", &[&x, &residual], |device, x| {
        SingleHeadAttention::new(weights(), device)?.forward_add(&x[0], &x[1])
    });
}

#[test]
fn the_same_tokens_are_merged() {
    for (size, merged) in [((4, 4), 8), ((5, 6), 11), ((2, 2), 3)] {
        let (h, w) = size;
        let (x, residual) = (noise(&[2, h * w, 6], 1), noise(&[2, h * w, 6], 2));
        let body = |x: &[Tensor]| {
            let merge = TokenMerge::choose(&x[0], size, merged)?;
            let merge = merge.ok_or_else(|| KernelError::mismatch("nothing to merge"))?;
            merge.unmerge(&merge.merge(&x[0])?, &x[1])
        };
        // Only where similarities are rounded alike: in f16 another token may be the nearest.
        let inputs = [&x, &residual];
        let expected = compute(&Device::Cpu, &inputs, body).unwrap();
        let found = compute(&emulated(Precision::F32), &inputs, body).unwrap();
        assert_close(&format!("{size:?}, {merged}"), &found, &expected, F32);
    }
}

#[test]
fn what_only_moves_numbers_is_the_same_to_the_last_bit() {
    let (a, b) = (noise(&[3, 4, 5, 6], 1), noise(&[3, 4, 5, 2], 2));
    let (s, n) = (noise(&[2, 3, 4], 3), noise(&[2, 5, 4], 4));
    type Body = fn(&[Tensor]) -> Result<Tensor>;
    let bodies: [(&str, Body); 10] = [
        ("channels last", |x| channels_last(&x[0])),
        ("channels first", |x| channels_first(&x[0])),
        ("joined", |x| join_channels(&x[0], &x[1])),
        ("rows", |x| Tensor::cat_rows(&[&x[0].narrow_rows(1, 2)?, &x[0]])),
        ("tokens", |x| x[2].cat_tokens(&x[3])),
        ("columns", |x| x[0].columns(1, 3)),
        ("relu", |x| relu(x[0].clone())),
        ("shape", |x| x[0].reshape(&[12, 30])?.unsqueeze(1)),
        ("sum", |x| x[0].add(&x[0])),
        ("affine", |x| x[0].affine(2.0, -1.0)),
    ];
    for (what, body) in bodies {
        let inputs = [&a, &b, &s, &n];
        let expected = compute(&Device::Cpu, &inputs, body).unwrap();
        let found = compute(&emulated(Precision::F32), &inputs, body).unwrap();
        assert_close(what, &found, &expected, Tolerance::EXACT);
    }
    for (what, body) in [("silu", (|x| x[0].silu()) as Body), ("tanh", |x| x[0].tanh())] {
        assert_alike(what, &[&a], |_, x| body(x));
    }
}

#[test]
fn a_program_is_recorded_for_its_shapes_and_its_key_and_takes_other_rows_each_time() {
    let device = emulated(Precision::F32);
    let programs = Programs::new(&device);
    let run = |key: u8, rows: usize, picked: Vec<u32>, times: f64| {
        let x = noise(&[rows, 3], rows as u64);
        let mut given = InputList::default();
        let (place, index) = (given.host(x.clone()), given.index(picked.clone()));
        let y = programs.run_one(key, given, |inputs| {
            let picked = inputs.index(index)?;
            inputs.take(place)?.select_rows(&picked)?.affine(times, 0.0)
        });
        let picked = HostTensor::new(picked, x.device()).unwrap();
        let expected = (x.index_select(&picked, 0).unwrap() * times).unwrap();
        (y.unwrap().into_host().unwrap(), expected)
    };
    for (key, rows, picked, times) in [
        (0, 4, vec![3, 1], 2.0),
        (0, 4, vec![0, 0], 2.0),
        (0, 5, vec![4, 2], 2.0),
        (1, 4, vec![3, 1], 3.0),
        (0, 4, vec![2, 1], 2.0),
    ] {
        let (found, expected) = run(key, rows, picked, times);
        assert_close("rows", &found, &expected, Tolerance::EXACT);
    }
    // More shapes than are kept; the first ones are recorded again.
    for rows in (2..50).chain(2..5) {
        let (found, expected) = run(0, rows, vec![1], 2.0);
        assert_close("rows", &found, &expected, Tolerance::EXACT);
    }
}

#[test]
fn results_of_one_program_are_inputs_of_the_next_alone_and_as_rows() {
    let device = emulated(Precision::F16);
    let programs = Programs::new(&device);
    let results: Vec<Tensor> = (1..4)
        .map(|seed| {
            let mut given = InputList::default();
            let x = given.host(noise(&[1, 2, 4], seed));
            programs
                .run_one("first", given, |inputs| inputs.take(x)?.silu())
                .unwrap()
        })
        .collect();
    assert_eq!(results[0].size_bytes(), 8 * 2);
    let mut given = InputList::default();
    let rows = given.rows(results.iter().collect());
    let one = given.tensor(results[1].clone());
    let mut both = programs
        .run("second", given, |inputs| {
            // Asked for twice, as keys and values may be.
            let sum = inputs.get(rows)?.add(&inputs.get(rows)?)?;
            Ok(vec![sum, inputs.take(one)?.tanh()?])
        })
        .unwrap();
    assert_eq!(both.pop().unwrap().dims(), [1, 2, 4]);
    assert_eq!(both.pop().unwrap().dims(), [3, 2, 4]);
}

#[test]
fn tensors_and_layers_of_two_devices_do_not_meet() {
    let device = emulated(Precision::F32);
    let x = Tensor::Host(noise(&[1, 4], 1));
    let layer = Linear::new(&noise(&[4, 4], 2), None, &device).unwrap();
    let error = layer.forward(&x, Activation::None, None).unwrap_err();
    assert_eq!(error.to_string(), "a layer of a GPU got a tensor of main memory");
    let layer = Linear::new(&noise(&[4, 4], 2), None, &Device::Cpu).unwrap();
    let refused = compute(&device, &[&noise(&[1, 4], 1)], |x| {
        layer.forward(&x[0], Activation::None, None)
    });
    let error = refused.unwrap_err().to_string();
    assert_eq!(error, "a layer of the CPU got a tensor of a GPU");
}

/// As many small computations as an autoencoder of two sizes has: none of them is written down twice.
#[test]
fn small_programs_are_kept_however_many_they_are() {
    let programs = Programs::new(&emulated(Precision::F32));
    let x = noise(&[2, 3, 4, 8], 1);
    let mut recorded = 0;
    for _ in 0..2 {
        for key in 0..100 {
            let mut given = InputList::default();
            let place = given.host(x.clone());
            let y = programs.run_one(key, given, |inputs| {
                recorded += 1;
                relu(inputs.take(place)?)
            });
            y.unwrap();
        }
    }
    assert_eq!(recorded, 100);
}
