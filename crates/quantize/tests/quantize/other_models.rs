//! Checkpoints of models that fewbit does not run.

use fewbit_model::{Catalogue, Role};
use fewbit_quantize::{
    BlockScales, ConversionTarget, ConvertOptions, EmbeddingStorage, FloatDType, FourBitRecipe,
    IntegerRecipe, KeepReason, Method, QuantizeError, QuantizePlan, Recipe, Rounding,
    convert_model, method_sizes,
};
use serde_json::{Value, json};

use crate::tiny_bert::{Source, TinyBert};

fn llama(config: Value) -> Source {
    let tensors: &[(&str, &[usize])] = &[
        ("model.embed_tokens.weight", &[40, 32]),
        ("model.layers.0.input_layernorm.weight", &[32]),
        ("model.layers.0.self_attn.q_proj.weight", &[32, 32]),
        ("model.layers.0.self_attn.k_proj.weight", &[16, 32]),
        ("model.layers.0.mlp.gate_proj.weight", &[64, 32]),
        ("model.layers.0.mlp.down_proj.weight", &[32, 64]),
        ("model.layers.0.mlp.experts.gate_up_proj", &[2, 64, 32]),
        ("model.norm.weight", &[32]),
        ("lm_head.weight", &[40, 32]),
    ];
    TinyBert::of_tensors(config, tensors).write()
}

const LINEAR: [&str; 4] = [
    "model.layers.0.mlp.down_proj",
    "model.layers.0.mlp.gate_proj",
    "model.layers.0.self_attn.k_proj",
    "model.layers.0.self_attn.q_proj",
];

#[test]
fn weights_are_quantized_by_their_names() {
    for config in [
        json!({"model_type": "phi3", "hidden_size": 32}),
        json!({}),
        // Known, but defined by code of its own.
        json!({"model_type": "bert", "auto_map": {"AutoModel": "modeling.Model"}}),
    ] {
        let source = llama(config);
        for method in [Method::WeightOnly, Method::Nf4, Method::Fp4] {
            let plan = QuantizePlan::new(&source.open(), &Recipe::new(method)).unwrap();
            let quantized = plan.rows().iter().filter(|row| row.is_quantized());
            let quantized: Vec<&str> = quantized.filter_map(|row| row.module.as_deref()).collect();
            assert_eq!(quantized, LINEAR);
            let kept: Vec<_> = (plan.kept().iter())
                .map(|kept| (kept.module.as_str(), &kept.reason))
                .collect();
            assert_eq!(
                kept,
                [
                    ("lm_head", &KeepReason::TaskHead),
                    ("model.embed_tokens", &KeepReason::Table),
                    (
                        "model.layers.0.mlp.experts.gate_up_proj",
                        &KeepReason::Expert
                    ),
                ]
            );
            assert!(plan.notes()[0].contains("fewbit does not run this model"));
            let out = source.out(method.name());
            source
                .quantize_into(&Recipe::new(method), &out, false)
                .unwrap();
            let written = fewbit_checkpoint::Checkpoint::open(&out).unwrap();
            let config = written.config()["quantization_config"].to_string();
            assert!(config.contains("lm_head"), "{config}");
            for module in Catalogue::of_checkpoint(&source.open())
                .unwrap()
                .linear_modules()
            {
                assert_eq!(module.role, Role::OtherLinear);
                let stored = written.stored_weight(&module.name, module.shape).unwrap();
                let found = stored.dequantize(module.shape).unwrap();
                let source = source.open();
                let weight = source.require(&format!("{}.weight", module.name)).unwrap();
                let weight = weight.to_f32().unwrap();
                let cosine = fewbit_numerics::error_statistics::cosine(&weight, &found);
                // The bounds of `architectures::least_cosine`.
                let least = if method == Method::WeightOnly {
                    0.9999
                } else {
                    0.98
                };
                assert!(cosine > least, "{method} {}: {cosine}", module.name);
            }
            std::fs::remove_dir_all(out).unwrap();
        }
        for method in [Method::Fp16, Method::Bf16] {
            let (_, written) = source.converted_into(&Recipe::new(method), method.name());
            let dtype = method.float_dtype().unwrap();
            assert!(written.tensors().all(|info| info.dtype == dtype));
        }
        let sizes = method_sizes(&source.open()).unwrap();
        assert!(
            sizes
                .iter()
                .all(|size| { !matches!(size.recipe.method(), Method::Dynamic | Method::Static) })
        );
        assert!(sizes.len() >= 5);
    }
}

