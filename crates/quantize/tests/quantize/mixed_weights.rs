//! Recipes in which single layers have other weights than the rest.

use fewbit_checkpoint::StoredWeight;
use fewbit_checkpoint::compressed_tensors::WeightScales;
use fewbit_quantize::{
    ActivationScales, CodeLayout, DynamicInputs, EmbeddingStorage, GroupSize, Int4Options,
    IntegerRecipe, QuantizePlan, Recipe, WeightCodes,
};

use crate::calibration::source;
use crate::gptq::{GPTQ, TEXTS, calibration, convert, texts};
use crate::tiny_bert::{self, TinyBert};

const GROUPS_OF_8: WeightCodes = WeightCodes::Int4(Int4Options {
    group_size: GroupSize::Columns(8),
    asymmetric: false,
    scales: fewbit_quantize::BlockScales::Mse,
    layout: CodeLayout::PackQuantized,
});

fn groups_of_16() -> Int4Options {
    Int4Options {
        group_size: GroupSize::Columns(16),
        ..Int4Options::default()
    }
}

/// int4 in groups of 16, attention in groups of 8, one layer of it and one feed-forward layer int8.
fn mixed(recipe: IntegerRecipe) -> IntegerRecipe {
    recipe
        .with_weights(WeightCodes::Int4(groups_of_16()))
        .with_modules([
            ("*.attention.*", GROUPS_OF_8),
            ("*.self.{query,key}", GROUPS_OF_8),
            ("bert.encoder.layer.1.attention.self.key", WeightCodes::Int8),
            ("encoder.layer.0.output.dense", WeightCodes::Int8),
        ])
}

/// Bits and columns of a group of a module of [`mixed`]; none where it is int8.
fn group_size_of(module: &str) -> Option<usize> {
    match module.trim_start_matches("bert.") {
        "encoder.layer.1.attention.self.key" | "encoder.layer.0.output.dense" => None,
        module if module.contains("attention") => Some(8),
        _ => Some(16),
    }
}

/// The linear layers by their names in the file.
fn linear_modules() -> impl Iterator<Item = (String, [usize; 2])> {
    let modules = tiny_bert::linear_modules().into_iter();
    modules.map(|(module, shape)| (format!("bert.{module}"), shape))
}

fn expect_same(weight: &StoredWeight<'_>, expected: &StoredWeight<'_>) {
    assert_eq!(format!("{weight:?}"), format!("{expected:?}"));
}

#[test]
fn each_layer_has_the_bytes_that_it_has_where_all_are_like_it() {
    let source = TinyBert::f32().write();
    for (method, recipe) in [
        ("weight-only", IntegerRecipe::weight_only()),
        ("dynamic", IntegerRecipe::dynamic()),
    ] {
        let recipe = recipe.with_embeddings(EmbeddingStorage::Keep);
        let uniform = |name: &str, codes| {
            let recipe = recipe.clone().with_weights(codes).into();
            source
                .converted_into(&recipe, &format!("{method}-{name}"))
                .1
        };
        let int8 = uniform("int8", WeightCodes::Int8);
        let of_8 = uniform("8", GROUPS_OF_8);
        let of_16 = uniform("16", WeightCodes::Int4(groups_of_16()));
        let recipe = mixed(recipe.clone()).into();
        let (report, output) = source.converted_into(&recipe, method);
        for (module, shape) in linear_modules() {
            let like = match group_size_of(&module) {
                None => &int8,
                Some(8) => &of_8,
                Some(_) => &of_16,
            };
            let weight = output.stored_weight(&module, shape).unwrap();
            expect_same(&weight, &like.stored_weight(&module, shape).unwrap());
            let row = report.modules.iter().find(|row| row.module == module);
            let bits = if group_size_of(&module).is_some() {
                "int4"
            } else {
                "int8"
            };
            assert!(row.unwrap().action.contains(bits), "{module}");
        }
        let written = std::fs::read_to_string(source.out(method).join("recipe.toml")).unwrap();
        assert_eq!(&Recipe::from_toml(&written).unwrap(), &report.recipe);
        let config = &output.config()["quantization_config"];
        let groups = config["config_groups"].as_object().unwrap().values();
        let mut kinds: Vec<(Option<u64>, Option<u64>)> = groups
            .map(|group| &group["weights"])
            .map(|weights| (weights["num_bits"].as_u64(), weights["group_size"].as_u64()))
            .collect();
        kinds.sort_unstable();
        assert_eq!(
            kinds,
            [(Some(4), Some(8)), (Some(4), Some(16)), (Some(8), None)]
        );
        let format = if method == "dynamic" {
            "mixed-precision"
        } else {
            "pack-quantized"
        };
        assert_eq!(config["format"], format);
    }
}

