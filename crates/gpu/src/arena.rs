//! Which bytes of the activation arena a tensor gets: offsets only, so that a dry run knows the size before any memory is
//! taken, and a program of the same shapes always has the same offsets.

use std::collections::BTreeMap;

/// Where tensors begin: the alignment of the widest loads of any library, and room between neighbours costs nothing.
pub(crate) const ALIGNMENT: usize = 256;

/// The free ranges of an arena that grows as far as it is needed.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    /// Offset to length; no two of them touch, and none reaches the end.
    free: BTreeMap<usize, usize>,
    /// Where the last range in use ends.
    end: usize,
    peak: usize,
}

impl Arena {
    /// The first of `bytes` free bytes: the lowest range that is long enough, so that large tensors stay low.
    pub(crate) fn take(&mut self, bytes: usize) -> usize {
        let bytes = rounded(bytes);
        let found = self.free.iter().find(|(_, length)| **length >= bytes);
        if let Some((&offset, &length)) = found {
            self.free.remove(&offset);
            if length > bytes {
                self.free.insert(offset + bytes, length - bytes);
            }
            return offset;
        }
        let offset = self.end;
        self.end += bytes;
        self.peak = self.peak.max(self.end);
        offset
    }

    /// Gives back what [`Arena::take`] has returned for `bytes`.
    pub(crate) fn give(&mut self, offset: usize, bytes: usize) {
        let (mut offset, mut length) = (offset, rounded(bytes));
        if let Some((&before, &its)) = self.free.range(..offset).next_back()
            && before + its == offset
        {
            self.free.remove(&before);
            (offset, length) = (before, its + length);
        }
        if let Some(its) = self.free.remove(&(offset + length)) {
            length += its;
        }
        if offset + length == self.end {
            self.end = offset;
        } else {
            self.free.insert(offset, length);
        }
    }

    /// The most bytes that were in use, holes included.
    pub(crate) fn peak(&self) -> usize {
        self.peak
    }
}

/// At least one unit, so that no two tensors share an address.
pub(crate) fn rounded(bytes: usize) -> usize {
    bytes.max(1).next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_used_again_and_join_their_neighbours() {
        let mut arena = Arena::default();
        let all: Vec<usize> = (0..4).map(|_| arena.take(1000)).collect();
        assert_eq!(all, [0, 1024, 2048, 3072]);
        arena.give(all[1], 1000);
        assert_eq!(arena.take(256), 1024, "the hole is used");
        arena.give(1024, 256);
        arena.give(all[2], 1000);
        assert_eq!(arena.take(2048), 1024, "two holes are one");
        arena.give(1024, 2048);
        arena.give(all[3], 1000);
        arena.give(all[0], 1000);
        assert_eq!((arena.end, arena.free.len()), (0, 0));
        assert_eq!(arena.peak(), 4096);
    }

    /// Whatever is taken and given, no two tensors share a byte.
    #[test]
    fn ranges_never_overlap() {
        let mut arena = Arena::default();
        let mut held: Vec<(usize, usize)> = Vec::new();
        let mut seed = 1_u32;
        for _ in 0..5000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = (seed >> 8) as usize;
            if number % 5 < 3 || held.is_empty() {
                let bytes = number % 3000;
                let offset = arena.take(bytes);
                assert_eq!(offset % ALIGNMENT, 0);
                for (other, length) in &held {
                    assert!(
                        offset + rounded(bytes) <= *other || other + rounded(*length) <= offset,
                        "{offset} and {other}"
                    );
                }
                held.push((offset, bytes));
            } else {
                let (offset, bytes) = held.swap_remove(number % held.len());
                arena.give(offset, bytes);
            }
        }
        for (offset, bytes) in held {
            arena.give(offset, bytes);
        }
        assert_eq!((arena.end, arena.free.len()), (0, 0));
    }
}
