//! The instruction set that rounds and must be asked for.

use crate::tiny_checkpoint::TinyCheckpoint;
use fewbit_checkpoint::Checkpoint;
use fewbit_kernels::{Isa, Kernels};
use fewbit_model::{Network, RaggedBatch};
use fewbit_numerics::error_statistics::cosine;

/// Two layers, each with six products one after another (values, scores, their sum over tokens, attention output, FFN up and down), each of
/// which rounds two operands by at most 2^-8: relative errors add up to 24 * 2^-8 = 0.094 at most, where nothing cancels, and an error of
/// that size at a right angle leaves a cosine of 0.9956. A wrong order of pairs or of lanes gives unrelated vectors.
const LEAST_COSINE: f64 = 0.995;

#[test]
#[allow(
    clippy::print_stderr,
    reason = "a check that this CPU cannot run is told"
)]
fn results_are_near_those_of_the_other_sets_and_depend_on_nothing_but_the_sequence() {
    let Some(rounding) = Kernels::for_isa(Isa::Avx512Bf16) else {
        eprintln!("NOT RUN: this CPU lacks {}", Isa::Avx512Bf16);
        return;
    };
    let exact = Kernels::for_isa(Isa::fastest()).expect("supported");
    let models = [
        TinyCheckpoint::of("bert-long"),
        TinyCheckpoint::of("mpnet"),
        TinyCheckpoint::of("bert-bf16"),
        TinyCheckpoint::of("bert-long").with_dynamic_int8(false),
    ];
    for (index, model) in models.iter().enumerate() {
        let directory = model.write();
        let checkpoint = Checkpoint::open(directory.path()).expect("opens");
        let load = |kernels| {
            Network::load_with_kernels(&checkpoint, kernels)
                .expect("loads")
                .0
        };
        let (exact, rounding) = (load(exact), load(rounding));
        let longest: Vec<u32> = (2..24).chain([3]).collect();
        let sequences: [&[u32]; 4] = [&[2, 3], &longest, &[2, 7, 9, 11, 3], &longest[..14]];
        let batch = RaggedBatch::from_sequences(&sequences);
        let expected = exact.hidden_states(&batch, 1).expect("runs");
        let found = rounding.hidden_states(&batch, 2).expect("runs");
        assert_ne!(found, expected, "model {index}: nothing was rounded");
        let hidden_size = exact.spec().hidden_size;
        for (token, (found, expected)) in found
            .chunks(hidden_size)
            .zip(expected.chunks(hidden_size))
            .enumerate()
        {
            let cosine = cosine(found, expected);
            assert!(
                cosine >= LEAST_COSINE,
                "model {index}, token {token}: {cosine}"
            );
        }
        for (position, sequence) in sequences.into_iter().enumerate() {
            let rows = batch.range(position);
            let alone = RaggedBatch::from_sequences(&[sequence]);
            assert_eq!(
                rounding.hidden_states(&alone, 1).expect("runs"),
                found[rows.start * hidden_size..rows.end * hidden_size],
                "model {index}, sequence {position}: alone and in a batch"
            );
        }
    }
}
