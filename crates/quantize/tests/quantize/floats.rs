//! What is not quantized, and the word embedding table.

use fewbit_checkpoint::{Checkpoint, StoredWeight};
use fewbit_model::{Network, RaggedBatch};
use fewbit_numerics::dtype::DType;
use fewbit_numerics::rows::{llm_int8_absmax, llm_int8_scale, quantize_rows_int8};
use fewbit_quantize::{
    EmbeddingStorage, FloatDType, FourBitRecipe, IntegerRecipe, QuantizePlan, Recipe,
};

use crate::tiny_bert::{HIDDEN, TinyBert, VOCABULARY, to_bytes};

const TABLE: &str = "bert.embeddings.word_embeddings";

/// Scales and code tables, which go with codes.
const OF_CODES: [&str; 6] = [
    "weight_scale",
    ".absmax",
    ".quant_map",
    ".nested_absmax",
    ".nested_quant_map",
    ".SCB",
];

/// Every method that quantizes and needs no calibration, with a dtype for the rest.
fn with_floats(dtype: FloatDType) -> Vec<Recipe> {
    let with_dtype = |recipe| match recipe {
        Recipe::Integer(options) => Some(options.with_float_dtype(dtype).into()),
        Recipe::FourBit(options) => Some(options.with_float_dtype(dtype).into()),
        _ => None,
    };
    Recipe::standard()
        .into_iter()
        .filter_map(with_dtype)
        .collect()
}

fn hidden_states(checkpoint: &Checkpoint) -> Vec<f32> {
    let (network, ledger) = Network::load(checkpoint).unwrap();
    assert!(ledger.missing.is_empty());
    let batch = RaggedBatch::from_sequences(&[&[1, 2, 3, 39], &[7]]);
    network.hidden_states(&batch, 1).unwrap()
}

#[test]
fn nothing_stays_in_another_dtype_than_the_one_asked_for() {
    for source_dtype in [DType::F32, DType::F16] {
        let source = TinyBert::new(source_dtype, "bert.").write();
        for (asked, name) in [
            (FloatDType::F32, "float32"),
            (FloatDType::Fp16, "float16"),
            (FloatDType::Bf16, "bfloat16"),
        ] {
            for recipe in with_floats(asked) {
                let label = format!("{source_dtype:?} {}", recipe.label());
                let (_, checkpoint) = source.converted_into(&recipe, &label);
                let of_floats = |name: &&fewbit_checkpoint::TensorInfo| {
                    name.dtype.is_float() && !OF_CODES.iter().any(|end| name.name.ends_with(end))
                };
                let mut seen = 0;
                for info in checkpoint.tensors().filter(of_floats) {
                    // Eight bits of digits cost more in the scales of normalizations than anywhere else; beside 4-bit layers
                    // transformers wants one dtype.
                    let kept = asked == FloatDType::Bf16
                        && recipe.integer().is_some()
                        && info.name.contains("LayerNorm");
                    let expected = if kept { source_dtype } else { asked.dtype() };
                    assert_eq!(info.dtype, expected, "{label} {}", info.name);
                    seen += 1;
                }
                assert!(seen > 20, "{label}");
                let config = checkpoint.config();
                assert_eq!(config["dtype"], name, "{label}");
                if recipe.four_bit().is_some() {
                    let compute = &config["quantization_config"]["bnb_4bit_compute_dtype"];
                    assert_eq!(compute, name, "{label}");
                }
                assert!(hidden_states(&checkpoint).iter().all(|x| x.is_finite()));
                assert_eq!(Recipe::from_toml(&recipe.to_toml()).unwrap(), recipe);
            }
        }
    }
}