#[test]
fn gptq_rounds_each_layer_as_where_all_are_like_it() {
    let source = source(TinyBert::f32());
    let base = IntegerRecipe::weight_only().with_rounding(GPTQ);
    let converted = |name: &str, recipe: IntegerRecipe| {
        convert(&source, &recipe.into(), &calibration(texts(&TEXTS)), name).unwrap()
    };
    let int8 = converted("int8", base.clone());
    let of_8 = converted("8", base.clone().with_weights(GROUPS_OF_8));
    let of_16 = base.clone().with_weights(WeightCodes::Int4(groups_of_16()));
    let of_16 = converted("16", of_16);
    let output = converted("mixed", mixed(base));
    let mut sizes = Vec::new();
    for (module, shape) in linear_modules() {
        let like = match group_size_of(&module) {
            None => &int8,
            Some(8) => &of_8,
            Some(_) => &of_16,
        };
        let weight = output.stored_weight(&module, shape).unwrap();
        expect_same(&weight, &like.stored_weight(&module, shape).unwrap());
        if let StoredWeight::Groups { group_size, .. } = weight {
            sizes.push(group_size);
        }
    }
    assert!(sizes.contains(&8) && sizes.contains(&16));
}

#[test]
fn recipes_read_back_and_have_labels_of_their_own() {
    let recipe = mixed(IntegerRecipe::dynamic());
    let other: Recipe = recipe
        .clone()
        .with_modules([("*.value", WeightCodes::Int8)])
        .into();
    let recipe: Recipe = recipe.into();
    assert_eq!(Recipe::from_toml(&recipe.to_toml()).unwrap(), recipe);
    assert_eq!(Recipe::from_json(&recipe.to_json()).unwrap(), recipe);
    assert!(
        recipe
            .label()
            .starts_with("dynamic + int4 + groups of 16, mixed weights ")
    );
    assert_ne!(recipe.label(), other.label());
}

#[test]
fn patterns_that_say_nothing_or_two_things_are_refused() {
    let source = TinyBert::f32().write();
    let refusal = |recipe: IntegerRecipe| {
        let plan = QuantizePlan::new(&source.open(), &recipe.into());
        plan.unwrap_err().to_string()
    };
    let base = IntegerRecipe::weight_only;
    let text = refusal(base().with_modules([("*.quarry", GROUPS_OF_8)]));
    assert!(
        text.contains("`*.quarry`") && text.contains("matches no linear layer"),
        "{text}"
    );
    let text = refusal(base().with_modules([("*embeddings", GROUPS_OF_8)]));
    assert!(text.contains("matches no linear layer"), "{text}");
    let skipped = base()
        .with_skip(["*.query"])
        .with_modules([("*.query", GROUPS_OF_8)]);
    let text = refusal(skipped);
    assert!(
        text.contains("matches the skip pattern `*.query`"),
        "{text}"
    );
    let two = base().with_modules([("*.query", GROUPS_OF_8), ("*.self.*", WeightCodes::Int8)]);
    let text = refusal(two);
    assert!(
        text.contains("patterns that say the same of `bert.encoder.layer.0.attention.self.query`"),
        "{text}"
    );
    let odd = WeightCodes::Int4(Int4Options {
        group_size: GroupSize::Columns(7),
        ..Int4Options::default()
    });
    let text = refusal(base().with_modules([("*.query", odd)]));
    assert!(text.contains("found 7"), "{text}");
    let torch = DynamicInputs::default().with_activations(ActivationScales::PerTensor {
        weight_scales: WeightScales::PerTensor,
        reduce_range: true,
    });
    let text = refusal(IntegerRecipe::from(torch).with_modules([("*.query", GROUPS_OF_8)]));
    assert!(
        text.contains("PyTorch's dynamic and static layers"),
        "{text}"
    );
}

#[test]
fn zero_points_of_a_single_layer_keep_the_table_in_floats() {
    let source = TinyBert::f32().write();
    let asymmetric = WeightCodes::Int4(Int4Options {
        asymmetric: true,
        ..groups_of_16()
    });
    let recipe = IntegerRecipe::dynamic().with_modules([("*.query", asymmetric)]);
    let plan = QuantizePlan::new(&source.open(), &recipe.into()).unwrap();
    assert_eq!(plan.recipe().embeddings(), EmbeddingStorage::Keep);
}
