//! Every encoder family, with the models that the real transformers library wrote.

use std::path::PathBuf;

use fewbit_checkpoint::{Checkpoint, CheckpointWriter, TensorPlan};
use fewbit_model::{EncoderSpec, Network, RaggedBatch, open_checkpoint};
use fewbit_quantize::{
    EmbeddingStorage, FourBitRecipe, IntegerRecipe, KeepReason, Method, QuantizeError,
    QuantizePlan, Recipe, method_sizes, quantize_model,
};

pub(crate) fn golden_models() -> Vec<PathBuf> {
    let directory = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../model/tests/golden/architectures"
    );
    let mut models: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("config.json").is_file())
        .collect();
    models.sort();
    assert!(models.len() >= 10, "{models:?}");
    models
}

#[test]
fn every_family_converts_with_every_method_and_reads_back() {
    let root = tempfile::tempdir().unwrap();
    for model in golden_models() {
        let name = model.file_name().unwrap().to_str().unwrap();
        let source = open_checkpoint(&model).unwrap();
        let spec = EncoderSpec::from_checkpoint(&source).unwrap();
        for recipe in Recipe::standard() {
            let context = format!("{name}: {}", recipe.label());
            let out = root.path().join(&context);
            let plan = match QuantizePlan::new(&source, &recipe) {
                Err(QuantizeError::TiedEmbeddings { .. }) if recipe.embeddings().is_quantized() => {
                    continue;
                }
                plan => plan.unwrap(),
            };
            let report = quantize_model(&model, &recipe, &out, false, &mut |_, _, _| {})
                .unwrap_or_else(|error| panic!("{context}: {error}"));
            assert!(report.output_bytes < report.source_bytes || recipe.float_dtype().is_some());

            let output = Checkpoint::open(&out).unwrap();
            let written: usize = output.tensors().map(|info| info.byte_len).sum();
            assert_eq!(written, plan.output_bytes(), "{context}");
            // The description of the model has not changed, and all its weights can be read.
            assert_eq!(
                EncoderSpec::from_checkpoint(&output).unwrap(),
                spec,
                "{context}"
            );
            let catalogue = spec.catalogue();
            let word_embeddings = catalogue.word_embeddings();
            for module in catalogue.linear_modules().chain(word_embeddings) {
                let stored = output.stored_weight(&module.name, module.shape).unwrap();
                let weight = stored.dequantize(module.shape).unwrap();
                let original = source.require(&format!("{}.weight", module.name)).unwrap();
                let cosine =
                    fewbit_numerics::error_statistics::cosine(&original.to_f32().unwrap(), &weight);
                assert!(
                    cosine > least_cosine(recipe.method()),
                    "{context} {}: {cosine}",
                    module.name
                );
            }
        }
    }
}

/// A linear layer among the embeddings is still a linear layer to a loader.
#[test]
fn a_skipped_projection_of_the_embeddings_is_on_the_list_for_loaders() {
    let model = golden_models()
        .into_iter()
        .find(|path| path.ends_with("electra-embedding-size-16"))
        .unwrap();
    let root = tempfile::tempdir().unwrap();
    let recipe = Recipe::from(FourBitRecipe::nf4().with_skip(["embeddings_project"]));
    let report = quantize_model(
        &model,
        &recipe,
        root.path().join("out"),
        false,
        &mut |_, _, _| {},
    )
    .unwrap();
    let output = Checkpoint::open(&report.output).unwrap();
    let list = &output.config()["quantization_config"]["llm_int8_skip_modules"];
    let names = list.as_array().unwrap();
    assert!(names.contains(&"embeddings_project".into()), "{list}");
    assert!(
        !names
            .iter()
            .any(|name| name == "embeddings.word_embeddings"),
        "{list}"
    );
    assert!(
        names.contains(&"discriminator_predictions".into()),
        "{list}"
    );
}

/// transformers cannot multiply with the codes of a table that a head shares; a head with a matrix of its own is no obstacle.
#[test]
fn int8_embeddings_that_a_head_shares_are_refused() {
    let shares = |name: &str, tied: Option<bool>| {
        let model = golden_models()
            .into_iter()
            .find(|path| path.ends_with(name))
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(model.join(file), directory.path().join(file)).unwrap();
        }
        if let Some(tied) = tied {
            let file = directory.path().join("config.json");
            let mut config: serde_json::Value =
                serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            config["tie_word_embeddings"] = tied.into();
            std::fs::write(file, config.to_string()).unwrap();
        }
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        let recipe = Recipe::new(Method::Dynamic);
        QuantizePlan::new(&checkpoint, &recipe).unwrap();
        let sizes = method_sizes(&checkpoint).unwrap();
        let refused = matches!(
            QuantizePlan::new(
                &checkpoint,
                &IntegerRecipe::dynamic()
                    .with_embeddings(EmbeddingStorage::Int8)
                    .into()
            ),
            Err(QuantizeError::TiedEmbeddings { .. })
        );
        // By default they are not asked for there, and the list of what can be made of the model does not say it twice.
        let plan = QuantizePlan::new(&checkpoint, &recipe).unwrap();
        let decided = match refused {
            true => EmbeddingStorage::Keep,
            false => EmbeddingStorage::Int8,
        };
        assert_eq!(plan.recipe().embeddings(), decided, "{name}");
        let reason = KeepReason::SharedEmbeddingTable;
        let says_why = plan.kept().iter().any(|kept| kept.reason == reason);
        assert_eq!(says_why, refused, "{name}");
        let listed = sizes
            .iter()
            .any(|size| size.label == "dynamic + float embeddings");
        assert_eq!(listed, !refused, "{name}");
        refused
    };
    for name in [
        "bert-masked-lm",
        "distilbert-relu-masked-lm",
        "modernbert-biases-masked-lm",
        "mpnet-long-masked-lm",
        "xlm-roberta-masked-lm",
    ] {
        assert!(shares(name, None), "{name}");
        assert!(!shares(name, Some(false)), "{name}");
    }
    assert!(!shares("bert-sequence-classification", None));
    assert!(!shares("electra-embedding-size-16", None));
}

