//! Every kernel against a plain reference in f64, on odd shapes, in all orders of threads; and what is refused.

mod attention;
mod elementwise;
mod layout;
mod norm;
mod planted;
mod products;
mod refusals;
mod token_merge;
