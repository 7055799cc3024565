//! Task heads against transformers, and what is refused of them.

use crate::golden_files::{Expected, cases, golden, largest_difference};
use crate::tiny_checkpoint::{Tensor, TinyCheckpoint};
use fewbit_checkpoint::Checkpoint;
use fewbit_kernels::{Isa, Kernels};
use fewbit_model::{Linear, ModelError, RaggedBatch, ScoreFunction, Task, TaskModel};
use fewbit_numerics::rows::quantize_rows_int8;
use safetensors::Dtype;
use serde_json::{Value, json};

/// What the project promises for hidden states, too. The reference itself, torch in float32, is up to 3e-6 from the same model in float64
/// (golden/README.md); the rest is for our other order of operations.
const TOLERANCE: f32 = 2e-5;

/// The token ids and the logits of each sequence of a case.
fn sequences(name: &str) -> Vec<(Vec<u32>, Vec<f32>)> {
    let expected = Expected::read(&golden("task_heads").join(name).join("expected.safetensors"));
    let mut sequences = Vec::new();
    while let Some(ids) = expected.ids(&format!("sequence.{}.input_ids", sequences.len())) {
        let logits = expected.f32(&format!("sequence.{}.logits", sequences.len()));
        sequences.push((ids, logits.expect("golden")));
    }
    assert!(!sequences.is_empty(), "{name}");
    sequences
}

fn batch_of(sequences: &[(Vec<u32>, Vec<f32>)]) -> RaggedBatch {
    let ids: Vec<&[u32]> = sequences.iter().map(|(ids, _)| ids.as_slice()).collect();
    RaggedBatch::from_sequences(&ids)
}

fn open(name: &str) -> TaskModel {
    TaskModel::open(golden("task_heads").join(name)).expect("opens")
}

fn tiny(name: &str) -> TinyCheckpoint {
    TinyCheckpoint::read(&golden("task_heads").join(name))
}

fn error(checkpoint: &TinyCheckpoint) -> String {
    let directory = checkpoint.write();
    let error = TaskModel::open(directory.path()).expect_err("refused");
    let text = error.to_string();
    text.replace(&directory.path().display().to_string(), "DIR")
}

