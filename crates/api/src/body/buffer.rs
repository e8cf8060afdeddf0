//! Where a body gathers. Small ones are on the heap; large ones have pages of their own, which go back to the kernel with
//! the body, because the allocator keeps what is freed for minutes.
//!
//! Invariant: memory is taken by what arrives. A length that a header claims takes addresses at most: pages that nobody
//! has written to are not there.

use bytes::Bytes;
use memmap2::{MmapMut, MmapOptions};

use super::error::BodyError;

/// Up to so many bytes are on the heap.
const SMALL: usize = 64 * 1024;

/// The bytes that have arrived.
#[derive(Debug)]
pub(super) struct Buffer {
    /// The length that is expected, or the most that there may be.
    expected: usize,
    heap: Vec<u8>,
    pages: Option<Pages>,
}

#[derive(Debug)]
struct Pages {
    map: MmapMut,
    written: usize,
}

impl AsRef<[u8]> for Pages {
    fn as_ref(&self) -> &[u8] {
        &self.map[..self.written]
    }
}

impl Pages {
    fn new(length: usize) -> Result<Self, BodyError> {
        let map = MmapOptions::new().len(length).no_reserve_swap().map_anon();
        Ok(Self {
            map: map.map_err(|_| BodyError::NoRoom)?,
            written: 0,
        })
    }

    fn push(&mut self, piece: &[u8]) {
        let end = self.written + piece.len();
        self.map[self.written..end].copy_from_slice(piece);
        self.written = end;
    }
}

impl Buffer {
    /// Nothing yet; `expected` is at least what will come.
    pub(super) const fn new(expected: usize) -> Self {
        Self {
            expected,
            heap: Vec::new(),
            pages: None,
        }
    }

    /// Bytes that have arrived.
    pub(super) fn len(&self) -> usize {
        self.pages.as_ref().map_or(self.heap.len(), |pages| pages.written)
    }

    /// Puts a piece behind the others. Together they are no more than expected.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), BodyError> {
        if self.pages.is_none() && self.heap.len() + piece.len() > SMALL {
            let mut pages = Pages::new(self.expected)?;
            pages.push(&self.heap);
            self.heap = Vec::new();
            self.pages = Some(pages);
        }
        match &mut self.pages {
            Some(pages) => pages.push(piece),
            None => self.heap.extend_from_slice(piece),
        }
        Ok(())
    }

    /// All bytes, without a copy.
    pub(super) fn into_bytes(self) -> Bytes {
        match self.pages {
            Some(pages) => Bytes::from_owner(pages),
            None => Bytes::from(self.heap),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_comes_out_in_order_small_and_large() {
        for count in [0, 1, 63, 64, 65, 1000] {
            let mut buffer = Buffer::new(1_000_000);
            for at in 0..count {
                buffer.push(&[u8::try_from(at % 251).unwrap(); 1000]).unwrap();
            }
            assert_eq!(buffer.len(), count * 1000);
            let bytes = buffer.into_bytes();
            let right = (0..count).all(|at| bytes[at * 1000 + 999] == u8::try_from(at % 251).unwrap());
            assert!(right && bytes.len() == count * 1000);
        }
    }

    #[test]
    fn a_length_that_cannot_be_had_is_no_room() {
        let mut buffer = Buffer::new(usize::MAX / 2);
        buffer.push(&[0; 10]).unwrap();
        assert_eq!(buffer.push(&[0; SMALL]), Err(BodyError::NoRoom));
    }
}
