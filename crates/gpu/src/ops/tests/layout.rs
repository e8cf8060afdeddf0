//! Operations that move numbers: exact, whatever the type.

use crate::testing::{compute, each_way, numbers};
use crate::{
    HostData, Tensor, cat_rows, channels_first, channels_last, columns, gather, join_channels, upsample,
};

#[test]
fn channels_go_first_and_come_back() {
    let shape = [2, 3, 5, 7];
    each_way(|gpu, dtype| {
        let x = numbers(1, 210, dtype);
        let got = compute(gpu, dtype, &[(&shape, &x)], |x| {
            let first = channels_first(&x[0])?;
            assert_eq!(first.shape(), [2, 7, 3, 5]);
            let last = channels_last(&first)?;
            assert_eq!(last.shape(), shape);
            Ok(vec![first, last])
        });
        let want: Vec<f32> = (0..210)
            .map(|i| x[(i / 105 * 15 + i % 15) * 7 + i / 15 % 7])
            .collect();
        assert_eq!(got, [want, x]);
    });
}

#[test]
fn gathered_rows_are_those_at_the_places_and_nothing_from_outside() {
    each_way(|gpu, dtype| {
        let x = numbers(2, 60, dtype);
        let places = Tensor::upload(gpu, &[5], HostData::I32(&[3, 0, 3, -1, 4])).unwrap();
        let got = compute(gpu, dtype, &[(&[4, 3, 5], &x)], |x| {
            Ok(vec![gather(&x[0], &places)?])
        });
        for (i, place) in [3, 0, 3].into_iter().enumerate() {
            assert_eq!(got[0][i * 15..][..15], x[place * 15..][..15]);
        }
        assert!(got[0][45..].iter().all(|x| x.is_nan()));
    });
}

#[test]
fn columns_are_cut_filled_up_and_joined() {
    each_way(|gpu, dtype| {
        let (a, b) = (numbers(3, 3 * 11, dtype), numbers(4, 3 * 6, dtype));
        let got = compute(gpu, dtype, &[(&[3, 11], &a), (&[3, 6], &b)], |x| {
            Ok(vec![
                columns(&x[0], 2, 5)?,
                columns(&x[0], 0, 16)?,
                join_channels(&x[0], &x[1])?,
            ])
        });
        let both = || a.chunks(11).zip(b.chunks(6));
        let cut: Vec<f32> = both().flat_map(|(a, _)| a[2..7].to_vec()).collect();
        let filled: Vec<f32> = both().flat_map(|(a, _)| [a, &[0.0; 5]].concat()).collect();
        let joined: Vec<f32> = both().flat_map(|(a, b)| [a, b].concat()).collect();
        assert_eq!(got, [cut, filled, joined]);
    });
}

#[test]
fn enlarged_pixels_are_their_nearest_neighbours() {
    for (to_h, to_w) in [(6, 10), (7, 9), (3, 5), (1, 1)] {
        each_way(|gpu, dtype| {
            let x = numbers(5, 2 * 3 * 5 * 2, dtype);
            let got = compute(gpu, dtype, &[(&[2, 3, 5, 2], &x)], |x| {
                Ok(vec![upsample(&x[0], (to_h, to_w))?])
            });
            let want: Vec<f32> = (0..2 * to_h * to_w * 2)
                .map(|i| {
                    let (c, column, line, row) =
                        (i % 2, i / 2 % to_w, i / 2 / to_w % to_h, i / 2 / to_w / to_h);
                    x[((row * 3 + line * 3 / to_h) * 5 + column * 5 / to_w) * 2 + c]
                })
                .collect();
            assert_eq!(got[0], want, "{to_h} x {to_w}");
        });
    }
}

#[test]
fn rows_of_several_tensors_become_one() {
    each_way(|gpu, dtype| {
        let (a, b) = (numbers(6, 2 * 7, dtype), numbers(7, 7, dtype));
        let got = compute(gpu, dtype, &[(&[2, 7], &a), (&[1, 7], &b)], |x| {
            let all = cat_rows(&[&x[0], &x[1], &x[0].narrow_rows(1, 1)?])?;
            Ok(vec![all.narrow_rows(1, 3)?])
        });
        assert_eq!(got[0], [&a[7..], &b, &a[7..]].concat());
    });
}
