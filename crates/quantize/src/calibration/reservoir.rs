//! A random sample of a stream.

/// Holds `capacity` items of a stream, every choice being equally likely, whatever the stream's length (Vitter, "Random Sampling with a
/// Reservoir", 1985, algorithm R). The same seed draws the same.
pub(super) struct Reservoir<T> {
    capacity: usize,
    random: fastrand::Rng,
    seen: usize,
    /// With the item's number in the stream.
    drawn: Vec<(usize, T)>,
}

impl<T> Reservoir<T> {
    pub(super) fn new(capacity: usize, seed: u64) -> Self {
        Self {
            capacity,
            random: fastrand::Rng::with_seed(seed),
            seen: 0,
            drawn: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, item: T) {
        if self.drawn.len() < self.capacity {
            self.drawn.push((self.seen, item));
        } else {
            let place = self.random.usize(0..=self.seen);
            if let Some(kept) = self.drawn.get_mut(place) {
                *kept = (self.seen, item);
            }
        }
        self.seen += 1;
    }

    /// Items of the stream so far.
    pub(super) fn seen(&self) -> usize {
        self.seen
    }

    /// What was drawn, in the order of the stream.
    pub(super) fn into_items(self) -> Vec<T> {
        let mut drawn = self.drawn;
        drawn.sort_unstable_by_key(|(index, _)| *index);
        drawn.into_iter().map(|(_, item)| item).collect()
    }
}
