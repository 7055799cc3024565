//! Trainings of a tiny model.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use fewbit_checkpoint::stored_weight::Int8Activations;
use fewbit_checkpoint::{Checkpoint, StoredWeight};
use fewbit_numerics::dtype::DType;
use fewbit_quantize::calibration::{CalibrationSamples, Calibrator};
use fewbit_quantize::{
    Backend, CodeLayout, FourBitRecipe, GroupSize, Int4Options, IntegerRecipe, Method,
    RecipeFields, WeightCodes,
};

use super::*;
use crate::tiny_bert::{Source, TinyBert};
use fewbit_model::TaskModel;

/// A model that reads texts of the letters a to z.
fn encoder() -> TinyBert {
    let mut model = TinyBert::new(DType::F32, "");
    model.config["architectures"] = json!(["BertModel"]);
    model
}

/// The same as a classifier of so many labels, whose head has three outputs; names of the encoder have a prefix.
fn classifier(labels: usize) -> TinyBert {
    let mut model = TinyBert::new(DType::F32, "bert.");
    model.config["num_labels"] = json!(labels);
    model
}

fn source() -> Source {
    written(&encoder())
}

/// The model with linear layers whose outputs outweigh what they are added to, so that their codes show.
fn strong_source(mut model: TinyBert) -> Source {
    for tensor in &mut model.tensors {
        let name = &tensor.plan.name;
        let is_inside = ["encoder.", "pooler.", "classifier."]
            .iter()
            .any(|start| name.trim_start_matches("bert.").starts_with(start));
        if is_inside && tensor.plan.shape.len() == 2 {
            for bytes in tensor.bytes.chunks_exact_mut(4) {
                let value = f32::from_le_bytes(bytes.try_into().unwrap());
                bytes.copy_from_slice(&(8.0 * value).to_le_bytes());
            }
        }
    }
    written(&model)
}

fn written(model: &TinyBert) -> Source {
    let source = model.write();
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let letters = ('a'..='z').map(String::from);
    let rest = (0..9).map(|index| format!("w{index}"));
    let words: Vec<String> = special.into_iter().chain(letters).chain(rest).collect();
    fs::write(source.directory.join("vocab.txt"), words.join("\n")).unwrap();
    source
}

/// Texts of one to seven letters.
fn texts(number: usize) -> CalibrationSamples {
    let letter = |seed: usize| char::from(b'a' + (seed * 7919 % 26) as u8).to_string();
    let text = |index: usize| {
        let letters = (0..=index % 7).map(|place| letter(index * 31 + place));
        letters.collect::<Vec<_>>().join(" ")
    };
    CalibrationSamples::Texts((0..number).map(text).collect())
}

fn options() -> TrainingOptions {
    TrainingOptions {
        steps: 6,
        batch_size: 10,
        learning_rate: Some(1e-3),
        evaluation_interval: 2,
        ..TrainingOptions::default()
    }
}

fn int4(group_size: GroupSize, asymmetric: bool) -> WeightCodes {
    WeightCodes::Int4(Int4Options {
        group_size,
        asymmetric,
        ..Int4Options::default()
    })
}

fn all_static(source: &Source) -> Recipe {
    let settings = Backend::Native.qconfig().activation();
    let mut calibrator = Calibrator::prepare(&source.directory, settings).unwrap();
    calibrator.observe(&["a b c", "d e f g", "h i"]).unwrap();
    calibrator.finish().unwrap().recipe().unwrap()
}

fn schemes(source: &Source) -> Vec<Recipe> {
    let eight = GroupSize::Columns(8);
    let mixed = IntegerRecipe::dynamic()
        .with_weights(int4(eight, false))
        .with_modules([("*.query", WeightCodes::Int8)]);
    vec![
        IntegerRecipe::dynamic().into(),
        IntegerRecipe::weight_only().into(),
        all_static(source),
        IntegerRecipe::dynamic()
            .with_weights(int4(eight, false))
            .into(),
        IntegerRecipe::weight_only()
            .with_weights(int4(eight, true))
            .into(),
        IntegerRecipe::weight_only()
            .with_weights(int4(GroupSize::Channel, false))
            .into(),
        mixed.into(),
        FourBitRecipe::nf4().into(),
        FourBitRecipe::nf4().with_double_quantization(true).into(),
        FourBitRecipe::fp4().into(),
    ]
}

