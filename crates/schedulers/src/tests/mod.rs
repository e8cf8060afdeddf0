//! Tests of whole runs: against diffusers, against their own definition, and for every configuration.

mod inversion;
mod properties;
mod trajectories;
