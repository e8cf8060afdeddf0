//! Cutting work into tasks of about the same size, so that no thread waits for another's last long task.

/// The size of the pieces, a multiple of `unit`, into which `count` is cut when a piece is to be about `most` at most:
/// as many pieces as that takes, and the last one hardly smaller than the others.
pub(crate) fn even(count: usize, most: usize, unit: usize) -> usize {
    let pieces = count.div_ceil(most).max(1);
    count.div_ceil(pieces).next_multiple_of(unit).max(unit)
}

#[cfg(test)]
mod tests {
    use super::even;

    #[test]
    fn pieces_are_as_equal_as_whole_units_allow() {
        assert_eq!(even(256, 192, 12), 132);
        assert_eq!(even(4096, 192, 12), 192);
        assert_eq!(even(77, 192, 12), 84);
        assert_eq!(even(1, 192, 6), 6);
        assert_eq!(even(0, 192, 6), 6);
    }
}