fn train(
    source: &Source,
    recipe: &Recipe,
    options: &TrainingOptions,
    out: &Path,
    resume: bool,
) -> Result<TrainingReport, TrainError> {
    let output = OutputOptions {
        resume,
        ..OutputOptions::default()
    };
    train_model(
        &source.directory,
        recipe,
        &texts(60),
        options,
        out,
        &output,
        &mut |_| {},
    )
}

fn weights(out: &Path) -> Vec<u8> {
    fs::read(out.join("model.safetensors")).unwrap()
}

#[test]
fn the_written_model_has_the_numbers_of_the_last_forward_pass() {
    for source in [source(), written(&classifier(3))] {
        check_written_models(&source);
    }
}

fn check_written_models(source: &Source) {
    for (number, recipe) in schemes(source).into_iter().enumerate() {
        let label = recipe.label();
        let out = source.out(&format!("out-{number}"));
        let (samples, options) = (texts(60), options());
        let saved = SavedTraining::beside(&out, &json!({}), false).unwrap();
        let trainer = Trainer::new(
            (
                &source.directory,
                start::trained_head(&source.directory).unwrap().as_ref(),
            ),
            &recipe,
            &samples,
            &options,
            &saved,
            &mut |_| {},
        )
        .unwrap();
        let trained = trainer.run(&saved, &mut |_| {}).unwrap();
        assert_eq!(
            (trained.course.steps, trained.end),
            (6, TrainingEnd::AllSteps)
        );
        let student = &trained.student;
        let written = start::written_recipe(&recipe).unwrap();
        student
            .conversion(&source.directory, &written)
            .unwrap()
            .write(None, &out, &OutputOptions::default(), &mut |_, _, _| {})
            .unwrap();

        let found = Checkpoint::open(&out).unwrap();
        let kernels = Kernels::from_environment().unwrap();
        let leaves = student.parameters(kernels).unwrap();
        let catalogue = trainer.model.spec().catalogue();
        let mut inputs = crate::input_quantizer::InputQuantizers::default();
        for module in catalogue.linear_modules() {
            let stored = module.stored_weight(&found).unwrap();
            assert!(inputs.add(module, &stored));
            let name = format!("{}.weight", module.name);
            let forward = leaves.parameters.get(&name).unwrap().flatten_all().unwrap();
            let forward = forward.to_vec1::<f32>().unwrap();
            assert_eq!(
                forward,
                stored.dequantize(module.shape).unwrap(),
                "{label}: {name}"
            );
        }
        // Those of static inputs are the ones that were trained.
        for (module, trained) in &student.static_inputs() {
            let module = catalogue.named(module).unwrap();
            let found = module.stored_weight(&found).unwrap();
            let StoredWeight::Int8 {
                activations:
                    Int8Activations::Static {
                        scale, zero_point, ..
                    },
                ..
            } = found
            else {
                panic!("{label}: {}", module.name);
            };
            assert_eq!(
                (scale, zero_point),
                (trained.scale, i32::from(trained.zero_point))
            );
        }
        let others = student.tensors.iter();
        for tensor in
            others.filter(|tensor| found.contains(&tensor.name) && tensor.shape.len() == 1)
        {
            let values = found.require(&tensor.name).unwrap().to_f32().unwrap();
            assert_eq!(tensor.values, *values, "{label}: {}", tensor.name);
        }

        // What training changed shows, and the executor computes what the student did.
        let begun = Checkpoint::open(saved.start()).unwrap();
        let bias = format!("{}encoder.layer.0.output.dense.bias", catalogue.prefix);
        let of = |checkpoint: &Checkpoint| {
            checkpoint
                .require(&bias)
                .unwrap()
                .to_f32()
                .unwrap()
                .to_vec()
        };
        if trained.course.best_step > 0 {
            assert_ne!(of(&begun), of(&found), "{label}");
        }
        let executor = Encoder::open(&out).unwrap();
        let part = &trainer.parts(&[0, 1, 2, 3]).unwrap()[0];
        let states = trainer
            .model
            .hidden_states(
                &leaves.parameters,
                part,
                &student.inputs.with(&leaves.parameters),
            )
            .unwrap();
        let expected = TeacherStates::of(executor.network(), part).unwrap();
        let pooling = PoolingWeights::new(None, part).unwrap();
        let cosines = pooling
            .cosines(
                states.last().unwrap(),
                &pooling.pooled(expected.states.last().unwrap()).unwrap(),
            )
            .unwrap();
        // A sum that is rounded otherwise may move an input across a tie, by one step in 255; products that are exact stay far above.
        for cosine in cosines.to_vec1::<f32>().unwrap() {
            assert!(cosine > 0.9999, "{label}: {cosine}");
        }
        if let Some(head) = trainer.model.head() {
            // The head is there as it was trained, and gives the executor the bits that it gave the student.
            for module in head.modules() {
                let name = format!("{}.weight", module.name);
                let written = found.require(&name).unwrap().to_f32().unwrap();
                let forward = leaves.parameters.get(&name).unwrap().flatten_all().unwrap();
                assert_eq!(
                    forward.to_vec1::<f32>().unwrap(),
                    *written,
                    "{label}: {name}"
                );
            }
            let last = expected.states.last().unwrap();
            let inputs = student.inputs.with(&leaves.parameters);
            let logits = trainer
                .model
                .logits(&leaves.parameters, part, last, &inputs);
            let logits = logits.unwrap().unwrap().flatten_all().unwrap();
            let executor = TaskModel::open(&out).unwrap();
            assert_eq!(
                logits.to_vec1::<f32>().unwrap(),
                executor.logits(part, 1).unwrap().values,
                "{label}"
            );
        }
        saved.remove().unwrap();
    }
}

