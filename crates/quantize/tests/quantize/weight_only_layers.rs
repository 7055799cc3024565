//! `dynamic` with layers whose weights alone are quantized: selected by globs, written, and run beside the others.

use fewbit_checkpoint::{Checkpoint, StoredWeight};
use fewbit_model::{Network, RaggedBatch};
use fewbit_numerics::activation::{ActivationScheme, quantize_row, quantize_row_twelve_bit};
use fewbit_numerics::affine::AffineParameters;
use fewbit_quantize::{
    ActivationScales, Backend, DynamicInputs, EmbeddingStorage, IntegerRecipe, QuantizePlan,
    Recipe, Rounding,
};
use serde_json::{Value, json};

use crate::backends::{bits, shown};
use crate::tiny_bert::{TinyBert, linear_modules};

const FEED_FORWARD: [&str; 2] = ["*.intermediate.dense", "*[0-9].output.dense"];

fn mixed<const N: usize>(patterns: [&str; N]) -> IntegerRecipe {
    IntegerRecipe::from(DynamicInputs::default().with_weight_only(patterns))
        .with_embeddings(EmbeddingStorage::Keep)
}

fn kept(options: IntegerRecipe) -> Recipe {
    options.with_embeddings(EmbeddingStorage::Keep).into()
}

fn load(checkpoint: &Checkpoint) -> Network {
    Network::load(checkpoint).unwrap().0
}

fn batch() -> RaggedBatch {
    RaggedBatch::from_sequences(&[
        &[1, 2, 3],
        &[9],
        &[4, 5, 6, 7, 8, 30, 31, 32, 33, 34, 35, 36],
        &[39, 1],
    ])
}

/// Codes and scales of a weight, and whether it says nothing of activations.
fn codes_of(checkpoint: &Checkpoint, module: &str, shape: [usize; 2]) -> (Vec<i8>, Vec<f32>, bool) {
    match checkpoint.stored_weight(module, shape).unwrap() {
        StoredWeight::Int8 { codes, scales, .. } => (codes.into_owned(), scales, false),
        StoredWeight::Groups { codes, scales, .. } => (codes.into_owned(), scales, true),
        other => panic!("{module}: {other:?}"),
    }
}

#[test]
fn layers_are_stored_as_the_method_of_each_stores_them() {
    let source = TinyBert::f32().write();
    let (_, dynamic) = source.converted_into(&kept(IntegerRecipe::dynamic()), "dynamic");
    let (_, weight_only) =
        source.converted_into(&kept(IntegerRecipe::weight_only()), "weight-only");
    let (report, checkpoint) = source.converted(&mixed(FEED_FORWARD).into());
    for (module, shape) in linear_modules() {
        let name = format!("bert.{module}");
        let feed_forward = !module.contains("attention");
        let pure = if feed_forward { &weight_only } else { &dynamic };
        let (found, expected) = (
            codes_of(&checkpoint, &name, shape),
            codes_of(pure, &name, shape),
        );
        assert_eq!(found, expected, "{module}");
        assert_eq!(found.2, feed_forward, "{module}");
        let done = report.modules.iter().find(|done| done.module == name);
        let expected = match feed_forward {
            true => "quantize to int8 per channel, weight-only",
            false => "quantize to int8 per channel, activations per token",
        };
        assert_eq!(done.unwrap().action, expected, "{module}");
    }
    let recipe = std::fs::read_to_string(report.output.join("recipe.toml")).unwrap();
    assert_eq!(
        recipe,
        "version = 1\nmethod = \"dynamic\"\nweight_only = [\"*.intermediate.dense\", \"*[0-9].output.dense\"]\n"
    );
    // The same bytes come of the recipe that lies beside the model.
    let replayed = Recipe::from_toml(&recipe).unwrap();
    let again = source.quantize_into(&replayed, &source.out("again"), false);
    let bytes =
        |directory: &std::path::Path, file: &str| std::fs::read(directory.join(file)).unwrap();
    for file in ["model.safetensors", "config.json", "recipe.toml"] {
        assert_eq!(
            bytes(&report.output, file),
            bytes(&again.as_ref().unwrap().output, file),
            "{file}"
        );
    }
}

