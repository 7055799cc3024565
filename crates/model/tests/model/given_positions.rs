//! Positions that a batch gives, and the residual stream that a tap sees.

use crate::golden_files::golden;
use fewbit_model::{Network, RaggedBatch, Tap, open_checkpoint};

fn network(case: &str) -> Network {
    let checkpoint = open_checkpoint(golden("architectures").join(case)).expect("opens");
    Network::load(&checkpoint).expect("loads").0
}

fn batch() -> RaggedBatch {
    RaggedBatch::from_sequences(&[&[2, 7, 9, 3][..], &[2, 11, 3]])
}

/// Tables that count from 0, and from behind the padding id.
#[test]
fn the_positions_that_a_family_counts_give_the_same_bits() {
    for case in ["bert", "roberta", "distilbert", "mpnet"] {
        let network = network(case);
        let padding_id = network.spec().positions.padding_id;
        let first = padding_id.map_or(0, |padding_id| padding_id + 1);
        let counted = network.hidden_states(&batch(), 1).expect("runs");
        let mut given = batch();
        given.position_ids = (0..4).chain(0..3).map(|place| first + place).collect();
        let found = network.hidden_states(&given, 1).expect("runs");
        assert_eq!(found, counted, "{case}");
        given.position_ids[2] += 5;
        let moved = network.hidden_states(&given, 1).expect("runs");
        assert_ne!(moved[..], counted[..], "{case}");
        // The other sequence has the bits that it had.
        let other = 4 * network.spec().hidden_size..;
        assert_eq!(moved[other.clone()], counted[other], "{case}");
    }
}

#[test]
fn positions_that_a_model_does_not_have_are_refused() {
    let refused = |case: &str, positions: Vec<u32>| {
        let mut batch = batch();
        batch.position_ids = positions;
        let error = network(case).hidden_states(&batch, 1).unwrap_err();
        error.to_string()
    };
    let count = network("bert").spec().positions.count as u32;
    let beyond = refused("bert", vec![0, 1, 2, 3, 0, count, 2]);
    assert!(beyond.contains("position of token 5"), "{beyond}");
    let few = refused("bert", vec![0, 1]);
    assert!(few.contains("one for each of the 7"), "{few}");
    let rotary = refused("modernbert", vec![0, 1, 2, 3, 0, 1, 2]);
    assert!(rotary.contains("no table of positions"), "{rotary}");
}

#[derive(Default)]
struct Streams {
    steps: Vec<Vec<f32>>,
    embeddings: Vec<f32>,
}

impl Tap for Streams {
    fn wants(&self, site: &str) -> bool {
        site == "embeddings.LayerNorm.output"
    }

    fn see(&mut self, _site: &str, _rows: usize, _columns: usize, values: &[f32]) {
        self.embeddings.extend_from_slice(values);
    }

    fn see_hidden_states(&mut self, step: usize, columns: usize, values: &[f32]) {
        assert_eq!(values.len() % columns, 0);
        self.steps
            .resize(self.steps.len().max(step + 1), Vec::new());
        self.steps[step].extend_from_slice(values);
    }
}

/// The first is what the embeddings are, the last what comes out; ALBERT's one layer is as many steps as it has passes.
#[test]
fn a_tap_sees_the_residual_stream_after_each_layer() {
    for case in [
        "bert",
        "albert",
        "modernbert",
        "gemma3",
        "deberta-v2-convolution",
    ] {
        let network = network(case);
        let mut streams = Streams::default();
        let tapped = network.hidden_states_tapped(&batch(), &mut streams);
        let states = network.hidden_states(&batch(), 1).expect("runs");
        assert_eq!(tapped.expect("runs"), states, "{case}");
        assert_eq!(streams.steps.len(), network.spec().passes().len() + 1);
        assert_eq!(streams.steps.last(), Some(&states), "{case}");
        if case == "bert" {
            assert_eq!(streams.steps[0], streams.embeddings);
        }
        let distinct = streams.steps.windows(2).all(|pair| pair[0] != pair[1]);
        assert!(distinct, "{case}");
    }
}
