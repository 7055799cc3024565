//! Measuring speed at fixed shapes, stage by stage and on texts, on a tiny BERT.

use crate::tiny_model::tiny_model;
use fewbit_evaluate::{
    BatchShape, EvaluateError, ShapeRequest, StageProfile, TextOrder, TextPass, TextRequest,
    time_shape,
};
use fewbit_model::Encoder;
use fewbit_model::profile::Stage;

fn shape(batch: usize, tokens: usize) -> BatchShape {
    BatchShape { batch, tokens }
}

fn request(shape: BatchShape, minimum_seconds: f64, warm_up: bool) -> ShapeRequest {
    ShapeRequest {
        shape,
        threads: 2,
        minimum_seconds,
        warm_up,
    }
}

#[test]
fn a_shape_runs_at_least_once_and_as_long_as_asked() {
    let directory = tiny_model();
    let encoder = Encoder::open(directory.path()).unwrap();
    let network = encoder.network();
    for warm_up in [false, true] {
        let once = time_shape(network, &request(shape(3, 5), 0.0, warm_up)).unwrap();
        assert_eq!(once.len(), 1);
        assert!(once[0] > 0.0 && once[0].is_finite());
    }
    let many = time_shape(network, &request(shape(1, 2), 0.05, true)).unwrap();
    // Before the last call the time was not over.
    assert!(many[..many.len() - 1].iter().sum::<f64>() < 0.05);
}

#[test]
fn shapes_that_cannot_run_say_why() {
    let directory = tiny_model();
    let encoder = Encoder::open(directory.path()).unwrap();
    let error = |shape| {
        time_shape(encoder.network(), &request(shape, 0.0, false))
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
    let request = |texts: &[&str], order| TextRequest {
        pairs: Vec::new(),
        texts: texts.iter().map(|&text| text.to_owned()).collect(),
        order,
        batch_size: 2,
        threads: 1,
    };
    for (order, calls) in [(TextOrder::AsGiven, 3), (TextOrder::ByLength, 1)] {
        let pass = TextPass::measure(&encoder, &request(&texts, order)).unwrap();
        // [CLS] and [SEP] beside 2, 0, 34 (cut), 1 and 1 words.
        assert_eq!((pass.tokens, pass.truncated), (4 + 2 + 36 + 3 + 3, 1));
        assert_eq!(pass.call_seconds.len(), calls);
        assert!(pass.call_seconds.iter().all(|&seconds| seconds > 0.0));
        assert_eq!(pass.seconds(), pass.call_seconds.iter().sum::<f64>());
    }
    let error = TextPass::measure(&encoder, &request(&[], TextOrder::AsGiven)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "texts to measure with: expected at least one text, found 0\n  hint: give at least one text"
    );
}
