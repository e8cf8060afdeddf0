//! The emulated device's memory: blocks of the host with guards around them, filled with NaN.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::collections::BTreeMap;

use crate::arena::ALIGNMENT;
use crate::command::Span;

/// Bytes before and behind a block that nobody may change.
const GUARD: usize = 4096;

/// What a guard is filled with.
const GUARD_BYTE: u8 = 0xa5;

/// A float of either size whose bytes are all this is NaN.
const NAN_BYTE: u8 = 0xff;

/// Blocks by their address.
#[derive(Debug, Default)]
pub(super) struct Heap {
    blocks: BTreeMap<u64, usize>,
    used: usize,
}

impl Heap {
    pub(super) fn used(&self) -> usize {
        self.used
    }

    pub(super) fn allocate(&mut self, bytes: usize) -> u64 {
        let layout = layout(bytes);
        // SAFETY: the layout has more than no bytes, since there are guards.
        let whole = unsafe { alloc(layout) };
        if whole.is_null() {
            handle_alloc_error(layout);
        }
        // SAFETY: the guards and the block are all of the layout's bytes.
        unsafe { whole.write_bytes(GUARD_BYTE, layout.size()) };
        // SAFETY: as above.
        let block = unsafe { whole.add(GUARD) };
        // SAFETY: as above.
        unsafe { block.write_bytes(NAN_BYTE, bytes) };
        let address = block.expose_provenance() as u64;
        self.blocks.insert(address, bytes);
        self.used += bytes;
        address
    }

    /// Gives a block back. False if somebody has written around it, or there is none.
    pub(super) fn free(&mut self, address: u64) -> bool {
        let whole = self.guards_hold(address);
        if let Some(bytes) = self.blocks.remove(&address) {
            self.used -= bytes;
            // SAFETY: `allocate` has made the block with this layout, and it is no longer listed.
            unsafe { dealloc(start_of(address), layout(bytes)) };
        }
        whole
    }

    /// Whether the span lies in a block.
    pub(super) fn holds(&self, span: Span) -> bool {
        let Some(address) = span.address() else {
            return false;
        };
        span == Span::NONE
            || self
                .blocks
                .range(..=address)
                .next_back()
                .is_some_and(|(start, bytes)| address - start + span.bytes as u64 <= *bytes as u64)
    }

    /// The block whose guards somebody has written to.
    pub(super) fn broken_guard(&self) -> Option<u64> {
        self.blocks
            .keys()
            .copied()
            .find(|address| !self.guards_hold(*address))
    }

    fn guards_hold(&self, address: u64) -> bool {
        let Some(bytes) = self.blocks.get(&address) else {
            return false;
        };
        let start = start_of(address);
        // SAFETY: the block is allocated, with a guard before it.
        let before = unsafe { std::slice::from_raw_parts(start, GUARD) };
        // SAFETY: and one behind it.
        let after = unsafe { start.add(GUARD + bytes) };
        // SAFETY: of as many bytes.
        let after = unsafe { std::slice::from_raw_parts(after, GUARD) };
        before.iter().chain(after).all(|byte| *byte == GUARD_BYTE)
    }

    /// Fills a span that this heap holds with NaN.
    pub(super) fn forget(&self, span: Span) {
        debug_assert!(self.holds(span));
        // SAFETY: the span lies in a block.
        unsafe { pointer(span).write_bytes(NAN_BYTE, span.bytes) };
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        while let Some((&address, _)) = self.blocks.first_key_value() {
            self.free(address);
        }
    }
}

/// The host's pointer for a span's address.
pub(super) fn pointer(span: Span) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(usize::try_from(span.address().unwrap_or(0)).unwrap_or(0))
}

fn start_of(address: u64) -> *mut u8 {
    let block = std::ptr::with_exposed_provenance_mut::<u8>(usize::try_from(address).unwrap_or(0));
    block.wrapping_sub(GUARD)
}

#[expect(clippy::expect_used, reason = "tests only, and no test has such a size")]
fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes + 2 * GUARD, ALIGNMENT).expect("the size of a block is below isize::MAX")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Place;

    #[test]
    fn a_write_around_a_block_is_found() {
        let mut heap = Heap::default();
        let address = heap.allocate(512);
        assert_eq!(heap.broken_guard(), None);
        let behind = Span {
            place: Place::Device(address + 512),
            bytes: 1,
        };
        assert!(!heap.holds(behind));
        // SAFETY: the guard behind the block is allocated.
        unsafe { pointer(behind).write(0) };
        assert_eq!(heap.broken_guard(), Some(address));
        assert!(!heap.free(address));
        assert_eq!(heap.used(), 0);
    }
}
