//! How many files and sockets the process may have open at once.

/// What everything but callers' connections needs: files of models and pictures, fetches, pipes.
const OTHERS: u64 = 128;

/// Raises the limit as far as it goes without asking anybody, and says how many connections fit into it; None when the
/// system does not say. The usual soft limit of 1024 is for programs of the time of `select`.
pub(crate) fn room_for_connections() -> Option<usize> {
    let limit = raised_limit()?;
    usize::try_from(limit.saturating_sub(OTHERS).max(8)).ok()
}

#[cfg(unix)]
fn raised_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Some systems promise more than they give; then the old limit stays.
    let now = setrlimit(Resource::Nofile, raised).map_or(limit.current, |()| limit.maximum);
    now.or(limit.current)
}

#[cfg(not(unix))]
fn raised_limit() -> Option<u64> {
    None
}
