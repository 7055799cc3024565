//! The text of every error, and that nothing is left behind.

use std::fs;

use fewbit_numerics::dtype::DType;
use fewbit_quantize::{
    FourBitRecipe, IntegerRecipe, Method, QuantizeError, QuantizePlan, Recipe, StaticInput,
    StaticInputs,
};
use serde_json::json;

use crate::tiny_bert::{HIDDEN, LAYERS, Source, TinyBert};

/// Quantizes, expects an error, checks that nothing was written, and returns the error's text with
/// `ROOT` for the temporary directory.
fn error_text(source: &Source, recipe: &Recipe) -> String {
    let error = source.quantize(recipe).unwrap_err();
    assert!(source.siblings().is_empty(), "{:?}", source.siblings());
    shown(source, &error)
}

fn shown(source: &Source, error: &QuantizeError) -> String {
    let real = source.root.path().canonicalize().unwrap();
    error
        .to_string()
        .replace(&real.display().to_string(), "ROOT")
        .replace(&source.root.path().display().to_string(), "ROOT")
}

#[test]
fn nan_in_a_quantized_weight() {
    let mut model = TinyBert::f32();
    model.poke(
        "bert.encoder.layer.1.output.dense.weight",
        3 * 48 + 17,
        f32::NAN,
    );
    let source = model.write();
    let module = "encoder.layer.1.output.dense".to_owned();
    let input = StaticInput {
        scale: 0.1,
        zero_point: 0,
    };
    let calibrated = IntegerRecipe::from(StaticInputs::new([(module, input)].into())).into();
    for recipe in Recipe::standard().into_iter().chain([calibrated]) {
        let text = error_text(&source, &recipe);
        assert!(
            text.contains("tensor `bert.encoder.layer.1.output.dense.weight`"),
            "{text}"
        );
        assert!(text.contains("found NaN at [3, 17]"), "{text}");
    }
    insta::assert_snapshot!(error_text(&source, &Recipe::new(Method::Nf4)), @r"
    ROOT/source/model.safetensors: tensor `bert.encoder.layer.1.output.dense.weight`: expected finite values, found NaN at [3, 17]
      hint: the checkpoint is damaged or its training diverged
    ");
}

#[test]
fn infinity_in_a_tensor_that_stays_float() {
    let mut model = TinyBert::f32();
    model.poke("bert.embeddings.LayerNorm.bias", 31, f32::NEG_INFINITY);
    insta::assert_snapshot!(error_text(&model.write(), &Recipe::new(Method::Dynamic)), @r"
    ROOT/source/model.safetensors: tensor `bert.embeddings.LayerNorm.bias`: expected finite values, found -inf at [31]
      hint: the checkpoint is damaged or its training diverged
    ");
}

#[test]
fn overflow_in_fp16_and_in_bf16() {
    let mut model = TinyBert::f32();
    model.poke("classifier.weight", 33, -65520.0);
    insta::assert_snapshot!(error_text(&model.write(), &Recipe::new(Method::Fp16)), @r"
    ROOT/source/model.safetensors: tensor `classifier.weight`: expected values in the range of float16, found -65520.0 at [1, 1]
      hint: the largest fp16 value is 65504: use the method `bf16`, whose range is that of f32
    ");
    // The largest value that still rounds down.
    model.poke("classifier.weight", 33, 65519.99);
    model.write().quantize(&Recipe::new(Method::Fp16)).unwrap();
    model.poke("classifier.weight", 33, f32::MAX);
    insta::assert_snapshot!(error_text(&model.write(), &Recipe::new(Method::Bf16)), @r"
    ROOT/source/model.safetensors: tensor `classifier.weight`: expected values in the range of bfloat16, found 3.4028235e38 at [1, 1]
      hint: the value is within half a step of the largest f32: the checkpoint is likely damaged
    ");
}

#[test]
fn a_weight_of_the_wrong_shape() {
    let mut model = TinyBert::f32();
    model
        .tensor("bert.encoder.layer.0.intermediate.dense.weight")
        .plan
        .shape = vec![32, 48];
    insta::assert_snapshot!(error_text(&model.write(), &Recipe::new(Method::Dynamic)), @r"
    ROOT/source/model.safetensors: tensor `bert.encoder.layer.0.intermediate.dense.weight`: shape: expected [48, 32], found [32, 48]
      hint: the expected shape follows from the sizes in config.json; the two files may belong to different models
    ");
}

#[test]
fn a_weight_of_the_wrong_dtype() {
    let mut model = TinyBert::f32();
    let tensor = model.tensor("bert.encoder.layer.0.output.dense.weight");
    tensor.plan.dtype = DType::F8E4M3;
    tensor.bytes = vec![0; 32 * 48];
    let source = model.write();
    insta::assert_snapshot!(error_text(&source, &Recipe::new(Method::Dynamic)), @r"
    ROOT/source/model.safetensors: tensor `bert.encoder.layer.0.output.dense.weight`: expected F32, F16, BF16 or F64 elements, found F8_E4M3
      hint: convert the checkpoint to one of these dtypes first
    ");
    assert_eq!(
        error_text(&source, &Recipe::new(Method::Fp16)),
        error_text(&source, &Recipe::new(Method::Dynamic))
    );
}

#[test]
fn more_columns_than_exact_int8_products_have() {
    use fewbit_numerics::activation::MAX_INT8_COLUMNS;
    let wide = |columns: usize| {
        let mut model = TinyBert::f32();
        model.config["intermediate_size"] = columns.into();
        for layer in 0..LAYERS {
            let layer = format!("bert.encoder.layer.{layer}");
            for (tensor, shape) in [
                ("intermediate.dense.weight", vec![columns, HIDDEN]),
                ("intermediate.dense.bias", vec![columns]),
                ("output.dense.weight", vec![HIDDEN, columns]),
            ] {
                let tensor = model.tensor(&format!("{layer}.{tensor}"));
                tensor.bytes = vec![0; 2 * shape.iter().product::<usize>()];
                (tensor.plan.shape, tensor.plan.dtype) = (shape, DType::F16);
            }
        }
        model.write()
    };
    let source = wide(MAX_INT8_COLUMNS + 1);
    insta::assert_snapshot!(error_text(&source, &Recipe::new(Method::Dynamic)), @r"
    ROOT/source/model.safetensors: tensor `bert.encoder.layer.0.output.dense.weight`: columns: expected at most 65793 where activations are quantized, found 65794
      hint: sums of more products of 8-bit integers can overflow 32 bits: name the layer in `weight_only`, use the method `weight-only`, or skip the layer
    ");
    let plan = |source: &Source, recipe: &Recipe| QuantizePlan::new(&source.open(), recipe);
    for recipe in [
        Recipe::new(Method::WeightOnly),
        Recipe::new(Method::Nf4),
        IntegerRecipe::dynamic()
            .with_skip(["*.layer.?.output.dense"])
            .into(),
    ] {
        plan(&source, &recipe).unwrap();
    }
    plan(&wide(MAX_INT8_COLUMNS), &Recipe::new(Method::Dynamic)).unwrap();
}

#[test]
fn a_missing_weight() {
    let mut model = TinyBert::f32();
    model
        .tensors
        .retain(|tensor| tensor.plan.name != "bert.encoder.layer.0.attention.self.key.weight");
    let text = error_text(&model.write(), &Recipe::new(Method::WeightOnly));
    assert!(
        text.contains("bert.encoder.layer.0.attention.self.key.weight"),
        "{text}"
    );
}

#[test]
fn a_source_that_is_quantized_already() {
    let source = TinyBert::f32().write();
    for (method, name) in [(Method::Nf4, "nf4"), (Method::Dynamic, "int8")] {
        let quantized = source
            .quantize_into(&Recipe::new(method), &source.out(name), false)
            .unwrap();
        let error = fewbit_quantize::quantize_model(
            &quantized.output,
            &Recipe::new(Method::Fp4),
            source.out("twice"),
            false,
            &mut |_, _, _| {},
        )
        .unwrap_err();
        if method == Method::Nf4 {
            insta::assert_snapshot!(shown(&source, &error), @r"
            ROOT/nf4/config.json: `quantization_config`: expected a float checkpoint, found one quantized with bitsandbytes nf4
              hint: start from the float checkpoint that it was made from; where that is lost, `fewbit convert` gives floats again (--to f32)
            ");
        } else {
            insta::assert_snapshot!(shown(&source, &error), @r"
            ROOT/int8/config.json: `quantization_config`: expected a float checkpoint, found one quantized with compressed-tensors int-quantized
              hint: start from the float checkpoint that it was made from; where that is lost, `fewbit convert` gives floats again (--to f32)
            ");
        }
        assert!(!source.out("twice").exists());
    }
}

#[test]
fn an_unknown_architecture() {
    let mut model = TinyBert::f32();
    model.config["model_type"] = json!("mamba");
    let text = error_text(&model.write(), &Recipe::new(Method::Dynamic));
    assert!(
        text.contains("model_type") && text.contains("mamba"),
        "{text}"
    );
}

#[test]
fn an_output_that_is_not_empty() {
    let source = TinyBert::f32().write();
    let out = source.out("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("notes.txt"), "mine").unwrap();
    let error = source
        .quantize_into(&Recipe::new(Method::Fp16), &out, false)
        .unwrap_err();
    assert!(shown(&source, &error).starts_with("ROOT/out: "), "{error}");
    assert_eq!(source.siblings(), ["out"]);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
}

#[test]
fn an_output_that_overlaps_the_source() {
    let source = TinyBert::f32().write();
    let text = |out: &std::path::Path| {
        let error = source
            .quantize_into(&Recipe::new(Method::Fp16), out, true)
            .unwrap_err();
        shown(&source, &error)
    };
    insta::assert_snapshot!(text(&source.directory), @r"
    ROOT/source: expected an output directory apart from the source ROOT/source, found one that is the source
      hint: write to a directory beside it
    ");
    insta::assert_snapshot!(text(&source.directory.join("../source/int8")), @r"
    ROOT/source/../source/int8: expected an output directory apart from the source ROOT/source, found one that lies in it
      hint: write to a directory beside it
    ");
    insta::assert_snapshot!(text(source.root.path()), @r"
    ROOT: expected an output directory apart from the source ROOT/source, found one that contains it
      hint: write to a directory beside it
    ");
    assert!(source.directory.join("model.safetensors").exists());
    assert!(!source.directory.join("int8").exists());
}

#[test]
fn an_invalid_recipe_made_in_code() {
    let source = TinyBert::f32().write();
    let recipe = Recipe::from(FourBitRecipe::nf4().with_block_size(65));
    let text = error_text(&source, &recipe);
    assert!(text.starts_with("recipe: `block_size`: "), "{text}");
}
