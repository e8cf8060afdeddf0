//! Cutting work into tasks of about the same size, so that no thread waits for another's last long task.

/// The size of the pieces, a multiple of `unit`, into which `count` is cut when a piece is to be about `most` at most:
/// as many pieces as that takes, and the last one hardly smaller than the others.
pub(crate) fn even(count: usize, most: usize, unit: usize) -> usize {
    let pieces = count.div_ceil(most).max(1);
    count.div_ceil(pieces).next_multiple_of(unit).max(unit)
}

/// The same where each piece is a task for each of `others` things, so that all threads are done at about the same time:
/// smaller pieces where the last round of tasks would leave a twentieth of the threads' time unused.
pub(crate) fn shared(count: usize, (most, unit): (usize, usize), others: usize) -> usize {
    shared_by(rayon::current_num_threads(), count, (most, unit), others)
}

fn shared_by(threads: usize, count: usize, (most, unit): (usize, usize), others: usize) -> usize {
    let time = |size: usize| (others * count.div_ceil(size)).div_ceil(threads) * size;
    let mut best = even(count, most, unit);
    for size in (unit..best).step_by(unit).rev() {
        if 20 * time(size) < 19 * time(best) {
            best = size;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::{even, shared_by};

    #[test]
    fn tasks_are_shared_out_evenly() {
        // Five groups of ten would leave one of two threads idle for a fifth of the time.
        assert_eq!(shared_by(2, 48, (10, 2), 1), 8);
        assert_eq!(shared_by(16, 48, (10, 2), 1), 4);
        assert_eq!(shared_by(2, 20, (10, 2), 22), 10);
        assert_eq!(shared_by(2, 20, (3, 1), 1), 2);
        assert_eq!(shared_by(1, 48, (10, 2), 1), 10);
        assert_eq!(shared_by(2, 1, (10, 2), 1), 2);
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
