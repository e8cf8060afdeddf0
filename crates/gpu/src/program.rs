//! A program: the commands of one computation on one set of shapes, recorded once and run as often as needed.
//!
//! Recording needs shapes only, no memory and no numbers, so how much memory a program takes is known before any is taken.
//! Inside a program nothing is allocated and nothing comes from the host.

use std::any::Any;
use std::sync::Arc;

use crate::arena::rounded;
use crate::command::{Command, Place, Span};
use crate::data::{DType, HostData, floats};
use crate::device::{ArenaGuard, Gpu, ProgramGraph};
use crate::error::{Error, Result};
use crate::ops::LowRankSet;
use crate::tape::{Recording, Tape};
use crate::tensor::Tensor;

/// The shape and the type of something that a program is given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InputShape {
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// The type of its numbers.
    pub dtype: DType,
}

impl InputShape {
    /// Of these dimensions and this type.
    #[must_use]
    pub fn new(shape: &[usize], dtype: DType) -> Self {
        Self {
            shape: shape.to_vec(),
            dtype,
        }
    }
}

/// What a program is given for one of its inputs.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Numbers of the host.
    Host(HostData<'a>),
    /// A kept tensor.
    Kept(&'a Tensor),
    /// Kept tensors, one after the other along the outermost dimension.
    Joined(&'a [&'a Tensor]),
    /// The low-rank products of each row, or none: an input of [`DType::Address`]. They are read until the run is over, which
    /// giving their memory back waits for.
    Sets(&'a [Option<&'a LowRankSet>]),
}

/// A recorded computation.
#[derive(Debug)]
pub struct Program {
    /// What libraries need for its commands; given back before the device.
    held: Vec<Arc<dyn Any + Send + Sync>>,
    gpu: Gpu,
    inputs: Vec<(InputShape, Span)>,
    outputs: Vec<Tensor>,
    recording: Recording,
    /// The most that one of the commands works in; it lies behind the activations.
    workspace_bytes: usize,
    launches: usize,
    bound: Option<Bound>,
}

/// A program in an arena that has a place.
#[derive(Debug)]
struct Bound {
    /// Where the arena begins.
    base: u64,
    commands: Vec<Command>,
    /// The commands as one, once they have been run.
    graph: Option<ProgramGraph>,
    /// Whether they cannot be made one, so that it is not tried at every run.
    stays_apart: bool,
}

impl Program {
    /// Records what `body` does with its inputs, which are tensors of these shapes without numbers; its results are the
    /// program's outputs.
    ///
    /// # Errors
    /// Those of `body`; and when a result does not belong to this program.
    pub fn record<E: From<Error>>(
        gpu: &Gpu,
        inputs: &[InputShape],
        body: impl FnOnce(Vec<Tensor>) -> std::result::Result<Vec<Tensor>, E>,
    ) -> std::result::Result<Self, E> {
        let tape = Tape::new(gpu);
        let tensors = inputs
            .iter()
            .map(|input| Tensor::recorded(&tape, &input.shape, input.dtype))
            .collect::<Result<Vec<_>>>()?;
        let spans: Vec<Span> = tensors.iter().map(Tensor::span).collect();
        let outputs = body(tensors)?;
        for output in &outputs {
            if !output.tape().is_some_and(|its| Arc::ptr_eq(its, &tape)) {
                return Err(Error::operands("recording", "a result is no tensor of the program").into());
            }
        }
        let recording = tape.close();
        let (mut workspace_bytes, mut held) = (0, Vec::new());
        for command in &recording.commands {
            let prepared = gpu.prepare(command)?;
            workspace_bytes = workspace_bytes.max(prepared.workspace_bytes);
            held.extend(prepared.held);
        }
        let is_work = |command: &&Command| !matches!(command, Command::Freed(_));
        Ok(Self {
            held,
            launches: recording.commands.iter().filter(is_work).count(),
            gpu: gpu.clone(),
            inputs: inputs.iter().cloned().zip(spans).collect(),
            outputs,
            recording,
            workspace_bytes,
            bound: None,
        })
    }

    /// Bytes of the arena that a run takes, exactly: activations, and what libraries work in.
    #[must_use]
    pub fn arena_bytes(&self) -> usize {
        self.recording.arena_bytes + self.workspace_bytes
    }

    /// Bytes that the results of a run take beside the arena, exactly.
    #[must_use]
    pub fn output_bytes(&self) -> usize {
        self.outputs
            .iter()
            .map(|output| rounded(output.size_bytes()))
            .sum()
    }

    /// Launches and calls of libraries in a run.
    #[must_use]
    pub fn launches(&self) -> usize {
        self.launches
    }

    /// Runs it. The outputs are kept tensors, in the order of the recording.
    ///
    /// # Errors
    /// When the inputs are not those of the recording; [`Error::OutOfMemory`], after which the programs take their room anew;
    /// [`Error::Lost`].
    pub fn run(&mut self, inputs: &[Input<'_>]) -> Result<Vec<Tensor>> {
        self.check(inputs)?;
        let results = self
            .outputs
            .iter()
            .map(|output| Tensor::kept(&self.gpu, output.shape(), output.dtype()))
            .collect::<Result<Vec<_>>>()?;
        let gpu = self.gpu.clone();
        let arena = gpu.arena_of(self.arena_bytes())?;
        self.execute(&arena, inputs)?;
        for (output, result) in self.outputs.iter().zip(&results) {
            let copy = Command::Copy {
                from: output.span().at(arena.address()),
                to: result.span(),
            };
            gpu.run(&copy, Span::NONE)?;
        }
        Ok(results)
    }

    /// Runs it and brings the outputs to the host, as f32, in the order of the recording. No memory is taken but the arena.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn run_to_host(&mut self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>> {
        self.check(inputs)?;
        let gpu = self.gpu.clone();
        let arena = gpu.arena_of(self.arena_bytes())?;
        self.execute(&arena, inputs)?;
        let numbers = |output: &Tensor| {
            let mut bytes = vec![0; output.size_bytes()];
            gpu.download(output.span().at(arena.address()), &mut bytes)?;
            Ok(floats(&bytes, output.dtype()))
        };
        self.outputs.iter().map(numbers).collect()
    }

