//! Static quantization as a recipe with scales.

use std::collections::BTreeMap;
use std::path::Path;

use fewbit_checkpoint::StoredWeight;
use fewbit_checkpoint::stored_weight::Int8Activations;
use fewbit_model::{Network, RaggedBatch};
use fewbit_quantize::{
    EmbeddingStorage, IntegerRecipe, Method, Recipe, RecipeFields, StaticInput, StaticInputs,
};

use crate::tiny_bert::TinyBert;

const OUTPUT: &str = "encoder.layer.0.output.dense";

fn inputs(modules: &[&str]) -> BTreeMap<String, StaticInput> {
    let input = StaticInput {
        scale: 0.0625,
        zero_point: -9,
    };
    modules
        .iter()
        .map(|&module| (module.to_owned(), input))
        .collect()
}

fn options(modules: &[&str]) -> IntegerRecipe {
    IntegerRecipe::from(StaticInputs::new(inputs(modules))).with_embeddings(EmbeddingStorage::Keep)
}

fn recipe(modules: &[&str]) -> Recipe {
    options(modules).into()
}

#[test]
fn layers_with_a_scale_are_static_and_the_others_dynamic() {
    let source = TinyBert::f32().write();
    let (_, checkpoint) = source.converted(&recipe(&[OUTPUT]));
    let out = checkpoint.directory();
    let mut fixed = Vec::new();
    let spec = fewbit_model::EncoderSpec::from_checkpoint(&checkpoint).unwrap();
    for module in spec.catalogue().linear_modules() {
        match module.stored_weight(&checkpoint).unwrap() {
            StoredWeight::Int8 {
                activations:
                    Int8Activations::Static {
                        scale, zero_point, ..
                    },
                ..
            } => {
                assert_eq!((scale, zero_point), (0.0625, -9));
                fixed.push(module.name.clone());
            }
            StoredWeight::Int8 { .. } => {}
            other => panic!("{}: {other:?}", module.name),
        }
    }
    assert_eq!(fixed, [format!("bert.{OUTPUT}")]);
    let (network, ledger) = Network::load(&checkpoint).unwrap();
    assert!(ledger.missing.is_empty());
    network
        .hidden_states(&RaggedBatch::from_sequences(&[&[1, 2, 3]]), 1)
        .unwrap();
    // What is written beside the model makes it again.
    let replayed = Recipe::read(out.join("recipe.toml")).unwrap();
    assert_eq!(replayed, recipe(&[OUTPUT]));
    source
        .quantize_into(&replayed, &source.out("again"), false)
        .unwrap();
    for file in ["model.safetensors", "config.json"] {
        let bytes = |directory: &Path| std::fs::read(directory.join(file)).unwrap();
        assert_eq!(bytes(out), bytes(&source.out("again")), "{file}");
    }
}

#[test]
fn recipes_read_and_write_scales() {
    let text = recipe(&[OUTPUT]).to_toml();
    assert_eq!(
        text,
        "version = 1\nmethod = \"static\"\n\n[static_inputs.\"encoder.layer.0.output.dense\"]\nscale = 0.0625\nzero_point = -9\n"
    );
    assert_eq!(Recipe::from_toml(&text).unwrap(), recipe(&[OUTPUT]));
    assert_eq!(
        Recipe::from_json(&recipe(&[OUTPUT]).to_json()).unwrap(),
        recipe(&[OUTPUT])
    );
}

#[test]
fn scales_that_cannot_be_used_are_refused() {
    let source = TinyBert::f32().write();
    let refused = |recipe: &Recipe| source.quantize(recipe).unwrap_err().to_string();
    let convert_first = refused(&Recipe::new(Method::Static));
    assert!(
        convert_first.contains("calibrate() must run before convert()"),
        "{convert_first}"
    );
    let of_dynamic = RecipeFields {
        static_inputs: inputs(&[OUTPUT]),
        ..RecipeFields::new(Method::Dynamic)
    };
    let of_dynamic = Recipe::try_from(of_dynamic).unwrap_err().to_string();
    assert!(
        of_dynamic.contains("`static_inputs`: expected none with the method `dynamic`"),
        "{of_dynamic}"
    );
    let unknown = refused(&recipe(&["encoder.layer.7.output.dense"]));
    assert!(
        unknown.contains("found `encoder.layer.7.output.dense`"),
        "{unknown}"
    );
    let skipped = refused(&options(&[OUTPUT]).with_skip(["*.output.dense"]).into());
    assert!(skipped.contains("or the layer is skipped"), "{skipped}");
    for scale in [0.0, -1.0, 1e-40, f32::NAN, f32::INFINITY] {
        let mut scales = inputs(&[OUTPUT]);
        scales.get_mut(OUTPUT).unwrap().scale = scale;
        let text = refused(&IntegerRecipe::from(StaticInputs::new(scales)).into());
        assert!(text.contains("expected a finite positive scale"), "{text}");
    }
}
