//! Operations on each number by itself.

use crate::testing::{FLOATS, assert_close, compute, device, each_way, numbers};
use crate::{
    Activation, DType, HostData, Tensor, ThreadOrder, activate, add, add_scaled, affine, convert, geglu,
};

/// erf by its series, which converges everywhere (Abramowitz and Stegun, 7.1.6).
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))
}

fn map(x: &[f32], f: impl Fn(f64) -> f64) -> Vec<f64> {
    x.iter().map(|x| f(f64::from(*x))).collect()
}

#[test]
fn activations_equal_their_definitions() {
    let of = |activation: Activation| {
        move |x: f64| match activation {
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::Gelu => gelu(x),
            Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
            Activation::Relu => x.max(0.0),
            Activation::Tanh => x.tanh(),
        }
    };
    let all = [
        Activation::Silu,
        Activation::Gelu,
        Activation::QuickGelu,
        Activation::Relu,
        Activation::Tanh,
    ];
    for activation in all {
        for count in [1, 63, 1000] {
            each_way(|gpu, dtype| {
                let x: Vec<f32> = numbers(1, count, dtype).iter().map(|x| 2.0 * x).collect();
                let got = compute(gpu, dtype, &[(&[count], &x)], |x| {
                    Ok(vec![activate(&x[0], activation)?])
                });
                assert_close(
                    &format!("{activation:?}"),
                    dtype,
                    &got[0],
                    &map(&x, of(activation)),
                );
            });
        }
    }
}

#[test]
fn geglu_is_the_first_half_times_the_gelu_of_the_second() {
    for (lines, width) in [(13, 77), (1, 1), (2, 320)] {
        each_way(|gpu, dtype| {
            let h = numbers(2, lines * 2 * width, dtype);
            let got = compute(gpu, dtype, &[(&[lines, 2 * width], &h)], |x| {
                Ok(vec![geglu(&x[0])?])
            });
            let want: Vec<f64> = h
                .chunks(2 * width)
                .flat_map(|h| (0..width).map(|c| f64::from(h[c]) * gelu(f64::from(h[width + c]))))
                .collect();
            assert_close("geglu", dtype, &got[0], &want);
        });
    }
}

#[test]
fn affine_scales_and_shifts() {
    each_way(|gpu, dtype| {
        let x = numbers(3, 77, dtype);
        let got = compute(gpu, dtype, &[(&[7, 11], &x)], |x| {
            Ok(vec![affine(&x[0], 0.5, -3.0)?])
        });
        assert_close("affine", dtype, &got[0], &map(&x, |x| x * 0.5 - 3.0));
    });
}

#[test]
fn sums_reach_every_place_that_a_side_of_one_stands_for() {
    let shape = [3, 5, 7];
    for other in [[3, 5, 7], [3, 1, 7], [1, 5, 7], [1, 1, 7]] {
        each_way(|gpu, dtype| {
            let (x, y) = (numbers(4, 105, dtype), numbers(5, other.iter().product(), dtype));
            let got = compute(gpu, dtype, &[(&shape, &x), (&other, &y)], |x| {
                Ok(vec![add(&x[0], &x[1])?])
            });
            let want: Vec<f64> = (0..105)
                .map(|i| {
                    let places = [i / 35, i / 7 % 5, i % 7];
                    let at = (0..3).fold(0, |at, side| at * other[side] + places[side] % other[side]);
                    f64::from(x[i]) + f64::from(y[at])
                })
                .collect();
            assert_close(&format!("sum with {other:?}"), dtype, &got[0], &want);
        });
    }
}

#[test]
fn each_row_has_its_own_scale() {
    each_way(|gpu, dtype| {
        let (x, y) = (numbers(6, 66, dtype), numbers(7, 66, dtype));
        let scales = [0.0, 1.0, -0.5];
        let on_device = Tensor::upload(gpu, &[3], HostData::F32(&scales)).unwrap();
        let given: [(&[usize], &[f32]); 2] = [(&[3, 22], &x), (&[3, 22], &y)];
        let got = compute(gpu, dtype, &given, |x| {
            Ok(vec![add_scaled(&x[0], &x[1], &on_device)?])
        });
        let want: Vec<f64> = (0..66)
            .map(|i| f64::from(x[i]) + f64::from(scales[i / 22]) * f64::from(y[i]))
            .collect();
        assert_close("scaled sum", dtype, &got[0], &want);
    });
}

#[test]
fn conversions_round_to_nearest() {
    for order in ThreadOrder::ALL {
        let gpu = device(order);
        let x = numbers(8, 300, DType::F32);
        for from in FLOATS {
            for to in FLOATS {
                let got = compute(&gpu, from, &[(&[300], &x)], |x| Ok(vec![convert(&x[0], to)?]));
                let through_half = from == DType::F16 || to == DType::F16;
                let want: Vec<f32> = x
                    .iter()
                    .map(|x| {
                        if through_half {
                            half::f16::from_f32(*x).to_f32()
                        } else {
                            *x
                        }
                    })
                    .collect();
                assert_eq!(got[0], want, "{from:?} to {to:?}");
            }
        }
    }
}
