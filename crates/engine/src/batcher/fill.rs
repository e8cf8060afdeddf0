//! Which images of one batch key go into one forward with those of the job whose turn it is.
//!
//! Jobs take turns, one image each, so a job of sixteen images does not push out a job of one. Company may not make the
//! forward long for the owner whose turn it is: every other owner brings at most as many rows as that one, or one image.

use std::collections::{BTreeMap, HashMap};

use pentimento_types::{ApiKeyId, JobId};

use super::job::{ImageId, JobEntry, Phase, Sharing};
use super::shares::Shares;

/// What one forward can hold. The first image goes in whatever it needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) rows: u32,
    pub(super) cost: u64,
    /// Latent pixels of one row.
    pub(super) cost_per_row: u64,
}

/// The images of one forward, each with its rows.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub(super) images: Vec<(ImageId, u32)>,
    rows: u32,
}

impl Load {
    /// True when it went in.
    fn add(&mut self, id: ImageId, rows: u32, room: Room) -> bool {
        let rows_then = self.rows.saturating_add(rows);
        let cost_then = u64::from(rows_then).saturating_mul(room.cost_per_row);
        let fits = self.images.is_empty() || (rows_then <= room.rows && cost_then <= room.cost);
        if fits {
            self.images.push((id, rows));
            self.rows = rows_then;
        }
        fits
    }
}

/// Fills one forward, beginning with the job whose turn it is. A job that must run alone gets the forward for itself when
/// it is its turn, and stays out otherwise.
pub(super) fn fill(first: &JobEntry, jobs: &BTreeMap<JobId, JobEntry>, shares: &Shares, room: Room) -> Load {
    let mut entries = vec![first];
    if first.sharing == Sharing::Shared {
        let alike = |entry: &&JobEntry| {
            entry.spec.id != first.spec.id && entry.sharing == Sharing::Shared && entry.key() == first.key()
        };
        let mut company: Vec<&JobEntry> = jobs.values().filter(alike).collect();
        company.sort_by_key(|entry| shares.standing(entry));
        entries.extend(company);
    }
    let ready: Vec<(&ApiKeyId, Vec<(ImageId, u32)>)> = entries
        .iter()
        .map(|entry| {
            let images = entry.in_phase(Phase::Ready);
            let images = images.map(|(id, image)| (id, image.rows)).collect();
            (&entry.spec.owner, images)
        })
        .collect();
    let own = ready.iter().filter(|(owner, _)| **owner == first.spec.owner);
    let own_rows: u32 = own.flat_map(|(_, images)| images).map(|(_, rows)| rows).sum();
    let mut brought: HashMap<&ApiKeyId, u32> = HashMap::new();
    let rounds = ready.iter().map(|(_, images)| images.len()).max().unwrap_or(0);
    let mut load = Load::default();
    for round in 0..rounds {
        for (owner, images) in &ready {
            let Some((id, rows)) = images.get(round).copied() else {
                continue;
            };
            let rows_of_owner = brought.entry(owner).or_default();
            let is_welcome = *rows_of_owner == 0 || *rows_of_owner + rows <= own_rows;
            if is_welcome && load.add(id, rows, room) {
                *rows_of_owner += rows;
            }
        }
    }
    load
}
