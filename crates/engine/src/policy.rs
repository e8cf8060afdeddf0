//! How much may run at once and how long anything may wait. Who goes next is `Batcher`'s decision.

use std::time::Duration;

use crate::LatentSize;

/// Limits of the engine. Costs are counted in latent pixels times rows: one row of a 512x512 image is 4096.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchPolicy {
    /// Rows of one forward. A single image runs even when it has more.
    pub max_rows: u32,
    /// Cost of one forward, which bounds how long a new image waits for the one that is running.
    /// A single image runs even when it costs more.
    pub compute_budget: u64,
    /// What has waited longer than this for its next act shares an eighth of the device's time beside its turn, oldest
    /// first. Models that have been in use for as long make room for older jobs.
    pub age_bound: Duration,
    /// Jobs between admission and their end; one more is refused at the door.
    pub max_jobs: usize,
    /// Prepared rows of one owner, model and size beyond which no further job of them is prepared, to bound the memory of
    /// states. A job that has waited for the age bound is prepared regardless, so it never waits for a long job's end.
    pub prepare_ahead_rows: u32,
    /// Models in use at the same time, those that are being loaded included. The memory for them is another bound.
    pub max_models: usize,
    /// How long a measurement of what a forward takes counts.
    pub cost_lifetime: Duration,
    /// How long a batch key keeps the smaller forward that it got when the device ran out of memory.
    pub memory_cap_lifetime: Duration,
}

impl BatchPolicy {
    /// For a GPU: eight 512x512 rows fill it, more only lengthen the wait of others.
    #[must_use]
    pub const fn gpu() -> Self {
        Self {
            max_rows: 32,
            compute_budget: 8 * 64 * 64,
            age_bound: Duration::from_secs(10),
            max_jobs: 128,
            prepare_ahead_rows: 256,
            // Sets of LoRAs beside one checkpoint are models too, and as many as fill a forward may share one.
            max_models: 8,
            cost_lifetime: Duration::from_secs(600),
            memory_cap_lifetime: Duration::from_secs(600),
        }
    }

    /// For a CPU, whose time grows with the rows: forwards of full-size images are kept small, so that sharing costs a short
    /// job little; small images still fill a forward.
    #[must_use]
    pub const fn cpu() -> Self {
        Self {
            compute_budget: 4 * 64 * 64,
            age_bound: Duration::from_secs(60),
            max_models: 4,
            ..Self::gpu()
        }
    }

    /// Rows of one size that fit into one forward, at least one.
    pub(crate) fn rows_per_forward(&self, latent: LatentSize) -> u32 {
        let by_budget = self.compute_budget / latent.pixels().max(1);
        u32::try_from(by_budget)
            .unwrap_or(u32::MAX)
            .min(self.max_rows)
            .max(1)
    }
}

impl Default for BatchPolicy {
    fn default() -> Self {
        Self::gpu()
    }
}
