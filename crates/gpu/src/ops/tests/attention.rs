//! Attention: both our kernels and the library's place.

use half::f16;

use crate::command::{Arg, AttentionCall, Command, Launch, Place, Span};
use crate::kernels::attention::tiles;
use crate::testing::{assert_close, compute, device, each_way, emulated, numbers};
use crate::{AttnMask, DType, Gpu, HostData, Tensor, ThreadOrder, attend};

/// Rows, queries, keys, heads and the width of a head.
pub(super) type Sizes = [usize; 5];

pub(super) fn reference(
    [rows, queries, keys, heads, d]: Sizes,
    [q, k, v]: [&[f32]; 3],
    mask: AttnMask,
) -> Vec<f64> {
    let mut y = vec![0.0; rows * queries * heads * d];
    for place in 0..rows * queries * heads {
        let (row, query, head) = (place / heads / queries, place / heads % queries, place % heads);
        let seen = if mask == AttnMask::Causal { query + 1 } else { keys };
        let of_key = |key: usize| ((row * keys + key) * heads + head) * d;
        let scores: Vec<f64> = (0..seen)
            .map(|key| {
                let products = (0..d).map(|c| f64::from(q[place * d + c]) * f64::from(k[of_key(key) + c]));
                products.sum::<f64>() / (d as f64).sqrt()
            })
            .collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
        for c in 0..d {
            let sum: f64 = (0..seen)
                .map(|key| (scores[key] - largest).exp() * f64::from(v[of_key(key) + c]))
                .sum();
            y[place * d + c] = sum / total;
        }
    }
    y
}

#[test]
fn attention_equals_its_definition() {
    let all: [Sizes; 6] = [
        [2, 70, 77, 2, 40],
        [1, 33, 33, 3, 8],
        [1, 3, 1, 1, 160],
        [1, 18, 65, 1, 512],
        [2, 5, 40, 2, 80],
        [1, 1, 100, 1, 64],
    ];
    for sizes @ [rows, queries, keys, heads, d] in all {
        each_way(|gpu, dtype| {
            let q = numbers(1, rows * queries * heads * d, dtype);
            let k = numbers(2, rows * keys * heads * d, dtype);
            let v = numbers(3, rows * keys * heads * d, dtype);
            let given: [(&[usize], &[f32]); 3] = [
                (&[rows, queries, heads * d], &q),
                (&[rows, keys, heads * d], &k),
                (&[rows, keys, heads * d], &v),
            ];
            let got = compute(gpu, dtype, &given, |x| {
                Ok(vec![attend(&x[0], &x[1], &x[2], heads, AttnMask::None)?])
            });
            let want = reference(sizes, [&q, &k, &v], AttnMask::None);
            assert_close(&format!("attention {sizes:?}"), dtype, &got[0], &want);
        });
    }
}

#[test]
fn a_causal_query_sees_no_later_key() {
    for sizes @ [rows, tokens, _, heads, d] in [[2, 77, 77, 2, 16], [1, 1, 1, 1, 8], [1, 40, 40, 1, 80]] {
        each_way(|gpu, dtype| {
            let shape = [rows, tokens, heads * d];
            let [q, k, v] = [1, 2, 3].map(|seed| numbers(seed, rows * tokens * heads * d, dtype));
            let got = compute(gpu, dtype, &[(&shape, &q), (&shape, &k), (&shape, &v)], |x| {
                Ok(vec![attend(&x[0], &x[1], &x[2], heads, AttnMask::Causal)?])
            });
            let want = reference(sizes, [&q, &k, &v], AttnMask::Causal);
            assert_close(&format!("causal attention {sizes:?}"), dtype, &got[0], &want);
        });
    }
}

/// The kernel on the matrix units, which a card uses in the library's place as yet.
#[test]
fn attention_on_fragments_equals_its_definition() {
    let all: [Sizes; 5] = [
        [2, 70, 77, 2, 40],
        [1, 33, 33, 3, 64],
        [1, 16, 1, 1, 160],
        [1, 100, 130, 1, 160],
        [1, 17, 31, 2, 80],
    ];
    for order in ThreadOrder::ALL {
        let gpu = device(order);
        for sizes in all {
            let (got, want) = on_fragments(&gpu, sizes);
            let found = crate::testing::distance(&got, &want);
            // The weights of the keys are rounded to halves before they are used.
            assert!(found < 1e-3, "{sizes:?}: {found:e}");
        }
    }
}

pub(super) fn on_fragments(
    gpu: &Gpu,
    sizes @ [rows, queries, keys, heads, d]: Sizes,
) -> (Vec<f32>, Vec<f64>) {
    let upload = |seed: u32, tokens: usize| {
        let count = rows * tokens * heads * d;
        let floats = numbers(seed, count, DType::F16);
        let halves: Vec<f16> = floats.iter().map(|x| f16::from_f32(*x)).collect();
        let tensor = Tensor::upload(gpu, &[count], HostData::F16(&halves)).unwrap();
        (floats, tensor)
    };
    let ((q, q_device), (k, k_device), (v, v_device)) =
        (upload(1, queries), upload(2, keys), upload(3, keys));
    let y = Tensor::kept(gpu, &[q.len()], DType::F16).unwrap();
    let call = AttentionCall {
        dtype: DType::F16,
        rows,
        queries,
        keys,
        heads,
        width: d,
        scale: 1.0 / (d as f32).sqrt(),
        q: q_device.span(),
        k: k_device.span(),
        v: v_device.span(),
        y: y.span(),
    };
    gpu.run(&Command::Launch(tiles(&call).unwrap()), Span::NONE)
        .unwrap();
    (
        y.download().unwrap(),
        reference(sizes, [&q, &k, &v], AttnMask::None),
    )
}

/// What the emulated device says about launches that no card would run either.
#[test]
fn a_wrong_launch_loses_the_device() {
    let wrong = |kernel: &str, shared_bytes: usize, args: Vec<Arg>| {
        let gpu = emulated(ThreadOrder::Ascending);
        let launch = Launch {
            kernel: kernel.to_owned(),
            grid: [1, 1, 1],
            block: [32, 1, 1],
            shared_bytes,
            args,
        };
        let error = gpu
            .run(&Command::Launch(launch), Span::NONE)
            .unwrap_err()
            .to_string();
        assert!(
            Tensor::upload(&gpu, &[1], HostData::F32(&[0.0])).is_err(),
            "it stays lost"
        );
        error
    };
    assert!(wrong("no_such_kernel", 0, Vec::new()).contains("no such kernel"));
    assert!(wrong("geglu_f32", 0, vec![Arg::I32(0)]).contains("ppli"));
    assert!(wrong("geglu_f32", 1 << 20, Vec::new()).contains("shared memory"));
    let nowhere = Arg::Pointer(Span {
        place: Place::Device(4096),
        bytes: 4,
    });
    let args = vec![nowhere, nowhere, Arg::I64(1), Arg::I32(1)];
    assert!(wrong("geglu_f32", 0, args).contains("no allocated memory"));
}