/// For Gaussian weights in short blocks: int8 has an error of at most half a step, absmax / 255, hence
/// far below a thousandth of the norm squared; nf4 about 0.9 % of it and fp4 about 1.4 %, so that the
/// cosine, 1 - error / 2, is above 0.99; small tensors of odd sizes need some room.
fn least_cosine(method: Method) -> f64 {
    match method {
        Method::Nf4 | Method::Fp4 => 0.98,
        _ => 0.9999,
    }
}

/// Parts of fused weights, also those that begin within a block, are those of the dequantized matrix: a product with 4-bit codes is that of
/// their values.
#[test]
fn parts_of_a_fused_4_bit_weight_compute_what_their_values_give() {
    let root = tempfile::tempdir().unwrap();
    let model = golden_models()
        .into_iter()
        .find(|path| path.ends_with("modernbert"))
        .unwrap();
    for block_size in [64, 4096] {
        let recipe = Recipe::from(FourBitRecipe::nf4().with_block_size(block_size));
        let out = root.path().join(format!("{block_size}"));
        quantize_model(&model, &recipe, &out, false, &mut |_, _, _| {}).unwrap();
        let quantized = Checkpoint::open(&out).unwrap();

        let source = Checkpoint::open(&model).unwrap();
        let catalogue = EncoderSpec::from_checkpoint(&source).unwrap().catalogue();
        let float = root.path().join(format!("{block_size} float"));
        let mut writer = CheckpointWriter::create(&float, false).unwrap();
        writer.write_json("config.json", source.config()).unwrap();
        let plans = source
            .tensors()
            .map(|info| TensorPlan::new(&info.name, info.dtype, info.shape.clone()));
        writer.plan_tensors(plans.collect()).unwrap();
        for info in source.tensors() {
            let module = info.name.strip_suffix(".weight");
            let linear = catalogue
                .linear_modules()
                .find(|linear| Some(linear.name.as_str()) == module);
            let values = match linear {
                None => source.require(&info.name).unwrap().to_f32().unwrap(),
                Some(linear) => {
                    let stored = linear.stored_weight(&quantized).unwrap();
                    stored.dequantize(linear.shape).unwrap()
                }
            };
            let bytes: Vec<u8> = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            writer.write_tensor(&info.name, &bytes).unwrap();
        }
        writer.finish().unwrap();

        let ids: Vec<u32> = (0..30).collect();
        let states = |checkpoint: &Checkpoint| {
            let (network, _) = Network::load(checkpoint).unwrap();
            let batch = RaggedBatch::from_sequences(&[&ids]);
            network.hidden_states(&batch, 1).unwrap()
        };
        let float = Checkpoint::open(&float).unwrap();
        assert_eq!(states(&quantized), states(&float), "blocks of {block_size}");
    }
}

/// The head of a decoder is the table itself, and has no tensor to be known by.
#[test]
fn embeddings_that_are_the_head_of_a_decoder_stay_float_by_default() {
    let model = golden_models()
        .into_iter()
        .find(|path| path.ends_with("qwen2"))
        .unwrap();
    let decided = |class: &str, tied: bool| {
        let directory = tempfile::tempdir().unwrap();
        std::fs::copy(
            model.join("model.safetensors"),
            directory.path().join("model.safetensors"),
        )
        .unwrap();
        let mut config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(model.join("config.json")).unwrap()).unwrap();
        config["architectures"] = serde_json::json!([class]);
        config["tie_word_embeddings"] = tied.into();
        std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        let checkpoint = open_checkpoint(directory.path()).unwrap();
        let plan = QuantizePlan::new(&checkpoint, &Recipe::new(Method::WeightOnly)).unwrap();
        plan.recipe().embeddings()
    };
    assert_eq!(decided("Qwen2ForCausalLM", true), EmbeddingStorage::Keep);
    assert_eq!(decided("Qwen2ForCausalLM", false), EmbeddingStorage::Int8);
    assert_eq!(decided("Qwen2Model", true), EmbeddingStorage::Int8);
}
