//! The steady state allocates nothing.

use crate::tiny_checkpoint::TinyCheckpoint;
use fewbit_checkpoint::Checkpoint;
use fewbit_model::{Network, RaggedBatch};

/// Sequences of these lengths, with ids that the small vocabularies have.
fn batch(lengths: &[usize]) -> RaggedBatch {
    let mut batch = RaggedBatch::new();
    for &length in lengths {
        let ids: Vec<u32> = (0..length)
            .map(|position| position as u32 % 7 + 4)
            .collect();
        batch.push(&ids, &[]);
    }
    batch
}

#[test]
fn one_thread_allocates_nothing_once_the_buffers_are_there() {
    for case in ["bert-long", "mpnet", "electra-embedding-size-16"] {
        // The int8 copies have no projection after the embeddings.
        for int8 in [false, true]
            .into_iter()
            .take(if case.starts_with("electra") { 1 } else { 2 })
        {
            let mut model = TinyCheckpoint::of(case);
            if int8 {
                model = model.with_dynamic_int8(false);
            }
            let directory = model.write();
            let checkpoint = Checkpoint::open(directory.path()).expect("opens");
            let (network, _) = Network::load(&checkpoint).expect("loads");
            let longest = network.spec().positions.max_tokens().min(40);
            let mut states = Vec::new();
            let mut allocations = |batch: &RaggedBatch| {
                let counted = allocation_counter::measure(|| {
                    network
                        .hidden_states_into(batch, 1, &mut states)
                        .expect("runs");
                });
                counted.count_total
            };
            let most = batch(&[longest; 40]);
            assert!(allocations(&most) > 0, "the counter counts");
            let scratch = network.scratch_bytes();
            assert!(scratch > 0);
            for lengths in [
                &[1][..],
                &[longest; 40],
                &[3, longest, 2],
                &[longest / 2; 9],
            ] {
                let batch = batch(lengths);
                assert_eq!(allocations(&batch), 0, "{case}, int8 {int8}, {lengths:?}");
            }
            assert_eq!(network.scratch_bytes(), scratch);
        }
    }
}
