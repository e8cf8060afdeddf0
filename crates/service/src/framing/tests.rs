//! Framing and putting back, on small pictures.

use super::*;

const SIZE: Size = Size {
    width: 48,
    height: 32,
};
const COMPUTED: Size = Size {
    width: 64,
    height: 64,
};

fn picture(size: Size, pixel: impl Fn(u32, u32) -> [u8; 3]) -> RgbImage {
    let all = 0..size.width * size.height;
    let pixels = all.flat_map(|at| pixel(at % size.width, at / size.width));
    RgbImage::new(size, pixels.collect()).unwrap()
}

fn scene() -> RgbImage {
    picture(SIZE, |x, y| {
        [x * 5, y * 7, x + y].map(|level| u8::try_from(level).unwrap())
    })
}

/// White in a rectangle of 8 by 6 pixels.
fn mask() -> Grey {
    Grey::of(&picture(SIZE, |x, y| {
        if (20..28).contains(&x) && (10..16).contains(&y) {
            [255; 3]
        } else {
            [0; 3]
        }
    }))
}

fn framing(only_masked: Option<u32>) -> Framing {
    Framing {
        only_masked,
        ..Framing::stretched(COMPUTED)
    }
}

fn differing(one: &RgbImage, other: &RgbImage) -> Vec<(u32, u32)> {
    let pairs = one.pixels().chunks(3).zip(other.pixels().chunks(3));
    let differ = (0_u32..).zip(pairs).filter(|(_, (one, other))| one != other);
    differ
        .map(|(at, _)| (at % one.size().width, at / one.size().width))
        .collect()
}

#[test]
fn only_what_is_masked_is_computed_and_the_rest_stays() {
    let framing = framing(Some(4));
    let framed = framed(scene(), Some(mask()), &framing).unwrap();
    let mask_image = framed.mask.unwrap();
    assert_eq!((framed.init.size(), mask_image.size()), (COMPUTED, COMPUTED));
    // 16 by 16 pixels were cut out, of which 8 by 6 are white: 32 by 24 of 64.
    let white = Grey::of(&mask_image)
        .levels
        .iter()
        .filter(|level| **level > 127)
        .count();
    assert!((24 * 32 - 60..24 * 32 + 60).contains(&white), "{white}");
    let red = picture(COMPUTED, |_, _| [250, 0, 0]);
    let whole = put_back(red, scene(), mask(), &framing).unwrap();
    assert_eq!(whole.size(), SIZE);
    let changed = differing(&whole, &scene());
    assert_eq!(changed.len(), 8 * 6);
    assert!(
        changed
            .iter()
            .all(|(x, y)| (20..28).contains(x) && (10..16).contains(y))
    );
    let at = (12 * 48 + 24) * 3;
    assert_eq!(whole.pixels()[at..at + 3], [250, 0, 0]);
}

#[test]
fn what_was_cut_comes_back_where_it_was() {
    let framing = framing(Some(4));
    let framed = framed(scene(), Some(mask()), &framing).unwrap();
    let whole = put_back(framed.init, scene(), mask(), &framing).unwrap();
    let far = whole
        .pixels()
        .iter()
        .zip(scene().pixels())
        .map(|(a, b)| a.abs_diff(*b))
        .max();
    assert!(far <= Some(3), "enlarged and made smaller again: {far:?}");
}

#[test]
fn a_blurred_mask_fades_and_keeps_what_it_does_not_reach() {
    let blurred = Framing {
        mask_blur: [2, 2],
        ..framing(Some(4))
    };
    let red = picture(COMPUTED, |_, _| [250, 0, 0]);
    let whole = put_back(red, scene(), mask().blurred([2, 2]), &blurred).unwrap();
    let changed = differing(&whole, &scene());
    assert!(changed.len() > 8 * 6);
    // Five samples reach to each side.
    assert!(
        changed
            .iter()
            .all(|(x, y)| (15..33).contains(x) && (5..21).contains(y))
    );
}

#[test]
fn the_whole_picture_is_brought_to_its_size_with_the_mask() {
    let framing = Framing {
        resize: ResizeMode::Fill,
        ..framing(None)
    };
    let framed = framed(scene(), Some(mask()), &framing).unwrap();
    let red = picture(COMPUTED, |_, _| [250, 0, 0]);
    let whole = put_back(red, scene(), mask(), &framing).unwrap();
    let kept = fitted(&scene(), COMPUTED, ResizeMode::Fill);
    assert_eq!(framed.init, kept, "what is masked is there, too");
    let levels = Grey::of(&framed.mask.unwrap()).levels;
    let changed = differing(&whole, &kept).len();
    let from = |least: u8| levels.iter().filter(|level| **level >= least).count();
    // Where hardly anything of it shows, a pixel may round to what it was.
    assert!(
        (from(128)..=from(1)).contains(&changed) && from(128) > 50,
        "{changed}"
    );
}

#[test]
fn masked_content_is_filled_for_the_computation_alone() {
    let filled = Framing {
        masked_content: MaskedContent::Fill,
        ..Framing::stretched(SIZE)
    };
    let framed = framed(scene(), Some(mask()), &filled).unwrap();
    let changed = differing(&framed.init, &scene());
    assert!(
        changed.len() > 40
            && changed
                .iter()
                .all(|(x, y)| (20..28).contains(x) && (10..16).contains(y))
    );
    let whole = put_back(framed.init.clone(), scene(), mask(), &filled).unwrap();
    assert_eq!(whole, framed.init);
}

#[test]
fn a_black_mask_keeps_everything_whatever_is_painted() {
    let black = Grey::of(&picture(SIZE, |_, _| [0; 3]));
    for only_masked in [None, Some(0), Some(32)] {
        let framing = framing(only_masked);
        let kept = framed(scene(), Some(black.clone()), &framing).unwrap();
        assert!(kept.keeps_everything);
        assert_eq!(kept.init.size(), COMPUTED);
        let red = picture(COMPUTED, |_, _| [255, 0, 0]);
        let back = put_back(red, scene(), black.clone(), &framing).unwrap();
        let expected = match only_masked {
            None => fitted(&scene(), COMPUTED, framing.resize),
            Some(_) => scene(),
        };
        assert_eq!(back, expected);
    }
    assert!(
        !framed(scene(), Some(mask()), &framing(None))
            .unwrap()
            .keeps_everything
    );
    // Below what counts as painted, and blended all the same.
    let dark = Grey::of(&picture(SIZE, |_, _| [1; 3]));
    assert!(
        !framed(scene(), Some(dark), &framing(None))
            .unwrap()
            .keeps_everything
    );
}

#[test]
fn where_nothing_was_made_the_callers_own_picture_comes_back() {
    let file = |image: &RgbImage| image_codec::to_file(image).unwrap();
    let limits = crate::inputs::STORED_LIMITS;
    let white = mask().to_image();
    for (only_masked, expected) in [
        (Some(4), scene()),
        (None, fitted(&scene(), COMPUTED, ResizeMode::Stretch)),
    ] {
        let framing = Framing {
            masked_content: MaskedContent::Fill,
            ..framing(only_masked)
        };
        let files = || FramedFiles::look_at(file(&scene()), Some(file(&white)), (&framing, limits)).unwrap();
        assert_eq!(whole(files(), None, (&framing, limits)).unwrap(), expected);
        let red = picture(COMPUTED, |_, _| [255, 0, 0]);
        assert_ne!(whole(files(), Some(red), (&framing, limits)).unwrap(), expected);
    }
}
