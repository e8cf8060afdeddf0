//! The bytes of a pickle, read once from front to back within a budget.

use std::io::{BufRead, Read as _};

use super::error::PickleProblem;

/// How much of a file may be pickle; the numbers of tensors are not part of it. The largest checkpoints have about a
/// megabyte, those with the state of an optimiser a few.
const MAX_BYTES: u64 = 32 << 20;
/// The longest line of protocol 0, which writes numbers and names as lines.
const MAX_LINE: usize = 4096;

/// Counts what is read.
#[derive(Debug)]
pub(super) struct PickleReader<R> {
    source: R,
    consumed: u64,
}

impl<R: BufRead> PickleReader<R> {
    pub(super) const fn new(source: R) -> Self {
        Self { source, consumed: 0 }
    }

    /// How many bytes were read.
    pub(super) const fn consumed(&self) -> u64 {
        self.consumed
    }

    fn spend(&mut self, bytes: u64) -> Result<(), PickleProblem> {
        self.consumed = self.consumed.saturating_add(bytes);
        if self.consumed > MAX_BYTES {
            return Err(PickleProblem::TooLarge { limit: MAX_BYTES });
        }
        Ok(())
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleProblem> {
        self.spend(N as u64)?;
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, PickleProblem> {
        Ok(self.array::<1>()?[0])
    }

    /// As many bytes as the file claims; memory grows with what is really there.
    pub(super) fn bytes(&mut self, length: u64) -> Result<Vec<u8>, PickleProblem> {
        self.spend(length)?;
        let mut bytes = Vec::new();
        let read = self.source.by_ref().take(length).read_to_end(&mut bytes)?;
        if read as u64 == length {
            Ok(bytes)
        } else {
            Err(PickleProblem::Truncated)
        }
    }

    pub(super) fn text(&mut self, length: u64) -> Result<String, PickleProblem> {
        // Python writes lone surrogates, which are no text; nothing that is looked up has one.
        let bytes = self.bytes(length)?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// A line without its end.
    pub(super) fn line(&mut self) -> Result<String, PickleProblem> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => break,
                _ if line.len() == MAX_LINE => return Err(PickleProblem::Malformed("a line is too long")),
                byte => line.push(byte),
            }
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }
}
