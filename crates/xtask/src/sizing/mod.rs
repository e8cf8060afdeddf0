//! `cargo xtask sizing`: simulates clusters and writes the figures and charts of `docs/cluster-sizing.md`.
//!
//! Times of devices and of the broker are those that were measured, with their table named; what was only computed says so.

mod chart;
mod draw;
mod simulation;

use std::fmt::Write as _;

use self::chart::{Chart, Line};
use self::simulation::{Case, Device, Outcome, Policy};
use crate::tree;

const PAGE: &str = "docs/cluster-sizing.md";
const PICTURES: &str = "docs/pictures";
/// What is behind it in the page is written here.
const MARK: &str = "<!-- written by cargo xtask sizing -->\n";

/// Two cores of the machine of `benches/RESULTS.md`, Stable Diffusion 1.5 at 512x512 in f32: 7.91 s with four steps of LCM; 2.64 s
/// a guided evaluation, and 2.6 for the VAE and the text. Loads from the page cache take 1.1 to 1.9 s there.
const CPU: Device = Device {
    name: "two CPU cores",
    short: 7.9,
    long: 84.0,
    load: 1.5,
    room: 5,
};
/// What `benches/RESULTS.md` has as targets for an H100, computed and not measured: 7.1 ms for two rows, 1.6 times the rate for
/// one, 10 ms for a decode and half of that for an encode. The load is that of the CPU; weights of 2 GB in 58 GB.
const CARD: Device = Device {
    name: "a card (computed)",
    short: 0.033,
    long: 0.235,
    load: 1.5,
    room: 20,
};
/// Checkpoints of a large catalogue that are called at all.
const MODELS: usize = 200;
/// Jobs that may wait, for each worker.
const PLACES: usize = 256;
/// Calls of a case.
const CALLS: usize = 60_000;
/// Seconds that a case lasts at least, in mean jobs of a worker: a cluster that is too small fills its places first.
const LASTS: f64 = 1500.0;
/// Seconds, as `crates/cluster/src/resident_first.rs` has them.
const AGE_BOUND: f64 = 30.0;
const PAUSE: f64 = 60.0;
/// What is built.
const BUILT: Policy = Policy::AgedWithPause {
    bound: AGE_BOUND,
    pause: PAUSE,
};

/// What one server of the broker takes in a second, by `benches/cluster/broker.py`.
#[derive(Clone, Copy, Debug)]
struct Broker {
    name: &'static str,
    publish: f64,
    pull: f64,
    put: f64,
}

const SYNC_ALWAYS: Broker = Broker {
    name: "sync always",
    publish: 192.0,
    pull: 42_957.0,
    put: 483.0,
};
const SYNC_DEFAULT: Broker = Broker {
    name: "default sync",
    publish: 33_268.0,
    pull: 49_740.0,
    put: 39_880.0,
};
/// Entries of buckets that a job writes in its life: accepted, running, ended, forgotten; its lease taken and given back; its number.
const PUTS_PER_JOB: f64 = 7.0;

impl Broker {
    /// Jobs in a second: everything goes through one leader after the other.
    fn jobs(self) -> f64 {
        1.0 / (1.0 / self.publish + 1.0 / self.pull + PUTS_PER_JOB / self.put)
    }
}

/// Simulates and writes.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = tree::root();
    let mut tables = String::new();
    let mut write = |name: &str, (table, chart): (String, Chart)| -> anyhow::Result<()> {
        let _ = write!(tables, "{table}\n![{}](pictures/{name}.svg)\n\n", chart.title);
        Ok(fs_err::write(
            root.join(PICTURES).join(format!("{name}.svg")),
            chart.to_svg(),
        )?)
    };
    write("cluster-throughput", offered_and_served())?;
    write("cluster-loads", growing_clusters())?;
    write("cluster-policies", fuller_clusters())?;
    write("cluster-broker", brokers())?;
    let path = root.join(PAGE);
    let page = fs_err::read_to_string(&path)?;
    let (text, _) = page.split_once(MARK).unwrap_or((page.as_str(), ""));
    fs_err::write(&path, format!("{text}{MARK}\n{}\n", tables.trim_end()))?;
    println!("wrote {PAGE} and its charts");
    Ok(())
}

fn case(device: Device, workers: usize, rate: f64, policy: Policy) -> Case {
    let calls = CALLS.max((rate * device.mean() * LASTS) as usize);
    Case {
        device,
        workers,
        rate,
        policy,
        models: MODELS,
        places: PLACES * workers,
        calls,
    }
}

/// Jobs a second that this many could serve if no model were ever loaded.
fn nominal(device: Device, workers: usize) -> f64 {
    workers as f64 / device.mean()
}

/// From 10 to 100,000 calls a second on 1 to 1,000 cards.
fn offered_and_served() -> (String, Chart) {
    let mut table = format!(
        "## Offered and served\n\nA worker is {}, calls of {MODELS} models, resident models first; served in a second, the share that is refused, and the median and \
         95th percentile of those accepted in seconds.\n\n| calls/s | 1 worker | 10 | 100 | 1,000 |\n|---|---|---|---|---|\n",
        CARD.name
    );
    let sizes = [1, 10, 100, 1000];
    let mut lines: Vec<Line> = sizes
        .iter()
        .map(|size| Line {
            name: format!("{size} workers"),
            points: Vec::new(),
        })
        .collect();
    for rate in [10.0, 100.0, 1000.0, 10_000.0, 100_000.0] {
        let _ = write!(table, "| {rate:.0} |");
        for (size, line) in sizes.into_iter().zip(&mut lines) {
            let Outcome {
                served,
                refused,
                p50,
                p95,
                ..
            } = simulation::run(case(CARD, size, rate, BUILT));
            line.points.push((rate, served));
            let _ = write!(
                table,
                " {served:.1}, {:.0} %, {}, {} |",
                refused * 100.0,
                seconds(p50),
                seconds(p95)
            );
        }
        table.push('\n');
    }
    let chart = Chart {
        title: "Jobs served by the number of workers",
        x: "calls per second",
        y: "jobs served per second",
        lines,
        levels: Vec::new(),
    };
    (table, chart)
}

