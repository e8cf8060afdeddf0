//! How an operation is written down.

use std::sync::Arc;

use crate::command::{Arg, Command, Launch, Span};
use crate::data::DType;
use crate::error::{Error, Result};
use crate::tape::{LayerNeed, Tape};
use crate::tensor::Tensor;

/// Threads of a block, where a kernel does not need another number.
pub(super) const THREADS: u32 = 256;

/// Blocks of a launch over the numbers of a tensor, at most; threads go on to the next number.
const BLOCKS: usize = 1 << 16;

/// One operation that is being written down.
#[derive(Debug)]
pub(super) struct Record<'a> {
    op: &'static str,
    tape: Arc<Tape>,
    operands: Vec<&'a Tensor>,
}

impl<'a> Record<'a> {
    /// An operation on `operands`, in the program that those of them belong to which are not kept.
    pub(super) fn new(op: &'static str, operands: impl IntoIterator<Item = &'a Tensor>) -> Result<Self> {
        let operands: Vec<&Tensor> = operands.into_iter().collect();
        let mut tapes = operands.iter().filter_map(|operand| operand.tape());
        let Some(tape) = tapes.next().map(Arc::clone) else {
            return Err(Error::operands(
                op,
                "no operand belongs to a program that is being recorded",
            ));
        };
        if tapes.any(|other| !Arc::ptr_eq(other, &tape)) {
            return Err(Error::operands(op, "operands of two programs"));
        }
        if operands.iter().any(|operand| !operand.gpu().is(tape.gpu())) {
            return Err(Error::operands(op, "operands of two devices"));
        }
        Ok(Self { op, tape, operands })
    }

    /// An error of this operation, that shows the shapes of all operands.
    pub(super) fn mismatch(&self, what: impl std::fmt::Display) -> Error {
        let shapes: Vec<String> = self
            .operands
            .iter()
            .map(|operand| format!("{:?} {:?}", operand.dtype(), operand.shape()))
            .collect();
        Error::operands(self.op, format!("{what}; given {}", shapes.join(", ")))
    }

    /// `Err` with `what` unless `holds`.
    pub(super) fn ensure(&self, holds: bool, what: impl std::fmt::Display) -> Result<()> {
        if holds { Ok(()) } else { Err(self.mismatch(what)) }
    }

    /// The float type that all of `operands` have.
    pub(super) fn float<'b>(&self, operands: impl IntoIterator<Item = &'b Tensor>) -> Result<DType> {
        let mut types = operands.into_iter().map(Tensor::dtype);
        match types.next() {
            Some(first @ (DType::F32 | DType::F16)) if types.all(|other| other == first) => Ok(first),
            _ => Err(self.mismatch("floats of one type are needed")),
        }
    }

    /// A new tensor of the program, for a result.
    pub(super) fn result(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        Tensor::recorded(&self.tape, shape, dtype)
    }

    /// Writes a call or a copy down.
    pub(super) fn push(&self, command: Command) -> Result<()> {
        let held = self.operands.iter().filter_map(|operand| operand.buffer());
        self.tape.push(command, held)
    }

    /// What the sets of low-rank products must have that the program is given.
    pub(super) fn need(&self, need: LayerNeed) -> Result<()> {
        self.tape.need(need)
    }

    /// The launch of a kernel for numbers of this type.
    pub(super) fn launch(&self, kernel: &str, dtype: DType) -> LaunchRecord<'_, 'a> {
        self.launch_named(format!("{kernel}_{}", dtype.suffix()))
    }

    /// The launch of the kernel with this very name.
    pub(super) fn launch_named(&self, kernel: String) -> LaunchRecord<'_, 'a> {
        LaunchRecord {
            record: self,
            launch: Launch {
                kernel,
                grid: [1, 1, 1],
                block: [THREADS, 1, 1],
                shared_bytes: 0,
                args: Vec::new(),
            },
            too_large: false,
        }
    }
}

/// A launch whose parameters are being given, in the kernel's order.
#[derive(Debug)]
pub(super) struct LaunchRecord<'r, 'a> {
    record: &'r Record<'a>,
    launch: Launch,
    too_large: bool,
}

impl LaunchRecord<'_, '_> {
    pub(super) fn tensor(mut self, tensor: &Tensor) -> Self {
        self.launch.args.push(Arg::Pointer(tensor.span()));
        self
    }

    /// A pointer that the kernel does not follow when there is none.
    pub(super) fn tensor_or_none(mut self, tensor: Option<&Tensor>) -> Self {
        let span = tensor.map_or(Span::NONE, Tensor::span);
        self.launch.args.push(Arg::Pointer(span));
        self
    }

    pub(super) fn int(mut self, value: usize) -> Self {
        match i32::try_from(value) {
            Ok(value) => self.launch.args.push(Arg::I32(value)),
            Err(_) => self.too_large = true,
        }
        self
    }

    pub(super) fn long(mut self, value: usize) -> Self {
        match i64::try_from(value) {
            Ok(value) => self.launch.args.push(Arg::I64(value)),
            Err(_) => self.too_large = true,
        }
        self
    }

    pub(super) fn float(mut self, value: f32) -> Self {
        self.launch.args.push(Arg::F32(value));
        self
    }

    pub(super) fn flag(mut self, value: bool) -> Self {
        self.launch.args.push(Arg::I32(i32::from(value)));
        self
    }

    pub(super) fn shared_bytes(mut self, bytes: usize) -> Self {
        self.launch.shared_bytes = bytes;
        self
    }

    pub(super) fn threads(mut self, threads: u32) -> Self {
        self.launch.block = [threads, 1, 1];
        self
    }

    /// Enough blocks for a thread on each of `count` numbers, or as many as are useful.
    pub(super) fn over(self, count: usize) -> Result<()> {
        let threads = self.launch.block[0] as usize;
        let blocks = count.div_ceil(threads).min(BLOCKS);
        self.grid([blocks, 1, 1])
    }

    /// As many blocks as `grid` says. With none there is nothing to do.
    pub(super) fn grid(mut self, grid: [usize; 3]) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        // What a card allows: 2^31 - 1 blocks along the first side, 65535 along the others.
        const LARGEST: [usize; 3] = [i32::MAX as usize, 65_535, 65_535];
        for (side, (count, largest)) in grid.into_iter().zip(LARGEST).enumerate() {
            match u32::try_from(count).ok().filter(|_| count <= largest) {
                Some(count) => self.launch.grid[side] = count,
                None => self.too_large = true,
            }
        }
        if self.too_large {
            return Err(self.record.mismatch("more numbers than a kernel counts"));
        }
        self.record.push(Command::Launch(self.launch))
    }
}
