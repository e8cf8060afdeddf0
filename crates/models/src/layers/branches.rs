//! The branches of a whole network: as one set, and each row's own in a forward of several sets.

use std::sync::Arc;

use pentimento_kernels::{Branch, BranchSet, Device, Result, RowSets};

use super::patch::Beside;
use super::spec::Layer;

/// The branches of the layers that `walk` goes through, matrix layers counted in its order. None where rows of different sets do
/// not share forwards.
pub(crate) fn branch_set(
    device: &Device,
    walk: impl FnOnce(&mut dyn FnMut(&mut dyn Layer)),
) -> Result<Option<BranchSet>> {
    let mut branches: Vec<Beside> = Vec::new();
    walk(&mut |layer| branches.extend(layer.beside().cloned()));
    BranchSet::new(device, branches.iter().map(Option::as_deref))
}

/// Whether there is a branch beside any layer that `walk` goes through.
pub(crate) fn has_branches(walk: impl FnOnce(&mut dyn FnMut(&mut dyn Layer))) -> bool {
    let mut found = false;
    walk(&mut |layer| found |= layer.beside().is_some_and(|beside| beside.is_some()));
    found
}

/// Has each matrix layer that `walk` goes through add to a row what its own set has there: one of `sets` for each number of rows
/// that a layer may see, and `rooms` as [`BranchSet::rooms`] says.
pub(crate) fn give_branches_of_rows(
    walk: impl FnOnce(&mut dyn FnMut(&mut dyn Layer)),
    sets: &[RowSets],
    rooms: &[usize],
) {
    let mut number = 0;
    walk(&mut |layer| {
        let Some(beside) = layer.beside() else { return };
        let room = rooms.get(number).copied().filter(|room| *room > 0);
        *beside = room.map(|room| Arc::new(Branch::of_rows(sets.to_vec(), number, room)));
        number += 1;
    });
}
