//! Whether a picture depends on what shares its forwards, or on the run: the bytes of its latents, alone and among others. This
//! is the question whether the engines that were pinned cut their sums as they should.

use pentimento_gpu::Gpu;
use pentimento_pipeline::{DenoiseState, Precision, StableDiffusion, seeded};
use serde_json::json;

use crate::Answer;
use crate::place::{Place, model, picture, recipe};

/// Images of a forward.
const TOGETHER: [usize; 4] = [1, 2, 3, 4];
/// Guidance, and the rows that it makes of an image.
const GUIDED: [(f64, usize); 2] = [(1.0, 1), (7.5, 2)];

pub(crate) fn ask(place: &Place, (shape, size): (seeded::Shape, u32)) -> anyhow::Result<Answer> {
    let gpu: Gpu = place.open()?;
    let (mut lines, mut found, mut good) = (Vec::new(), Vec::new(), true);
    for precision in [Precision::F16, Precision::F32] {
        let model = model(shape, &gpu, precision)?;
        for (guidance, rows_of_image) in GUIDED {
            let alone = first_of(&model, (1, guidance), size)?;
            // The emulator takes minutes for what a card does at once.
            let together = if *place == Place::Emulated {
                &TOGETHER[..2]
            } else {
                &TOGETHER[..]
            };
            for &images in together {
                let same = first_of(&model, (images, guidance), size)? == alone;
                good &= same;
                let verdict = if same { "the same bytes" } else { "OTHER BYTES" };
                lines.push(format!(
                    "{precision}: the first of {} rows has {verdict}",
                    rows_of_image * images
                ));
                found.push(
                    json!({"precision": precision.to_string(), "rows": rows_of_image * images, "same": same}),
                );
            }
        }
    }
    Ok(Answer {
        lines,
        json: json!(found),
        good,
    })
}

/// The bits of the first image's latents after two evaluations in this company.
fn first_of(
    model: &StableDiffusion,
    (images, guidance): (usize, f64),
    size: u32,
) -> anyhow::Result<Vec<u32>> {
    let count = u32::try_from(images)?;
    let mut states = model.prepare(&recipe(count, 2, guidance), &picture(size)?)?;
    while states.iter().all(|state| state.evaluations_left() > 0) {
        let mut all: Vec<&mut DenoiseState> = states.iter_mut().collect();
        model.denoise(&mut all)?;
    }
    let first = states.first().map(DenoiseState::latents);
    Ok(first.map_or_else(Vec::new, |latents| {
        latents.values().iter().map(|value| value.to_bits()).collect()
    }))
}
