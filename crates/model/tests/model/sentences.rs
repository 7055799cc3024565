//! Text in, embeddings out, against sentence-transformers.

use crate::golden_files::{Expected, cases, expected_texts, golden, largest_difference};
use crate::tiny_checkpoint::{Tensor, TinyCheckpoint};
use fewbit_kernels::{Isa, Kernels};
use fewbit_model::{Embeddings, EncodeOptions, Encoder};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;

/// Agreement with sentence-transformers that the project promises for normalized embeddings of a real model.
const TOLERANCE: f32 = 1e-5;

fn sample_model() -> PathBuf {
    let directory = std::env::var_os("FEWBIT_SAMPLE_MODEL").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/all-MiniLM-L6-v2"),
        PathBuf::from,
    );
    assert!(
        directory.join("model.safetensors").exists(),
        "no model in {}: run scripts/sample-model.sh, or set FEWBIT_SAMPLE_MODEL",
        directory.display()
    );
    directory
}

/// Compares tokens, cuts and embeddings of all texts of `expected`; options that must not matter differ.
fn check(name: &str, encoder: &Encoder, expected: &Path, tolerance: f32) {
    let texts = expected_texts(&expected.join("expected.jsonl"));
    let embeddings = Expected::read(&expected.join("expected.safetensors"))
        .f32("embeddings")
        .expect("golden");
    let prompt_free: Vec<&str> = texts.iter().map(|text| text.text.as_str()).collect();
    let found = encoder
        .encode(
            &prompt_free,
            &EncodeOptions {
                threads: 2,
                batch_size: 7,
            },
        )
        .expect("encodes");
    assert_eq!(
        (found.rows, found.columns),
        (texts.len(), encoder.columns()),
        "{name}"
    );
    assert_eq!(
        found.tokens,
        texts.iter().map(|text| text.token_ids.len()).sum::<usize>(),
        "{name}"
    );
    let truncated: Vec<usize> = (0..texts.len())
        .filter(|&index| texts[index].truncated)
        .collect();
    assert_eq!(found.truncated, truncated, "{name}");
    for (index, (text, expected)) in texts
        .iter()
        .zip(embeddings.chunks_exact(found.columns))
        .enumerate()
    {
        let difference = largest_difference(found.row(index), expected);
        assert!(
            difference <= tolerance,
            "{name}: {:?}: {difference}",
            text.text
        );
    }
    let again = encoder
        .encode(&prompt_free, &EncodeOptions::default())
        .expect("encodes");
    assert_eq!(again, found, "{name}");
}

#[test]
fn all_minilm_agrees_with_sentence_transformers() {
    let encoder = Encoder::open(sample_model()).expect("opens");
    assert!(encoder.normalizes());
    assert_eq!(encoder.max_tokens(), 256);
    let expected = golden("sentences/all-MiniLM-L6-v2");
    for text in expected_texts(&expected.join("expected.jsonl")) {
        assert_eq!(
            encoder
                .tokenizer()
                .tokenize(&text.text)
                .expect("tokenizes")
                .token_ids,
            text.token_ids,
            "{:?}",
            text.text
        );
    }
    check("all-MiniLM-L6-v2", &encoder, &expected, TOLERANCE);
}

/// Hidden states agree within 2e-5; a sum over columns of 32 tokens divided by their number or its root, by at most six
/// times that.
const POOLED_TOLERANCE: f32 = 6.0 * 2e-5;

#[test]
fn pooling_modules_agree_with_sentence_transformers() {
    for case in cases("pooling") {
        let folder = golden("pooling").join(&case);
        let encoder = Encoder::open(&folder).unwrap_or_else(|error| panic!("{case}: {error}"));
        check(&case, &encoder, &folder, POOLED_TOLERANCE);
    }
}

/// A copy of a golden sentence model without config.json and weights.
fn without_weights(folder: &Path) -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(directory.path().join("1_Pooling")).expect("created");
    for name in [
        "modules.json",
        "1_Pooling/config.json",
        "tokenizer_config.json",
        "vocab.txt",
    ] {
        std::fs::copy(folder.join(name), directory.path().join(name)).expect("copied");
    }
    directory
}