const POLICIES: [(&str, Policy); 5] = [
    ("oldest first", Policy::Oldest),
    ("resident first", Policy::Resident),
    ("with an age bound", Policy::Aged { bound: AGE_BOUND }),
    ("bound, every eighth", Policy::AgedInTurn { bound: AGE_BOUND }),
    ("bound, once a minute", BUILT),
];

/// The same load for each worker, on ever more of them.
fn growing_clusters() -> (String, Chart) {
    let mut table = format!(
        "## Loads of models, by the number of workers\n\nAt 70 % of what the workers could serve without loads. Models loaded for a thousand jobs, and the 95th \
         percentile in seconds; the bound on age is {AGE_BOUND:.0} s; what is built is the last column.\n\n| device | workers |"
    );
    let mut lines: Vec<Line> = POLICIES
        .iter()
        .map(|(name, _)| Line {
            name: (*name).to_owned(),
            points: Vec::new(),
        })
        .collect();
    heads(&mut table);
    for device in [CPU, CARD] {
        for workers in [1, 2, 4, 10, 100, 1000] {
            let _ = write!(table, "| {} | {workers} |", device.name);
            for ((_, policy), line) in POLICIES.iter().zip(&mut lines) {
                let rate = nominal(device, workers) * 0.7;
                let Outcome { loads, p95, .. } = simulation::run(case(device, workers, rate, *policy));
                let _ = write!(table, " {loads:.0}, {} |", seconds(p95));
                if device.name == CARD.name {
                    line.points.push((workers as f64, loads.max(0.1)));
                }
            }
            table.push('\n');
        }
    }
    let chart = Chart {
        title: "Models loaded for a thousand jobs (cards, 70 % load)",
        x: "workers",
        y: "loads per thousand jobs",
        lines,
        levels: Vec::new(),
    };
    (table, chart)
}

/// Ten cards and a hundred, ever busier.
fn fuller_clusters() -> (String, Chart) {
    let mut table = format!(
        "## Policies, by the load\n\nWorkers with {}; loads for a thousand jobs, 95th percentile and longest time in seconds.\n\n| workers | load, % |",
        CARD.name
    );
    let mut lines: Vec<Line> = POLICIES
        .iter()
        .map(|(name, _)| Line {
            name: (*name).to_owned(),
            points: Vec::new(),
        })
        .collect();
    heads(&mut table);
    for workers in [10, 100] {
        for load in [30.0, 50.0, 70.0, 80.0, 90.0, 95.0, 110.0] {
            let rate = nominal(CARD, workers) * load / 100.0;
            let _ = write!(table, "| {workers} | {load:.0} |");
            for ((_, policy), line) in POLICIES.iter().zip(&mut lines) {
                let Outcome {
                    loads, p95, longest, ..
                } = simulation::run(case(CARD, workers, rate, *policy));
                let _ = write!(table, " {loads:.0}, {}, {} |", seconds(p95), seconds(longest));
                if workers == 100 {
                    line.points.push((rate, p95));
                }
            }
            table.push('\n');
        }
    }
    let chart = Chart {
        title: "95th percentile by policy (100 cards)",
        x: "calls per second",
        y: "seconds from call to picture, 95th percentile",
        lines,
        levels: Vec::new(),
    };
    (table, chart)
}

/// Where the broker's limit lies, and how many servers a rate needs.
fn brokers() -> (String, Chart) {
    let mut table = String::from(
        "## The broker\n\nJobs in a second that one server carries, and servers that a rate needs when the work stream and the shared view are spread over them.\n\n\
         | syncing | jobs/s, one server | 10/s | 100/s | 1,000/s | 10,000/s | 100,000/s |\n|---|---|---|---|---|---|---|\n",
    );
    let rates = [10.0, 100.0, 1000.0, 10_000.0, 100_000.0];
    let mut levels = Vec::new();
    for broker in [SYNC_ALWAYS, SYNC_DEFAULT] {
        let jobs = broker.jobs();
        let _ = write!(table, "| {} | {jobs:.0} |", broker.name);
        for rate in rates {
            let _ = write!(table, " {:.0} |", (rate / jobs).ceil());
        }
        table.push('\n');
        levels.push((format!("{}, 1 server", broker.name), jobs));
        levels.push((format!("{}, 10 servers", broker.name), jobs * 10.0));
    }
    let lines = [CPU, CARD].map(|device| Line {
        name: device.name.to_owned(),
        points: [1, 10, 100, 1000]
            .map(|workers| (workers as f64, nominal(device, workers)))
            .to_vec(),
    });
    let chart = Chart {
        title: "Which workers a broker can feed",
        x: "workers",
        y: "jobs per second",
        lines: lines.into(),
        levels,
    };
    (table, chart)
}

fn heads(table: &mut String) {
    for (name, _) in POLICIES {
        let _ = write!(table, " {name} |");
    }
    let _ = writeln!(table, "\n|{}", "---|".repeat(POLICIES.len() + 2));
}

/// Three digits.
fn seconds(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 1.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}
