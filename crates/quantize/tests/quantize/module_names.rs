//! Families whose files have other names than their modules in transformers: what is written has those of the modules.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fewbit_checkpoint::stored_weight::Int8Activations;
use fewbit_checkpoint::{Checkpoint, StoredWeight};
use fewbit_data::TokenRow;
use fewbit_model::{EncoderSpec, Network, RaggedBatch, open_checkpoint};
use fewbit_numerics::error_statistics::cosine;
use fewbit_quantize::calibration::{CalibrationSamples, Calibrator, StaticCalibration};
use fewbit_quantize::{
    Backend, EmbeddingStorage, GptqCalibration, IntegerRecipe, Method, ObserverKind,
    ObserverSettings, PlannedConversion, QuantizeError, Recipe, Rounding, StaticInputs,
    quantize_model, quantize_model_with_gptq,
};
use serde_json::{Value, json};

use crate::architectures::golden_models;

const FAMILIES: [&str; 3] = ["gte", "jina-embeddings-v3", "nomic-bert"];

fn golden(name: &str) -> PathBuf {
    let mut models = golden_models().into_iter();
    models.find(|path| path.ends_with(name)).unwrap()
}

/// Names of tensors, but for a table that only one of two models of a family has.
fn names(checkpoint: &Checkpoint) -> BTreeSet<String> {
    let names = checkpoint.tensors().map(|tensor| tensor.name.clone());
    names
        .filter(|name| !name.contains("token_type_embeddings"))
        .collect()
}

fn convert(model: &Path, recipe: &Recipe, out: &Path) -> Checkpoint {
    quantize_model(model, recipe, out, false, &mut |_, _, _| {}).unwrap();
    Checkpoint::open(out).unwrap()
}

/// The model of these names was written by transformers, and loads there.
#[test]
fn every_method_writes_what_it_makes_of_a_file_with_the_names_of_modules() {
    let root = tempfile::tempdir().unwrap();
    for family in FAMILIES {
        let of_modules = format!("{family}-module-names");
        for recipe in Recipe::standard() {
            let out = |model: &str| root.path().join(format!("{model} {}", recipe.label()));
            let written = convert(&golden(family), &recipe, &out(family));
            let expected = convert(&golden(&of_modules), &recipe, &out(&of_modules));
            let context = format!("{family}: {}", recipe.label());
            assert_eq!(names(&written), names(&expected), "{context}");
            let lists =
                |checkpoint: &Checkpoint| checkpoint.config()["quantization_config"].clone();
            assert_eq!(lists(&written), lists(&expected), "{context}");
        }
    }
}

#[test]
fn the_names_are_no_part_of_what_is_computed() {
    for family in FAMILIES {
        let states = |checkpoint: &Checkpoint| {
            let (network, ledger) = Network::load(checkpoint).unwrap();
            let batch = RaggedBatch::from_sequences(&[&[1, 2, 3, 4, 5, 6, 7]]);
            let states = network.hidden_states(&batch, 1).unwrap();
            (states, ledger.missing)
        };
        let stored = Checkpoint::open(golden(family)).unwrap();
        let renamed = open_checkpoint(golden(family)).unwrap();
        assert_ne!(names(&stored), names(&renamed), "{family}");
        assert_eq!(states(&stored), states(&renamed), "{family}");
    }
}

/// A copy of a golden model, with words for a tokenizer.
fn with_words(family: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(golden(family).join(file), directory.path().join(file)).unwrap();
    }
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let words = (special.len()..80).map(|index| format!("w{index}"));
    let words: Vec<String> = special.iter().cloned().chain(words).collect();
    let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text);
    write("vocab.txt", words.join("\n")).unwrap();
    let class = json!({"tokenizer_class": "BertTokenizer"});
    write("tokenizer_config.json", class.to_string()).unwrap();
    directory
}

