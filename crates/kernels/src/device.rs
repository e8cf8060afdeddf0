//! Where layers have their weights and compute.

/// A place that computes. It is chosen when a layer is made, and whatever the layer is given has to be there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// Main memory and the processor's cores.
    #[default]
    Cpu,
}
