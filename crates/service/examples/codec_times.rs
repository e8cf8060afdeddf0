//! How long reading and writing an image file takes beside the device's work on it: what a request costs outside the
//! engine is mostly this.
//!
//! `cargo run --release -p pentimento-service --example codec_times FILE [ROUNDS]` reads any picture, and prints for each
//! format and size the fastest and the median time, and the bytes.

#![expect(clippy::print_stdout, reason = "a command of the workbench that prints")]

use std::time::Duration;

use pentimento_service::InputLimits;
use pentimento_service::image_codec::{ImageMetadata, Marks, decode, encode, resized};
use pentimento_types::{Clock as _, ImageFormat, ModelId, Recipe, Size, SystemClock, Task};

const LIMITS: InputLimits = InputLimits {
    max_side: 4096,
    max_pixels: u64::MAX,
    max_bytes: 1 << 30,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("name a picture")?;
    let rounds = arguments.next().map_or(Ok(20), |rounds| rounds.parse())?;
    let picture = decode(&fs_err::read(file)?, LIMITS)?;
    println!(
        "| file | encode ms, fastest | median | decode ms, fastest | median | KB |\n|---|---|---|---|---|---|"
    );
    for side in [128, 512, 1024] {
        let size = Size {
            width: side,
            height: side,
        };
        let image = resized(&picture, size);
        let metadata = ImageMetadata::new(
            &Recipe::of_model(ModelId::new("demo")),
            Task::ImageToImage,
            0,
            size,
        );
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Webp] {
            let (mut writing, mut reading) = (Vec::new(), Vec::new());
            let mut bytes = 0;
            for _ in 0..rounds {
                let begun = SystemClock.now();
                let written = encode(&image, format, (&metadata, Marks::ALL))?;
                writing.push(SystemClock.now() - begun);
                bytes = written.len();
                let begun = SystemClock.now();
                decode(&written, LIMITS)?;
                reading.push(SystemClock.now() - begun);
            }
            let [writing, reading] = [writing, reading].map(fastest_and_median);
            println!(
                "| {side}x{side} {format:?} | {writing} | {reading} | {} |",
                bytes / 1000
            );
        }
    }
    Ok(())
}

fn fastest_and_median(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let ms = |at: usize| times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    format!("{:.2} | {:.2}", ms(0), ms(times.len() / 2))
}
