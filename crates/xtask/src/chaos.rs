//! `cargo xtask chaos`: the chaos tests of `tests/chaos.rs` and `tests/cluster_chaos.rs`, for as long and with as many kills as
//! one likes.

use clap::Args;

use crate::{shell, tree};

/// How long, and how often.
#[derive(Debug, Args)]
pub(crate) struct ChaosArgs {
    /// How often the server is killed.
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// About how long that takes altogether.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Which accidents, to have the same ones again.
    #[arg(long)]
    seed: Option<u64>,
}

/// Builds the server and its tests, and runs those two, one after the other.
pub(crate) fn run(args: &ChaosArgs) -> anyhow::Result<()> {
    let mut test = shell::cargo(&tree::root());
    // Not with the usual runner, which ends what takes minutes.
    test.args(["test", "--workspace", "--locked", "--test", "integration", "--"])
        .args(["--nocapture", "--test-threads", "1", "chaos::"])
        .env("CHAOS_ROUNDS", args.rounds.to_string())
        .env("CHAOS_SECONDS", args.seconds.to_string());
    if let Some(seed) = args.seed {
        test.env("CHAOS_SEED", seed.to_string());
    }
    shell::run(&mut test)
}
