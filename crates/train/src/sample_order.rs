//! Which texts a step has.

use fastrand::Rng;

/// A division of samples into those that are trained on and those that are held out, and the order of the former; both follow from the seed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SampleOrder {
    trained: Vec<usize>,
    held_out: Vec<usize>,
    batch_size: usize,
    seed: u64,
}

/// A twentieth of the samples is held out, but no more than this.
const MOST_HELD_OUT: usize = 256;

impl SampleOrder {
    /// Of so many samples, at least 2.
    pub(crate) fn new(samples: usize, batch_size: usize, seed: u64) -> Self {
        let mut trained: Vec<usize> = (0..samples).collect();
        Rng::with_seed(seed).shuffle(&mut trained);
        let held_out = (samples / 20).clamp(1, MOST_HELD_OUT);
        let held_out = trained.split_off(samples.saturating_sub(held_out));
        Self {
            trained,
            held_out,
            batch_size,
            seed,
        }
    }

    /// Samples that are trained on.
    pub(crate) fn trained(&self) -> usize {
        self.trained.len()
    }

    /// The numbers of some samples that are trained on, at most `most`.
    pub(crate) fn first(&self, most: usize) -> &[usize] {
        &self.trained[..self.trained.len().min(most)]
    }

    /// The numbers of those that are held out.
    pub(crate) fn held_out(&self) -> &[usize] {
        &self.held_out
    }

    /// What gives the samples of steps, which come in order as a rule.
    pub(crate) fn batches(&self) -> Batches<'_> {
        Batches {
            samples: self,
            round: None,
            order: self.trained.clone(),
        }
    }
}

/// The samples of steps, with the order of one round.
pub(crate) struct Batches<'s> {
    samples: &'s SampleOrder,
    /// The round whose order it is.
    round: Option<usize>,
    order: Vec<usize>,
}

impl Batches<'_> {
    /// The numbers of the samples of a step: every sample once, in a new order, before one comes again; the last ones of such a round, if they are no whole batch, are left out.
    pub(crate) fn of_step(&mut self, step: usize) -> &[usize] {
        let SampleOrder {
            trained,
            batch_size,
            seed,
            ..
        } = self.samples;
        let of_a_round = trained.len() / batch_size;
        let (round, place) = (step / of_a_round, step % of_a_round);
        if self.round != Some(round) {
            self.order.copy_from_slice(trained);
            Rng::with_seed(seed.wrapping_add(1 + round as u64)).shuffle(&mut self.order);
            self.round = Some(round);
        }
        &self.order[place * batch_size..(place + 1) * batch_size]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_sample_comes_once_a_round() {
        let order = SampleOrder::new(103, 16, 7);
        assert_eq!((order.trained(), order.held_out().len()), (98, 5));
        let mut batches = order.batches();
        let rounds: Vec<Vec<usize>> = (0..12).map(|step| batches.of_step(step).to_vec()).collect();
        for round in rounds.chunks(6) {
            let seen: BTreeSet<usize> = round.iter().flatten().copied().collect();
            assert_eq!(seen.len(), 96);
            assert!(order.held_out().iter().all(|held| !seen.contains(held)));
        }
        assert_ne!(rounds[..6], rounds[6..]);
        assert_eq!(order, SampleOrder::new(103, 16, 7));
        let of = |order: &SampleOrder, step| order.batches().of_step(step).to_vec();
        // Whatever came before.
        assert_eq!(of(&order, 7), rounds[7]);
        assert_ne!(rounds[0], of(&SampleOrder::new(103, 16, 8), 0));
    }

    #[test]
    fn few_samples_are_divided_too() {
        let order = SampleOrder::new(2, 1, 0);
        assert_eq!((order.trained(), order.held_out().len()), (1, 1));
        let mut batches = order.batches();
        let first = batches.of_step(0).to_vec();
        assert_eq!(batches.of_step(5), first);
    }
}
