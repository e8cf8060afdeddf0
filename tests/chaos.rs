//! Chaos: the real server is killed again and again at random moments under load with both dialects, and started again on the
//! same data, while its clients go on. At the end nothing that was accepted is lost or made twice.
//!
//! A few rounds as a test; as many as one likes by `cargo xtask chaos --rounds N --seconds S`.

use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;

use crate::support::account::{Account, is_in_folder};
use crate::support::callers::{Callers, ENVIRONMENT};
use crate::support::client::get;
use crate::support::receiver::Receiver;
use crate::support::server::TestServer;

/// Rounds and seconds of the whole where nothing else is said.
const ROUNDS: u32 = 6;
const SECONDS: u64 = 30;
/// Callers of each dialect.
const CALLERS: u32 = 4;

#[expect(
    clippy::disallowed_methods,
    reason = "how long the chaos lasts is for whoever starts the test to say"
)]
pub(crate) fn setting<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    let set = std::env::var(name).ok();
    set.and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_made_twice_however_often_the_server_is_killed() {
    let rounds = setting("CHAOS_ROUNDS", ROUNDS);
    let seconds = setting("CHAOS_SECONDS", SECONDS);
    let seed = setting("CHAOS_SEED", u64::from(std::process::id()));
    println!("{rounds} rounds in {seconds} s, CHAOS_SEED={seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let home = tempfile::tempdir().expect("a folder for the server");
    let receiver = Receiver::default();
    let receiver_address = receiver.start().await;
    let solo = Callers::solo().await;

    let mut server = TestServer::start_in(home.path(), &[], &ENVIRONMENT);
    let (moved, address) = watch::channel(server.address());
    let callers = Callers::new(vec![address], (receiver_address, Duration::ZERO), solo);
    let calling = callers.start(CALLERS, &mut dice);
    let longest = 2 * 1000 * seconds / u64::from(rounds.max(1));
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(dice.random_range(0..longest.max(1)))).await;
        server.kill();
        server = TestServer::start_in(home.path(), &[], &ENVIRONMENT);
        moved.send_replace(server.address());
    }
    let ends = callers.finish(calling).await;
    until_told(&receiver, home.path(), &mut server).await;

    let account = Account::read(&[home.path().to_owned()]).await;
    account.judge_jobs(&ends, is_in_folder(home.path()));
    let files = fs_err::read_dir(home.path().join("data/images/generations"))
        .expect("a folder")
        .count();
    let stored = account.pictures();
    assert!(files >= stored, "{files} files of {stored} pictures");
    account.judge_webhooks(&receiver.messages());
}

/// Lets the server end everything, and stops it in order. Webhooks that were refused are sent again by a later start.
async fn until_told(receiver: &Receiver, home: &Path, server: &mut TestServer) {
    loop {
        let status = get(&format!("{}/readyz", server.base())).await.json();
        if status["jobs"]["queued"] == 0 && status["jobs"]["running"] == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The first sending of the last ones.
    receiver.until_quiet().await;
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0), "{}", home.display());
}
