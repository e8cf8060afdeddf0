//! Every network against full tensors from diffusers and transformers (`tests/golden/generate/components.py`), and
//! against itself: alone and in a batch.

#[cfg(test)]
mod batch;
#[cfg(test)]
mod clip;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod gpt2;
#[cfg(test)]
mod ip_adapter;
#[cfg(test)]
mod layers;
#[cfg(test)]
mod merging;
#[cfg(test)]
mod mixed_sets;
#[cfg(test)]
mod other_names;
#[cfg(test)]
mod patched;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod sdxl;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tiny_vae;
#[cfg(test)]
mod tokenizer;
#[cfg(test)]
mod unet;
#[cfg(test)]
mod vae;
#[cfg(test)]
mod vision;
