//! Layouts beside those of the methods' defaults: GPTQ, AWQ, small floats, int8 in groups, LLM.int8. What is written is read, and is what the reference gives.

use std::collections::BTreeMap;

use fewbit_checkpoint::StoredWeight;
use fewbit_checkpoint::compressed_tensors::WeightScales;
use fewbit_checkpoint::small_floats::SmallFloatType;
use fewbit_numerics::absmax::absmax;
use fewbit_numerics::dtype::DType;
use fewbit_numerics::int4_groups::{GroupScales, GroupStorage, Int4Settings, quantize_int4};
use fewbit_numerics::rows::{
    dequantize_groups, llm_int8_absmax, llm_int8_scale, quantize_rows_int8,
};
use fewbit_numerics::small_floats::{
    dequantize_e2m1, e4m3_to_f32, e8m0_to_f32, f32_to_e4m3, fp8_scale, mxfp4_scale,
    nvfp4_global_scale, nvfp4_scale, quantize_e2m1,
};
use fewbit_quantize::{
    BlockScales, CodeLayout, EmbeddingStorage, GroupSize, Int4Options, IntegerRecipe, QuantizePlan,
    Recipe, Rounding, StaticInput, StaticInputs, WeightCodes,
};

use crate::tiny_bert::{TinyBert, linear_modules};

/// The one layer whose input has a stored scale, of recipes of `static`.
const STATIC_LAYER: &str = "encoder.layer.1.output.dense";
const STATIC_INPUT: StaticInput = StaticInput {
    scale: 0.25,
    zero_point: 0,
};

fn weight_only(weights: WeightCodes) -> Recipe {
    IntegerRecipe::weight_only().with_weights(weights).into()
}

/// Every recipe, with the quant_method of its config.
fn recipes() -> Vec<(Recipe, &'static str)> {
    let mut all = Vec::new();
    for (layout, method) in [
        (CodeLayout::Gptq, "gptq"),
        (CodeLayout::GptqV2, "gptq"),
        (CodeLayout::Awq, "awq"),
    ] {
        for group_size in [GroupSize::Columns(8), GroupSize::Channel] {
            for asymmetric in [false, true] {
                let options = Int4Options {
                    group_size,
                    asymmetric,
                    scales: BlockScales::Mse,
                    layout,
                };
                all.push((weight_only(WeightCodes::Int4(options)), method));
            }
        }
    }
    for layout in [CodeLayout::PackQuantized, CodeLayout::IntQuantized] {
        let weights = WeightCodes::Int8Groups { columns: 8, layout };
        all.push((weight_only(weights), "compressed-tensors"));
    }
    all.push((weight_only(WeightCodes::LlmInt8), "bitsandbytes"));
    for kind in [
        SmallFloatType::Fp8,
        SmallFloatType::Nvfp4,
        SmallFloatType::Mxfp4,
    ] {
        all.push((
            weight_only(WeightCodes::of_floats(kind)),
            "compressed-tensors",
        ));
    }
    let fp8 = WeightCodes::of_floats(SmallFloatType::Fp8);
    let one_scale = WeightCodes::Floats {
        kind: SmallFloatType::Fp8,
        scales: WeightScales::PerTensor,
    };
    all.push((weight_only(one_scale), "compressed-tensors"));
    let inputs = StaticInputs::new(BTreeMap::from([(STATIC_LAYER.to_owned(), STATIC_INPUT)]));
    for weights in [fp8, one_scale] {
        for recipe in [IntegerRecipe::dynamic(), inputs.clone().into()] {
            all.push((recipe.with_weights(weights).into(), "compressed-tensors"));
        }
    }
    all
}

