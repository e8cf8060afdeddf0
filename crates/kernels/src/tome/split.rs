//! Which tokens of an image may take others in: the first of every 2x2 cell.

/// Side of the cells whose first token is a destination.
const CELL: usize = 2;

/// The tokens of an image, in its order: those that stay and may take others in, and the others.
#[derive(Debug)]
pub(super) struct Split {
    pub(super) destinations: Vec<usize>,
    pub(super) sources: Vec<usize>,
}

impl Split {
    /// A cell that the image's edge cuts has no destination.
    pub(super) fn new(h: usize, w: usize) -> Self {
        let (lines, columns) = (h / CELL * CELL, w / CELL * CELL);
        let first = |token: &usize| {
            let (y, x) = (token / w, token % w);
            y < lines && x < columns && y % CELL == 0 && x % CELL == 0
        };
        let (destinations, sources) = (0..h * w).partition(first);
        Self {
            destinations,
            sources,
        }
    }
}
