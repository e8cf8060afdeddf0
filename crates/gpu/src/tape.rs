//! What is written down while a program is recorded: its commands, and which bytes of the arena are in use.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::arena::Arena;
use crate::command::{Command, Place, Span};
use crate::data::DType;
use crate::device::{Buffer, Gpu};
use crate::error::{Error, Result};

/// A recording that goes on.
#[derive(Debug)]
pub(crate) struct Tape {
    gpu: Gpu,
    inner: Mutex<Inner>,
}

/// What a program reads of the sets of low-rank products that its rows have: the one beside this layer, where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerNeed {
    /// Its number.
    pub(crate) layer: usize,
    /// Numbers of a line that comes in, and of one that comes out.
    pub(crate) sides: (usize, usize),
    /// The largest rank that there is room for.
    pub(crate) room: usize,
    /// The type of its numbers.
    pub(crate) dtype: DType,
}

#[derive(Debug, Default)]
struct Inner {
    arena: Arena,
    commands: Vec<Command>,
    /// What the commands name by address, and so must live as long as they do.
    held: Vec<Arc<Buffer>>,
    /// What is read by addresses that are told when the program runs.
    needs: Vec<LayerNeed>,
    closed: bool,
}

/// What a recording has come to.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) commands: Vec<Command>,
    /// What the commands name by address.
    #[expect(dead_code, reason = "held, so that the addresses stay good")]
    pub(crate) held: Vec<Arc<Buffer>>,
    pub(crate) needs: Vec<LayerNeed>,
    pub(crate) arena_bytes: usize,
}

impl Tape {
    pub(crate) fn new(gpu: &Gpu) -> Arc<Self> {
        Arc::new(Self {
            gpu: gpu.clone(),
            inner: Mutex::default(),
        })
    }

    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Room for `bytes` bytes, until the block is dropped.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Block {
        Block {
            offset: self.inner().arena.take(bytes),
            bytes,
            tape: Arc::clone(self),
        }
    }

    /// Writes a command down, which reads or writes `held` among others.
    pub(crate) fn push(&self, command: Command, held: impl IntoIterator<Item = Arc<Buffer>>) -> Result<()> {
        let mut inner = self.inner();
        if inner.closed {
            return Err(already());
        }
        for buffer in held {
            if !inner.held.iter().any(|known| Arc::ptr_eq(known, &buffer)) {
                inner.held.push(buffer);
            }
        }
        inner.commands.push(command);
        Ok(())
    }

    /// Writes down what the sets have to have that the program is given.
    pub(crate) fn need(&self, need: LayerNeed) -> Result<()> {
        let mut inner = self.inner();
        if inner.closed {
            return Err(already());
        }
        if !inner.needs.contains(&need) {
            inner.needs.push(need);
        }
        Ok(())
    }

    /// Ends the recording. Blocks that are dropped from now on are given back to nobody.
    pub(crate) fn close(&self) -> Recording {
        let mut inner = self.inner();
        inner.closed = true;
        Recording {
            commands: std::mem::take(&mut inner.commands),
            held: std::mem::take(&mut inner.held),
            needs: std::mem::take(&mut inner.needs),
            arena_bytes: inner.arena.peak(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn already() -> Error {
    Error::operands("recording", "the program has been recorded already")
}

/// Bytes of the arena.
#[derive(Debug)]
pub(crate) struct Block {
    tape: Arc<Tape>,
    offset: usize,
    bytes: usize,
}

impl Block {
    pub(crate) fn tape(&self) -> &Arc<Tape> {
        &self.tape
    }

    pub(crate) fn span(&self, offset: usize, bytes: usize) -> Span {
        debug_assert!(offset + bytes <= self.bytes);
        Span {
            place: Place::Arena(self.offset + offset),
            bytes,
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let freed = self.span(0, self.bytes);
        let mut inner = self.tape.inner();
        if !inner.closed {
            inner.arena.give(self.offset, self.bytes);
            inner.commands.push(Command::Freed(freed));
        }
    }
}