/// The values of a weight that the scalar reference makes of it.
fn expected(weights: WeightCodes, values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    let e2m1 = |size: usize, scale: &dyn Fn(f32) -> f32| {
        let groups = values.chunks(size).flat_map(|group| {
            let scale = scale(absmax(group));
            let (mut packed, mut back) = (vec![0; size / 2], vec![0.0; size]);
            quantize_e2m1(group, scale, &mut packed);
            dequantize_e2m1(&packed, scale, &mut back);
            back
        });
        groups.collect()
    };
    match weights {
        WeightCodes::Int8 => panic!("another test's"),
        WeightCodes::Int4(options) => {
            let settings = Int4Settings {
                group_size: options.group_size.columns().unwrap_or(columns),
                asymmetric: options.asymmetric,
                scales: GroupScales::LeastSquaredError,
                storage: GroupStorage {
                    half_scales: true,
                    least_zero_point: match options.layout {
                        CodeLayout::Gptq => -7,
                        _ => -8,
                    },
                },
            };
            let groups = quantize_int4(values, rows, columns, settings);
            let zero_points = groups.zero_points.as_deref();
            dequantize_groups(
                &groups.codes,
                &groups.scales,
                zero_points,
                groups.group_size,
            )
            .collect()
        }
        WeightCodes::Int8Groups { columns: size, .. } => {
            let groups = quantize_rows_int8(values, values.len() / size, size);
            dequantize_groups(&groups.codes, &groups.scales, None, size).collect()
        }
        WeightCodes::LlmInt8 => {
            let quantized = quantize_rows_int8(values, rows, columns);
            let scales = quantized.scales.iter();
            let scales: Vec<f32> = scales
                .map(|scale| llm_int8_scale(llm_int8_absmax(*scale)))
                .collect();
            dequantize_groups(&quantized.codes, &scales, None, columns).collect()
        }
        WeightCodes::Floats {
            kind: SmallFloatType::Fp8,
            scales,
        } => {
            let rows = values.chunks(columns).flat_map(|row| {
                let scale = fp8_scale(absmax(match scales {
                    WeightScales::PerChannel => row,
                    WeightScales::PerTensor => values,
                }));
                row.iter()
                    .map(move |value| e4m3_to_f32(f32_to_e4m3(value / scale)) * scale)
            });
            rows.collect()
        }
        WeightCodes::Floats {
            kind: SmallFloatType::Nvfp4,
            ..
        } => {
            let global = nvfp4_global_scale(absmax(values));
            e2m1(16, &|largest| {
                e4m3_to_f32(nvfp4_scale(largest, global)) / global
            })
        }
        WeightCodes::Floats {
            kind: SmallFloatType::Mxfp4,
            ..
        } => e2m1(32, &|largest| e8m0_to_f32(mxfp4_scale(largest))),
    }
}

#[test]
fn what_is_written_is_what_the_reference_gives() {
    let source = TinyBert::new(DType::F32, "").write();
    let float = source.open();
    for (index, (recipe, method)) in recipes().into_iter().enumerate() {
        let weights = recipe.integer().unwrap().weights;
        let is_mxfp4 = weights == WeightCodes::of_floats(SmallFloatType::Mxfp4);
        if is_mxfp4
            && linear_modules()
                .iter()
                .any(|(_, [_, columns])| columns % 32 != 0)
        {
            let text = QuantizePlan::new(&float, &recipe).unwrap_err().to_string();
            assert!(
                text.contains("`weights`: expected codes that the"),
                "{text}"
            );
            assert!(
                text.contains("found `mxfp4`, of which 32 columns share a scale"),
                "{text}"
            );
            continue;
        }
        let (report, output) = source.converted_into(&recipe, &format!("layout-{index}"));
        assert_eq!(
            output.config()["quantization_config"]["quant_method"],
            method
        );
        for (module, shape) in linear_modules() {
            let values = float.require(&format!("{module}.weight")).unwrap();
            let values = values.to_f32().unwrap();
            let weight = output.stored_weight(&module, shape).unwrap();
            assert!(!matches!(weight, StoredWeight::Float(_)), "{module}");
            let found = weight.dequantize(shape).unwrap();
            assert_eq!(
                found,
                expected(weights, &values, shape),
                "{}: {module}",
                recipe.label()
            );
            assert_eq!(output.weight_shape(&module).unwrap().unwrap(), shape);
            assert!(report.modules.iter().any(|row| row.module == module));
        }
        let is_static = recipe.static_inputs().is_some();
        for (module, _) in linear_modules() {
            let scale = output.get(&format!("{module}.input_scale"));
            let has_one = is_static && module.ends_with(STATIC_LAYER);
            assert_eq!(scale.is_some(), has_one, "{}: {module}", recipe.label());
            if let Some(scale) = scale {
                assert_eq!(scale.to_f32().unwrap(), [STATIC_INPUT.scale]);
            }
        }
        // And as floats again, nothing of the codes is left.
        let tensors = output.dequantized().unwrap().tensors().count();
        assert_eq!(tensors, float.tensors().count(), "{}", recipe.label());
    }
}

#[test]
fn recipes_read_back_and_have_labels_that_differ() {
    let mut labels = Vec::new();
    for (recipe, _) in recipes() {
        recipe.validate().unwrap();
        assert_eq!(Recipe::from_toml(&recipe.to_toml()).unwrap(), recipe);
        assert!(!labels.contains(&recipe.label()), "{}", recipe.label());
        labels.push(recipe.label());
    }
    for expected in [
        "weight-only + int4 + groups of 8 + gptq layout",
        "weight-only + int4 + per channel + asymmetric + awq layout",
        "weight-only + groups of 8 + int-quantized",
        "weight-only + bitsandbytes layout",
        "weight-only + nvfp4",
        "dynamic + fp8",
        "static + fp8 + per tensor",
    ] {
        assert!(
            labels.iter().any(|label| label == expected),
            "{expected}: {labels:?}"
        );
    }
}

