//! Requests that name weights: many models and LoRA sets at once, in less memory than they all need.

mod alternating;