/// The exact sum of products, and one float operation: what docs/numerics.md says.
fn product(
    parameters: AffineParameters,
    codes: &[i32],
    (weight, scales): (&[i8], &[f32]),
    bias: &[f32],
) -> Vec<f32> {
    let rows = weight
        .chunks_exact(codes.len())
        .zip(scales.iter().zip(bias));
    let output = rows.map(|(weight, (scale, bias))| {
        let terms = codes.iter().zip(weight);
        let sum: i32 = terms
            .map(|(code, weight)| (code - parameters.zero_point) * i32::from(*weight))
            .sum();
        (sum as f32).mul_add(parameters.scale * scale, *bias)
    });
    output.collect()
}

/// Whatever the mixture: also where one of the layers that read the same rows differs from the others, and where no activations are
/// quantized to 8 bits at all.
#[test]
fn every_layer_of_a_mixture_computes_as_its_own_method_says() {
    let source = TinyBert::f32().write();
    let float = source.open();
    let batch = batch();
    for (number, patterns) in [
        &FEED_FORWARD[..],
        &["*.query"],
        &["*.value", "*.attention.output.dense"],
        &["*.layer.0.*"],
        &["*.layer.1.*"],
        &["*"],
    ]
    .into_iter()
    .enumerate()
    {
        let inputs = DynamicInputs::default().with_weight_only(patterns.iter().copied());
        let recipe = kept(inputs.into());
        let (_, checkpoint) = source.converted_into(&recipe, &number.to_string());
        let network = load(&checkpoint);
        let shown = shown(&network, &batch);
        let mut twelve_bits = 0;
        for (module, shape) in linear_modules() {
            let name = format!("bert.{module}");
            let (codes, scales, weight_only) = codes_of(&checkpoint, &name, shape);
            twelve_bits += usize::from(weight_only);
            let bias = float.require(&format!("{name}.bias")).unwrap();
            let bias = bias.to_f32().unwrap();
            let x = shown.0[&format!("{module}.input")].concat();
            let y = shown.0[&format!("{module}.output")].concat();
            for (x, y) in x.chunks_exact(shape[1]).zip(y.chunks_exact(shape[0])) {
                let (parameters, quantized): (_, Vec<i32>) = if weight_only {
                    let mut quantized = vec![0; x.len()];
                    let parameters = quantize_row_twelve_bit(x, &mut quantized);
                    (parameters, quantized.into_iter().map(i32::from).collect())
                } else {
                    let mut quantized = vec![0; x.len()];
                    let parameters = quantize_row(x, ActivationScheme::Affine, &mut quantized);
                    (parameters, quantized.into_iter().map(i32::from).collect())
                };
                let expected = product(parameters, &quantized, (&codes, &scales), &bias);
                assert_eq!(bits(y), bits(&expected), "{patterns:?}, {module}");
            }
        }
        let expected = [4, 2, 4, 6, 6, 12];
        assert_eq!(twelve_bits, expected[number], "{patterns:?}");
        // With nobody looking, and what passes between the layers in codes, the same comes out.
        let last = shown.0["encoder.layer.1.output.LayerNorm.output"].concat();
        for threads in [1, 2] {
            let states = network.hidden_states(&batch, threads).unwrap();
            assert_eq!(
                bits(&states),
                bits(&last),
                "{patterns:?}, {threads} threads"
            );
        }
    }
}

#[test]
fn layers_of_a_mixture_are_those_of_the_pure_models() {
    let source = TinyBert::f32().write();
    let batch = batch();
    let sites = |recipe: &Recipe, name: &str| {
        let (_, checkpoint) = source.converted_into(recipe, name);
        shown(&load(&checkpoint), &batch).0
    };
    let dynamic = sites(&kept(IntegerRecipe::dynamic()), "dynamic");
    let weight_only = sites(&kept(IntegerRecipe::weight_only()), "weight-only");
    // The first layer reads the embeddings, which are the same in all.
    let query = sites(&mixed(["*.query"]).into(), "query");
    let site = |name: &str| format!("encoder.layer.0.attention.self.{name}.output");
    assert_ne!(dynamic[&site("query")], weight_only[&site("query")]);
    assert_eq!(query[&site("query")], weight_only[&site("query")]);
    for name in ["key", "value"] {
        assert_ne!(dynamic[&site(name)], weight_only[&site(name)]);
        assert_eq!(query[&site(name)], dynamic[&site(name)]);
    }
    let output = |layer: usize| format!("encoder.layer.{layer}.output.LayerNorm.output");
    let first = sites(&mixed(["*.layer.0.*"]).into(), "first");
    assert_eq!(first[&output(0)], weight_only[&output(0)]);
    assert_ne!(first[&output(1)], weight_only[&output(1)]);
    let second = sites(&mixed(["*.layer.1.*"]).into(), "second");
    assert_eq!(second[&output(0)], dynamic[&output(0)]);
    assert_ne!(second[&output(1)], dynamic[&output(1)]);
    let all = sites(&mixed(["*"]).into(), "all");
    assert_eq!(all, weight_only);
}