#[test]
fn training_brings_the_logits_of_a_classifier_nearer_to_those_of_its_teacher() {
    let source = strong_source(classifier(3));
    let options = TrainingOptions {
        steps: 60,
        evaluation_interval: 20,
        ..options()
    };
    let recipe = IntegerRecipe::weight_only()
        .with_weights(int4(GroupSize::Channel, false))
        .into();
    let out = source.out("out");
    let report = train(&source, &recipe, &options, &out, false).unwrap();
    let (before, after) = (report.logits_before.unwrap(), report.logits_after.unwrap());
    assert_eq!(after.measure, LogitMeasure::KullbackLeibler);
    assert!(
        after.distance < 0.9 * before.distance,
        "{before:?} {after:?}"
    );
    assert!(
        after.same_answers >= before.same_answers,
        "{before:?} {after:?}"
    );
    // Pooler and classifier were trained.
    let (source, out) = (source.open(), Checkpoint::open(out).unwrap());
    for name in [
        "bert.pooler.dense.weight",
        "classifier.weight",
        "classifier.bias",
    ] {
        let of = |checkpoint: &Checkpoint| {
            let view = checkpoint.require(name).unwrap();
            assert_eq!(view.info.dtype, DType::F32);
            view.to_f32().unwrap().to_vec()
        };
        assert_ne!(of(&source), of(&out), "{name}");
    }
}

#[test]
fn a_head_that_does_not_fit_is_refused_before_anything_is_written() {
    let mut without_pooler = classifier(3);
    without_pooler
        .tensors
        .retain(|tensor| !tensor.plan.name.starts_with("bert.pooler."));
    let mut not_finite = classifier(3);
    not_finite.poke("classifier.weight", 7, f32::NAN);
    for (model, expected) in [
        (classifier(1), "config.json has 1 labels"),
        (without_pooler, "`bert.pooler.dense.weight`"),
        (not_finite, "NaN"),
    ] {
        let source = written(&model);
        let recipe: Recipe = IntegerRecipe::dynamic().into();
        let out = source.out("out");
        let error = train(&source, &recipe, &options(), &out, false).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(source.siblings(), Vec::<String>::new(), "{expected}");
    }
    // Where sentence-transformers makes embeddings of it, it has no head to train.
    let source = written(&classifier(1));
    let module = |index: usize, class: &str, path: &str| {
        let class = format!("sentence_transformers.models.{class}");
        json!({"idx": index, "name": index.to_string(), "path": path, "type": class})
    };
    let modules = json!([
        module(0, "Transformer", ""),
        module(1, "Pooling", "1_Pooling")
    ]);
    let pooling = json!({"word_embedding_dimension": 32, "pooling_mode_mean_tokens": true});
    fs::create_dir(source.directory.join("1_Pooling")).unwrap();
    fs::write(
        source.directory.join("1_Pooling/config.json"),
        pooling.to_string(),
    )
    .unwrap();
    fs::write(source.directory.join("modules.json"), modules.to_string()).unwrap();
    let recipe: Recipe = IntegerRecipe::dynamic().into();
    let report = train(&source, &recipe, &options(), &source.out("out"), false).unwrap();
    assert_eq!(report.logits_after, None);
}