#[test]
fn calibration_static_recipes_and_gptq_go_by_the_names_that_are_written() {
    let rows: Vec<TokenRow> = (0..12u32)
        .map(|row| TokenRow {
            token_ids: (0..9).map(|at| 5 + (row * 17 + at * 7) % 75).collect(),
            token_type_ids: Vec::new(),
        })
        .collect();
    let samples = CalibrationSamples::Tokens(rows);
    for family in FAMILIES {
        let source = with_words(family);
        let source = source.path();
        let rule = Backend::Native.qconfig().activation().rule();
        let min_max = ObserverSettings::new(ObserverKind::MinMax, rule).unwrap();
        let mut calibrator = Calibrator::prepare(source, min_max).unwrap();
        calibrator
            .observe_samples(&samples, 0, 4, |_, _| Ok(()))
            .unwrap();
        // Every input is static.
        let calibration =
            StaticCalibration::new(calibrator, samples.clone(), None, Some(0.0)).unwrap();
        let options = IntegerRecipe::from(StaticInputs::default())
            .with_embeddings(EmbeddingStorage::Keep)
            .with_rounding(Rounding::Gptq {
                saturation_proof: false,
            });
        let recipe = calibration.recipe(&options).unwrap();
        let out = source.join("../").join(format!(
            "{}-out",
            source.file_name().unwrap().to_str().unwrap()
        ));
        let gptq = GptqCalibration::new(samples.clone(), 2);
        let report =
            quantize_model_with_gptq(source, &recipe, &gptq, &out, false, &mut |_, _, _| {})
                .unwrap();
        let written = Checkpoint::open(&out).unwrap();
        let catalogue = EncoderSpec::from_checkpoint(&written).unwrap().catalogue();
        let modules: BTreeSet<&str> = catalogue
            .linear_modules()
            .map(|module| module.name.as_str())
            .collect();
        assert!(modules.contains("layers.1.self_attn.k_proj"), "{modules:?}");
        let scales = recipe.static_inputs().unwrap();
        let scaled: BTreeSet<&str> = scales.keys().map(String::as_str).collect();
        assert_eq!(scaled, modules, "{family}: static_inputs");
        let reported = report.modules.iter().map(|module| module.module.as_str());
        assert_eq!(
            reported.collect::<BTreeSet<_>>(),
            modules,
            "{family}: report"
        );
        for module in catalogue.linear_modules() {
            let stored = module.stored_weight(&written).unwrap();
            let is_static = matches!(
                stored,
                StoredWeight::Int8 {
                    activations: Int8Activations::Static { .. },
                    ..
                }
            );
            assert!(is_static, "{family} {}: {stored:?}", module.name);
        }
        let states = |directory: &Path| {
            let (network, _) = Network::load(&Checkpoint::open(directory).unwrap()).unwrap();
            let batch = RaggedBatch::from_sequences(&[&[5, 22, 39, 56, 73]]);
            network.hidden_states(&batch, 1).unwrap()
        };
        // Parts in another order would give other states altogether.
        let cosine = cosine(&states(source), &states(&out));
        assert!(cosine > 0.95, "{family}: {cosine}");
        std::fs::remove_dir_all(out).unwrap();
    }
}

#[test]
fn patterns_and_dry_runs_go_by_the_names_that_are_written() {
    let plan = |skip: &str| {
        let recipe = Recipe::from(IntegerRecipe::dynamic().with_skip([skip]));
        PlannedConversion::new(golden("nomic-bert"), &recipe)
    };
    let conversion = plan("*.k_proj").unwrap();
    let kept = conversion.plan().kept().iter();
    let kept: Vec<&str> = kept.map(|kept| kept.module.as_str()).collect();
    for layer in ["layers.0", "layers.1"] {
        assert!(
            kept.contains(&&*format!("{layer}.self_attn.k_proj")),
            "{kept:?}"
        );
    }
    assert_eq!(
        conversion.plan().notes(),
        [
            "tensors get the names of their modules in transformers: `encoder.layers.0.attn.Wqkv.weight` of the files is \
             `layers.0.self_attn.q_proj.weight`, `layers.0.self_attn.k_proj.weight` and `layers.0.self_attn.v_proj.weight`"
        ]
    );
    let refused = plan("*.Wqkv").unwrap_err();
    assert!(
        matches!(refused, QuantizeError::Pattern { .. }),
        "{refused}"
    );
}

/// Their own code knows the tensors under the names of the files.
#[test]
fn models_with_code_of_their_own_keep_their_names() {
    let root = tempfile::tempdir().unwrap();
    let recipe = Recipe::new(Method::Dynamic);
    let own = convert(&golden("new"), &recipe, &root.path().join("new"));
    assert!(own.contains("new.encoder.layer.0.attention.qkv_proj.weight_scale"));

    let nomic = tempfile::tempdir().unwrap();
    std::fs::copy(
        golden("nomic-bert").join("model.safetensors"),
        nomic.path().join("model.safetensors"),
    )
    .unwrap();
    let config = std::fs::read(golden("nomic-bert").join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["auto_map"] = json!({"AutoModel": "modeling_hf_nomic_bert.NomicBertModel"});
    std::fs::write(nomic.path().join("config.json"), config.to_string()).unwrap();
    let own = convert(nomic.path(), &recipe, &root.path().join("nomic"));
    assert!(own.contains("encoder.layers.0.attn.Wqkv.weight_scale"));
}
