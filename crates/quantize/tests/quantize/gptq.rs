//! GPTQ: whole conversions.

use fewbit_checkpoint::{Checkpoint, StoredWeight};
use fewbit_data::TokenRow;
use fewbit_model::{Encoder, Tap};
use fewbit_numerics::saturation::saturating_pairs;
use fewbit_quantize::calibration::{CalibrationSamples, Calibrator, calibration_sites};
use fewbit_quantize::{
    Backend, BlockScales, CodeLayout, DynamicInputs, EmbeddingStorage, FourBitRecipe,
    GptqCalibration, GroupSize, Int4Options, IntegerRecipe, QuantizeError, Recipe, Rounding,
    WeightCodes, quantize_model, quantize_model_with_gptq,
};

use crate::calibration::source;
use crate::gptq_rounding::output_error;
use crate::tiny_bert::{HIDDEN, INTERMEDIATE, Source, TinyBert};

pub(crate) const TEXTS: [&str; 5] = ["a b c", "d e", "f g h i", "a i", "z y x w v u"];

pub(crate) fn texts(texts: &[&str]) -> CalibrationSamples {
    CalibrationSamples::Texts(texts.iter().map(|&text| text.to_owned()).collect())
}

pub(crate) fn calibration(samples: CalibrationSamples) -> GptqCalibration {
    GptqCalibration::new(samples, 2)
}

pub(crate) fn convert(
    source: &Source,
    recipe: &Recipe,
    calibration: &GptqCalibration,
    name: &str,
) -> Result<Checkpoint, QuantizeError> {
    let out = source.out(name);
    quantize_model_with_gptq(
        &source.directory,
        recipe,
        calibration,
        &out,
        false,
        &mut |_, _, _| {},
    )?;
    Ok(Checkpoint::open(&out)?)
}

fn weights_of(source: &Source, name: &str) -> Vec<u8> {
    std::fs::read(source.out(name).join("model.safetensors")).unwrap()
}

/// The rows of one site.
struct Site<'a>(&'a str, Vec<f32>);

impl Tap for Site<'_> {
    fn wants(&self, site: &str) -> bool {
        site == self.0
    }

    fn see(&mut self, _site: &str, _rows: usize, _columns: usize, values: &[f32]) {
        self.1.extend_from_slice(values);
    }
}

pub(crate) const GPTQ: Rounding = Rounding::Gptq {
    saturation_proof: false,
};

pub(crate) fn int4(group_size: GroupSize, asymmetric: bool) -> Int4Options {
    Int4Options {
        group_size,
        asymmetric,
        ..Int4Options::default()
    }
}

pub(crate) fn int4_recipe(options: Int4Options) -> IntegerRecipe {
    IntegerRecipe::weight_only().with_weights(WeightCodes::Int4(options))
}

#[test]
fn the_outputs_of_each_layer_change_less_than_without_gptq() {
    let source = source(TinyBert::f32());
    let small = GroupSize::Columns(16);
    let int4s = [
        int4(small, false),
        int4(small, true),
        int4(GroupSize::Channel, false),
    ];
    let mut pairs: Vec<(Recipe, Recipe)> = vec![(
        IntegerRecipe::dynamic().into(),
        IntegerRecipe::dynamic().with_rounding(GPTQ).into(),
    )];
    pairs.extend(int4s.map(|options| {
        let plain = int4_recipe(options);
        (plain.clone().into(), plain.with_rounding(GPTQ).into())
    }));
    for layout in [CodeLayout::PackQuantized, CodeLayout::IntQuantized] {
        let groups = WeightCodes::Int8Groups {
            columns: 16,
            layout,
        };
        let plain = IntegerRecipe::weight_only().with_weights(groups);
        pairs.push((plain.clone().into(), plain.with_rounding(GPTQ).into()));
    }
    // Rows of 32 and of 48 columns: blocks hold two rows, or end in the midst of one.
    pairs.extend([FourBitRecipe::nf4(), FourBitRecipe::fp4()].map(|plain| {
        let plain = plain.with_block_size(64);
        (plain.clone().into(), plain.with_gptq(true).into())
    }));
    for (plain, gptq) in pairs {
        let name = gptq.label();
        source
            .quantize_into(&plain, &source.out(&plain.label()), false)
            .unwrap();
        let plain = Checkpoint::open(source.out(&plain.label())).unwrap();
        let gptq = convert(&source, &gptq, &calibration(texts(&TEXTS)), &name).unwrap();
        for (module, before, after) in errors(&source, &plain, &gptq, output_error) {
            assert!(after < before, "{name}: {module}: {after} {before}");
        }
    }
}

