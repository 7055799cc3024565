//! The bits of hidden states, for every family and every method, are those that `digests.txt` records.
//!
//! All instruction sets give the same bits, so the record is one for every machine. A change that means to give other bits says so in
//! CHANGELOG.md and replaces the record by what the failing test prints.

use fewbit_checkpoint::Checkpoint;
use fewbit_model::{EncoderSpec, Network, RaggedBatch, open_checkpoint};
use fewbit_quantize::calibration::calibration_sites;
use fewbit_quantize::{
    ActivationScales, DynamicInputs, EmbeddingStorage, FourBitRecipe, IntegerInputs, IntegerRecipe,
    Method, QuantizeError, QuantizePlan, Recipe, StaticInput, StaticInputs, WeightScales,
    quantize_model,
};
use std::fmt::Write;

use crate::architectures::golden_models;

/// FNV-1a of 64 bits (Fowler, Noll, Vo).
fn digest(states: &[f32]) -> u64 {
    let bytes = states.iter().flat_map(|value| value.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Sequences of one token, of some, and long enough for attention in integers, as far as the model's positions go.
fn batch(spec: &EncoderSpec) -> RaggedBatch {
    let mut batch = RaggedBatch::new();
    let mut state = 1u64;
    for length in [1, 7, 33, 90, 300] {
        let length = length.min(spec.positions.max_tokens());
        let ids = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            ((state >> 33) % spec.vocab_size as u64) as u32
        });
        batch.push(&ids.take(length).collect::<Vec<_>>(), &[]);
    }
    batch
}

/// One recipe of each arithmetic.
fn recipes(spec: &EncoderSpec) -> Vec<(String, Recipe)> {
    // With both forms of embeddings that loaders take, whichever is the default.
    let with_both = |recipe: Recipe| match recipe {
        Recipe::Integer(options) => match options.embeddings {
            EmbeddingStorage::Auto => vec![
                options
                    .clone()
                    .with_embeddings(EmbeddingStorage::Keep)
                    .into(),
                options.with_embeddings(EmbeddingStorage::Int8).into(),
            ],
            _ => Vec::new(),
        },
        recipe => vec![recipe],
    };
    let every = Recipe::of_every_method().into_iter();
    let mut recipes: Vec<Recipe> = every.flat_map(with_both).collect();
    let per_tensor = ActivationScales::PerTensor {
        weight_scales: WeightScales::PerTensor,
        reduce_range: false,
    };
    let dynamic = DynamicInputs::default().with_activations(per_tensor);
    let dynamic = IntegerRecipe::from(dynamic).with_embeddings(EmbeddingStorage::Keep);
    recipes.push(dynamic.into());
    recipes.push(FourBitRecipe::nf4().with_block_size(128).into());
    let inputs = calibration_sites(&spec.catalogue())
        .into_iter()
        .flat_map(|site| site.modules);
    let input = StaticInput {
        scale: 0.031,
        zero_point: -3,
    };
    let inputs = StaticInputs::new(inputs.map(|module| (module, input)).collect());
    let labelled = recipes.into_iter().map(|recipe| {
        let label = recipe.label().replace(" + float embeddings", "");
        match recipe {
            Recipe::Integer(options) if options.method() == Method::Static => {
                let inputs = IntegerInputs::Static(inputs.clone());
                (label, Recipe::Integer(IntegerRecipe { inputs, ..options }))
            }
            recipe => (label, recipe),
        }
    });
    labelled.collect()
}

#[test]
fn hidden_states_have_the_recorded_bits() {
    let root = tempfile::tempdir().unwrap();
    let mut found = String::new();
    let mut record = |model: &str, label: &str, checkpoint: &Checkpoint| {
        let (network, _) = Network::load(checkpoint).unwrap();
        let states = network.hidden_states(&batch(network.spec()), 1).unwrap();
        writeln!(found, "{model} | {label} | {:016x}", digest(&states)).unwrap();
    };
    for model in golden_models() {
        let name = model.file_name().unwrap().to_str().unwrap();
        record(name, "as it is", &Checkpoint::open(&model).unwrap());
        let source = open_checkpoint(&model).unwrap();
        let spec = EncoderSpec::from_checkpoint(&source).unwrap();
        for (label, recipe) in recipes(&spec) {
            match QuantizePlan::new(&source, &recipe) {
                Err(QuantizeError::TiedEmbeddings { .. }) if recipe.embeddings().is_quantized() => {
                    continue;
                }
                plan => plan.unwrap(),
            };
            let out = root.path().join(format!("{name} {label}"));
            quantize_model(&model, &recipe, &out, false, &mut |_, _, _| {}).unwrap();
            record(name, &label, &Checkpoint::open(&out).unwrap());
        }
    }
    let recorded = include_str!("digests.txt");
    assert!(
        found == recorded,
        "other bits than those of digests.txt; found:\n{found}"
    );
}
