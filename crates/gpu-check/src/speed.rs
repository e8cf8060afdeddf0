//! How long evaluations and decodes take, host work included, and what they take of the memory: the figures of the tables in
//! `benches/RESULTS.md`.

use std::time::Instant;

use pentimento_pipeline::{DenoiseState, Precision, StableDiffusion, seeded};
use pentimento_types::{Clock as _, SystemClock};
use serde_json::json;

use crate::Answer;
use crate::place::{Place, model, picture, recipe};

/// Rows of a forward. With guidance a picture has two.
const ROWS: [(u32, f64); 3] = [(1, 1.0), (1, 7.5), (4, 7.5)];
/// Evaluations of a measurement, of which the first two warm up: the first is run command by command, and made a graph.
const EVALUATIONS: u32 = 22;
const WARMING: usize = 2;

pub(crate) fn ask(place: &Place, (shape, size): (seeded::Shape, u32)) -> anyhow::Result<Answer> {
    let gpu = place.open()?;
    let emulated = *place == Place::Emulated;
    let evaluations = if emulated { 4 } else { EVALUATIONS };
    let (mut lines, mut found) = (Vec::new(), Vec::new());
    let (precisions, rows) = match shape {
        seeded::Shape::Sd15 | seeded::Shape::Tiny => (&[Precision::F16, Precision::F32][..], &ROWS[..]),
        // Its weights take long to be made from their seed, so it is asked one thing.
        seeded::Shape::Sdxl | seeded::Shape::TinySdxl => (&[Precision::F16][..], &ROWS[1..2]),
    };
    for &precision in precisions {
        let model = model(shape, &gpu, precision)?;
        // The emulator takes minutes for what a card does at once.
        let rows = if emulated {
            &rows[..rows.len().min(2)]
        } else {
            rows
        };
        for &(images, guidance) in rows {
            let run = measure(&model, (images, guidance, evaluations), size)?;
            let rows = images * if guidance > 1.0 { 2 } else { 1 };
            lines.push(format!(
                "{precision}, {rows} rows at {size}: evaluation {:.2} ms, {:.1} a second; decode {:.2} ms; arena {} bytes",
                run.evaluation * 1e3,
                1.0 / run.evaluation,
                run.decode * 1e3,
                run.arena_bytes
            ));
            found.push(json!({
                "precision": precision.to_string(),
                "rows": rows,
                "size": size,
                "evaluation_seconds": run.evaluation,
                "decode_seconds": run.decode,
                "arena_bytes": run.arena_bytes,
                "used_bytes": gpu.used_bytes(),
            }));
        }
    }
    Ok(Answer {
        lines,
        json: json!(found),
        good: true,
    })
}

struct Run {
    evaluation: f64,
    decode: f64,
    arena_bytes: u64,
}

fn measure(
    model: &StableDiffusion,
    (images, guidance, evaluations): (u32, f64, u32),
    size: u32,
) -> anyhow::Result<Run> {
    let mut states = model.prepare(&recipe(images, evaluations, guidance), &picture(size)?)?;
    let some: Vec<&DenoiseState> = states.iter().collect();
    let arena_bytes = model.measure(&some)?.map_or(0, |memory| memory.arena_bytes);
    let mut seconds = Vec::new();
    while states.iter().all(|state| state.evaluations_left() > 0) {
        let mut all: Vec<&mut DenoiseState> = states.iter_mut().collect();
        let start = SystemClock.now();
        model.denoise(&mut all)?;
        seconds.push(since(start));
    }
    let evaluation = median(seconds.into_iter().skip(WARMING).collect());
    let mut decodes = Vec::new();
    drop(states);
    // The first decode records its programs, and is made command by command; the second runs graphs for the first time.
    for state in model.prepare(&recipe(3, 1, 1.0), &picture(size)?)? {
        let mut state = state;
        model.denoise(&mut [&mut state])?;
        let start = SystemClock.now();
        model.finish(state)?;
        decodes.push(since(start));
    }
    Ok(Run {
        evaluation,
        decode: decodes.last().copied().unwrap_or(f64::NAN),
        arena_bytes,
    })
}

fn since(start: Instant) -> f64 {
    (SystemClock.now() - start).as_secs_f64()
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
}
