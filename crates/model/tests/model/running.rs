//! Inputs that cannot be run, and values that overflow.

use crate::golden_files::golden;
use crate::tiny_checkpoint::{Tensor, TinyCheckpoint};
use fewbit_checkpoint::Checkpoint;
use fewbit_model::{Network, RaggedBatch};

fn network(case: &str) -> Network {
    let checkpoint = Checkpoint::open(golden("architectures").join(case)).expect("a checkpoint");
    Network::load(&checkpoint).expect("loads").0
}

#[test]
fn inputs_out_of_range() {
    let network = network("bert");
    let vocabulary = u32::try_from(network.spec().vocab_size).expect("small");
    let longest = network.spec().positions.max_tokens();
    let error = |batch: &RaggedBatch| {
        network
            .hidden_states(batch, 1)
            .expect_err("refused")
            .to_string()
    };
    let mut typed = RaggedBatch::new();
    typed.push(&[1, 2], &[0, 5]);
    let mut lengths = typed.clone();
    lengths.token_type_ids.pop();
    let mut offsets = RaggedBatch::from_sequences(&[&[1, 2], &[3]]);
    offsets.offsets[1] = 9;
    let texts = [
        error(&RaggedBatch::from_sequences(&[&[1], &[1, vocabulary]])),
        error(&RaggedBatch::from_sequences(&[&[1], &[]])),
        error(&RaggedBatch::from_sequences(&[&vec![1; longest + 1]])),
        error(&typed),
        error(&lengths),
        error(&offsets),
        network
            .hidden_states(&RaggedBatch::new(), 0)
            .expect_err("refused")
            .to_string(),
    ];
    insta::assert_snapshot!(texts.join("\n\n"), @r"
    sequence 1, token 1: expected an id below the vocabulary size 80, found 80
      hint: the token ids come from the tokenizer of another model

    sequence 1: expected at least one token, found none
      hint: tokenize with special tokens, so that an empty text has some

    sequence 0: expected at most 36 tokens, found 37
      hint: the model has no positions beyond that; cut the sequence

    sequence 0, token 1: expected a token type below 2, found 5
      hint: this model has 2 token types; leave them out for type 0

    token types of a batch: expected none or one for each of the 2 token ids, found 1
      hint: build the batch with `RaggedBatch::push`

    offsets of a batch: expected ascending numbers from 0 to the 3 token ids
      hint: build the batch with `RaggedBatch::push`

    threads: expected at least 1, found 0
      hint: 1 runs on the calling thread
    ");
}

#[test]
fn no_sequences_give_no_states() {
    assert_eq!(
        network("bert")
            .hidden_states(&RaggedBatch::new(), 2)
            .expect("runs"),
        [] as [f32; 0]
    );
}

#[test]
fn as_many_tokens_as_there_are_positions() {
    for case in ["bert", "roberta", "mpnet"] {
        let network = network(case);
        let longest = network.spec().positions.max_tokens();
        let states = network
            .hidden_states(&RaggedBatch::from_sequences(&[&vec![5; longest]]), 1)
            .expect("runs");
        assert_eq!(states.len(), longest * network.spec().hidden_size, "{case}");
    }
}

/// A value that overflows f32 is an error that names where, for float and for int8 layers, on one thread and on two.
#[test]
fn overflow_is_an_error_that_names_the_site() {
    let mut checkpoint = TinyCheckpoint::of("bert");
    let name = "encoder.layer.1.intermediate.dense.weight";
    let mut values = checkpoint.tensors[name].values();
    values.fill(3e38);
    checkpoint.tensors.insert(
        name.to_owned(),
        Tensor::f32(&checkpoint.tensors[name].shape, &values),
    );
    let batch = RaggedBatch::from_sequences(&[&[2, 7, 9, 3], &vec![8; 20][..], &vec![9; 20][..]]);
    for checkpoint in [
        checkpoint,
        TinyCheckpoint::of("bert").with_dynamic_int8(false),
        TinyCheckpoint::of("bert").with_static_int8(0.03, |_| true),
    ] {
        let mut checkpoint = checkpoint;
        if checkpoint.config.get("quantization_config").is_some() {
            let scales = "encoder.layer.1.intermediate.dense.weight_scale";
            let shape = checkpoint.tensors[scales].shape.clone();
            checkpoint.tensors.insert(
                scales.to_owned(),
                Tensor::f32(&shape, &vec![3e38; shape[0]]),
            );
        }
        let directory = checkpoint.write();
        let (network, _) =
            Network::load(&Checkpoint::open(directory.path()).expect("opens")).expect("loads");
        for threads in [1, 2] {
            let error = network
                .hidden_states(&batch, threads)
                .expect_err("overflows")
                .to_string();
            assert!(
                error.starts_with("`encoder.layer.1.intermediate.dense.output`: value "),
                "{error}"
            );
        }
    }
}

/// A copy of `checkpoint` in which one element of `name` is `value`.
fn with_element(
    mut checkpoint: TinyCheckpoint,
    name: &str,
    element: usize,
    value: f32,
) -> TinyCheckpoint {
    let mut values = checkpoint.tensors[name].values();
    values[element] = value;
    let tensor = Tensor::f32(&checkpoint.tensors[name].shape, &values);
    checkpoint.tensors.insert(name.to_owned(), tensor);
    checkpoint
}

fn run_error(checkpoint: &TinyCheckpoint) -> String {
    let directory = checkpoint.write();
    let (network, _) =
        Network::load(&Checkpoint::open(directory.path()).expect("opens")).expect("loads");
    let error = network.hidden_states(&RaggedBatch::from_sequences(&[&[2, 7]]), 1);
    error.expect_err("overflows").to_string()
}

/// The largest f32 as gamma overflows where a normalized value is beyond 1 in magnitude.
#[test]
fn infinity_never_becomes_an_int8_code() {
    let [error, with_static_scales] = [
        TinyCheckpoint::of("bert").with_dynamic_int8(false),
        TinyCheckpoint::of("bert").with_static_int8(0.03, |_| true),
    ]
    .map(|checkpoint| {
        run_error(&with_element(
            checkpoint,
            "embeddings.LayerNorm.weight",
            3,
            f32::MAX,
        ))
    });
    assert_eq!(error, with_static_scales);
    insta::assert_snapshot!(error, @r"
    `encoder.layer.0.attention.self.query.input`: value -inf at row 0, column 3: expected finite numbers
      hint: a weight of this layer or of one before it is damaged or overflows; `fewbit inspect` shows the dtypes, and a checkpoint in float32 tells an overflow from damage
    ");
}

#[test]
fn an_overflow_in_the_last_layer_norm_is_an_error() {
    for checkpoint in [
        TinyCheckpoint::of("bert"),
        TinyCheckpoint::of("bert").with_dynamic_int8(true),
    ] {
        let name = "encoder.layer.1.output.LayerNorm.weight";
        let error = run_error(&with_element(checkpoint, name, 5, f32::MAX));
        assert!(
            error.starts_with("`encoder.layer.1.output.LayerNorm.output`: value ")
                && error.contains(", column 5: expected finite numbers"),
            "{error}"
        );
    }
}

/// MPNet's attention bias has a number for each distance, not for each pair of tokens.
#[test]
fn the_attention_bias_of_a_long_sequence_takes_little_memory() {
    const TOKENS: usize = 3000;
    let mut checkpoint = TinyCheckpoint::of("mpnet");
    let (rows, columns) = (TOKENS + 2, checkpoint.spec().embedding_size);
    checkpoint.config["max_position_embeddings"] = rows.into();
    checkpoint.tensors.insert(
        "embeddings.position_embeddings.weight".to_owned(),
        Tensor::f32(&[rows, columns], &vec![0.0; rows * columns]),
    );
    let directory = checkpoint.write();
    let (network, _) =
        Network::load(&Checkpoint::open(directory.path()).expect("opens")).expect("loads");
    let batch = RaggedBatch::from_sequences(&[&vec![5; TOKENS][..]]);
    network.hidden_states(&batch, 1).expect("runs");
    let pairs = size_of::<f32>() * TOKENS * TOKENS;
    assert!(
        network.scratch_bytes() < pairs,
        "{}",
        network.scratch_bytes()
    );
}