/// An error of each linear layer on the texts, given its inputs, of two quantized models.
pub(crate) fn errors(
    source: &Source,
    plain: &Checkpoint,
    calibrated: &Checkpoint,
    error: fn(&[f32], &[f32], &[f32], usize) -> f64,
) -> Vec<(String, f64, f64)> {
    let encoder = Encoder::open(&source.directory).unwrap();
    let spec = encoder.network().spec();
    let batch = encoder.batch(&TEXTS).unwrap();
    let float = source.open();
    let catalogue = spec.catalogue();
    let mut modules = catalogue.linear_modules();
    let mut errors = Vec::new();
    for site in calibration_sites(&catalogue) {
        let mut inputs = Site(&site.name, Vec::new());
        encoder
            .network()
            .hidden_states_tapped(&batch, &mut inputs)
            .unwrap();
        for module in modules.by_ref().take(site.modules.len()) {
            let values = |checkpoint: &Checkpoint| {
                let weight = module.stored_weight(checkpoint).unwrap();
                weight.dequantize(module.shape).unwrap()
            };
            let error_of = |checkpoint| {
                error(
                    &inputs.1,
                    &values(&float),
                    &values(checkpoint),
                    module.shape[1],
                )
            };
            errors.push((module.name.clone(), error_of(plain), error_of(calibrated)));
        }
    }
    errors
}

#[test]
fn every_int8_method_can_have_it() {
    let source = source(TinyBert::f32());
    let mut calibrator =
        Calibrator::prepare(&source.directory, Backend::Native.qconfig().activation()).unwrap();
    calibrator.observe(&TEXTS).unwrap();
    let fixed = calibrator.finish().unwrap().recipe().unwrap();
    let calibration = calibration(texts(&TEXTS));
    for options in [
        IntegerRecipe::dynamic().with_embeddings(EmbeddingStorage::Keep),
        fixed
            .integer()
            .unwrap()
            .clone()
            .with_embeddings(EmbeddingStorage::Keep),
        IntegerRecipe::weight_only().with_embeddings(EmbeddingStorage::Int8),
        IntegerRecipe::from(DynamicInputs::default().with_weight_only(["*.intermediate.dense"]))
            .with_embeddings(EmbeddingStorage::Keep),
    ] {
        for saturation_proof in [false, true] {
            let rounding = Rounding::Gptq { saturation_proof };
            let recipe = Recipe::from(options.clone().with_rounding(rounding));
            let name = recipe.label();
            let checkpoint = convert(&source, &recipe, &calibration, &name).unwrap();
            let spec = fewbit_model::EncoderSpec::from_checkpoint(&checkpoint).unwrap();
            let mut pairs = 0;
            for module in spec.catalogue().linear_modules() {
                let codes = match module.stored_weight(&checkpoint).unwrap() {
                    StoredWeight::Int8 { codes, .. } => codes,
                    StoredWeight::Groups { codes, .. } => codes,
                    other => panic!("{other:?}"),
                };
                pairs += saturating_pairs(&codes, module.shape[1]);
            }
            assert_eq!(pairs == 0, saturation_proof, "{name}");
            Encoder::open(source.out(&name)).unwrap();
            let written = std::fs::read_to_string(source.out(&name).join("recipe.toml")).unwrap();
            assert_eq!(Recipe::from_toml(&written).unwrap(), recipe);
        }
    }
}

#[test]
fn the_result_depends_on_the_samples_alone() {
    let source = source(TinyBert::f32());
    let recipe = Recipe::from(IntegerRecipe::weight_only().with_rounding(Rounding::Gptq {
        saturation_proof: false,
    }));
    convert(&source, &recipe, &calibration(texts(&TEXTS)), "two").unwrap();
    for threads in [1, 5] {
        let calibration = GptqCalibration::new(texts(&TEXTS), threads);
        let name = threads.to_string();
        convert(&source, &recipe, &calibration, &name).unwrap();
        assert_eq!(weights_of(&source, &name), weights_of(&source, "two"));
    }
    // The same texts as token ids.
    let encoder = Encoder::open(&source.directory).unwrap();
    let rows = TEXTS.map(|text| {
        let encoding = encoder.tokenizer().tokenize(text).unwrap();
        TokenRow {
            token_ids: encoding.token_ids,
            token_type_ids: encoding.token_type_ids,
        }
    });
    let rows = calibration(CalibrationSamples::Tokens(rows.to_vec()));
    convert(&source, &recipe, &rows, "rows").unwrap();
    assert_eq!(weights_of(&source, "rows"), weights_of(&source, "two"));
    // Other texts, one of them alone: other codes.
    let one = calibration(texts(&TEXTS[..1]));
    convert(&source, &recipe, &one, "one").unwrap();
    assert_ne!(weights_of(&source, "one"), weights_of(&source, "two"));
}

