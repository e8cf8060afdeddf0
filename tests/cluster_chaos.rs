//! Chaos in a cluster: two machines that answer callers, one of which runs no jobs, two workers and their broker are killed
//! again and again at random moments, sometimes two at once, sometimes the broker with its disk, and started again while callers
//! of both dialects go on. At the end nothing that was accepted is lost, made twice or told under two ids, and every picture is
//! that of a single server.
//!
//! A few rounds as a test; as many as one likes by `cargo xtask chaos --rounds N --seconds S`.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::chaos::setting;
use crate::support::fleet::{Fleet, LEASE_SECONDS};
use crate::support::machine::Role;

/// Rounds, and seconds of waiting between them altogether, where nothing else is said.
const ROUNDS: u32 = 2;
const SECONDS: u64 = 6;
const ROLES: [Role; 4] = [Role::Front, Role::Server, Role::Worker, Role::Worker];
/// What is down longer than any worker may be silent.
const LONG_DOWN: Duration = Duration::from_secs(2 * LEASE_SECONDS + 3);

/// What happens in a round: whom it hits, whether the broker loses its disk, and how long they are down.
#[derive(Debug)]
struct Accident {
    /// Numbers of machines; the one behind the last is the broker.
    victims: Vec<usize>,
    loses_disk: bool,
    down: Duration,
}

impl Accident {
    fn draw(dice: &mut StdRng) -> Self {
        let count = if dice.random_ratio(1, 4) { 2 } else { 1 };
        let all: Vec<usize> = (0..=ROLES.len()).collect();
        let victims: Vec<usize> = all.choose_multiple(dice, count).copied().collect();
        let down = if dice.random_ratio(1, 4) {
            LONG_DOWN
        } else {
            Duration::from_millis(dice.random_range(0..3000))
        };
        Self {
            loses_disk: victims.contains(&ROLES.len()) && dice.random_ratio(1, 3),
            victims,
            down,
        }
    }

    async fn happen(&self, fleet: &mut Fleet) {
        let hits_broker = self.victims.contains(&fleet.machines.len());
        for at in &self.victims {
            if let Some(machine) = fleet.machines.get_mut(*at) {
                machine.kill();
            }
        }
        if hits_broker {
            fleet.ground.broker.kill();
        }
        tokio::time::sleep(self.down).await;
        if self.loses_disk {
            fleet.ground.broker.lose_its_disk();
        }
        if hits_broker {
            tokio::task::block_in_place(|| fleet.ground.broker.start_again());
        }
        fleet.start_all();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_made_twice_whichever_machine_is_killed() {
    let rounds = setting("CHAOS_ROUNDS", ROUNDS);
    let seconds = setting("CHAOS_SECONDS", SECONDS);
    let seed = setting("CHAOS_SEED", u64::from(std::process::id()));
    println!("{rounds} rounds with {seconds} s between them, CHAOS_SEED={seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let Some(mut fleet) = Fleet::start(&ROLES, &mut dice).await else {
        return;
    };
    let longest = 2 * 1000 * seconds / u64::from(rounds.max(1));
    for round in 0..rounds {
        tokio::time::sleep(Duration::from_millis(dice.random_range(0..longest.max(1)))).await;
        let accident = Accident::draw(&mut dice);
        println!("{round} after {:.1?}: {accident:?}", fleet.elapsed());
        accident.happen(&mut fleet).await;
    }
    fleet.finish().await;
}
