//! Tests of whole runs: against diffusers, against their own definition, and for every configuration.

mod accepted;
mod init_noise;
mod inversion;
mod properties;
mod trajectories;

use crate::Latents;

/// Each value's left neighbour on its line; the last one for the first.
fn shifted_right(sample: &Latents) -> Vec<f32> {
    let [_, _, width] = sample.shape();
    let mut values = sample.values().to_vec();
    for line in values.chunks_exact_mut(width) {
        line.rotate_right(1);
    }
    values
}
