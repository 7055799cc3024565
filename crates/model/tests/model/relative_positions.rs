//! Disentangled attention, and layers that share weights, beyond what the golden files show.

use crate::tiny_checkpoint::{Tensor, TinyCheckpoint};
use fewbit_checkpoint::Checkpoint;
use fewbit_kernels::{Isa, Kernels};
use fewbit_model::{Network, RaggedBatch, Tap};
use std::collections::HashMap;

fn load(checkpoint: &TinyCheckpoint, isa: Isa) -> Option<Network> {
    let kernels = Kernels::for_isa(isa)?;
    let directory = checkpoint.write();
    let checkpoint = Checkpoint::open(directory.path()).expect("opens");
    let loaded = Network::load_with_kernels(&checkpoint, kernels);
    Some(loaded.expect("loads").0)
}

fn texts(lengths: &[usize], vocabulary: usize) -> Vec<Vec<u32>> {
    let ids = |(seed, &length): (usize, &usize)| {
        let ids = (1..=length).map(|i| ((i * i * seed + i) % vocabulary) as u32);
        ids.collect()
    };
    (1..).zip(lengths).map(ids).collect()
}

fn batch(texts: &[Vec<u32>]) -> RaggedBatch {
    RaggedBatch::from_sequences(&texts.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn bits(states: &[f32]) -> Vec<u32> {
    states.iter().map(|state| state.to_bits()).collect()
}

/// Longer texts than a block, a chunk of rows and the tiles of the kernels, cut in every way.
#[test]
fn a_text_has_the_same_bits_in_every_batch() {
    let mut compared = 0;
    for case in [
        "deberta-v2-long",
        "deberta-v2-convolution",
        "deberta-v2-convolution-groups",
        "deberta",
        "albert",
    ] {
        let float = TinyCheckpoint::of(case);
        let longest = float.spec().longest_sequence();
        let lengths = [300, 1, 7, 130, 64].map(|length: usize| length.min(longest));
        let texts = texts(&lengths, float.spec().vocab_size);
        let int8 = TinyCheckpoint::of(case);
        let checkpoints = match float.spec().has_embeddings_projection() {
            // The int8 copies have no projection of the embeddings.
            true => vec![float],
            false => vec![float, int8.with_dynamic_int8(false)],
        };
        for checkpoint in checkpoints {
            let scalar = load(&checkpoint, Isa::Scalar).expect("everywhere");
            let alone = texts.iter().flat_map(|text| {
                let states = scalar.hidden_states(&RaggedBatch::from_sequences(&[text]), 1);
                states.expect("runs")
            });
            let alone = bits(&alone.collect::<Vec<_>>());
            for &isa in Isa::ALL.iter().filter(|isa| isa.keeps_same_bits()) {
                let Some(network) = load(&checkpoint, isa) else {
                    continue;
                };
                for threads in [1, 3] {
                    let states = network.hidden_states(&batch(&texts), threads);
                    let states = states.expect("runs");
                    assert!(bits(&states) == alone, "{case}, {isa:?}, {threads} threads");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared >= 10, "{compared}");
}

/// Without a table of positions there is no longest text, and memory grows with the tokens, not with their pairs.
#[test]
fn texts_without_a_position_table_have_any_length() {
    const TOKENS: usize = 3000;
    let network = load(&TinyCheckpoint::of("deberta-v2"), Isa::Scalar).expect("everywhere");
    assert!(network.spec().positions.max_tokens() < TOKENS);
    let long = RaggedBatch::from_sequences(&[&vec![5; TOKENS][..]]);
    let states = network.hidden_states(&long, 1).expect("runs");
    assert!(states.iter().all(|state| state.is_finite()));
    let pairs = size_of::<f32>() * TOKENS * TOKENS;
    let found = network.scratch_bytes();
    assert!(found < pairs / 2, "{found} of {pairs} bytes");
    let with_table = load(&TinyCheckpoint::of("deberta-masked-lm"), Isa::Scalar);
    let error = with_table
        .expect("everywhere")
        .hidden_states(&long, 1)
        .expect_err("a table of 90");
    assert!(
        error.to_string().contains("expected at most 90 tokens"),
        "{error}"
    );
}

/// Rows that a tap has seen.
#[derive(Default)]
struct Rows(HashMap<String, Vec<Vec<u32>>>);

impl Tap for Rows {
    fn wants(&self, _site: &str) -> bool {
        true
    }

    fn see(&mut self, site: &str, _rows: usize, columns: usize, values: &[f32]) {
        let rows = self.0.entry(site.to_owned()).or_default();
        rows.extend(values.chunks(columns).map(bits));
    }
}

fn rows_of(network: &Network, batches: &[RaggedBatch]) -> Rows {
    let mut rows = Rows::default();
    for batch in batches {
        let states = network.hidden_states_tapped(batch, &mut rows);
        states.expect("runs");
    }
    rows.0.values_mut().for_each(|rows| rows.sort_unstable());
    rows
}

/// The rows of positions come to calibration with each text that reaches them, whatever else is in its batch.
#[test]
fn a_tap_sees_the_positions_that_a_text_reaches() {
    for (case, sites, reached) in [
        // Distances up to 4 have rows of their own, further ones share some.
        (
            "deberta-v2",
            ["query", "key"],
            Reached {
                tokens: true,
                buckets: 8,
            },
        ),
        (
            "deberta",
            ["position_key", "position_query"],
            Reached {
                tokens: false,
                buckets: usize::MAX,
            },
        ),
    ] {
        let network = load(&TinyCheckpoint::of(case), Isa::Scalar).expect("everywhere");
        let texts = texts(&[20, 3, 1], network.spec().vocab_size);
        let together = rows_of(&network, &[batch(&texts)]);
        let single: Vec<_> = texts
            .iter()
            .map(|text| RaggedBatch::from_sequences(&[text]))
            .collect();
        let one_by_one = rows_of(&network, &single);
        assert!(together.0 == one_by_one.0, "{case}");
        for site in sites {
            for end in ["input", "output"] {
                let site = format!("encoder.layer.1.attention.self.{site}.{end}");
                let expected: usize = texts.iter().map(|text| reached.by(text.len())).sum();
                assert_eq!(together.0[&site].len(), expected, "{case}: {site}");
            }
        }
    }
}

struct Reached {
    /// Whether the rows of the tokens come to the same site.
    tokens: bool,
    /// Rows of the table on each side.
    buckets: usize,
}

impl Reached {
    /// Rows of one text, whose farthest distances are within those of the tiny table.
    fn by(&self, tokens: usize) -> usize {
        let side = match (self.buckets, tokens - 1) {
            (usize::MAX, farthest) => farthest,
            // ceil(ln(19 / 4) / ln(35 / 4) * 3) = 3, so that the row is the one of 4 + 3.
            (_, 19) => 7,
            (_, farthest) => farthest,
        };
        2 * side + 1 + if self.tokens { tokens } else { 0 }
    }
}

/// One weight, several passes: a change of it changes as much as in a model with as many layers of the same weights.
#[test]
fn shared_layers_are_in_memory_once() {
    let albert = TinyCheckpoint::of("albert");
    let spec = albert.spec();
    assert_eq!((spec.layers, spec.passes()), (1, vec![0, 0, 0]));
    let mut apart = TinyCheckpoint::of("albert");
    apart.config["num_hidden_groups"] = 3.into();
    for group in [1, 2] {
        for (name, tensor) in &albert.tensors {
            let own = name.replace("layer_groups.0.", &format!("layer_groups.{group}."));
            let tensor = Tensor::f32(&tensor.shape, &tensor.values());
            apart.tensors.insert(own, tensor);
        }
    }
    assert_eq!(apart.spec().passes(), [0, 1, 2]);
    let [shared, apart] =
        [&albert, &apart].map(|checkpoint| load(checkpoint, Isa::Scalar).expect("everywhere"));
    let texts = batch(&texts(&[20, 5], spec.vocab_size));
    let [one, three] =
        [&shared, &apart].map(|network| network.hidden_states(&texts, 1).expect("runs"));
    assert_eq!(bits(&one), bits(&three));
    let of_layers = apart.memory_bytes() - shared.memory_bytes();
    assert!(of_layers > shared.memory_bytes() / 2, "{of_layers} bytes");
}