/// Also with the layers of PyTorch's `quantize_dynamic`, which read a text at a time.
#[test]
fn layers_per_text_can_stand_beside_them() {
    let source = TinyBert::f32().write();
    let batch = batch();
    let torch = Recipe::quantize_dynamic(Backend::X86);
    let (_, pure) = source.converted_into(&torch, "pure");
    let activations = ActivationScales::of_quantize_dynamic(Backend::X86);
    let inputs = DynamicInputs::default()
        .with_activations(activations)
        .with_weight_only(["*.query"]);
    let recipe = Recipe::from(IntegerRecipe::from(inputs));
    assert_eq!(Recipe::from_toml(&recipe.to_toml()).unwrap(), recipe);
    let (_, checkpoint) = source.converted_into(&recipe, "mixed");
    let (_, weight_only) =
        source.converted_into(&kept(IntegerRecipe::weight_only()), "weight-only");
    let [pure, found, weight_only] =
        [&pure, &checkpoint, &weight_only].map(|checkpoint| shown(&load(checkpoint), &batch).0);
    let site = |name: &str| format!("encoder.layer.0.attention.self.{name}.output");
    // With a text a time here and all at once there.
    assert_eq!(
        found[&site("query")].concat(),
        weight_only[&site("query")].concat()
    );
    assert_eq!(found[&site("key")], pure[&site("key")]);
}

/// The formats, inputs and targets of the groups in config.json.
fn groups(checkpoint: &Checkpoint) -> Vec<[Value; 3]> {
    let config = &checkpoint.config()["quantization_config"];
    let groups = config["config_groups"].as_object().unwrap().values();
    groups
        .map(|group| {
            [
                group["format"].clone(),
                group["input_activations"]["strategy"].clone(),
                group["targets"].clone(),
            ]
        })
        .collect()
}

#[test]
fn each_kind_has_a_group_of_its_own() {
    let source = TinyBert::f32().write();
    let recipe = mixed(FEED_FORWARD).with_skip(["*.attention.*"]);
    let recipe = recipe.with_embeddings(EmbeddingStorage::Int8).into();
    // All that is left of the linear layers is weight-only.
    let (_, checkpoint) = source.converted_into(&recipe, "skipping");
    let pattern = |pattern: &str| json!([format!("re:(.*\\.)?{pattern}$")]);
    let feed_forward = json!([
        "re:(.*\\.)?encoder\\.layer\\.(0|1)\\.intermediate\\.dense$",
        "re:(.*\\.)?encoder\\.layer\\.(0|1)\\.output\\.dense$"
    ]);
    let embeddings = [
        json!("int-quantized"),
        Value::Null,
        pattern("embeddings\\.word_embeddings"),
    ];
    let weight_only = [json!("int-quantized"), Value::Null, feed_forward];
    assert_eq!(
        groups(&checkpoint),
        [weight_only.clone(), embeddings.clone()]
    );

    let keys = mixed(FEED_FORWARD)
        .with_skip(["*.{query,value}", "*.attention.output.dense"])
        .with_embeddings(EmbeddingStorage::Int8)
        .into();
    let (_, checkpoint) = source.converted_into(&keys, "keys");
    let key = [
        json!("int-quantized"),
        json!("token"),
        pattern("encoder\\.layer\\.(0|1)\\.attention\\.self\\.key"),
    ];
    assert_eq!(groups(&checkpoint), [key, weight_only, embeddings]);
    // One format: transformers decompresses a checkpoint of two only when it is first called.
    let config = &checkpoint.config()["quantization_config"];
    assert_eq!(config["format"], "int-quantized");
    assert_eq!(
        checkpoint.quantization().to_string(),
        "compressed-tensors int-quantized"
    );
    load(&checkpoint);
}