/// The dtype of a model that says none is, for transformers, that of the tensor that comes first.
#[test]
fn half_embeddings_beside_wider_floats_leave_the_dtype_of_the_model() {
    let source = TinyBert::f32().write();
    for options in [IntegerRecipe::dynamic(), IntegerRecipe::weight_only()] {
        let recipe = Recipe::from(options.with_embeddings(EmbeddingStorage::Fp16));
        let (report, checkpoint) = source.converted_into(&recipe, &recipe.label());
        let dtype = |name: &str| checkpoint.require(name).unwrap().info.dtype;
        assert_eq!(dtype(&format!("{TABLE}.weight")), DType::F16);
        assert_eq!(
            dtype("bert.embeddings.position_embeddings.weight"),
            DType::F32
        );
        assert_eq!(checkpoint.config()["dtype"], "float32");
        assert_eq!(report.recipe, recipe);
        assert!(report.notes.is_empty(), "{:?}", report.notes);
    }
    // transformers leaves a tensor beside 4-bit layers in the dtype that it has, and does not run on two.
    let mixed = FourBitRecipe::nf4().with_embeddings(EmbeddingStorage::Fp16);
    let refused = Recipe::from(mixed.clone()).validate().unwrap_err();
    assert!(refused.to_string().contains("floats of one dtype"));
    let same = mixed.with_float_dtype(FloatDType::Fp16);
    let (_, checkpoint) = source.converted(&same.into());
    assert_eq!(checkpoint.config()["dtype"], "float16");
}

#[test]
fn codes_of_a_table_beside_4_bit_layers_are_those_of_the_reference_and_are_run() {
    let model = TinyBert::f32();
    let source = model.write();
    let float = source.open();
    let table = float
        .require(&format!("{TABLE}.weight"))
        .unwrap()
        .to_f32()
        .unwrap();
    let shape = [VOCABULARY, HIDDEN];
    for embeddings in [EmbeddingStorage::Int8, EmbeddingStorage::Nf4] {
        for options in [
            FourBitRecipe::fp4(),
            FourBitRecipe::nf4().with_double_quantization(true),
        ] {
            let recipe = Recipe::from(options.clone().with_embeddings(embeddings));
            let (report, checkpoint) = source.converted_into(&recipe, &recipe.label());
            let [note] = &report.notes[..] else {
                panic!("{:?}", report.notes)
            };
            assert!(note.contains("no other loader"), "{note}");
            // Other loaders, which know of no codes there, fail on the shape instead of taking codes for values.
            let weight = checkpoint.require(&format!("{TABLE}.weight")).unwrap();
            assert_ne!(weight.info.shape, shape);
            let stored = checkpoint.stored_weight(TABLE, shape).unwrap();
            match (&stored, embeddings) {
                (StoredWeight::Groups { codes, scales, .. }, EmbeddingStorage::Int8) => {
                    let expected = quantize_rows_int8(&table, VOCABULARY, HIDDEN);
                    assert_eq!(codes.as_ref(), expected.codes);
                    let written = |scale: &f32| llm_int8_scale(llm_int8_absmax(*scale));
                    let expected: Vec<f32> = expected.scales.iter().map(written).collect();
                    assert_eq!(*scales, expected);
                }
                (StoredWeight::FourBit { kind, .. }, EmbeddingStorage::Nf4) => {
                    assert_eq!(kind.name(), "nf4");
                }
                (other, _) => panic!("{other:?}"),
            }
            // The same layers on a table of the floats that the codes stand for.
            let mut floats = model.clone();
            let name = format!("{TABLE}.weight");
            let tensor = floats.tensors.iter_mut().find(|t| t.plan.name == name);
            tensor.unwrap().bytes = to_bytes(&stored.dequantize(shape).unwrap(), DType::F32);
            let floats = floats.write();
            let (_, expected) = floats.converted(&options.into());
            assert_eq!(hidden_states(&checkpoint), hidden_states(&expected));
        }
    }
}

#[test]
fn nf4_embeddings_do_not_go_with_int8_weights() {
    let recipe = Recipe::from(IntegerRecipe::dynamic().with_embeddings(EmbeddingStorage::Nf4));
    let refused = recipe.validate().unwrap_err().to_string();
    assert!(
        refused.contains("`embeddings`") && refused.contains("compressed-tensors"),
        "{refused}"
    );
}

#[test]
fn the_size_of_the_whole_file_is_known_before_it_is_written() {
    let source = TinyBert::f32().write();
    for recipe in Recipe::standard() {
        let plan = QuantizePlan::new(&source.open(), &recipe).unwrap();
        let (report, checkpoint) = source.converted_into(&recipe, &recipe.label());
        let file = std::fs::metadata(checkpoint.directory().join("model.safetensors"));
        assert_eq!(plan.file_bytes(), file.unwrap().len(), "{}", recipe.label());
        assert_eq!(report.file_bytes, plan.file_bytes());
    }
}
