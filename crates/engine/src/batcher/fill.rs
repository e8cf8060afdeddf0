//! Which images of one batch key go into one forward.
//!
//! Jobs take turns, one image each, so a job of sixteen images does not push out a job of one.

use std::collections::BTreeMap;

use pentimento_types::JobId;

use super::job::{ImageId, JobEntry, Phase, Sharing};

/// What one forward can hold. The first image goes in whatever it needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) rows: u32,
    pub(super) cost: u64,
    /// Latent pixels of one row.
    pub(super) cost_per_row: u64,
}

/// The images of one forward.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub(super) images: Vec<ImageId>,
    pub(super) rows: u32,
    pub(super) cost: u64,
}

impl Load {
    fn add(&mut self, id: ImageId, rows: u32, room: Room) {
        let rows_then = self.rows.saturating_add(rows);
        let cost_then = u64::from(rows_then).saturating_mul(room.cost_per_row);
        if self.images.is_empty() || (rows_then <= room.rows && cost_then <= room.cost) {
            self.images.push(id);
            self.rows = rows_then;
            self.cost = cost_then;
        }
    }
}

/// Fills one forward from jobs in the order of their turn. A job that must run alone gets the forward for itself when it
/// is the first, and stays out otherwise; an image that does not fit keeps its turn.
pub(super) fn fill(turn: &[JobId], jobs: &BTreeMap<JobId, JobEntry>, room: Room) -> Load {
    let mut entries: Vec<&JobEntry> = turn.iter().filter_map(|id| jobs.get(id)).collect();
    if entries
        .first()
        .is_some_and(|first| first.sharing != Sharing::Shared)
    {
        entries.truncate(1);
    } else {
        entries.retain(|entry| entry.sharing == Sharing::Shared);
    }
    let ready: Vec<Vec<(ImageId, u32)>> = entries
        .iter()
        .map(|entry| {
            entry
                .in_phase(Phase::Ready)
                .map(|(id, image)| (id, image.rows))
                .collect()
        })
        .collect();
    let rounds = ready.iter().map(Vec::len).max().unwrap_or(0);
    let mut load = Load::default();
    for round in 0..rounds {
        for (id, rows) in ready.iter().filter_map(|images| images.get(round)) {
            load.add(*id, *rows, room);
        }
    }
    load
}