#[test]
fn tables_stay_floats_in_layouts_that_have_none() {
    let source = TinyBert::f32().write();
    for (recipe, method) in recipes() {
        let Ok(plan) = QuantizePlan::new(&source.open(), &recipe) else {
            continue;
        };
        let is_int8 = matches!(
            recipe.integer().unwrap().weights,
            WeightCodes::Int8Groups { .. }
        );
        let expected = match is_int8 && method == "compressed-tensors" {
            true => EmbeddingStorage::Int8,
            false => EmbeddingStorage::Keep,
        };
        assert_eq!(plan.recipe().embeddings(), expected, "{}", recipe.label());
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    let options = |layout| {
        WeightCodes::Int4(Int4Options {
            layout,
            ..Int4Options::default()
        })
    };
    let gptq = Rounding::Gptq {
        saturation_proof: false,
    };
    let fp8 = WeightCodes::of_floats(SmallFloatType::Fp8);
    let groups = |columns| WeightCodes::Int8Groups {
        columns,
        layout: CodeLayout::PackQuantized,
    };
    let weight_only = || IntegerRecipe::weight_only();
    for (recipe, expected) in [
        (
            IntegerRecipe::dynamic().with_weights(options(CodeLayout::Gptq)),
            "`layout`: expected `pack-quantized` or `int-quantized` with `dynamic`",
        ),
        (
            weight_only()
                .with_weights(options(CodeLayout::Awq))
                .with_embeddings(EmbeddingStorage::Int8),
            "`embeddings`: expected `auto`, `keep`, `fp16` or `bf16` with the layout `awq`",
        ),
        (
            weight_only().with_weights(fp8).with_rounding(gptq),
            "`gptq`: expected false with `weights = \"fp8\"`",
        ),
        (
            weight_only()
                .with_weights(fp8)
                .with_embeddings(EmbeddingStorage::Int8),
            "`embeddings`: expected",
        ),
        (
            IntegerRecipe::dynamic().with_weights(WeightCodes::of_floats(SmallFloatType::Nvfp4)),
            "`weights`: expected `int8` or `int4`",
        ),
        (
            weight_only()
                .with_weights(groups(8))
                .with_rounding(Rounding::Gptq {
                    saturation_proof: true,
                }),
            "`saturation_proof`: expected false with int8 weights in groups",
        ),
        (
            weight_only().with_weights(groups(0)),
            "`group_size`: expected at least 1",
        ),
        (
            weight_only()
                .with_weights(WeightCodes::LlmInt8)
                .with_embeddings(EmbeddingStorage::Int8),
            "with the layout `bitsandbytes`",
        ),
    ] {
        let text = Recipe::from(recipe).validate().unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
    for (toml, expected) in [
        (
            "method = \"weight-only\"\nlayout = \"gptq\"",
            "`layout`: expected `pack-quantized`",
        ),
        (
            "method = \"weight-only\"\nweights = \"int4\"\nlayout = \"bitsandbytes\"",
            "`layout`: expected a layout of int4 codes",
        ),
        (
            "method = \"weight-only\"\nlayout = \"bitsandbytes\"\ngroup_size = 8",
            "`group_size`: expected none with",
        ),
        (
            "method = \"weight-only\"\nlayout = \"int-quantized\"",
            "`layout`: expected none beside int8 weights without groups",
        ),
        (
            "method = \"weight-only\"\nweights = \"fp8\"\ngroup_size = 8",
            "`group_size`: expected none",
        ),
        (
            "method = \"static\"\nweights = \"fp8\"",
            "`static_inputs`: expected the scale of at least one",
        ),
        (
            "method = \"static\"\nweights = \"fp8\"\n[static_inputs.a]\nscale = 1.0\nzero_point = 3",
            "`static_inputs`: expected the zero point 0 of `a`",
        ),
        (
            "method = \"static\"\nweights = \"fp8\"\nreduce_range = true\n[static_inputs.a]\nscale = 1.0\nzero_point = 0",
            "`weights`: expected `int8` or `int4`",
        ),
        (
            "method = \"weight-only\"\nweights = \"nvfp4\"\nweight_scales = \"per-tensor\"",
            "`weight_scales`",
        ),
        (
            "method = \"weight-only\"\nweight_scales = \"per-tensor\"",
            "`weight_scales`",
        ),
        ("method = \"nf4\"\nweights = \"mxfp4\"", "`weights`"),
        (
            "method = \"weight-only\"\nweights = \"mxfp4\"\nscales = \"mse\"",
            "`scales`",
        ),
    ] {
        let text = Recipe::from_toml(&format!("version = 1\n{toml}\n"));
        let text = text.unwrap_err().to_string();
        assert!(text.contains(expected), "{toml}: {text}");
    }
}