#[test]
fn globs_that_concern_no_layer_are_refused() {
    let checkpoint = TinyBert::f32().write().open();
    let text = |options: IntegerRecipe| {
        let refused = QuantizePlan::new(&checkpoint, &options.into()).unwrap_err();
        refused.to_string()
    };
    insta::assert_snapshot!(text(mixed(["*.query", "*.qeury"])), @"
    recipe: `weight_only`: pattern `*.qeury` matches no linear layer that would be quantized
      hint: modules with near names: encoder.layer.0.output.dense, encoder.layer.1.output.dense, encoder.layer.0.attention.self.query, encoder.layer.0.attention.self.key, encoder.layer.0.intermediate.dense
    ");
    insta::assert_snapshot!(text(mixed(["classifier"])), @"
    recipe: `weight_only`: pattern `classifier` matches no linear layer that would be quantized
      hint: `classifier` stays float without it: leave the pattern out
    ");
    insta::assert_snapshot!(text(mixed(["*.query"]).with_skip(["*.self.*"])), @"
    recipe: `weight_only`: pattern `*.query` matches no linear layer that would be quantized
      hint: `bert.encoder.layer.0.attention.self.query` stays float, as it matches the skip pattern `*.self.*`: leave out one of the two
    ");
    insta::assert_snapshot!(text(mixed(["[0"])), @"
    recipe: `weight_only`: pattern `[0` is not a glob: unclosed character class; missing ']'
      hint: `*` matches any text, `?` one character, `{a,b}` either, `[0-9]` a range
    ");
    // An embedding table is no linear layer.
    insta::assert_snapshot!(text(mixed(["*.word_embeddings"]).with_embeddings(EmbeddingStorage::Int8)), @"
    recipe: `weight_only`: pattern `*.word_embeddings` matches no linear layer that would be quantized
      hint: modules with near names: encoder.layer.0.output.dense, encoder.layer.1.output.dense, encoder.layer.0.attention.self.key, encoder.layer.0.intermediate.dense, encoder.layer.1.attention.self.key
    ");
    // What is skipped stays float; the glob still concerns the others.
    let recipe = mixed(["*.query"]).with_skip(["*.layer.0.*"]).into();
    let plan = QuantizePlan::new(&checkpoint, &recipe).unwrap();
    let weight_only = plan
        .rows()
        .iter()
        .filter(|row| row.action.to_string().ends_with(", weight-only"));
    let names: Vec<&str> = weight_only.map(|row| row.tensor.as_str()).collect();
    assert_eq!(names, ["bert.encoder.layer.1.attention.self.query.weight"]);
}

#[test]
fn methods_other_than_dynamic_have_no_such_layers() {
    let text = |method: &str| {
        let recipe = format!("version = 1\nmethod = \"{method}\"\nweight_only = [\"*.query\"]");
        Recipe::from_toml(&recipe).unwrap_err().to_string()
    };
    insta::assert_snapshot!(text("static"), @r#"
    recipe: `weight_only`: expected no patterns with the method `static`, found ["*.query"]
      hint: a layer that is not static is quantized per token there; use `dynamic` for layers of both kinds
    "#);
    insta::assert_snapshot!(text("weight-only"), @r#"
    recipe: `weight_only`: expected no patterns with the method `weight-only`, found ["*.query"]
      hint: all layers are: leave the patterns out
    "#);
    insta::assert_snapshot!(text("nf4"), @r#"
    recipe: `weight_only`: expected no patterns with the method `nf4`, found ["*.query"]
      hint: `dynamic` has layers whose weights alone are quantized
    "#);
    let recipe = Recipe::from(mixed(["*.query"]).with_rounding(Rounding::Gptq {
        saturation_proof: false,
    }));
    assert_eq!(
        recipe.label(),
        "dynamic, some layers weight-only + GPTQ + float embeddings"
    );
}
