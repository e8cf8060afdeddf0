//! What the system says of this process. Linux tells all of it.

use std::time::Duration;

use pentimento_api::ProcessFigures;

/// Linux counts in these on every processor that this program is built for (USER_HZ, proc(5)).
const TICKS_PER_SECOND: u64 = 100;

/// Looks now.
pub(crate) fn figures() -> ProcessFigures {
    ProcessFigures {
        cpu: cpu(),
        resident_bytes: resident_bytes(),
        open_files: open_files(),
        max_open_files: max_open_files(),
    }
}

/// Time in user and in system mode, of all threads that are and were.
fn cpu() -> Option<Duration> {
    let stat = fs_err::read_to_string("/proc/self/stat").ok()?;
    let ticks = cpu_ticks(&stat)?;
    Some(Duration::from_millis(
        ticks.saturating_mul(1000 / TICKS_PER_SECOND),
    ))
}

/// The fields 14 and 15. The name in parentheses before them may hold anything, spaces and parentheses, too.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    next()?.checked_add(next()?)
}

fn resident_bytes() -> Option<u64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    crate::machine::field_bytes(&status, "VmRSS")
}

fn open_files() -> Option<u64> {
    let entries = fs_err::read_dir("/proc/self/fd").ok()?;
    // One of them is the look itself.
    Some((entries.count() as u64).saturating_sub(1))
}

#[cfg(unix)]
fn max_open_files() -> Option<u64> {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::Nofile).current
}

#[cfg(not(unix))]
fn max_open_files() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_found_behind_any_name() {
        let stat = "7 (a ) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 1 2 3";
        assert_eq!(cpu_ticks(stat), Some(200));
        assert_eq!(cpu_ticks("7 (x) S 1 2"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_and_files() {
        let figures = figures();
        assert!(figures.resident_bytes.unwrap() > 1 << 20);
        assert!(figures.open_files.unwrap() >= 3);
        assert!(figures.cpu.is_some() && figures.max_open_files.is_some());
    }
}
