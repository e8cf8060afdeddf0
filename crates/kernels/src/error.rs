//! What can go wrong in a layer: an operation on the host or on a GPU, or things that do not belong together.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// An operation on tensors in main memory: a shape, a number type.
    #[error(transparent)]
    Host(#[from] candle_core::Error),
    /// An operation on a GPU: a shape, memory, or the device itself.
    #[error(transparent)]
    Gpu(#[from] pentimento_gpu::Error),
    /// Operands or weights do not belong together.
    #[error("{detail}")]
    Mismatch {
        /// Which, and how they are.
        detail: String,
    },
}

impl KernelError {
    /// [`KernelError::Mismatch`].
    pub fn mismatch(detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self::Mismatch { detail }
    }
}

/// What the layers answer.
pub type Result<T> = std::result::Result<T, KernelError>;