#[test]
fn training_brings_the_student_nearer_to_its_teacher() {
    let source = strong_source(encoder());
    let options = TrainingOptions {
        steps: 60,
        evaluation_interval: 20,
        ..options()
    };
    let recipe = IntegerRecipe::weight_only()
        .with_weights(int4(GroupSize::Channel, false))
        .into();
    let report = train(&source, &recipe, &options, &source.out("out"), false).unwrap();
    assert!(
        1.0 - report.cosine_after < 0.9 * (1.0 - report.cosine_before),
        "{} {}",
        report.cosine_before,
        report.cosine_after
    );
    assert_eq!((report.trained_texts, report.held_out_texts), (57, 3));
    assert_eq!((report.logits_before, report.logits_after), (None, None));
    assert_eq!(source.siblings(), ["out"]);
    let recipe = Recipe::read(source.out("out").join("recipe.toml")).unwrap();
    assert!(recipe.is_trained());
    assert!(recipe.label().contains("+ QAT"));
}

#[test]
fn an_interrupted_training_goes_on_to_the_same_bytes_on_any_number_of_threads() {
    for source in [source(), written(&classifier(3))] {
        check_interruption(&source);
    }
}

fn check_interruption(source: &Source) {
    let recipe = IntegerRecipe::dynamic().into();
    let whole = source.out("whole");
    train(source, &recipe, &options(), &whole, false).unwrap();

    let out = source.out("out");
    let threads = TrainingOptions {
        threads: 2,
        ..options()
    };
    let interrupted = catch_unwind(AssertUnwindSafe(|| {
        let output = OutputOptions::default();
        let mut stop = |state: TrainingProgress| assert!(state.step < 5, "stopped");
        train_model(
            &source.directory,
            &recipe,
            &texts(60),
            &threads,
            &out,
            &output,
            &mut stop,
        )
    }));
    assert!(interrupted.is_err());
    assert!(!out.exists());
    assert!(source.out("out.training").join("step-4").exists());

    // Nobody said that it goes on; or it is another one.
    let error = train(source, &recipe, &options(), &out, false).unwrap_err();
    assert!(error.to_string().contains("--resume"), "{error}");
    let other = TrainingOptions {
        seed: 1,
        ..options()
    };
    let error = train(source, &recipe, &other, &out, true).unwrap_err();
    assert!(
        error.to_string().contains("a training of options"),
        "{error}"
    );
    let other = FourBitRecipe::nf4().into();
    let error = train(source, &other, &options(), &out, true).unwrap_err();
    assert!(
        error.to_string().contains("a training of recipe"),
        "{error}"
    );

    let report = train(source, &recipe, &options(), &out, true).unwrap();
    assert_eq!(report.steps, 6);
    assert_eq!(weights(&out), weights(&whole));
    assert_eq!(source.siblings(), ["out", "whole"]);
}

