//! Which tokens become one: the sources that are most like their destinations, each joined to its own.

use super::similarity::Match;
use super::split::Split;

/// What becomes of the tokens of one row.
#[derive(Debug)]
pub(super) struct Groups {
    /// For each token its place among the kept ones.
    places: Vec<usize>,
    /// The tokens of each place, the kept one first, then the others in the order of the image.
    members: Vec<usize>,
    /// Where a place's members begin, and where the last one's end.
    starts: Vec<usize>,
}

impl Groups {
    /// Takes the `merged` sources with the highest scores; of equal ones the first.
    pub(super) fn new(split: &Split, found: &[Match], merged: usize) -> Self {
        let mut order: Vec<usize> = (0..found.len()).collect();
        if merged < order.len() {
            order.select_nth_unstable_by(merged, |&a, &b| {
                found[b].score.total_cmp(&found[a].score).then(a.cmp(&b))
            });
        }
        let tokens = split.destinations.len() + split.sources.len();
        let mut into: Vec<usize> = (0..tokens).collect();
        for &source in &order[..merged] {
            into[split.sources[source]] = split.destinations[found[source].destination];
        }
        Self::from_targets(&into)
    }

    /// Token t becomes part of token `into[t]`, which may be itself.
    fn from_targets(into: &[usize]) -> Self {
        let kept: Vec<usize> = (0..into.len()).filter(|&token| into[token] == token).collect();
        let mut places = vec![0; into.len()];
        for (place, &token) in kept.iter().enumerate() {
            places[token] = place;
        }
        let mut starts = vec![0; kept.len() + 1];
        for (token, &into) in into.iter().enumerate() {
            places[token] = places[into];
            starts[places[token] + 1] += 1;
        }
        for place in 0..kept.len() {
            starts[place + 1] += starts[place];
        }
        let mut next = starts.clone();
        let mut members = vec![0; into.len()];
        let taken = (0..into.len()).filter(|&token| into[token] != token);
        for token in kept.iter().copied().chain(taken) {
            let next = &mut next[places[token]];
            members[*next] = token;
            *next += 1;
        }
        Self {
            places,
            members,
            starts,
        }
    }

    pub(super) fn places(&self) -> &[usize] {
        &self.places
    }

    /// The tokens that become number `place` of the kept ones.
    pub(super) fn members(&self, place: usize) -> &[usize] {
        &self.members[self.starts[place]..self.starts[place + 1]]
    }
}
