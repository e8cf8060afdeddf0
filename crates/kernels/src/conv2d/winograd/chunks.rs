//! How the tiles of an image are cut into chunks, each of which goes through the three steps of a convolution.

use super::TASK;
use crate::pieces;

/// Numbers of transformed input that each thread holds at a time: 4.5 MiB, to stay in the last-level cache until all
/// outputs have been computed from them.
const CHUNK: usize = 9 << 17;

/// The fewest numbers of each channel in a chunk, 128 tiles of 6x6, even where that is more than [`CHUNK`]: with fewer
/// tiles the weights would be transformed too often.
const FEWEST: usize = 128 * 36;

/// How tiles are cut into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    pub(super) count: usize,
    /// The most tiles of a chunk.
    pub(super) most: usize,
    /// Whether all threads work on one chunk and then on the next, because the last-level cache has no room for a chunk of
    /// each. Otherwise every thread works on its own chunk from end to end, without waiting between the steps.
    pub(super) in_turn: bool,
    /// How many threads work on a chunk.
    pub(super) threads: usize,
}

impl Chunks {
    /// Of `tiles` tiles with as many positions and numbers each, where the matrix tile has `rows` rows.
    pub(super) fn new(
        tiles: usize,
        (positions, per_tile): (usize, usize),
        rows: usize,
        threads: usize,
    ) -> Self {
        let own = CHUNK / per_tile;
        let (fewest, task) = (FEWEST / positions, TASK / positions);
        let in_turn = own < fewest;
        let limit = if in_turn {
            // Whole tasks, where there is more than one.
            let all = fewest.max(own * threads);
            if all > task { all - all % task } else { all }
        } else {
            own.min(task)
        };
        let most = pieces::even(tiles, limit, rows);
        let count = tiles.div_ceil(most);
        let threads = if in_turn {
            threads
        } else {
            threads.div_ceil(count.max(1))
        };
        Self {
            count,
            most,
            in_turn,
            threads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Chunks;

    fn f6(side: usize, channels: usize, threads: usize) -> (bool, usize, usize, usize) {
        let tiles = usize::pow(side.div_ceil(6), 2);
        let chunks = Chunks::new(tiles, (64, 64 * channels), 12, threads);
        (chunks.in_turn, chunks.count, chunks.most, chunks.threads)
    }

    #[test]
    fn wide_layers_share_a_chunk_that_grows_with_the_threads() {
        assert_eq!(f6(128, 512, 2), (true, 7, 72, 2));
        assert_eq!(f6(128, 512, 16), (true, 1, 492, 16));
        assert_eq!(f6(64, 384, 2), (true, 2, 72, 2));
        assert_eq!(f6(64, 384, 16), (true, 1, 132, 16));
    }

    #[test]
    fn narrow_layers_have_one_for_each_thread() {
        assert_eq!(f6(256, 256, 2), (false, 26, 72, 1));
        assert_eq!(f6(512, 128, 16), (false, 69, 108, 1));
        assert_eq!(f6(64, 128, 16), (false, 2, 72, 8));
    }
}