#[test]
fn logits_agree_with_transformers() {
    let mut failures = Vec::new();
    for name in cases("task_heads") {
        let sequences = sequences(&name);
        let expected: Vec<f32> = sequences
            .iter()
            .flat_map(|(_, logits)| logits)
            .copied()
            .collect();
        for &isa in Isa::ALL.iter().filter(|isa| isa.keeps_same_bits()) {
            let Some(kernels) = Kernels::for_isa(isa) else {
                continue;
            };
            let directory = golden("task_heads").join(&name);
            let model = TaskModel::open_with_kernels(directory, kernels).expect("opens");
            let found = model.logits(&batch_of(&sequences), 2).expect("runs");
            let difference = largest_difference(&found.values, &expected);
            if difference > TOLERANCE {
                failures.push(format!("{name}, {isa:?}: {difference}"));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "differences above {TOLERANCE}:\n{}",
        failures.join("\n")
    );
}

/// The logits of a text, or of some tokens, have the same bits in any batch and on any number of threads.
#[test]
fn logits_have_the_same_bits_however_they_are_computed() {
    for name in cases("task_heads") {
        let (model, sequences) = (open(&name), sequences(&name));
        let batch = batch_of(&sequences);
        let together = model.logits(&batch, 1).expect("runs");
        for threads in [2, 3] {
            assert_eq!(
                model.logits(&batch, threads).expect("runs"),
                together,
                "{name}"
            );
        }
        let alone: Vec<f32> = sequences
            .iter()
            .flat_map(|sequence| {
                let batch = batch_of(std::slice::from_ref(sequence));
                model.logits(&batch, 1).expect("runs").values
            })
            .collect();
        assert_eq!(alone, together.values, "{name}");
        assert_eq!(together.columns, model.columns(), "{name}");
        if !model.task().is_of_tokens() {
            assert_eq!(together.rows, sequences.len(), "{name}");
            continue;
        }
        assert_eq!(together.rows, batch.tokens(), "{name}");
        let wanted = [batch.tokens() - 1, 2, 2, 0];
        let some = model.logits_of_tokens(&batch, &wanted, 2).expect("runs");
        assert_eq!(some.rows, wanted.len());
        for (row, &token) in wanted.iter().enumerate() {
            assert_eq!(some.row(row), together.row(token), "{name}, token {token}");
        }
    }
}

/// More rows than go through a head together.
#[test]
fn long_batches_have_the_same_bits() {
    let model = open("modernbert-token");
    let ids = [5, 9, 31, 7, 22, 6, 18];
    let one = model
        .logits(&RaggedBatch::from_sequences(&[&ids]), 1)
        .expect("runs");
    let many = RaggedBatch::from_sequences(&vec![&ids[..]; 150]);
    for threads in [1, 2] {
        let logits = model.logits(&many, threads).expect("runs");
        for row in 0..logits.rows {
            assert_eq!(logits.row(row), one.row(row % ids.len()), "{row}");
        }
    }
}

#[test]
fn every_tensor_of_a_head_is_applied() {
    for name in cases("task_heads") {
        let checkpoint =
            fewbit_model::open_checkpoint(golden("task_heads").join(&name)).expect("a checkpoint");
        let model = open(&name);
        let ledger = model.ledger();
        assert!(ledger.missing.is_empty(), "{name}: {:?}", ledger.missing);
        let listed = ledger.applied.len() + ledger.unused.len();
        assert_eq!(listed, checkpoint.tensors().count(), "{name}");
        let unused: Vec<&str> = ledger
            .unused
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        let expected: &[&str] = match name.as_str() {
            // The bias that a tied decoder would share.
            "bert-mask-not-tied" => &["cls.predictions.bias"],
            "bert-pre-training" => &[
                "bert.pooler.dense.bias",
                "bert.pooler.dense.weight",
                "cls.seq_relationship.bias",
                "cls.seq_relationship.weight",
            ],
            _ => &[],
        };
        assert_eq!(unused, expected, "{name}");
        for module in model.head().modules() {
            let weight = format!("{}.weight", module.name);
            let old = format!("{}.gamma", module.name);
            let has = |name: &String| ledger.applied.contains(name);
            assert!(has(&weight) || has(&old), "{name}: {weight}");
        }
    }
}

#[test]
fn labels_and_what_scores_are() {
    use ScoreFunction::{Identity, Sigmoid, Softmax};
    for (name, task, labels, function) in [
        (
            "bert-sequence",
            Task::SequenceClassification,
            &["negative", "neutral", "positive"][..],
            Softmax,
        ),
        (
            "bert-one-label",
            Task::SequenceClassification,
            &["LABEL_0"],
            Sigmoid,
        ),
        (
            "bert-regression",
            Task::SequenceClassification,
            &["LABEL_0"],
            Identity,
        ),
        (
            "bert-multi-label",
            Task::SequenceClassification,
            &["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"],
            Sigmoid,
        ),
        (
            "bert-default-labels",
            Task::SequenceClassification,
            &["LABEL_0", "LABEL_1"],
            Softmax,
        ),
        (
            "bert-token",
            Task::TokenClassification,
            &["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
            Softmax,
        ),
        ("bert-answer", Task::QuestionAnswering, &[], Softmax),
        ("bert-mask", Task::MaskedLm, &[], Softmax),
    ] {
        let model = open(name);
        assert_eq!(model.task(), task, "{name}");
        assert_eq!(model.labels(), labels, "{name}");
        assert_eq!(model.score_function(), function, "{name}");
        assert_eq!(model.cross_encoder(), None, "{name}");
    }
}

/// As sentence-transformers 6.2 chooses the function of a CrossEncoder's scores.
#[test]
fn scores_of_cross_encoders() {
    use ScoreFunction::{Identity, Sigmoid, Softmax};
    let own = "config_sentence_transformers.json";
    let modules = json!([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]);
    let scores = |labels: usize, config: Value, settings: Option<Value>, has_modules: bool| {
        let mut checkpoint = tiny(if labels == 1 {
            "bert-one-label"
        } else {
            "bert-default-labels"
        });
        for (field, value) in config.as_object().expect("an object") {
            checkpoint.config[field] = value.clone();
        }
        let directory = checkpoint.write();
        if let Some(settings) = settings {
            std::fs::write(directory.path().join(own), settings.to_string()).expect("written");
        }
        if has_modules {
            std::fs::write(directory.path().join("modules.json"), modules.to_string())
                .expect("written");
        }
        let model = TaskModel::open(directory.path()).map_err(|error| {
            error
                .to_string()
                .replace(&directory.path().display().to_string(), "DIR")
        })?;
        Ok::<_, String>((model.score_function(), model.cross_encoder().is_some()))
    };
    let path = |name: &str| format!("torch.nn.modules.{name}");
    let saved =
        |name: &str| Some(json!({"model_type": "CrossEncoder", "activation_fn": path(name)}));
    let inner = |name: &str| json!({"sentence_transformers": {"version": "4.1.0", "activation_fn": path(name)}});
    let old = |name: Value| json!({"sbert_ce_default_activation_function": name});
    for (found, expected) in [
        (
            scores(1, json!({}), saved("linear.Identity"), true),
            (Identity, true),
        ),
        (
            scores(2, json!({}), saved("activation.Softmax"), true),
            (Softmax, true),
        ),
        // The file of its own comes first, and is not read without modules.json.
        (
            scores(
                1,
                inner("activation.Sigmoid"),
                saved("linear.Identity"),
                true,
            ),
            (Identity, true),
        ),
        (
            scores(
                1,
                inner("activation.Sigmoid"),
                saved("linear.Identity"),
                false,
            ),
            (Sigmoid, true),
        ),
        (
            scores(1, json!({}), saved("linear.Identity"), false),
            (Sigmoid, false),
        ),
        (
            scores(1, inner("linear.Identity"), None, false),
            (Identity, true),
        ),
        (
            scores(
                1,
                old(json!("torch.nn.modules.linear.Identity")),
                None,
                false,
            ),
            (Identity, true),
        ),
        (scores(1, old(json!(null)), None, false), (Sigmoid, true)),
        // The defaults of a CrossEncoder are others than those of the pipeline.
        (
            scores(2, json!({"sentence_transformers": {}}), None, false),
            (Identity, true),
        ),
        (scores(2, json!({}), None, false), (Softmax, false)),
        (
            scores(
                1,
                json!({"sentence_transformers": {}, "problem_type": "regression"}),
                None,
                false,
            ),
            (Sigmoid, true),
        ),
        // What is not PyTorch's own is passed over.
        (
            scores(1, old(json!("my_package.Mine")), None, false),
            (Sigmoid, true),
        ),
    ] {
        assert_eq!(found.expect("opens"), expected);
    }
    assert_eq!(
        scores(1, json!({}), saved("activation.Tanh"), true).unwrap_err(),
        "DIR/config_sentence_transformers.json: `activation_fn`: supported is Sigmoid, Identity or Softmax of torch.nn, found \"torch.nn.modules.activation.Tanh\"\n  hint: another function would give other scores"
    );
    assert_eq!(
        scores(
            1,
            json!({"sentence_transformers": {"activation_fn": 3}}),
            None,
            false
        )
        .unwrap_err(),
        "DIR/config.json: `activation_fn`: expected the path of a class, found 3\n  hint: correct the value or fetch the file again"
    );
}

#[test]
fn what_is_refused_names_field_or_tensor() {
    let with = |name: &str, field: &str, value: Value| {
        let mut checkpoint = tiny(name);
        checkpoint.config[field] = value;
        error(&checkpoint)
    };
    let without = |name: &str, tensor: &str| {
        let mut checkpoint = tiny(name);
        checkpoint.tensors.remove(tensor).expect("there");
        error(&checkpoint)
    };
    let class = |name: &str| with("bert-sequence", "architectures", json!([name]));
    let mut not_finite = tiny("roberta-sequence");
    let mut values = not_finite.tensors["classifier.out_proj.weight"].values();
    values[17] = f32::NAN;
    not_finite.tensors.insert(
        "classifier.out_proj.weight".to_owned(),
        Tensor::f32(&[3, 16], &values),
    );
    let texts = [
        class("BertModel"),
        class("BertForMultipleChoice"),
        with("bert-sequence", "architectures", Value::Null),
        with(
            "electra-token",
            "architectures",
            json!(["ElectraForPreTraining"]),
        ),
        with("bert-sequence", "id2label", json!({"0": "a", "1": "b"})),
        with(
            "bert-sequence",
            "id2label",
            json!({"0": "a", "1": "b", "3": "c"}),
        ),
        with("bert-token", "id2label", Value::Null),
        with("bert-answer", "num_labels", json!(3)),
        with("bert-sequence", "problem_type", json!("ranking")),
        with("modernbert-sequence", "classifier_pooling", json!("max")),
        with(
            "modernbert-sequence",
            "classifier_activation",
            json!("snake"),
        ),
        with("modernbert-sequence", "classifier_bias", json!("yes")),
        without("bert-sequence", "bert.pooler.dense.weight"),
        without("bert-sequence", "classifier.bias"),
        without("modernbert-token", "head.norm.weight"),
        without("distilbert-mask", "vocab_projector.bias"),
        without("bert-mask-not-tied", "cls.predictions.decoder.weight"),
        without("bert-mask-not-tied", "cls.predictions.decoder.bias"),
        error(&not_finite),
    ];
    insta::assert_snapshot!(texts.join("\n\n"), @r#"
    DIR/config.json: `architectures`: expected the name of a model class with a task head (…ForSequenceClassification, …ForTokenClassification, …ForQuestionAnswering, …ForMaskedLM), found "BertModel"
      hint: this is a model without a task head: `fewbit embed` gives its embeddings

    DIR/config.json: `architectures`: expected the name of a model class with a task head (…ForSequenceClassification, …ForTokenClassification, …ForQuestionAnswering, …ForMaskedLM), found "BertForMultipleChoice"
      hint: fewbit does not run heads of this kind

    DIR/config.json: `architectures`: expected the name of a model class with a task head (…ForSequenceClassification, …ForTokenClassification, …ForQuestionAnswering, …ForMaskedLM), found null
      hint: this is a model without a task head: `fewbit embed` gives its embeddings

    DIR/config.json: `architectures`: expected the name of a model class with a task head (…ForSequenceClassification, …ForTokenClassification, …ForQuestionAnswering, …ForMaskedLM), found "ElectraForPreTraining"
      hint: fewbit does not run heads of this kind

    DIR/model.safetensors: tensor `classifier.weight`: shape: expected [2, 16], found [3, 16]
      hint: config.json has 2 labels (`id2label`, or `num_labels`, or 2 without either), and the head must have an output for each

    DIR/config.json: `id2label.3`: expected a key from "0" to "2", as there are 3 labels, found "3"
      hint: label i is the name of logit i; correct config.json or save the model again

    DIR/model.safetensors: tensor `classifier.weight`: shape: expected [2, 16], found [5, 16]
      hint: config.json has 2 labels (`id2label`, or `num_labels`, or 2 without either), and the head must have an output for each

    DIR/config.json: `num_labels`: expected 2 labels, the logits of an answer's start and of its end, found 3
      hint: the heads of question answering have two outputs in transformers

    DIR/config.json: `problem_type`: expected one of single_label_classification, multi_label_classification, regression, found "ranking"
      hint: correct the value or fetch the file again

    DIR/config.json: `classifier_pooling`: expected "cls" or "mean", found "max"
      hint: correct the value or fetch the file again

    DIR/config.json: `classifier_activation`: supported is one of gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, quick_gelu, relu, silu, tanh, linear, found "snake"
      hint: the activation function changes every hidden state, so there is no substitute

    DIR/config.json: `classifier_bias`: expected true or false, found "yes"
      hint: correct the value or fetch the file again

    DIR/model.safetensors: tensor `bert.pooler.dense.weight`: missing: expected this tensor, found 24 others
      hint: near names in the checkpoint: bert.encoder.layer.0.attention.output.dense.weight, bert.encoder.layer.0.intermediate.dense.weight, bert.encoder.layer.0.output.dense.weight

    DIR/model.safetensors: tensor `classifier.bias`: missing: expected this tensor, found 24 others

    DIR/model.safetensors: tensor `head.norm.weight`: missing: expected this tensor, found 11 others
      hint: near names in the checkpoint: model.embeddings.norm.weight

    DIR/model.safetensors: tensor `vocab_projector.bias`: missing: expected this tensor, found 24 others

    DIR/model.safetensors: tensor `cls.predictions.decoder.weight`: missing: expected this tensor, found 27 others

    DIR/model.safetensors: tensor `cls.predictions.decoder.bias`: missing: expected this tensor, found 27 others

    DIR/model.safetensors: tensor `classifier.out_proj.weight`: expected finite values, found NaN at [1, 1]
      hint: the checkpoint is damaged or its training diverged
    "#);
}

#[test]
fn tokens_that_are_not_there_are_refused() {
    let batch = RaggedBatch::from_sequences(&[&[5, 6, 7]]);
    let error = |name: &str, tokens: &[usize]| {
        let error = open(name)
            .logits_of_tokens(&batch, tokens, 1)
            .expect_err("refused");
        assert!(matches!(error, ModelError::Input(_)));
        error.to_string()
    };
    assert_eq!(
        error("bert-mask", &[0, 3]),
        "tokens: expected indices below the batch's 3 token ids, found 3\n  hint: token t of sequence s is `offsets[s] + t`"
    );
    assert_eq!(
        error("bert-sequence", &[0]),
        "tokens: expected a model for a task of tokens, found one for sequence classification\n  hint: `logits` gives the row of each text"
    );
    let none = open("bert-mask")
        .logits_of_tokens(&batch, &[], 2)
        .expect("runs");
    assert_eq!((none.rows, none.values.len()), (0, 0));
}

#[test]
fn an_overflow_names_the_step_and_the_text() {
    let mut checkpoint = tiny("bert-sequence");
    // The second text's first token has a hidden state unlike the first's, so that the pooler may overflow for it alone: every text's does here.
    checkpoint.tensors.insert(
        "classifier.weight".to_owned(),
        Tensor::f32(&[3, 16], &[3e38; 48]),
    );
    checkpoint.tensors.insert(
        "bert.pooler.dense.bias".to_owned(),
        Tensor::f32(&[16], &[40.0; 16]),
    );
    let model = TaskModel::open(checkpoint.write().path()).expect("opens");
    let batch = RaggedBatch::from_sequences(&[&[5, 6], &[7]]);
    let error = model.logits(&batch, 1).expect_err("overflows");
    let ModelError::NonFinite {
        site,
        row,
        column,
        value,
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(
        (site.as_str(), row, column, value),
        ("classifier.output", 0, 0, f32::INFINITY)
    );
}

/// A classifier that another tool has quantized, as compressed-tensors stores it.
fn with_int8_classifier(mut checkpoint: TinyCheckpoint, strategy: &str) -> TinyCheckpoint {
    let weight = &checkpoint.tensors["classifier.weight"];
    let [rows, columns] = weight.shape[..] else {
        panic!("a matrix");
    };
    let quantized = quantize_rows_int8(&weight.values(), rows, columns);
    let codes = Tensor {
        dtype: Dtype::I8,
        shape: vec![rows, columns],
        bytes: quantized
            .codes
            .iter()
            .map(|code| code.cast_unsigned())
            .collect(),
    };
    checkpoint
        .tensors
        .insert("classifier.weight".to_owned(), codes);
    let scales = Tensor::f32(&[rows, 1], &quantized.scales);
    checkpoint
        .tensors
        .insert("classifier.weight_scale".to_owned(), scales);
    checkpoint.config["quantization_config"] = json!({
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {
            "targets": ["classifier"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel", "dynamic": false},
            "input_activations": {
                "num_bits": 8, "type": "int", "symmetric": false, "strategy": strategy, "dynamic": true,
                "observer_kwargs": if strategy == "tensor" { json!({"reduce_range": false}) } else { json!({}) },
            },
        }},
    });
    checkpoint
}

#[test]
fn a_head_that_is_stored_in_int8_is_run_in_int8() {
    let directory = with_int8_classifier(tiny("bert-token"), "token").write();
    let model = TaskModel::open(directory.path()).expect("opens");
    assert!(model.ledger().unused.is_empty());
    let scale = "classifier.weight_scale".to_owned();
    assert!(model.ledger().applied.contains(&scale));
    let batch = batch_of(&sequences("bert-token"));
    let checkpoint = Checkpoint::open(directory.path()).expect("a checkpoint");
    let stored = checkpoint
        .stored_weight("classifier", [5, 16])
        .expect("there");
    let bias = checkpoint
        .require("classifier.bias")
        .and_then(|view| view.to_f32())
        .expect("there");
    let linear = Linear::new(stored, Some(&bias), [5, 16]).expect("packs");
    let states = model.network().hidden_states(&batch, 1).expect("runs");
    let expected = linear.forward(&states, 1).expect("runs");
    assert_eq!(model.logits(&batch, 2).expect("runs").values, expected);
}

/// Where all rows of a text share a scale, they are quantized together, whatever rows are wanted.
#[test]
fn a_head_with_one_scale_for_a_text_has_the_same_bits_in_any_batch() {
    let directory = with_int8_classifier(tiny("bert-token"), "tensor").write();
    let model = TaskModel::open(directory.path()).expect("opens");
    let sequences = sequences("bert-token");
    let batch = batch_of(&sequences);
    let together = model.logits(&batch, 2).expect("runs");
    let alone = sequences.iter().flat_map(|sequence| {
        let batch = batch_of(std::slice::from_ref(sequence));
        model.logits(&batch, 1).expect("runs").values
    });
    assert_eq!(alone.collect::<Vec<_>>(), together.values);
    let last = batch.tokens() - 1;
    let some = model.logits_of_tokens(&batch, &[last], 1).expect("runs");
    assert_eq!(some.row(0), together.row(last));
    let by_token = TaskModel::open(
        with_int8_classifier(tiny("bert-token"), "token")
            .write()
            .path(),
    );
    let by_token = by_token.expect("opens").logits(&batch, 1).expect("runs");
    assert_ne!(by_token, together);
}

/// What wraps a model puts its prefix before the head's names, too.
#[test]
fn a_prefix_of_a_wrapper_is_that_of_the_head() {
    let mut checkpoint = tiny("bert-sequence");
    checkpoint.tensors = checkpoint
        .tensors
        .into_iter()
        .map(|(name, tensor)| (format!("module.{name}"), tensor))
        .collect();
    let batch = batch_of(&sequences("bert-sequence"));
    let wrapped = TaskModel::open(checkpoint.write().path()).expect("opens");
    let plain = open("bert-sequence");
    assert_eq!(
        wrapped.logits(&batch, 1).expect("runs"),
        plain.logits(&batch, 1).expect("runs")
    );
}