    /// Runs it on inputs that have been checked.
    fn execute(&mut self, arena: &ArenaGuard<'_>, inputs: &[Input<'_>]) -> Result<()> {
        let (gpu, base) = (self.gpu.clone(), arena.address());
        for ((_, span), input) in self.inputs.iter().zip(inputs) {
            fill(&gpu, span.at(base), input)?;
        }
        let workspace = Span {
            place: Place::Arena(self.recording.arena_bytes),
            bytes: self.workspace_bytes,
        };
        let workspace = workspace.at(base);
        let bound = self.bind(base);
        if let Some(graph) = &bound.graph {
            return gpu.replay(graph);
        }
        for command in &bound.commands {
            gpu.run(command, workspace)?;
        }
        if !bound.stays_apart {
            bound.graph = gpu.graph(&bound.commands, workspace)?;
            bound.stays_apart = bound.graph.is_none();
        }
        Ok(())
    }

    /// The commands with the addresses of an arena that begins at `base`.
    fn bind(&mut self, base: u64) -> &mut Bound {
        let bound = self.bound.take().filter(|bound| bound.base == base);
        let bound = bound.unwrap_or_else(|| Bound {
            base,
            commands: self
                .recording
                .commands
                .iter()
                .map(|command| command.at(base))
                .collect(),
            graph: None,
            stays_apart: false,
        });
        self.bound.insert(bound)
    }

    fn check(&self, inputs: &[Input<'_>]) -> Result<()> {
        if inputs.len() != self.inputs.len() {
            return Err(Error::operands(
                "program",
                format!("{} inputs instead of {}", inputs.len(), self.inputs.len()),
            ));
        }
        for (place, ((wanted, _), input)) in self.inputs.iter().zip(inputs).enumerate() {
            let found = match input {
                Input::Host(data) => {
                    let elements: usize = wanted.shape.iter().product();
                    (data.len() == elements).then_some(data.dtype())
                }
                Input::Kept(tensor) => self
                    .kept(tensor)?
                    .then_some(tensor.dtype())
                    .filter(|_| tensor.shape() == wanted.shape),
                Input::Joined(parts) => self.joined(parts, wanted)?,
                Input::Sets(sets) => {
                    let fits = |set: &&LowRankSet| set.meets(&self.gpu, &self.recording.needs);
                    let fit = *wanted.shape == [sets.len()] && sets.iter().flatten().all(fits);
                    fit.then_some(DType::Address)
                }
            };
            if found != Some(wanted.dtype) {
                return Err(Error::operands(
                    "program",
                    format!(
                        "input {place} is not of shape {:?} in {:?}",
                        wanted.shape, wanted.dtype
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Whether a tensor is kept on this device; one of another device is an error of its own.
    fn kept(&self, tensor: &Tensor) -> Result<bool> {
        if tensor.gpu().is(&self.gpu) {
            // Addresses are followed, so they come as what they are the addresses of.
            Ok(tensor.is_kept() && tensor.dtype() != DType::Address)
        } else {
            Err(Error::operands("program", "a tensor of another device"))
        }
    }

    /// The type of parts that are an input together.
    fn joined(&self, parts: &[&Tensor], wanted: &InputShape) -> Result<Option<DType>> {
        let mut rows = 0;
        for part in parts {
            let fits = self.kept(part)?
                && part.dtype() == wanted.dtype
                && part.shape().len() == wanted.shape.len()
                && part.shape().get(1..) == wanted.shape.get(1..);
            if !fits {
                return Ok(None);
            }
            rows += part.shape().first().copied().unwrap_or(0);
        }
        Ok((Some(&rows) == wanted.shape.first()).then_some(wanted.dtype))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // What it holds may be what the device is running.
        if !self.held.is_empty() {
            let _ = self.gpu.synchronize();
        }
    }
}

/// Brings an input, whose shape has been checked, to its place.
fn fill(gpu: &Gpu, to: Span, input: &Input<'_>) -> Result<()> {
    match input {
        Input::Host(data) => gpu.upload(to, &data.to_bytes()),
        Input::Kept(tensor) => {
            let from = tensor.span();
            gpu.run(&Command::Copy { from, to }, Span::NONE)
        }
        Input::Joined(parts) => {
            let mut start = 0;
            for part in *parts {
                let bytes = part.size_bytes();
                let copy = Command::Copy {
                    from: part.span(),
                    to: to.part(start, bytes),
                };
                gpu.run(&copy, Span::NONE)?;
                start += bytes;
            }
            Ok(())
        }
        Input::Sets(sets) => {
            let addresses = sets.iter().map(|set| set.map_or(0, LowRankSet::address));
            let bytes: Vec<u8> = addresses.flat_map(u64::to_le_bytes).collect();
            gpu.upload(to, &bytes)
        }
    }
}

#[cfg(test)]
mod tests;
