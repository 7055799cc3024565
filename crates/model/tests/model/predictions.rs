//! Predictions from texts against the pipelines of transformers (`golden/predictions`).

use crate::golden_files::golden;
use fewbit_model::prediction::{Aggregation, AnswerOptions, Entity, MaskCandidate, TextInput};
use fewbit_model::{EncodeOptions, ModelError, Predictor, ScoreFunction, Task};
use serde_json::Value;

/// Scores are probabilities: logits that differ by 2e-5, as hidden states may, change them by no more than that, and a mean or a
/// sum of a few of them by little more.
const TOLERANCE: f64 = 5e-5;

fn open(case: &str) -> (Predictor, Value) {
    let directory = golden("predictions").join(case);
    let expected = std::fs::read(directory.join("expected.json")).expect("golden file");
    let expected = serde_json::from_slice(&expected).expect("JSON");
    (Predictor::open(directory).expect("a model"), expected)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn same_score(found: f32, expected: &Value, what: &dyn std::fmt::Debug) {
    let expected = expected.as_f64().expect("a score");
    let difference = (f64::from(found) - expected).abs();
    assert!(difference <= TOLERANCE, "{found} for {expected}: {what:?}");
}

/// Batches of all sizes and thread numbers give the same bits; the results of the first are returned.
fn whatever_the_batch<R: PartialEq + std::fmt::Debug>(run: impl Fn(&EncodeOptions) -> R) -> R {
    let [first, others @ ..] = [(1, 32), (2, 1), (3, 4)].map(|(threads, batch_size)| {
        run(&EncodeOptions {
            threads,
            batch_size,
        })
    });
    for other in others {
        assert_eq!(first, other);
    }
    first
}

fn same_entities(found: &[Entity], expected: &Value, what: &str) {
    let expected = list(expected);
    assert_eq!(found.len(), expected.len(), "{what}: {found:?}");
    for (found, expected) in found.iter().zip(expected) {
        same_score(found.score, &expected["score"], found);
        let mut found = serde_json::to_value(found).expect("JSON");
        found["score"] = expected["score"].clone();
        assert_eq!(&found, expected, "{what}");
    }
}

#[test]
fn entities_are_those_of_the_token_classification_pipeline() {
    let strategies = [
        ("none", Aggregation::None),
        ("simple", Aggregation::Simple),
        ("first", Aggregation::First),
        ("average", Aggregation::Average),
        ("max", Aggregation::Max),
    ];
    for case in ["bert-token-classification", "roberta-token-classification"] {
        let (tagger, expected) = open(case);
        let texts: Vec<&str> = list(&expected)
            .iter()
            .map(|case| text(&case["text"]))
            .collect();
        for (name, aggregation) in strategies {
            let found =
                whatever_the_batch(|options| tagger.tag(&texts, aggregation, options).unwrap());
            for (found, expected) in found.iter().zip(list(&expected)) {
                let what = format!("{case}: {name}: {}", expected["text"]);
                same_entities(&found.entities, &expected[name], &what);
            }
        }
    }
}

#[test]
fn labels_are_those_of_the_text_classification_pipeline() {
    for (case, function) in [
        ("bert-single-label", ScoreFunction::Softmax),
        ("bert-multi-label", ScoreFunction::Sigmoid),
        ("bert-regression", ScoreFunction::Identity),
        ("bert-cross-encoder", ScoreFunction::Sigmoid),
    ] {
        let (classifier, expected) = open(case);
        assert_eq!(classifier.score_function(), function);
        let cases = || {
            list(&expected["texts"])
                .iter()
                .chain(list(&expected["pairs"]))
        };
        let inputs: Vec<TextInput<'_>> = cases()
            .map(|case| TextInput {
                text: text(&case["text"]),
                pair: case["pair"].as_str(),
            })
            .collect();
        let found = whatever_the_batch(|options| classifier.classify(&inputs, options).unwrap());
        for (found, expected) in found.iter().zip(cases()) {
            // Called with one pair alone, transformers takes a pair with an empty first text for the second text.
            if expected["pair"].is_string() && expected["text"] == "" {
                continue;
            }
            let labels = list(&expected["labels"]);
            assert_eq!(found.labels.len(), labels.len());
            for (found, expected) in found.labels.iter().zip(labels) {
                assert_eq!(found.label, text(&expected["label"]), "{case}: {expected}");
                same_score(found.score, &expected["score"], &found);
            }
        }
    }
}

#[test]
fn scores_of_pairs_are_those_of_a_cross_encoder() {
    for case in ["bert-cross-encoder", "bert-cross-encoder-identity"] {
        let (reranker, expected) = open(case);
        let cases = list(&expected["pairs"]).iter();
        let pairs: Vec<(&str, &str)> = cases
            .map(|case| (text(&case["text"]), text(&case["pair"])))
            .collect();
        let found = whatever_the_batch(|options| reranker.classify(&pairs, options).unwrap());
        for ((found, expected), pair) in found
            .iter()
            .zip(list(&expected["cross_encoder"]))
            .zip(&pairs)
        {
            if !pair.0.is_empty() {
                same_score(found.labels[0].score, expected, &(case, pair));
            }
        }
    }
}

#[test]
fn answers_are_those_of_the_question_answering_pipeline() {
    for case in ["bert-question-answering", "roberta-question-answering"] {
        let (reader, expected) = open(case);
        for expected in list(&expected) {
            let default = AnswerOptions::default();
            let number = |name: &str, default: usize| {
                let number = expected[name]
                    .as_u64()
                    .map(|number| usize::try_from(number).unwrap());
                number.unwrap_or(default)
            };
            let options = AnswerOptions {
                top_k: number("top_k", default.top_k),
                max_answer_tokens: number("max_answer_len", default.max_answer_tokens),
                handle_impossible_answer: expected["handle_impossible_answer"] == true,
            };
            let question = (text(&expected["question"]), text(&expected["context"]));
            let found = whatever_the_batch(|run| {
                // Others in the batch change nothing.
                let questions = [question, ("who?", "a cat and a dog"), question];
                reader.answer(&questions, options, run).unwrap()
            });
            assert_eq!(found[0], found[2]);
            let expected = list(&expected["answers"]);
            assert_eq!(found[0].len(), expected.len(), "{case}: {question:?}");
            for (found, expected) in found[0].iter().zip(expected) {
                same_score(found.score, &expected["score"], &(case, found, expected));
                let mut found = serde_json::to_value(found).unwrap();
                found["score"] = expected["score"].clone();
                assert_eq!(&found, expected, "{case}: {question:?}");
            }
        }
    }
}

#[test]
fn candidates_are_those_of_the_fill_mask_pipeline() {
    for case in ["bert-masked-lm", "roberta-masked-lm"] {
        let (model, expected) = open(case);
        let texts: Vec<&str> = list(&expected)
            .iter()
            .map(|case| text(&case["text"]))
            .collect();
        let found = whatever_the_batch(|options| model.fill_masks(&texts, 4, options).unwrap());
        for (found, expected) in found.iter().zip(list(&expected)) {
            let masks = list(&expected["masks"]);
            assert_eq!(found.masks.len(), masks.len(), "{case}: {expected}");
            for (found, expected) in found.masks.iter().zip(masks) {
                let same = |(found, expected): (&MaskCandidate, &Value)| {
                    same_score(found.score, &expected["score"], found);
                    let mut found = serde_json::to_value(found).unwrap();
                    found["score"] = expected["score"].clone();
                    assert_eq!(&found, expected, "{case}");
                };
                assert_eq!(found.len(), list(expected).len());
                found.iter().zip(list(expected)).for_each(same);
            }
        }
    }
}

fn refusal<R: std::fmt::Debug>(result: Result<R, ModelError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn what_cannot_be_predicted_says_why() {
    let options = EncodeOptions::default();
    let (model, _) = open("bert-masked-lm");
    assert_eq!(model.task(), Task::MaskedLm);
    assert_eq!(
        refusal(model.fill_masks(&["the [MASK]", "the cat"], 3, &options)),
        "text \"the cat\": expected a mask `[MASK]`, found none\n  hint: write [MASK] where the model is to guess a word"
    );
    let long = "the ".repeat(60) + "[MASK]";
    let error = refusal(model.fill_masks(&[long], 3, &options));
    assert!(
        error.contains("in the first 48 tokens, the model's limit, found none"),
        "{error}"
    );
    let error = refusal(model.classify(&["a"], &options));
    assert!(
        error.contains("expected a model for sequence classification, found one for masked language modelling\n  hint: "),
        "{error}"
    );
    let (reader, _) = open("bert-question-answering");
    let answer = |question: &str, context: &str| {
        refusal(reader.answer(&[(question, context)], AnswerOptions::default(), &options))
    };
    assert_eq!(
        answer(" ", "a cat"),
        "question \" \": expected a text, found none\n  hint: question \" \", context \"a cat\""
    );
    assert!(answer("who", "").starts_with("context \"\": expected a text, found none\n  hint: "));
    let error = answer(&"the cat ".repeat(30), "a dog");
    assert!(error.contains("first text \"the cat the cat"), "{error}");
    let none = AnswerOptions {
        top_k: 0,
        ..AnswerOptions::default()
    };
    let error = refusal(reader.answer(&[("who", "a cat")], none, &options));
    assert!(
        error.starts_with("top_k: expected at least 1, found 0"),
        "{error}"
    );
    let error = refusal(reader.answer(
        &[("who", "a cat")],
        AnswerOptions::default(),
        &EncodeOptions {
            threads: 0,
            ..options
        },
    ));
    assert!(
        error.starts_with("threads: expected at least 1, found 0"),
        "{error}"
    );
}

/// A model of embeddings has no head.
#[test]
fn a_model_without_a_head_is_refused() {
    let error = Predictor::open(golden("pooling/mean-normalize"))
        .err()
        .expect("refused")
        .to_string();
    assert!(
        error.contains("`architectures`") && error.contains("fewbit embed"),
        "{error}"
    );
}
