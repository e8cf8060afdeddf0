//! Who is connected, and who has to make room: bounds for one address and for all.
//!
//! A connection is idle between two calls, and until the head of the first one has arrived. When there is no room, the
//! idle one that has rested longest is closed for the one that comes, so that connections which do nothing keep nobody
//! out (nginx does the same). Invariant: only an idle connection is closed, never one with a call, nor one whose reply
//! the system has not taken yet; who does not read its reply is ended by the least speed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::client_address::machine;

const IDLE: u8 = 0;
const BUSY: u8 = 1;
/// The call is over, and the end of its reply is not with the system yet.
const SENDING: u8 = 2;
const CLOSING: u8 = 3;

/// One open connection, as both its socket and its calls see it.
#[derive(Debug)]
pub(super) struct Connection {
    /// [`IDLE`], [`BUSY`], [`SENDING`] or [`CLOSING`].
    state: AtomicU8,
    /// How many calls have begun.
    calls: AtomicU32,
    /// The clock of all connections began here.
    epoch: Instant,
    /// Milliseconds of that clock at which something was last done for the caller.
    active_ms: AtomicU64,
    closed: Notify,
}

impl Connection {
    fn new(epoch: Instant) -> Self {
        let connection = Self {
            state: AtomicU8::new(IDLE),
            calls: AtomicU32::new(0),
            epoch,
            active_ms: AtomicU64::new(0),
            closed: Notify::new(),
        };
        connection.touch();
        connection
    }

    /// Something was done for the caller. Bytes that come from it do not count: they cost it nothing.
    pub(super) fn touch(&self) {
        let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.active_ms.store(now, Ordering::Relaxed);
    }

    /// A call begins; None when the connection is being closed.
    pub(super) fn begin(self: &Arc<Self>) -> Option<Call> {
        // A caller may send its next call before it has read the last reply.
        (self.change(IDLE, BUSY) || self.change(SENDING, BUSY)).then(|| {
            self.calls.fetch_add(1, Ordering::Relaxed);
            Call(Arc::clone(self))
        })
    }

    /// The system has all bytes that were written: a call that is over was answered.
    pub(super) fn sent(&self) {
        if self.change(SENDING, IDLE) {
            self.touch();
        }
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// The number of calls so far, when there is none now; the end of a reply may still be on its way.
    pub(super) fn between_calls(&self) -> Option<u32> {
        (self.state.load(Ordering::Acquire) != BUSY).then(|| self.calls.load(Ordering::Relaxed))
    }

    /// Returns once the connection has to go.
    pub(super) async fn closed(&self) {
        self.closed.notified().await;
    }

    fn is_idle(&self) -> bool {
        self.state.load(Ordering::Acquire) == IDLE
    }

    fn close_if_idle(&self) -> bool {
        let closing = self.change(IDLE, CLOSING);
        if closing {
            self.closed.notify_one();
        }
        closing
    }
}

/// A call that has begun and whose reply is not with hyper yet.
#[derive(Debug)]
pub(super) struct Call(Arc<Connection>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.state.store(SENDING, Ordering::Release);
    }
}

/// All open connections.
#[derive(Debug)]
pub(super) struct Seats {
    total: usize,
    per_address: usize,
    epoch: Instant,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, (IpAddr, Arc<Connection>)>,
    addresses: HashMap<IpAddr, usize>,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Its address has as many connections as one may have, all with calls.
    Address,
    /// So have all addresses together.
    Total,
}

impl Seats {
    pub(super) fn new(total: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            per_address,
            epoch: Instant::now(),
            open: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for a connection from this address.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Seat, Refused> {
        let address = machine(address);
        let mut open = self.lock();
        let own = open.addresses.get(&address).copied().unwrap_or(0);
        if own >= self.per_address && !open.make_room(Some(address)) {
            return Err(Refused::Address);
        }
        if open.connections.len() >= self.total && !open.make_room(None) {
            return Err(Refused::Total);
        }
        let id = open.next;
        open.next += 1;
        let connection = Arc::new(Connection::new(self.epoch));
        open.connections.insert(id, (address, Arc::clone(&connection)));
        *open.addresses.entry(address).or_default() += 1;
        Ok(Seat {
            seats: Arc::clone(self),
            id,
            connection,
        })
    }

    /// Closes an idle connection, for what it holds of the system.
    pub(super) fn make_room(&self) {
        self.lock().make_room(None);
    }
}

impl Open {
    /// Closes the connection that has rested longest, of one address or of all. False when none rests.
    fn make_room(&mut self, of: Option<IpAddr>) -> bool {
        let mut resting: Vec<(u64, u64)> = self
            .connections
            .iter()
            .filter(|(_, (address, _))| of.is_none_or(|of| of == *address))
            .filter(|(_, (_, connection))| connection.is_idle())
            .map(|(id, (_, connection))| (connection.active_ms.load(Ordering::Relaxed), *id))
            .collect();
        resting.sort_unstable();
        for (_, id) in resting {
            let closed = self
                .connections
                .get(&id)
                .is_some_and(|(_, connection)| connection.close_if_idle());
            if closed {
                self.remove(id);
                return true;
            }
        }
        false
    }

    fn remove(&mut self, id: u64) {
        let Some((address, _)) = self.connections.remove(&id) else {
            return;
        };
        if let Some(count) = self.addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&address);
            }
        }
    }
}

/// Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    id: u64,
    pub(super) connection: Arc<Connection>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        // One that was closed for another has left already.
        self.seats.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn who_rests_longest_makes_room_and_who_is_busy_does_not() {
        let seats = Seats::new(3, 2);
        let (a, b) = (address("192.0.2.1"), address("192.0.2.2"));
        let first = seats.enter(a).unwrap();
        let second = seats.enter(a).unwrap();
        let call = first.connection.begin().unwrap();
        // The second is the only one of its address that rests.
        let third = seats.enter(a).unwrap();
        second.connection.closed().await;
        assert!(
            second.connection.begin().is_none(),
            "it may not begin a call any more"
        );
        let other = third.connection.begin().unwrap();
        assert_eq!(seats.enter(a).unwrap_err(), Refused::Address);
        // Another address is not touched by that, until all seats are taken by calls.
        let fourth = seats.enter(b).unwrap();
        let busy = fourth.connection.begin().unwrap();
        assert_eq!(seats.enter(b).unwrap_err(), Refused::Total);
        drop(call);
        assert_eq!(
            seats.enter(b).unwrap_err(),
            Refused::Total,
            "the reply is still being sent"
        );
        first.connection.sent();
        let fifth = seats.enter(b).unwrap();
        first.connection.closed().await;
        drop((busy, other, first, second, third, fourth, fifth));
        assert!(seats.lock().connections.is_empty() && seats.lock().addresses.is_empty());
    }

    #[test]
    fn an_address_is_a_machine() {
        assert_eq!(machine(address("::ffff:192.0.2.1")), address("192.0.2.1"));
        assert_eq!(
            machine(address("2001:db8::1:2")),
            machine(address("2001:db8::ffff:3"))
        );
        assert_ne!(
            machine(address("2001:db8:0:1::1")),
            machine(address("2001:db8::1"))
        );
        assert_eq!(machine(address("::1")), address("::1"));
    }
}
