//! Batches of random tokens.

use fewbit_model::{EncoderSpec, RaggedBatch};

/// Sequences of these lengths, or as long as the model has positions for.
pub(crate) fn random_batch(spec: &EncoderSpec, lengths: &[usize], seed: u64) -> RaggedBatch {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut batch = RaggedBatch::new();
    for &length in lengths {
        let length = length.min(spec.longest_sequence());
        let mut below = |limit: usize| {
            let numbers = (0..length).map(|_| random.u32(0..limit as u32));
            numbers.collect::<Vec<_>>()
        };
        let ids = below(spec.vocab_size);
        let types = match spec.token_types {
            0 => Vec::new(),
            types => below(types),
        };
        batch.push(&ids, &types);
    }
    batch
}

/// One of the sequences of a batch.
pub(crate) fn alone(batch: &RaggedBatch, sequence: usize) -> RaggedBatch {
    let range = batch.range(sequence);
    let types = batch.token_type_ids.get(range.clone()).unwrap_or_default();
    let mut one = RaggedBatch::new();
    one.push(&batch.token_ids[range], types);
    one
}
