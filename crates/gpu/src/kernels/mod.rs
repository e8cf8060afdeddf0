//! Our kernels as text: C++ in the words of `device.h`, which NVRTC compiles for a card and a C++ compiler for the emulator.

/// What all of them include.
pub(crate) const DEVICE: (&str, &str) = ("device.h", include_str!("device.h"));

/// Their files.
pub(crate) const FILES: &[(&str, &str)] = &[
    ("attention.cu", include_str!("attention.cu")),
    ("elementwise.cu", include_str!("elementwise.cu")),
    ("layout.cu", include_str!("layout.cu")),
    ("norm.cu", include_str!("norm.cu")),
    ("token_merge.cu", include_str!("token_merge.cu")),
];
