//! Every kernel against a plain reference in f64, on odd shapes, in all orders of threads; and what is refused.

mod attention;
mod company;
mod elementwise;
mod layout;
mod low_rank;
mod norm;
mod planted;
mod products;
mod refusals;
mod token_merge;
