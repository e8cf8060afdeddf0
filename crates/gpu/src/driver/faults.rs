//! Faults that a test plants, and the rule that a device which has failed stays failed.

use crate::error::{Error, Result};

/// What fails on an emulated device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An allocation finds no memory. Later ones may find some.
    OutOfMemory,
    /// A launch ends with an illegal address; after it every call fails, as CUDA's errors of this kind do.
    LaunchFailure,
    /// A program cannot be made a graph; it runs command by command.
    CaptureFailure,
    /// The device has fallen off the bus, and answers nothing any more.
    DeviceLost,
}

/// When a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedFault {
    /// What happens.
    pub fault: Fault,
    /// The allocation ([`Fault::OutOfMemory`]), capture ([`Fault::CaptureFailure`]), launch or library call ([`Fault::LaunchFailure`]), or call of any kind
    /// ([`Fault::DeviceLost`]) that meets it, counted from 1.
    pub at: usize,
}

impl std::str::FromStr for PlannedFault {
    type Err = String;

    /// As [`Gpu::open_emulated`](crate::Gpu::open_emulated) takes it.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong =
            || format!("`{text}` is no fault of an emulated device: write memory@12, launch@12 or lost@12");
        let (name, at) = text.split_once('@').ok_or_else(wrong)?;
        let fault = match name {
            "memory" => Fault::OutOfMemory,
            "launch" => Fault::LaunchFailure,
            "capture" => Fault::CaptureFailure,
            "lost" => Fault::DeviceLost,
            _ => return Err(wrong()),
        };
        let at = at.parse().ok().filter(|at| *at > 0).ok_or_else(wrong)?;
        Ok(Self { fault, at })
    }
}

/// Counts of calls, and whether the device has failed.
#[derive(Debug, Default)]
pub(super) struct Faults {
    planned: Option<PlannedFault>,
    calls: usize,
    allocations: usize,
    launches: usize,
    captures: usize,
    lost: Option<Error>,
}

impl Faults {
    pub(super) fn new(planned: Option<PlannedFault>) -> Self {
        Self {
            planned,
            ..Self::default()
        }
    }

    /// Before a call of any kind.
    pub(super) fn call(&mut self) -> Result<()> {
        self.calls += 1;
        if self.meets(Fault::DeviceLost, self.calls) {
            self.lose("the device has fallen off the bus");
        }
        self.lost.clone().map_or(Ok(()), Err)
    }

    /// Before an allocation of `bytes`.
    pub(super) fn allocation(&mut self, bytes: usize) -> Result<()> {
        self.call()?;
        self.allocations += 1;
        if self.meets(Fault::OutOfMemory, self.allocations) {
            return Err(Error::OutOfMemory {
                asked: bytes,
                free: 0,
            });
        }
        Ok(())
    }

    /// Before a launch or a call of a library.
    pub(super) fn launch(&mut self) -> Result<()> {
        self.call()?;
        self.launches += 1;
        if self.meets(Fault::LaunchFailure, self.launches) {
            return Err(self.lose("an illegal memory access was encountered"));
        }
        Ok(())
    }

    /// At the end of a capture.
    pub(super) fn refuses_capture(&mut self) -> bool {
        self.captures += 1;
        self.meets(Fault::CaptureFailure, self.captures)
    }

    /// From now on every call fails.
    pub(super) fn lose(&mut self, why: impl Into<String>) -> Error {
        let error = Error::Lost { why: why.into() };
        self.lost = Some(error.clone());
        error
    }

    fn meets(&self, fault: Fault, count: usize) -> bool {
        self.planned == Some(PlannedFault { fault, at: count })
    }
}