/// The int8 form of a golden sentence model, on every instruction set of this CPU that keeps the same bits.
static INT8: LazyLock<Vec<Encoder>> = LazyLock::new(|| {
    let folder = golden("pooling/mean-normalize");
    let directory = without_weights(&folder);
    TinyCheckpoint::read(&folder)
        .with_dynamic_int8(false)
        .write_into(directory.path());
    let isas = Isa::ALL.iter().filter(|isa| isa.keeps_same_bits());
    let kernels = isas.copied().filter_map(Kernels::for_isa);
    kernels
        .map(|kernels| Encoder::open_with_kernels(directory.path(), kernels).expect("opens"))
        .collect()
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// A text's embedding has the same bits alone, in any batch, in any order, on 1 or 2 threads, on every instruction set.
    #[test]
    fn an_int8_embedding_depends_on_nothing_but_the_text(
        texts in prop::collection::vec("(the |cat |sat |[a-z]{1,6} |ক |[.,!?]){0,12}", 1..30),
        batch_size in 1usize..40,
        threads in 1usize..3,
        rotation in 0usize..30,
    ) {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.rotate_left(rotation % texts.len());
        let batch: Vec<&str> = order.iter().map(|&index| texts[index].as_str()).collect();
        let alone: Vec<Embeddings> = texts
            .iter()
            .map(|text| INT8[0].encode(&[text], &EncodeOptions::default()).expect("encodes"))
            .collect();
        for encoder in INT8.iter() {
            let found = encoder.encode(&batch, &EncodeOptions { threads, batch_size }).expect("encodes");
            for (position, &index) in order.iter().enumerate() {
                let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(found.row(position)), bits(alone[index].row(0)), "{:?}", &texts[index]);
            }
        }
    }
}

#[test]
fn very_long_and_empty_texts() {
    let encoder = Encoder::open(golden("pooling/mean-normalize")).expect("opens");
    let long = "the cat sat on the mat ".repeat(16_667);
    let texts = [long.as_str(), "", " \n\t", "the cat"];
    let found = encoder
        .encode(&texts, &EncodeOptions::default())
        .expect("encodes");
    assert_eq!(found.truncated, [0]);
    assert!(found.values.iter().all(|value| value.is_finite()));
    assert_eq!(found.row(1), found.row(2), "white space is no token");
    let cut = encoder.tokenizer().tokenize(&long).expect("tokenizes");
    assert_eq!(cut.token_ids.len(), encoder.max_tokens());
    let none: [&str; 0] = [];
    assert_eq!(
        encoder
            .encode(&none, &EncodeOptions::default())
            .expect("encodes")
            .values,
        [] as [f32; 0]
    );
}

#[test]
fn options_of_zero_are_refused() {
    let encoder = Encoder::open(golden("pooling/mean-normalize")).expect("opens");
    let error = |options| {
        encoder
            .encode(&["a"], &options)
            .expect_err("refused")
            .to_string()
    };
    assert_eq!(
        error(EncodeOptions {
            threads: 0,
            batch_size: 1
        }),
        "threads: expected at least 1, found 0\n  hint: the default is threads of `EncodeOptions::default()`"
    );
    assert!(
        error(EncodeOptions {
            threads: 1,
            batch_size: 0
        })
        .starts_with("batch_size: expected at least 1, found 0")
    );
}

/// Finite hidden states whose sum of squares, or sum over tokens divided by the root of their number, is not.
#[test]
fn embeddings_that_overflow_are_errors() {
    let error = |case: &str, vector: &str, value: f32| {
        let folder = golden("pooling").join(case);
        let directory = without_weights(&folder);
        let mut checkpoint = TinyCheckpoint::read(&folder);
        checkpoint.tensors.insert(
            format!("encoder.layer.0.output.LayerNorm.{vector}"),
            Tensor::f32(&[16], &[value; 16]),
        );
        checkpoint.write_into(directory.path());
        let encoder = Encoder::open(directory.path()).expect("opens");
        let error = encoder.encode(&["the cat sat", "the"], &EncodeOptions::default());
        error.expect_err("overflows").to_string()
    };
    assert!(
        error("mean-normalize", "weight", 1e30).starts_with(
            "`normalize.length`: value inf at row 1, column 0: expected finite numbers"
        )
    );
    // At least three tokens of about 2.5e38 each: sqrt(3) * 2.5e38 is beyond 3.4e38.
    assert!(
        error("mean-sqrt-len", "bias", 2.5e38)
            .starts_with("`pooling.output`: value inf at row 1, column 0: expected finite numbers")
    );
}
