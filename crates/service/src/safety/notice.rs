//! The picture that stands in for an unsafe one: grey, and in its middle the words SENSITIVE CONTENT.

use pentimento_types::{RgbImage, Size};

const BACKGROUND: u8 = 64;
const INK: u8 = 200;
const LINES: [&str; 2] = ["SENSITIVE", "CONTENT"];
/// A letter is five points wide and seven high, with one between it and the next.
const ADVANCE: usize = 6;
const LINE_HEIGHT: usize = 10;
/// Points of the longest line and of both, with a margin of four around them.
const WIDTH: usize = LINES[0].len() * ADVANCE - 1 + 8;
const HEIGHT: usize = LINES.len() * LINE_HEIGHT - 3 + 8;

/// The notice in this size; a picture too small for the words is only grey.
pub(super) fn of(size: Size) -> RgbImage {
    let (width, height) = (size.width as usize, size.height as usize);
    let mut pixels = vec![BACKGROUND; width * height * 3];
    let scale = (width / WIDTH).min(height / HEIGHT);
    if scale > 0 {
        let top = (height - (HEIGHT - 8) * scale) / 2;
        for (line, text) in LINES.iter().enumerate() {
            let left = (width - (text.len() * ADVANCE - 1) * scale) / 2;
            for (at, letter) in text.chars().enumerate() {
                let (x, y) = (left + at * ADVANCE * scale, top + line * LINE_HEIGHT * scale);
                draw(&mut pixels, width, (x, y), scale, letter);
            }
        }
    }
    RgbImage::new(size, pixels).expect("as many bytes as the size says")
}

fn draw(pixels: &mut [u8], width: usize, (left, top): (usize, usize), scale: usize, letter: char) {
    for (row, points) in glyph(letter).iter().enumerate() {
        for column in (0..5).filter(|column| points >> (4 - column) & 1 == 1) {
            for y in 0..scale {
                let start = ((top + row * scale + y) * width + left + column * scale) * 3;
                pixels[start..start + scale * 3].fill(INK);
            }
        }
    }
}

/// Seven lines of five points, the highest bit on the left.
const fn glyph(letter: char) -> [u8; 7] {
    match letter {
        'C' => [0b01110, 0b10001, 0b10000, 0b10000, 0b10000, 0b10001, 0b01110],
        'E' => [0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b11111],
        'I' => [0b01110, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110],
        'N' => [0b10001, 0b11001, 0b10101, 0b10101, 0b10011, 0b10001, 0b10001],
        'O' => [0b01110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110],
        'S' => [0b01111, 0b10000, 0b10000, 0b01110, 0b00001, 0b00001, 0b11110],
        'T' => [0b11111, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100],
        'V' => [0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01010, 0b00100],
        _ => [0; 7],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_stand_in_the_middle_of_every_size() {
        for (width, height) in [(64, 64), (512, 512), (1024, 256), (64, 2048)] {
            let notice = of(Size { width, height });
            let inked = |at: usize| notice.pixels()[at * 3] == INK;
            let (width, height) = (width as usize, height as usize);
            let columns: Vec<usize> = (0..width)
                .filter(|x| (0..height).any(|y| inked(y * width + x)))
                .collect();
            let (first, last) = (columns[0], columns[columns.len() - 1]);
            assert!(
                first.abs_diff(width - 1 - last) <= 1,
                "{width}x{height}: {first} to {last}"
            );
            let share = (last - first) as f64 / width as f64;
            assert!(share > 0.25 || height < 300, "{width}x{height}: {share}");
        }
    }

    #[test]
    fn every_letter_has_points() {
        for letter in LINES.concat().chars() {
            assert_ne!(glyph(letter), [0; 7], "{letter}");
        }
    }

    #[test]
    fn a_tiny_one_is_grey() {
        let notice = of(Size { width: 8, height: 8 });
        assert!(notice.pixels().iter().all(|value| *value == BACKGROUND));
    }
}
