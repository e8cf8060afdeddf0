//! Which tokens may take others in, and which of the others are taken.

use super::similarity::Match;

/// Side of the cells whose first token is a destination.
const CELL: usize = 2;

/// The tokens of a picture, in its order: those that stay and may take others in, and the others.
#[derive(Debug)]
pub(super) struct Split {
    pub(super) destinations: Vec<usize>,
    pub(super) sources: Vec<usize>,
}

impl Split {
    /// A cell that the picture's edge cuts has no destination.
    pub(super) fn new(h: usize, w: usize) -> Self {
        let (lines, columns) = (h / CELL * CELL, w / CELL * CELL);
        let first = |token: &usize| {
            let (y, x) = (token / w, token % w);
            y < lines && x < columns && y % CELL == 0 && x % CELL == 0
        };
        let (destinations, sources) = (0..h * w).partition(first);
        Self {
            destinations,
            sources,
        }
    }
}

/// What becomes of the tokens of one row.
#[derive(Debug)]
pub(super) struct Groups {
    /// For each token its place among the kept ones.
    places: Vec<usize>,
    /// The tokens of each place, the kept one first, then the others in the order of the picture.
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
        Self::of(&into)
    }

    /// Token t becomes part of token `into[t]`, which may be itself.
    fn of(into: &[usize]) -> Self {
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