/// Converts to `out` and returns what progress was told; panics at the first step that is about `stop`.
fn steps(
    source: &Source,
    recipe: &Recipe,
    calibration: &GptqCalibration,
    stop: &str,
) -> Vec<String> {
    let mut told = Vec::new();
    let mut tell = |_: usize, _: usize, what: &str| {
        assert!(!what.starts_with(stop), "interrupted");
        told.push(what.to_owned());
    };
    let (source, out) = (&source.directory, source.out("out"));
    quantize_model_with_gptq(source, recipe, calibration, out, false, &mut tell).unwrap();
    told
}

#[test]
fn an_interrupted_run_goes_on_after_the_last_finished_layers() {
    let gptq = |options: IntegerRecipe| Recipe::from(options.with_rounding(GPTQ));
    let proof = |options: IntegerRecipe| {
        let rounding = Rounding::Gptq {
            saturation_proof: true,
        };
        Recipe::from(options.with_rounding(rounding))
    };
    let weight_only = IntegerRecipe::weight_only;
    goes_on(
        &gptq(weight_only()),
        &[proof(weight_only()), gptq(IntegerRecipe::dynamic())],
    );
    let mixed = |pattern: &str| -> IntegerRecipe {
        DynamicInputs::default().with_weight_only([pattern]).into()
    };
    let of_feed_forward = mixed("*.intermediate.dense");
    goes_on(
        &gptq(of_feed_forward.clone()),
        &[proof(of_feed_forward), gptq(mixed("*.query"))],
    );
    let int4s = [false, true].map(|asymmetric| {
        let options = int4(GroupSize::Columns(16), asymmetric);
        gptq(int4_recipe(options))
    });
    goes_on(&int4s[1], &int4s[..1]);
    let nf4 = FourBitRecipe::nf4().with_gptq(true);
    let double = nf4.clone().with_double_quantization(true);
    goes_on(&double.clone().into(), &[nf4.clone().into()]);
    let mse = double.with_scales(BlockScales::Mse);
    goes_on(&nf4.into(), &[mse.into()]);
}

/// A run of `recipe` can be interrupted; one of the `others` cannot take what is finished.
fn goes_on(recipe: &Recipe, others: &[Recipe]) {
    let source = source(TinyBert::f32());
    let whole = calibration(texts(&TEXTS));
    convert(&source, recipe, &whole, "whole").unwrap();
    let finished = source.out("out.partial");
    assert_eq!(GptqCalibration::path_beside(&source.out("out")), finished);
    // A layer a pass.
    let by_layer = GptqCalibration {
        hessian_bytes: 0,
        finished_layers: Some(finished),
        ..whole
    };
    let interrupted =
        std::panic::catch_unwind(|| steps(&source, recipe, &by_layer, "calibration, pass 2 of 2"));
    assert!(interrupted.is_err());
    assert_eq!(source.siblings(), ["out.partial", "whole"]);

    // Of other texts, or another recipe, nothing can be used.
    let other_texts = GptqCalibration {
        samples: texts(&TEXTS[1..]),
        ..by_layer.clone()
    };
    let refused = convert(&source, recipe, &other_texts, "out")
        .unwrap_err()
        .to_string();
    let expected = "out.partial/pass-1: expected layers of the same model, recipe and calibration samples, found those of others";
    assert!(refused.contains(expected), "{refused}");
    for other in others {
        let refused = convert(&source, other, &by_layer, "out")
            .unwrap_err()
            .to_string();
        assert!(refused.contains(expected), "{refused}");
    }
    assert_eq!(source.siblings(), ["out.partial", "whole"]);

    let told = steps(&source, recipe, &by_layer, "calibration, pass 1 of 2");
    assert!(
        told.iter()
            .any(|what| what == "calibration, pass 2 of 2: 5 of 5 samples")
    );
    assert_eq!(weights_of(&source, "out"), weights_of(&source, "whole"));
    assert_eq!(source.siblings(), ["out", "whole"]);
}

