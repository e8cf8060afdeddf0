//! Enlarged pictures against TensorFlow.js, and tiles against the whole.

use super::*;
use pentimento_embedded_nets::{ESRGAN_SLIM_X2, ESRGAN_SLIM_X4};
use pentimento_testkit::{Golden, Tolerance, assert_close, compare_values};
use pentimento_types::Size;

fn picture(golden: &Golden) -> RgbImage {
    let size = Size {
        width: 48,
        height: 40,
    };
    RgbImage::new(size, golden.values("picture")).expect("the bytes fit")
}

fn networks() -> [ResidualDense; 2] {
    [(ESRGAN_SLIM_X2, 2), (ESRGAN_SLIM_X4, 4)]
        .map(|(bytes, scale)| ResidualDense::from_safetensors(bytes, scale).expect("loads"))
}

fn whole(picture: &RgbImage) -> (Span, Span) {
    let size = picture.size();
    let span = |side: u32| Span::around(0, side as usize, side as usize);
    (span(size.height), span(size.width))
}

#[test]
fn an_enlarged_picture_is_the_references() {
    let golden = Golden::open("embedded_nets/enlarged.safetensors");
    let picture = picture(&golden);
    let (rows, columns) = whole(&picture);
    for network in networks() {
        let name = format!("x{}", network.scale());
        let enlarged = network
            .forward(cut(&picture, &rows, &columns).expect("cuts"))
            .expect("runs");
        let expected = golden.tensor(&name);
        assert_close(
            &name,
            &enlarged.squeeze(0).expect("a picture"),
            expected,
            Tolerance::ENLARGED,
        );
        let bytes = network.enlarge(&picture, &|| true).expect("runs");
        let bytes: Vec<f32> = bytes.pixels().iter().copied().map(f32::from).collect();
        let rounded: Vec<f32> = golden.values::<f32>(&name);
        let rounded: Vec<f32> = rounded.iter().map(|v| v.round().clamp(0.0, 255.0)).collect();
        let difference = compare_values(&bytes, &rounded).expect("one size");
        assert!(
            difference.max <= 1.0 && difference.mean < 0.05,
            "{name}: {difference:?}"
        );
    }
}

/// Tiles that do not divide the picture, down to less than the halo.
#[test]
fn tiles_give_what_the_whole_picture_gives() {
    let picture = picture(&Golden::open("embedded_nets/enlarged.safetensors"));
    for network in networks() {
        let (rows, columns) = whole(&picture);
        let all = network
            .forward(cut(&picture, &rows, &columns).expect("cuts"))
            .expect("runs");
        for tile in [7, 16, 33] {
            for top in (0..40).step_by(tile) {
                for left in (0..48).step_by(tile) {
                    let (rows, columns) = (Span::around(top, tile, 40), Span::around(left, tile, 48));
                    let scale = network.scale();
                    let part = network
                        .forward(cut(&picture, &rows, &columns).expect("cuts"))
                        .expect("runs");
                    let part = rows.inner(&part, 1, scale).expect("inside");
                    let part = columns.inner(&part, 2, scale).expect("inside");
                    let expected = all.narrow(1, top * scale, rows.size * scale).expect("inside");
                    let expected = expected
                        .narrow(2, left * scale, columns.size * scale)
                        .expect("inside");
                    let unit = |t: &HostTensor| (t / 255.0).expect("divides");
                    let what = format!("x{scale}, tile {tile} at {top}, {left}");
                    assert_close(
                        &what,
                        &unit(&part),
                        &unit(&expected),
                        Tolerance {
                            max: 1e-5,
                            mean: 1e-6,
                        },
                    );
                }
            }
        }
    }
}

#[test]
fn the_smallest_and_odd_sizes_are_enlarged() {
    for (width, height) in [(1, 1), (1, 9), (131, 3)] {
        let size = Size { width, height };
        let picture = RgbImage::new(size, vec![200; (width * height * 3) as usize]).expect("fits");
        for network in networks() {
            let enlarged = network.enlarge(&picture, &|| true).expect("runs").size();
            let scale = network.scale() as u32;
            assert_eq!((enlarged.width, enlarged.height), (width * scale, height * scale));
        }
    }
}

/// What the files say in f32 is what the network's tiles keep: their joints cannot be seen.
#[test]
fn joints_of_tiles_cannot_be_seen() {
    let picture = picture(&Golden::open("embedded_nets/enlarged.safetensors"));
    for network in networks() {
        let whole = network.in_tiles(&picture, 64, &|| true).expect("runs");
        let tiled = network.in_tiles(&picture, 13, &|| true).expect("runs");
        let apart = whole
            .pixels()
            .iter()
            .zip(tiled.pixels())
            .map(|(a, b)| a.abs_diff(*b))
            .max();
        assert!(apart <= Some(1), "{apart:?}");
    }
}
