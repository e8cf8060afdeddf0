//! Text to image and differential diffusion: whole runs against the reference, and what holds beside the numbers.

#[cfg(test)]
mod differential;
#[cfg(test)]
#[path = "../support/models.rs"]
mod models;
#[path = "../support/mod.rs"]
mod support;
#[cfg(test)]
#[path = "../support/tensor_of.rs"]
mod tensors;
#[cfg(test)]
mod text_to_image;
