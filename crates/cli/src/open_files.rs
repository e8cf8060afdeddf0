//! How many files and sockets the process may have open at once.

use pentimento_api::ApiConfig;

/// What everything but callers' connections needs: files of models and pictures, fetches, pipes.
const OTHERS: u64 = 128;

/// Raises the limit as far as it goes without asking anybody, and says how many connections fit into it; None when the
/// system does not say. The usual soft limit of 1024 is for programs of the time of `select`.
pub(crate) fn room_for_connections() -> Option<usize> {
    let limit = raised_limit()?;
    usize::try_from(limit.saturating_sub(OTHERS).max(8)).ok()
}

/// Fewer connections where the system does not let the process have so many files open. Who let one address have them
/// all, because everybody comes through a proxy, still does.
pub(crate) fn fit_connections(api: &mut ApiConfig, room: usize) {
    if room >= api.max_connections {
        return;
    }
    tracing::warn!(
        max_connections = api.max_connections,
        room,
        "the limit of open files lets fewer connections in than the settings; raise it (ulimit -n)"
    );
    let of_address = if api.max_connections_per_address == api.max_connections {
        room
    } else {
        room.div_ceil(2)
    };
    api.max_connections = room;
    api.max_connections_per_address = api.max_connections_per_address.min(of_address);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gave_one_address_everything_still_does_when_less_fits() {
        for (of_address, room, expected) in [
            (1000, 100, (100, 100)),
            (999, 100, (100, 50)),
            (20, 100, (100, 20)),
            (1000, 1000, (1000, 1000)),
        ] {
            let mut api = ApiConfig {
                max_connections: 1000,
                max_connections_per_address: of_address,
                ..ApiConfig::new()
            };
            fit_connections(&mut api, room);
            let found = (api.max_connections, api.max_connections_per_address);
            assert_eq!(found, expected, "{of_address} of 1000, {room} fit");
        }
    }
}