#[test]
fn what_needs_the_code_of_the_model_is_refused() {
    let source = llama(json!({"model_type": "phi3"}));
    let gptq = IntegerRecipe::weight_only().with_rounding(Rounding::Gptq {
        saturation_proof: false,
    });
    for recipe in [Recipe::new(Method::Dynamic), gptq.into()] {
        let error = QuantizePlan::new(&source.open(), &recipe).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("`model_type`: expected one of albert,")
                && text.contains("found \"phi3\"")
                && text.contains("weight-only, nf4, fp4"),
            "{text}"
        );
    }
    let source = llama(json!({"model_type": "phi3", "tie_word_embeddings": false}));
    let embeddings = IntegerRecipe::weight_only()
        .with_embeddings(EmbeddingStorage::Int8)
        .into();
    let error = QuantizePlan::new(&source.open(), &embeddings).unwrap_err();
    assert!(error.to_string().contains("`embeddings`"), "{error}");
}

fn gpt2() -> Source {
    let tensors: &[(&str, &[usize])] = &[
        ("transformer.wte.weight", &[40, 32]),
        ("transformer.h.0.attn.c_attn.weight", &[32, 96]),
        ("transformer.h.0.attn.c_attn.bias", &[96]),
        ("transformer.h.0.attn.c_proj.weight", &[32, 32]),
        // 39 outputs: rows of the source that end inside of a block.
        ("transformer.h.0.mlp.c_fc.weight", &[32, 39]),
        ("transformer.h.0.crossattention.q_attn.weight", &[32, 32]),
    ];
    TinyBert::of_tensors(json!({"model_type": "gpt2"}), tensors).write()
}

const TRANSPOSED: [&str; 4] = [
    "transformer.h.0.attn.c_attn",
    "transformer.h.0.attn.c_proj",
    "transformer.h.0.crossattention.q_attn",
    "transformer.h.0.mlp.c_fc",
];

/// (columns, rows) of a matrix (rows, columns).
fn transpose(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    let element = |index: usize| values[index % rows * columns + index / rows];
    (0..rows * columns).map(element).collect()
}

/// GPT-2's layers keep (in, out); bitsandbytes makes linear layers of them, whose codes are those of the transpose.
#[test]
fn transposed_weights_have_the_codes_of_linear_layers() {
    let source = gpt2();
    let float = source.open();
    for (name, recipe) in [
        ("absmax", FourBitRecipe::nf4()),
        (
            "double",
            FourBitRecipe::nf4().with_double_quantization(true),
        ),
        ("mse", FourBitRecipe::fp4().with_scales(BlockScales::Mse)),
    ] {
        let (report, written) = source.converted_into(&recipe.clone().into(), name);
        assert!(
            report
                .modules
                .iter()
                .all(|module| module.action.contains(", transposed"))
        );
        let modules: Vec<&str> = report
            .modules
            .iter()
            .map(|row| row.module.as_str())
            .collect();
        assert_eq!(modules.len(), TRANSPOSED.len());
        for module in TRANSPOSED {
            let view = float.require(&format!("{module}.weight")).unwrap();
            let [rows, columns] = view.info.shape[..] else {
                panic!("a matrix")
            };
            let weight = transpose(&view.to_f32().unwrap(), [rows, columns]);
            // The same weight of a linear layer.
            let plan =
                TinyBert::of_values(json!({}), &format!("x.{module}"), [columns, rows], &weight);
            let linear = plan.write();
            let (of_linear, expected) = linear.converted(&recipe.clone().into());
            let stored = written.stored_weight(module, [columns, rows]).unwrap();
            let expected = expected.stored_weight(&format!("x.{module}"), [columns, rows]);
            assert_eq!(format!("{stored:?}"), format!("{:?}", expected.unwrap()));
            let row = report
                .modules
                .iter()
                .find(|row| row.module == module)
                .unwrap();
            assert_eq!(row.sqnr_db, of_linear.modules[0].sqnr_db, "{module}");
        }
        // And back: floats are (in, out) again.
        let out = source.out(&format!("{name}-floats"));
        let floats = ConversionTarget::Floats(FloatDType::F32);
        let options = ConvertOptions::default();
        convert_model(source.out(name), &floats, &out, options, &mut |_, _, _| {}).unwrap();
        let back = fewbit_checkpoint::Checkpoint::open(&out).unwrap();
        for module in TRANSPOSED {
            let tensor = format!("{module}.weight");
            let found = back.require(&tensor).unwrap();
            let shape = float.require(&tensor).unwrap().info.shape.clone();
            assert_eq!(found.info.shape, shape);
            let shape = [shape[1], shape[0]];
            let codes = written.stored_weight(module, shape).unwrap();
            let expected = transpose(&codes.dequantize(shape).unwrap(), shape);
            assert_eq!(found.to_f32().unwrap(), expected, "{module}");
        }
    }
}

