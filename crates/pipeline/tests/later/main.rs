//! Stable Diffusion 2 and SDXL: whole runs against diffusers, and single files against folders.

#[cfg(test)]
#[path = "../support/models.rs"]
mod models;
#[cfg(test)]
mod runs;
#[cfg(test)]
mod single_files;
#[path = "../support/mod.rs"]
mod support;
