//! What `pentimento bench` measured, and the medians of it. Every number is in seconds.

use serde::Serialize;

/// The parts of one run: one picture, or several that shared every forward.
#[derive(Debug, Default, Serialize)]
pub(super) struct RunSeconds {
    pub(super) text_encode: f64,
    /// Schedule and start noise are in here too; they take milliseconds.
    pub(super) vae_encode: f64,
    /// One forward each, of all rows.
    pub(super) evaluations: Vec<f64>,
    /// One per picture.
    pub(super) vae_decodes: Vec<f64>,
}

/// One number for each part.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) text_encode: f64,
    pub(super) vae_encode: f64,
    /// One forward of all rows.
    pub(super) evaluation: f64,
    pub(super) evaluation_per_row: f64,
    /// One picture.
    pub(super) vae_decode: f64,
    /// From the request to the picture, the model being there; what the rows share is divided among them.
    pub(super) picture: f64,
}

impl RunSeconds {
    /// All of it, as whoever waits for the pictures sees it.
    pub(super) fn whole(&self) -> f64 {
        let decodes: f64 = self.vae_decodes.iter().sum();
        self.text_encode + self.vae_encode + self.evaluations.iter().sum::<f64>() + decodes
    }
}

impl Summary {
    /// The median of each part over all runs; of two in the middle their mean.
    pub(super) fn median(runs: &[RunSeconds], rows: u32) -> Self {
        Self::of(runs, rows, median)
    }

    /// The least of each part over all runs.
    pub(super) fn fastest(runs: &[RunSeconds], rows: u32) -> Self {
        Self::of(runs, rows, |numbers| {
            numbers.into_iter().reduce(f64::min).unwrap_or(0.0)
        })
    }

    fn of(runs: &[RunSeconds], rows: u32, one: impl Fn(Vec<f64>) -> f64) -> Self {
        let each = |part: fn(&RunSeconds) -> f64| one(runs.iter().map(part).collect());
        let evaluation = one(runs.iter().flat_map(|run| &run.evaluations).copied().collect());
        Self {
            text_encode: each(|run| run.text_encode),
            vae_encode: each(|run| run.vae_encode),
            evaluation,
            evaluation_per_row: evaluation / f64::from(rows),
            vae_decode: one(runs.iter().flat_map(|run| &run.vae_decodes).copied().collect()),
            picture: each(RunSeconds::whole) / f64::from(rows),
        }
    }
}

/// 0 for no numbers, so that a schedule without evaluations can be printed.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let half = numbers.len() / 2;
    match (numbers.get(half), numbers.len() % 2) {
        (None, _) => 0.0,
        (Some(high), 0) => f64::midpoint(*high, numbers[half - 1]),
        (Some(middle), _) => *middle,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(scale: f64) -> RunSeconds {
        RunSeconds {
            text_encode: scale,
            vae_encode: 2.0 * scale,
            evaluations: vec![3.0 * scale, 5.0 * scale],
            vae_decodes: vec![4.0 * scale, 6.0 * scale],
        }
    }

    #[test]
    fn the_parts_add_up_to_the_whole() {
        assert!((run(1.0).whole() - 21.0).abs() < 1e-9);
    }

    #[test]
    fn medians_are_taken_over_runs_evaluations_and_pictures() {
        let runs = [run(1.0), run(10.0), run(2.0)];
        assert_eq!(
            Summary::median(&runs, 2),
            Summary {
                text_encode: 2.0,
                vae_encode: 4.0,
                // Of 3, 5, 6, 10, 30 and 50.
                evaluation: 8.0,
                evaluation_per_row: 4.0,
                // Of 4, 6, 8, 12, 40 and 60.
                vae_decode: 10.0,
                picture: 21.0,
            }
        );
        assert_eq!(Summary::fastest(&runs, 1).evaluation, 3.0);
        assert_eq!(Summary::fastest(&runs, 1).picture, 21.0);
    }

    #[test]
    fn nothing_has_the_median_0() {
        assert_eq!(median(Vec::new()), 0.0);
        assert_eq!(median(vec![7.0]), 7.0);
    }
}
