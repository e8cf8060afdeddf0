//! Our kernels as text: C++ in the words of `device.h`, which NVRTC compiles for a card and a C++ compiler for the emulator.

pub(crate) mod attention;

/// What all of them include.
#[cfg(any(test, feature = "cuda"))]
pub(crate) const DEVICE: (&str, &str) = ("device.h", include_str!("device.h"));

/// Their files.
#[cfg(any(test, feature = "cuda"))]
pub(crate) const FILES: &[(&str, &str)] = &[
    ("attention.cu", include_str!("attention.cu")),
    ("elementwise.cu", include_str!("elementwise.cu")),
    ("layout.cu", include_str!("layout.cu")),
    ("low_rank.cu", include_str!("low_rank.cu")),
    ("norm.cu", include_str!("norm.cu")),
    ("token_merge.cu", include_str!("token_merge.cu")),
];