#[test]
fn skipped_layers_stay_float_and_others_are_reported_in_file_order() {
    let source = source(TinyBert::f32());
    let nearest = IntegerRecipe::dynamic()
        .with_skip(["*.layer.0.*"])
        .with_embeddings(EmbeddingStorage::Int8);
    let recipe = Recipe::from(nearest.clone().with_rounding(Rounding::Gptq {
        saturation_proof: false,
    }));
    let mut steps = Vec::new();
    let report = quantize_model_with_gptq(
        &source.directory,
        &recipe,
        &calibration(texts(&TEXTS)),
        source.out("out"),
        false,
        &mut |done, total, what| steps.push((done, total, what.to_owned())),
    )
    .unwrap();
    let plain = source
        .quantize_into(&nearest.into(), &source.out("plain"), false)
        .unwrap();
    let modules = |report: &fewbit_quantize::QuantizeReport| -> Vec<String> {
        let modules = report.modules.iter();
        modules.map(|module| module.module.clone()).collect()
    };
    assert_eq!(modules(&report), modules(&plain));
    assert_eq!(report.output_bytes, plain.output_bytes);
    // Bytes never go back, and reach the end; what is collected is told, too.
    assert!(steps.is_sorted_by_key(|(done, ..)| *done));
    assert!(steps.last().is_some_and(|(done, total, _)| done == total));
    assert!(
        steps
            .iter()
            .any(|(.., what)| what == "calibration, pass 1 of 1: 5 of 5 samples")
    );
}

#[test]
fn what_gptq_cannot_do_is_refused_and_leaves_nothing() {
    let good = source(TinyBert::f32());
    let recipe = Recipe::from(IntegerRecipe::dynamic().with_rounding(Rounding::Gptq {
        saturation_proof: false,
    }));
    let text = |result: Result<Checkpoint, QuantizeError>| result.unwrap_err().to_string();
    let without = quantize_model(
        &good.directory,
        &recipe,
        good.out("out"),
        false,
        &mut |_, _, _| {},
    );
    insta::assert_snapshot!(without.unwrap_err(), @"
    recipe: `gptq`: expected calibration texts beside it, found none
      hint: give some: `quantize_model_with_gptq`, or `--calibration FILE` on the command line
    ");
    let weighted = FourBitRecipe::nf4().with_scales(BlockScales::ActivationWeighted);
    let without = quantize_model(
        &good.directory,
        &weighted.into(),
        good.out("out"),
        false,
        &mut |_, _, _| {},
    );
    insta::assert_snapshot!(without.unwrap_err(), @"
    recipe: `scales`: expected calibration texts beside it, found none
      hint: give some: `quantize_model_with_gptq`, or `--calibration FILE` on the command line
    ");
    insta::assert_snapshot!(text(convert(&good, &recipe, &calibration(texts(&[])), "out")), @"
    calibration: expected at least one calibration text, found none
      hint: a few hundred texts like those that the model will see
    ");
    let none = GptqCalibration::new(texts(&TEXTS), 0);
    insta::assert_snapshot!(text(convert(&good, &recipe, &none, "out")), @"threads: expected at least 1 that can be started, found 0");
    assert_eq!(good.siblings(), [""; 0]);

    // Activations of 1e24, which later weights bring back: finite, but not their squares.
    let mut large = TinyBert::f32();
    let layer = "bert.encoder.layer.1";
    for column in 0..HIDDEN {
        large.poke(&format!("{layer}.intermediate.dense.weight"), column, 1e24);
    }
    for row in 0..HIDDEN {
        let output = format!("{layer}.output.dense.weight");
        large.poke(&output, row * INTERMEDIATE, 1e-24);
    }
    let large = source(large);
    insta::assert_snapshot!(text(convert(&large, &recipe, &calibration(texts(&TEXTS)), "out")), @"
    encoder.layer.1.output.dense.input: expected activations whose squares are finite in f32, found larger ones, or NaN
      hint: the model overflows on one of the calibration texts: quantize it without GPTQ, or skip the layer
    ");
    let skipping = recipe.integer().unwrap().clone();
    let skipping = skipping.with_skip(["*.layer.1.output.dense"]).into();
    convert(&large, &skipping, &calibration(texts(&TEXTS)), "skipping").unwrap();
    assert_eq!(large.siblings(), ["skipping"]);

    // Activations that overflow are the model's own error.
    let mut infinite = TinyBert::f32();
    for column in 0..HIDDEN {
        infinite.poke(&format!("{layer}.intermediate.dense.weight"), column, 3e38);
    }
    let infinite = source(infinite);
    let error = text(convert(
        &infinite,
        &recipe,
        &calibration(texts(&TEXTS)),
        "out",
    ));
    assert!(
        error.contains("encoder.layer.1.intermediate.dense"),
        "{error}"
    );
    assert_eq!(infinite.siblings(), [""; 0]);
}
