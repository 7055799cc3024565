//! Measuring speed at fixed shapes, stage by stage, on texts, and until the first embedding, on a tiny BERT.

use crate::tiny_model::tiny_model;
use fewbit_evaluate::{
    BatchShape, EvaluateError, StageProfile, Startup, TextOrder, TextPass, time_shape,
};
use fewbit_model::profile::Stage;
use fewbit_model::{EncodeOptions, Encoder, EncoderSettings};

fn shape(batch: usize, tokens: usize) -> BatchShape {
    BatchShape { batch, tokens }
}

#[test]
fn a_shape_runs_at_least_once_and_as_long_as_asked() {
    let directory = tiny_model();
    let encoder = Encoder::open(directory.path()).unwrap();
    let network = encoder.network();
    for warm_up in [false, true] {
        let once = time_shape(network, shape(3, 5), 2, 0.0, warm_up).unwrap();
        assert_eq!(once.len(), 1);
        assert!(once[0] > 0.0 && once[0].is_finite());
    }
    let many = time_shape(network, shape(1, 2), 1, 0.05, true).unwrap();
    // Before the last call the time was not over.
    assert!(many[..many.len() - 1].iter().sum::<f64>() < 0.05);
}

#[test]
fn shapes_that_cannot_run_say_why() {
    let directory = tiny_model();
    let encoder = Encoder::open(directory.path()).unwrap();
    let error = |shape| {
        time_shape(encoder.network(), shape, 1, 0.0, false)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        error(shape(0, 4)),
        "a batch of 0 x 4 tokens: expected at least one token, found 0\n  hint: give a batch of at least 1 and at least 1 token"
    );
    assert!(error(shape(4, 0)).starts_with("a batch of 4 x 0 tokens: "));
    assert!(
        error(shape(1, 37)).contains("expected at most 36 tokens, found 37"),
        "{}",
        error(shape(1, 37))
    );
    assert!(matches!(
        StageProfile::measure(encoder.network(), shape(0, 0), 0.0),
        Err(EvaluateError::TooLittleData { .. })
    ));
}

#[test]
fn stages_and_the_rest_make_up_the_whole() {
    let directory = tiny_model();
    let encoder = Encoder::open(directory.path()).unwrap();
    let profile = StageProfile::measure(encoder.network(), shape(2, 36), 0.01).unwrap();
    let names: Vec<&str> = profile
        .stages
        .iter()
        .map(|stage| stage.name.as_str())
        .collect();
    assert_eq!(names, Stage::ALL.map(Stage::name));
    assert!(profile.calls >= 1);
    let sum: f64 = profile.stages.iter().map(|stage| stage.milliseconds).sum();
    let whole = profile.whole_milliseconds;
    // A dozen additions and divisions of f64, each within 2^-53 of the exact result.
    assert!((sum + profile.other_milliseconds - whole).abs() <= 1e-12 * whole);
    // Stages are parts of the time around them: they cannot take longer.
    assert!(sum <= whole * (1.0 + 1e-12), "{profile:?}");
    for stage in &profile.stages {
        assert!(stage.milliseconds >= 0.0 && (0.0..=1.0).contains(&stage.share));
    }
}

#[test]
fn either_order_encodes_every_text_once() {
    let directory = tiny_model();
    let encoder = Encoder::open(directory.path()).unwrap();
    let long = "word1 ".repeat(100);
    let texts = ["word1 word2", "", long.as_str(), "word3", "unknown"];
    let options = EncodeOptions {
        batch_size: 2,
        ..EncodeOptions::default()
    };
    for order in TextOrder::ALL {
        let pass = TextPass::measure(&encoder, &texts, order, &options).unwrap();
        // [CLS] and [SEP] beside 2, 0, 34 (cut), 1 and 1 words.
        assert_eq!((pass.tokens, pass.truncated), (4 + 2 + 36 + 3 + 3, 1));
        assert!(pass.seconds > 0.0);
    }
    let none: [&str; 0] = [];
    let error = TextPass::measure(&encoder, &none, TextOrder::AsGiven, &options).unwrap_err();
    assert!(error.to_string().starts_with("texts to measure with: "));
}

#[test]
fn the_first_embedding_comes_after_loading() {
    let directory = tiny_model();
    let startup = Startup::measure(directory.path(), &EncoderSettings::default(), 1).unwrap();
    assert!(0.0 < startup.load_seconds);
    assert!(startup.load_seconds < startup.first_embedding_seconds);
    assert_eq!(
        startup.peak_resident_bytes.is_some(),
        cfg!(target_os = "linux")
    );
    let empty = tempfile::tempdir().unwrap();
    let error = Startup::measure(empty.path(), &EncoderSettings::default(), 1).unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");
}
