//! What a device is told to do: launches of our kernels, calls of libraries and copies, as data.

use crate::data::DType;

/// Where an operand begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// An address of the device.
    Device(u64),
    /// Bytes from the beginning of the arena, which has no address yet while a program is recorded.
    Arena(usize),
}

/// An operand: where it begins and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) place: Place,
    pub(crate) bytes: usize,
}

impl Span {
    /// No operand: the null pointer.
    pub(crate) const NONE: Self = Self {
        place: Place::Device(0),
        bytes: 0,
    };

    /// `bytes` of its bytes, from `start` on.
    pub(crate) fn part(self, start: usize, bytes: usize) -> Self {
        debug_assert!(start + bytes <= self.bytes);
        let place = match self.place {
            Place::Device(address) => Place::Device(address + start as u64),
            Place::Arena(offset) => Place::Arena(offset + start),
        };
        Self { place, bytes }
    }

    /// The same span once the arena begins at `base`.
    pub(crate) fn at(self, base: u64) -> Self {
        match self.place {
            Place::Device(_) => self,
            Place::Arena(offset) => Self {
                place: Place::Device(base + offset as u64),
                ..self
            },
        }
    }

    /// Its address on the device; None while the arena has no place.
    pub(crate) fn address(self) -> Option<u64> {
        match self.place {
            Place::Device(address) => Some(address),
            Place::Arena(_) => None,
        }
    }
}

/// One parameter of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Arg {
    Pointer(Span),
    I32(i32),
    I64(i64),
    F32(f32),
}

impl Arg {
    /// The parameter as the lowest bytes of a word, as kernels are given it.
    #[cfg_attr(
        not(any(feature = "cuda", feature = "emulated")),
        expect(dead_code, reason = "no device is left in this build")
    )]
    pub(crate) fn bits(self) -> u64 {
        match self {
            Self::Pointer(span) => span.address().unwrap_or(0),
            Self::I32(value) => u64::from(value.cast_unsigned()),
            Self::I64(value) => value.cast_unsigned(),
            Self::F32(value) => u64::from(value.to_bits()),
        }
    }

    /// Its letter in a kernel's signature, as the emulator writes it.
    #[cfg_attr(
        not(feature = "emulated"),
        expect(dead_code, reason = "only the emulated device checks signatures")
    )]
    pub(crate) const fn letter(self) -> char {
        match self {
            Self::Pointer(_) => 'p',
            Self::I32(_) => 'i',
            Self::I64(_) => 'l',
            Self::F32(_) => 'f',
        }
    }
}

/// One launch of a kernel of ours.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Launch {
    pub(crate) kernel: String,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared_bytes: usize,
    pub(crate) args: Vec<Arg>,
}

/// y = x wᵀ + bias + residual; x (lines, inputs), w (outputs, inputs), bias (outputs,), y and residual (lines, outputs).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LinearCall {
    pub(crate) dtype: DType,
    /// Lines of one row of the batch: how a sum is cut may depend on these, never on the number of rows.
    pub(crate) rows: usize,
    pub(crate) lines: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) x: Span,
    pub(crate) weight: Span,
    pub(crate) bias: Option<Span>,
    pub(crate) residual: Option<Span>,
    pub(crate) y: Span,
}

/// A convolution of images (B, h, w, C); weight (outputs, side, side, inputs), bias (outputs,).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ConvCall {
    pub(crate) dtype: DType,
    pub(crate) rows: usize,
    /// Of the input, (h, w).
    pub(crate) from: (usize, usize),
    /// Of the output.
    pub(crate) to: (usize, usize),
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Side of the kernel.
    pub(crate) side: usize,
    pub(crate) stride: usize,
    /// Lines and columns of zeros above and to the left; what is missing below and to the right is zeros too.
    pub(crate) before: usize,
    pub(crate) x: Span,
    pub(crate) weight: Span,
    pub(crate) bias: Option<Span>,
    pub(crate) y: Span,
}

/// softmax(q kᵀ scale) v; q and y (B, queries, heads d), k and v (B, keys, heads d). Our kernels compute it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AttentionCall {
    pub(crate) dtype: DType,
    pub(crate) rows: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) heads: usize,
    /// Width of a head.
    pub(crate) width: usize,
    pub(crate) scale: f32,
    pub(crate) q: Span,
    pub(crate) k: Span,
    pub(crate) v: Span,
    pub(crate) y: Span,
}

/// One thing that a device does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    Launch(Launch),
    Linear(LinearCall),
    Conv(ConvCall),
    /// Of as many bytes as both have.
    Copy {
        from: Span,
        to: Span,
    },
    /// Nobody reads this any more. The emulated device fills it with NaN, so that whoever does read it is found.
    Freed(Span),
}

impl Command {
    /// The same command once the arena begins at `base`.
    pub(crate) fn at(&self, base: u64) -> Self {
        match self {
            Self::Launch(launch) => {
                let args = launch.args.iter().map(|arg| match *arg {
                    Arg::Pointer(span) => Arg::Pointer(span.at(base)),
                    Arg::I32(_) | Arg::I64(_) | Arg::F32(_) => *arg,
                });
                Self::Launch(Launch {
                    args: args.collect(),
                    ..launch.clone()
                })
            }
            Self::Linear(call) => Self::Linear(LinearCall {
                x: call.x.at(base),
                weight: call.weight.at(base),
                bias: call.bias.map(|bias| bias.at(base)),
                residual: call.residual.map(|residual| residual.at(base)),
                y: call.y.at(base),
                ..*call
            }),
            Self::Conv(call) => Self::Conv(ConvCall {
                x: call.x.at(base),
                weight: call.weight.at(base),
                bias: call.bias.map(|bias| bias.at(base)),
                y: call.y.at(base),
                ..*call
            }),
            Self::Copy { from, to } => Self::Copy {
                from: from.at(base),
                to: to.at(base),
            },
            Self::Freed(span) => Self::Freed(span.at(base)),
        }
    }

    /// Every operand, for the checks before a command runs.
    pub(crate) fn spans(&self) -> Vec<Span> {
        match self {
            Self::Launch(launch) => launch
                .args
                .iter()
                .filter_map(|arg| match arg {
                    Arg::Pointer(span) => Some(*span),
                    Arg::I32(_) | Arg::I64(_) | Arg::F32(_) => None,
                })
                .collect(),
            Self::Linear(call) => [call.x, call.weight, call.y]
                .into_iter()
                .chain(call.bias)
                .chain(call.residual)
                .collect(),
            Self::Conv(call) => [call.x, call.weight, call.y]
                .into_iter()
                .chain(call.bias)
                .collect(),
            Self::Copy { from, to } => vec![*from, *to],
            Self::Freed(span) => vec![*span],
        }
    }
}