#[test]
fn a_training_that_is_interrupted_before_it_begins_leaves_nothing_to_go_on_from() {
    let source = source();
    let recipe = IntegerRecipe::dynamic().into();
    let out = source.out("out");
    let mut seen = Vec::new();
    let interrupted = catch_unwind(AssertUnwindSafe(|| {
        let mut stop = |state: TrainingProgress| {
            seen.push(state);
            panic!("stopped");
        };
        train_model(
            &source.directory,
            &recipe,
            &texts(60),
            &options(),
            &out,
            &OutputOptions::default(),
            &mut stop,
        )
    }));
    assert!(interrupted.is_err());
    let beginning = TrainingProgress {
        step: 0,
        steps: 6,
        loss: None,
        cosine: None,
        logits: None,
    };
    assert_eq!(seen, [beginning]);
    // Of other options, too, and without saying that it goes on.
    let other = TrainingOptions {
        seed: 1,
        ..options()
    };
    train(&source, &recipe, &other, &out, false).unwrap();
    assert_eq!(source.siblings(), ["out"]);
}

#[test]
fn a_directory_of_someone_else_is_not_taken_for_a_training() {
    let source = source();
    let recipe = IntegerRecipe::dynamic().into();
    let (out, other) = (source.out("out"), source.out("out.training"));
    fs::create_dir(&other).unwrap();
    fs::write(other.join("notes.txt"), "mine").unwrap();
    for resume in [false, true] {
        train(&source, &recipe, &options(), &out, resume).unwrap_err();
        assert_eq!(fs::read(other.join("notes.txt")).unwrap(), b"mine");
    }
}

#[test]
fn numbers_that_are_not_finite_end_a_training_with_what_was_best() {
    for source in [source(), written(&classifier(3))] {
        check_numbers_that_are_not_finite(&source);
    }
}

fn check_numbers_that_are_not_finite(source: &Source) {
    let options = TrainingOptions {
        learning_rate: Some(1e30),
        ..options()
    };
    let recipe: Recipe = IntegerRecipe::dynamic().into();
    let out = source.out("out");
    let report = train(source, &recipe, &options, &out, false).unwrap();
    assert_eq!((report.end, report.best_step), (TrainingEnd::NotFinite, 0));
    assert_eq!(report.cosine_after, report.cosine_before);
    assert_eq!(report.logits_after, report.logits_before);
    Encoder::open(&out).unwrap();
}

#[test]
fn options_and_recipes_out_of_range_are_refused_before_anything_is_written() {
    let source = source();
    let int8: Recipe = IntegerRecipe::dynamic().into();
    let groups_of_eight = RecipeFields {
        group_size: Some(GroupSize::Columns(8)),
        ..RecipeFields::new(Method::WeightOnly)
    };
    let groups_of_eight = Recipe::try_from(groups_of_eight).unwrap();
    let of_awq = IntegerRecipe::weight_only()
        .with_weights(WeightCodes::Int4(Int4Options {
            layout: CodeLayout::Awq,
            ..Int4Options::default()
        }))
        .into();
    let without_learning = TrainingOptions {
        learning_rate: Some(0.0),
        ..options()
    };
    let not_a_number = TrainingOptions {
        learning_rate: Some(f64::NAN),
        ..options()
    };
    let too_many = TrainingOptions {
        batch_size: 60,
        ..options()
    };
    let no_steps = TrainingOptions {
        steps: 0,
        ..options()
    };
    for (recipe, options, expected) in [
        (
            &int8,
            &without_learning,
            "learning rate: expected a number above 0",
        ),
        (&int8, &not_a_number, "learning rate"),
        (
            &int8,
            &too_many,
            "training data: expected at least 63 texts",
        ),
        (&int8, &no_steps, "steps: expected at least 1"),
        (&groups_of_eight, &options(), "int8 weights by row"),
        (&Recipe::Fp16, &options(), "floats need no training"),
        (
            &of_awq,
            &options(),
            "layout: expected pack-quantized or int-quantized, found awq",
        ),
    ] {
        let out = source.out("out");
        let error = train(&source, recipe, options, &out, false).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(source.siblings(), Vec::<String>::new(), "{expected}");
    }
}

#[test]
fn a_recipe_of_a_trained_model_asks_for_texts() {
    let source = source();
    let recipe: Recipe = IntegerRecipe::dynamic().with_training(true).into();
    let out: PathBuf = source.out("out");
    let error = source.quantize_into(&recipe, &out, false).unwrap_err();
    assert!(error.to_string().contains("--method qat"), "{error}");
    assert_eq!(source.siblings(), Vec::<String>::new());
}
