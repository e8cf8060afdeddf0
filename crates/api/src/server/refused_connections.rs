//! How many connections were not let in: they never become calls, so no number about calls shows them.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::seats::Refused;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Bound {
    by: &'static str,
}

/// Counts them by the bound that they met. Clones count together.
#[derive(Clone, Debug)]
pub struct RefusedConnections(Family<Bound, Counter>);

impl Default for RefusedConnections {
    fn default() -> Self {
        let counters = Self(Family::default());
        // There from the start: what appears with its first event has no rise that an alert could see.
        drop((counters.of(Refused::Address), counters.of(Refused::Total)));
        counters
    }
}

impl RefusedConnections {
    pub(super) fn add(&self, refused: Refused) {
        self.of(refused).inc();
    }

    fn of(&self, refused: Refused) -> Counter {
        let by = match refused {
            Refused::Address => "address",
            Refused::Total => "total",
        };
        self.0.get_or_create_owned(&Bound { by })
    }

    /// Puts the numbers on the page of metrics.
    pub(crate) fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        registry.register(
            "http_refused_connections",
            "Connections that were refused, because their address or the server had as many as it may",
            self.0.clone(),
        );
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.of(Refused::Address).get(), self.of(Refused::Total).get())
    }
}
