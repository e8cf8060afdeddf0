//! The use cases over a fake device.
