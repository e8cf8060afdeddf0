//! Linear layers and convolutions: shapes, orders and channels that are filled up, against plain loops in f64.

use crate::testing::{FLOATS, assert_close, compute, device, numbers};
use crate::{Conv2d, ConvShape, DType, HostData, Linear, ThreadOrder};

#[test]
fn a_linear_layer_multiplies_adds_bias_and_residual() {
    let gpu = device(ThreadOrder::Ascending);
    for (rows, tokens, inputs, outputs) in [(2, 5, 37, 3), (1, 1, 1, 1), (3, 2, 8, 16)] {
        for dtype in FLOATS {
            let x = numbers(1, rows * tokens * inputs, dtype);
            let weight = numbers(2, outputs * inputs, dtype);
            let (bias, residual) = (
                numbers(3, outputs, dtype),
                numbers(4, rows * tokens * outputs, dtype),
            );
            let layer = Linear::new(
                &gpu,
                (outputs, inputs),
                HostData::F32(&weight),
                Some(HostData::F32(&bias)),
                dtype,
            )
            .unwrap();
            let given: [(&[usize], &[f32]); 2] = [
                (&[rows, tokens, inputs], &x),
                (&[rows, tokens, outputs], &residual),
            ];
            let got = compute(&gpu, dtype, &given, |x| {
                Ok(vec![layer.forward(&x[0], Some(&x[1]))?])
            });
            let want: Vec<f64> = (0..rows * tokens * outputs)
                .map(|i| {
                    let (line, output) = (i / outputs, i % outputs);
                    let products = (0..inputs)
                        .map(|k| f64::from(x[line * inputs + k]) * f64::from(weight[output * inputs + k]));
                    products.sum::<f64>() + f64::from(bias[output]) + f64::from(residual[i])
                })
                .collect();
            assert_close("linear", dtype, &got[0], &want);
        }
    }
}

#[test]
fn a_convolution_equals_its_definition() {
    let gpu = device(ThreadOrder::Ascending);
    let shape = |inputs, outputs, side, stride, before, after| ConvShape {
        inputs,
        outputs,
        side,
        stride,
        before,
        after,
    };
    let all = [
        shape(4, 16, 3, 1, 1, 1),
        shape(9, 4, 3, 1, 1, 1),
        shape(8, 8, 3, 2, 1, 1),
        shape(5, 3, 3, 2, 0, 1),
        shape(16, 6, 1, 1, 0, 0),
    ];
    for (conv, (h, w)) in all.into_iter().zip([(5, 7), (6, 4), (5, 8), (7, 6), (3, 3)]) {
        for dtype in FLOATS {
            let ConvShape {
                inputs,
                outputs,
                side,
                stride,
                before,
                ..
            } = conv;
            let x = numbers(5, 2 * h * w * inputs, dtype);
            let weight = numbers(6, outputs * inputs * side * side, dtype);
            let bias = numbers(7, outputs, dtype);
            let layer = Conv2d::new(
                &gpu,
                conv,
                HostData::F32(&weight),
                Some(HostData::F32(&bias)),
                dtype,
            )
            .unwrap();
            let (to_h, to_w) = layer.output_size((h, w));
            let got = compute(&gpu, dtype, &[(&[2, h, w, inputs], &x)], |x| {
                let y = layer.forward(&x[0])?;
                assert_eq!(y.shape(), [2, to_h, to_w, outputs]);
                Ok(vec![y])
            });
            let at = |row: usize, line: usize, column: usize, c: usize| {
                let (line, column) = (line.wrapping_sub(before), column.wrapping_sub(before));
                if line < h && column < w {
                    f64::from(x[((row * h + line) * w + column) * inputs + c])
                } else {
                    0.0
                }
            };
            let want: Vec<f64> = (0..2 * to_h * to_w * outputs)
                .map(|i| {
                    let (output, column, line) = (i % outputs, i / outputs % to_w, i / outputs / to_w % to_h);
                    let row = i / outputs / to_w / to_h;
                    let mut sum = f64::from(bias[output]);
                    for (input, tap) in (0..inputs).flat_map(|c| (0..side * side).map(move |tap| (c, tap))) {
                        let x = at(
                            row,
                            line * stride + tap / side,
                            column * stride + tap % side,
                            input,
                        );
                        sum += x * f64::from(weight[(output * inputs + input) * side * side + tap]);
                    }
                    sum
                })
                .collect();
            assert_close(&format!("{conv:?}"), dtype, &got[0], &want);
        }
    }
}

/// The sizes of the three convolutions that the networks have, as PyTorch computes them.
#[test]
fn sizes_of_results_are_those_of_pytorch() {
    let gpu = device(ThreadOrder::Ascending);
    for (side, stride, before, after, from, to) in [
        (3, 1, 1, 1, (9, 8), (9, 8)),
        (3, 2, 1, 1, (9, 8), (5, 4)),
        (3, 2, 0, 1, (9, 8), (4, 4)),
        (1, 1, 0, 0, (9, 8), (9, 8)),
    ] {
        let shape = ConvShape {
            inputs: 1,
            outputs: 1,
            side,
            stride,
            before,
            after,
        };
        let weight = vec![0.0; side * side];
        let conv = Conv2d::new(&gpu, shape, HostData::F32(&weight), None, DType::F32).unwrap();
        assert_eq!(conv.output_size(from), to, "{shape:?}");
    }
}
