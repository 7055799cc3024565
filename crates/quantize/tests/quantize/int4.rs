//! int4 weights: what is written, against the scalar reference, and what is refused.

use fewbit_checkpoint::StoredWeight;
use fewbit_checkpoint::stored_weight::Int8Activations;
use fewbit_numerics::activation::ActivationScheme;
use fewbit_numerics::dtype::DType;
use fewbit_numerics::error_statistics::ErrorStatistics;
use fewbit_numerics::int4_groups::{GroupScales, GroupStorage, Int4Settings, quantize_int4};
use fewbit_quantize::{
    BlockScales, CodeLayout, EmbeddingStorage, GroupSize, Int4Options, IntegerRecipe, QuantizePlan,
    Recipe, Rounding, WeightCodes,
};

use crate::tiny_bert::{TinyBert, linear_modules};

fn with(recipe: IntegerRecipe, options: Int4Options) -> Recipe {
    recipe.with_weights(WeightCodes::Int4(options)).into()
}

/// Every combination of options.
fn all_options() -> Vec<Int4Options> {
    let mut all = Vec::new();
    for group_size in [GroupSize::Columns(8), GroupSize::Channel] {
        for asymmetric in [false, true] {
            for scales in [BlockScales::Absmax, BlockScales::Mse] {
                for layout in [CodeLayout::PackQuantized, CodeLayout::IntQuantized] {
                    all.push(Int4Options {
                        group_size,
                        asymmetric,
                        scales,
                        layout,
                    });
                }
            }
        }
    }
    all
}

#[test]
fn codes_scales_and_zero_points_are_those_of_the_reference() {
    for dtype in [DType::F32, DType::BF16] {
        let source = TinyBert::new(dtype, "").write();
        let float = source.open();
        for (index, options) in all_options().into_iter().enumerate() {
            let (recipe, activations) = match index % 2 {
                0 => (IntegerRecipe::weight_only(), None),
                _ => (
                    IntegerRecipe::dynamic(),
                    Some(Int8Activations::Dynamic(ActivationScheme::Affine)),
                ),
            };
            let recipe = with(recipe, options);
            let (report, output) = source.converted_into(&recipe, &format!("{dtype:?}-{index}"));
            for (module, shape) in linear_modules() {
                let values = float.require(&format!("{module}.weight")).unwrap();
                let values = values.to_f32().unwrap();
                let [rows, columns] = shape;
                let settings = Int4Settings {
                    group_size: options.group_size.columns().unwrap_or(columns),
                    asymmetric: options.asymmetric,
                    scales: match options.scales {
                        BlockScales::Absmax => GroupScales::Range,
                        _ => GroupScales::LeastSquaredError,
                    },
                    storage: GroupStorage::default(),
                };
                let expected = quantize_int4(&values, rows, columns, settings);
                let weight = output.stored_weight(&module, shape).unwrap();
                let dequantized = weight.dequantize(shape).unwrap();
                let StoredWeight::Groups {
                    codes,
                    scales,
                    zero_points,
                    group_size,
                    bits: 4,
                    activations: found,
                } = weight
                else {
                    panic!("{module}: {weight:?}")
                };
                assert_eq!(found, activations, "{module}");
                assert_eq!(codes, expected.codes, "{module}, {options:?}");
                assert_eq!(scales, expected.scales, "{module}, {options:?}");
                assert_eq!(zero_points, expected.zero_points, "{module}, {options:?}");
                assert_eq!(group_size, settings.group_size);
                let row = report.modules.iter().find(|row| row.module == module);
                let error = ErrorStatistics::between(&values, &dequantized);
                let found = row.expect("a row of the report").sqnr_db;
                assert!((found - error.sqnr_db).abs() < 1e-9, "{module}");
            }
            let config = &output.config()["quantization_config"];
            let format = match options.layout {
                CodeLayout::PackQuantized => "pack-quantized",
                CodeLayout::IntQuantized => "int-quantized",
                other => panic!("{other}"),
            };
            let weights = &config["config_groups"]["group_0"];
            assert_eq!(weights["format"], format);
            assert_eq!(weights["weights"]["num_bits"], 4);
            assert_eq!(weights["weights"]["symmetric"], !options.asymmetric);
        }
    }
}

#[test]
fn the_table_is_int8_unless_transformers_could_not_load_it_beside_the_layers() {
    let source = TinyBert::f32().write();
    for options in all_options() {
        let plan = QuantizePlan::new(&source.open(), &with(IntegerRecipe::dynamic(), options));
        let expected = match (options.layout, options.asymmetric) {
            (CodeLayout::PackQuantized, true) => EmbeddingStorage::Keep,
            _ => EmbeddingStorage::Int8,
        };
        assert_eq!(plan.unwrap().recipe().embeddings(), expected, "{options:?}");
    }
}

#[test]
fn recipes_read_back_and_have_labels_that_differ() {
    let mut labels = Vec::new();
    for options in all_options() {
        let recipe = with(IntegerRecipe::weight_only(), options);
        assert_eq!(Recipe::from_toml(&recipe.to_toml()).unwrap(), recipe);
        assert!(!labels.contains(&recipe.label()), "{}", recipe.label());
        labels.push(recipe.label());
    }
    let default = with(IntegerRecipe::dynamic(), Int4Options::default());
    assert_eq!(default.label(), "dynamic + int4");
    assert_eq!(
        default.to_toml(),
        "version = 1\nmethod = \"dynamic\"\nweights = \"int4\"\ngroup_size = 64\nscales = \"mse\"\nembeddings = \"auto\"\n"
    );
}

#[test]
fn what_does_not_go_together_is_refused() {
    let refused = |recipe: &Recipe| recipe.validate().unwrap_err().to_string();
    let empty = Int4Options {
        group_size: GroupSize::Columns(0),
        ..Int4Options::default()
    };
    let text = refused(&with(IntegerRecipe::dynamic(), empty));
    assert!(text.contains("`group_size`: expected at least 1"), "{text}");
    let gptq = IntegerRecipe::dynamic().with_rounding(Rounding::Gptq {
        saturation_proof: true,
    });
    let text = refused(&with(gptq, Int4Options::default()));
    assert!(text.contains("`saturation_proof`"), "{text}");
    for (toml, expected) in [
        ("method = \"nf4\"\nweights = \"int4\"", "`weights`"),
        ("method = \"dynamic\"\ngroup_size = 32", "`group_size`"),
        ("method = \"dynamic\"\nasymmetric = true", "`asymmetric`"),
        ("method = \"dynamic\"\nscales = \"mse\"", "`scales`"),
        (
            "method = \"dynamic\"\nweights = \"int4\"\nactivations = \"per-tensor\"",
            "`weights`",
        ),
    ] {
        let text = Recipe::from_toml(&format!("version = 1\n{toml}\n"));
        let text = text.unwrap_err().to_string();
        assert!(text.contains(expected), "{toml}: {text}");
    }
}

#[test]
fn groups_that_do_not_divide_a_layer_are_refused_before_anything_is_written() {
    let source = TinyBert::f32().write();
    let options = Int4Options {
        group_size: GroupSize::Columns(7),
        ..Int4Options::default()
    };
    let error = QuantizePlan::new(&source.open(), &with(IntegerRecipe::dynamic(), options));
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("`group_size`: expected a divisor of the"),
        "{text}"
    );
    assert!(text.contains("found 7"), "{text}");
    assert!(text.contains("or `channel` would do"), "{text}");
}