/// compressed-tensors has linear layers and tables alone.
#[test]
fn transposed_weights_stay_float_where_loaders_refuse_them() {
    let source = gpt2();
    let error = QuantizePlan::new(&source.open(), &Recipe::new(Method::WeightOnly)).unwrap_err();
    assert!(
        matches!(error, QuantizeError::NoLinearLayer { kept: 5, .. }),
        "{error}"
    );
    let (report, _) = source.converted(&Recipe::new(Method::Fp16));
    assert_eq!(report.output_bytes * 2, report.source_bytes);
    let mut broken = TinyBert::of_tensors(
        json!({"model_type": "gpt2"}),
        &[("transformer.h.0.mlp.c_fc.weight", &[32, 39])],
    );
    broken.poke("transformer.h.0.mlp.c_fc.weight", 40, f32::INFINITY);
    let broken = broken.write();
    let error = broken.quantize(&Recipe::new(Method::Nf4)).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("c_fc.weight") && text.contains("[1, 1]"),
        "{text}"
    );
}

/// No loader of these layouts has quantized convolutions, and what stays float is listed.
#[test]
fn convolutions_stay_float() {
    let source = TinyBert::of_tensors(
        json!({"model_type": "whisper"}),
        &[
            ("model.encoder.conv1.weight", &[32, 8, 3]),
            ("model.encoder.patches.weight", &[32, 3, 4, 4]),
            ("model.encoder.layers.0.fc1.weight", &[64, 32]),
        ],
    )
    .write();
    for method in [Method::WeightOnly, Method::Nf4] {
        let plan = QuantizePlan::new(&source.open(), &Recipe::new(method)).unwrap();
        let kept: Vec<_> = (plan.kept().iter())
            .map(|kept| (kept.module.as_str(), &kept.reason))
            .collect();
        assert_eq!(
            kept,
            [
                ("model.encoder.conv1", &KeepReason::Convolution),
                ("model.encoder.patches", &KeepReason::Convolution),
            ]
        );
        let config = plan.quantization_config().unwrap().to_string();
        assert!(!config.contains("conv1"), "{config}");
    }
}

/// Loaders have one tensor for all experts of a layer, and no linear layer for what chooses between them.
#[test]
fn experts_and_routers_stay_float() {
    let source = TinyBert::of_tensors(
        json!({"model_type": "qwen3_moe"}),
        &[
            ("model.layers.0.self_attn.q_proj.weight", &[32, 32]),
            ("model.layers.0.mlp.gate.weight", &[2, 32]),
            ("model.layers.0.mlp.experts.0.up_proj.weight", &[64, 32]),
            ("model.layers.0.mlp.experts.1.up_proj.weight", &[64, 32]),
            ("model.layers.0.mlp.shared_expert.up_proj.weight", &[64, 32]),
            // No experts beside it.
            ("model.layers.1.mlp.gate.weight", &[64, 32]),
        ],
    )
    .write();
    for method in [Method::WeightOnly, Method::Nf4] {
        let plan = QuantizePlan::new(&source.open(), &Recipe::new(method)).unwrap();
        let quantized = plan.rows().iter().filter(|row| row.is_quantized());
        let quantized: Vec<&str> = quantized.filter_map(|row| row.module.as_deref()).collect();
        assert_eq!(
            quantized,
            [
                "model.layers.0.mlp.shared_expert.up_proj",
                "model.layers.0.self_attn.q_proj",
                "model.layers.1.mlp.gate"
            ]
        );
        let kept = plan.kept().iter();
        let kept: Vec<_> = kept
            .map(|kept| (kept.module.as_str(), &kept.reason))
            .collect();
        assert_eq!(
            kept,
            [
                ("model.layers.0.mlp.experts.0.up_proj", &KeepReason::Expert),
                ("model.layers.0.mlp.experts.1.up_proj", &KeepReason::Expert),
                ("model.layers.0.mlp.gate", &KeepReason::Router),
            ]
        );
        let config = plan.quantization_config().unwrap().to_string();
        // Of compressed-tensors it is a pattern.
        assert_eq!(config.matches("experts").count(), 1, "{config}");
    }
}

/// Codes that no configuration speaks of could be of any layout: nothing is made of them, least of all a configuration that fits by chance.
#[test]
fn codes_without_a_configuration_are_refused() {
    let source = llama(json!({"model_type": "phi3"}));
    let (_, written) = source.converted(&Recipe::new(Method::WeightOnly));
    let directory = written.directory();
    let mut config = written.config().clone();
    config
        .as_object_mut()
        .unwrap()
        .remove("quantization_config");
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let codes = fewbit_checkpoint::Checkpoint::open(directory).unwrap();
    for method in [Method::WeightOnly, Method::Nf4, Method::Fp16] {
        let error = QuantizePlan::new(&codes, &Recipe::new(method)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("expected float weights, found a part of a quantized one")
                && text.contains("needs its `quantization_config`"),
            "{text}"
        );
    }
    assert!(method_sizes(&codes).is_err());
}
