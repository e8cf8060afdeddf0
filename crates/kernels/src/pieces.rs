//! Cutting work into tasks of about the same size, so that no thread waits for another's last long task.

/// The size of the pieces into which `count` is cut, a multiple of `unit` and about `most` at most. There are as few
/// pieces as that allows, and the last one is hardly smaller than the others.
pub(crate) fn even(count: usize, most: usize, unit: usize) -> usize {
    let pieces = count.div_ceil(most).max(1);
    count.div_ceil(pieces).next_multiple_of(unit).max(unit)
}

/// How work may be cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// The largest size of a piece.
    pub(crate) most: usize,
    /// What a piece's size is a multiple of.
    pub(crate) unit: usize,
    /// What each piece costs in addition, in the unit of its size.
    pub(crate) overhead: usize,
}

/// As [`even`], where every piece makes `others` tasks for `threads` threads: pieces are smaller where that saves at least
/// a tenth of the time, because fewer threads are idle in the last round of tasks.
pub(crate) fn shared(threads: usize, count: usize, cut: Cut, others: usize) -> usize {
    let time = |size: usize| {
        let rounds = (others * count.div_ceil(size)).div_ceil(threads);
        rounds * (size.min(count) + cut.overhead)
    };
    let mut best = even(count, cut.most, cut.unit);
    for size in (cut.unit..best).step_by(cut.unit).rev() {
        if 10 * time(size) < 9 * time(best) {
            best = size;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::{Cut, even, shared};

    #[test]
    fn tasks_are_shared_out_evenly() {
        let cut = |most, unit| Cut {
            most,
            unit,
            overhead: 0,
        };
        // Five groups of ten would leave one of two threads idle for a fifth of the time.
        assert_eq!(shared(2, 48, cut(10, 2), 1), 8);
        assert_eq!(shared(16, 48, cut(10, 2), 1), 4);
        assert_eq!(shared(2, 20, cut(10, 2), 22), 10);
        assert_eq!(shared(2, 20, cut(3, 1), 1), 2);
        assert_eq!(shared(1, 48, cut(10, 2), 1), 10);
        assert_eq!(shared(2, 1, cut(10, 2), 1), 2);
    }

    #[test]
    fn small_pieces_are_worth_it_only_beyond_what_each_costs() {
        let cut = |overhead| Cut {
            most: 108,
            unit: 12,
            overhead,
        };
        // Two pieces for each of ten things are twenty tasks, and sixteen threads take two rounds; three pieces too.
        assert_eq!(shared(2, 121, cut(12), 10), 72);
        assert_eq!(shared(16, 121, cut(12), 10), 48);
        // One piece for each of twenty things takes two rounds as well, but smaller ones would gain too little.
        assert_eq!(shared(16, 64, cut(0), 20), 24);
        assert_eq!(shared(16, 64, cut(12), 20), 72);
    }

    #[test]
    fn pieces_are_as_equal_as_whole_units_allow() {
        assert_eq!(even(256, 192, 12), 132);
        assert_eq!(even(4096, 192, 12), 192);
        assert_eq!(even(77, 192, 12), 84);
        assert_eq!(even(1, 192, 6), 6);
        assert_eq!(even(0, 192, 6), 6);
    }
}
