//! config.json of the result.

use fewbit_quantize::{EmbeddingStorage, FourBitRecipe, IntegerRecipe, Method, Recipe};
use serde_json::{Value, json};

use crate::tiny_bert::TinyBert;

/// config.json of the result, as text in the order of its fields, and without those of the source.
fn written(model: &TinyBert, recipe: &Recipe) -> Value {
    let source = model.write();
    let report = source.quantize(recipe).unwrap();
    let text = std::fs::read_to_string(report.output.join("config.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn everything_else_in_the_configuration_stays_in_its_order() {
    let model = TinyBert::f32();
    for recipe in Recipe::standard() {
        let config = written(&model, &recipe);
        let kept: serde_json::Map<String, Value> = config
            .as_object()
            .unwrap()
            .iter()
            .filter(|(key, _)| !["dtype", "quantization_config"].contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        assert_eq!(
            Value::Object(kept).to_string(),
            model.config.to_string(),
            "{}",
            recipe.label()
        );
    }
}

#[test]
fn float_methods_set_the_dtype_and_nothing_else() {
    let mut model = TinyBert::f32();
    assert_eq!(
        written(&model, &Recipe::new(Method::Fp16))["dtype"],
        "float16"
    );
    model.config["torch_dtype"] = json!("float32");
    let config = written(&model, &Recipe::new(Method::Bf16));
    assert_eq!(config["torch_dtype"], "bfloat16");
    assert_eq!(config.get("dtype"), None);
    assert_eq!(config.get("quantization_config"), None);
}

#[test]
fn quantizing_methods_leave_the_dtype_alone() {
    let mut model = TinyBert::f32();
    model.config["dtype"] = json!("float32");
    for method in [
        Method::Dynamic,
        Method::WeightOnly,
        Method::Nf4,
        Method::Fp4,
    ] {
        assert_eq!(written(&model, &Recipe::new(method))["dtype"], "float32");
    }
}

/// The names of skipped modules, and the poolers and heads of every class.
#[test]
fn the_skip_list_of_the_four_bit_methods() {
    let recipe = Recipe::from(
        FourBitRecipe::nf4()
            .with_double_quantization(true)
            .with_skip(["encoder.layer.1.output.dense"]),
    );
    let config = written(&TinyBert::f32(), &recipe);
    insta::assert_json_snapshot!(config["quantization_config"], @r#"
    {
      "quant_method": "bitsandbytes",
      "load_in_4bit": true,
      "load_in_8bit": false,
      "_load_in_4bit": true,
      "_load_in_8bit": false,
      "bnb_4bit_compute_dtype": "float32",
      "bnb_4bit_quant_storage": "uint8",
      "bnb_4bit_quant_type": "nf4",
      "bnb_4bit_use_double_quant": true,
      "llm_int8_enable_fp32_cpu_offload": false,
      "llm_int8_has_fp16_weight": false,
      "llm_int8_skip_modules": [
        "pooler",
        "pooler.dense",
        "classifier",
        "pre_classifier",
        "cls",
        "lm_head",
        "qa_outputs",
        "discriminator_predictions",
        "generator_predictions",
        "generator_lm_head",
        "vocab_transform",
        "vocab_projector",
        "sequence_summary",
        "score",
        "decoder",
        "head",
        "predictions",
        "sop_classifier",
        "lm_predictions",
        "mask_predictions",
        "encoder.layer.1.output.dense"
      ],
      "llm_int8_threshold": 6.0
    }
    "#);
}

#[test]
fn int8_targets_are_the_quantized_modules_without_the_prefix() {
    let recipe = IntegerRecipe::dynamic().with_skip(["*.layer.1.*", "*.attention.*"]);
    let recipe = recipe.with_embeddings(EmbeddingStorage::Int8).into();
    let config = written(&TinyBert::f32(), &recipe);
    insta::assert_json_snapshot!(config["quantization_config"], @r#"
    {
      "quant_method": "compressed-tensors",
      "format": "int-quantized",
      "quantization_status": "compressed",
      "global_compression_ratio": null,
      "ignore": [
        "re:(.*\\.)?encoder\\.layer\\.(0|1)\\.attention\\.output\\.dense$",
        "re:(.*\\.)?encoder\\.layer\\.(0|1)\\.attention\\.self\\.key$",
        "re:(.*\\.)?encoder\\.layer\\.(0|1)\\.attention\\.self\\.query$",
        "re:(.*\\.)?encoder\\.layer\\.(0|1)\\.attention\\.self\\.value$",
        "re:(.*\\.)?encoder\\.layer\\.1\\.intermediate\\.dense$",
        "re:(.*\\.)?encoder\\.layer\\.1\\.output\\.dense$",
        "re:(.*\\.)?pooler\\.dense$",
        "re:(.*\\.)?classifier$"
      ],
      "kv_cache_scheme": null,
      "sparsity_config": {},
      "transform_config": {},
      "version": "0.20.0",
      "config_groups": {
        "group_0": {
          "format": "int-quantized",
          "targets": [
            "re:(.*\\.)?encoder\\.layer\\.0\\.intermediate\\.dense$",
            "re:(.*\\.)?encoder\\.layer\\.0\\.output\\.dense$"
          ],
          "weights": {
            "num_bits": 8,
            "type": "int",
            "symmetric": true,
            "strategy": "channel",
            "group_size": null,
            "dynamic": false,
            "block_structure": null,
            "actorder": null,
            "observer": "minmax",
            "observer_kwargs": {}
          },
          "input_activations": {
            "num_bits": 8,
            "type": "int",
            "symmetric": false,
            "strategy": "token",
            "dynamic": true,
            "group_size": null
          },
          "output_activations": null
        },
        "group_1": {
          "format": "int-quantized",
          "targets": [
            "re:(.*\\.)?embeddings\\.word_embeddings$"
          ],
          "weights": {
            "num_bits": 8,
            "type": "int",
            "symmetric": true,
            "strategy": "channel",
            "group_size": null,
            "dynamic": false,
            "block_structure": null,
            "actorder": null,
            "observer": "minmax",
            "observer_kwargs": {}
          },
          "input_activations": null,
          "output_activations": null
        }
      }
    }
    "#);
}

#[test]
fn weight_only_configuration() {
    let recipe = IntegerRecipe::weight_only()
        .with_embeddings(EmbeddingStorage::Keep)
        .with_skip(["*.layer.1.*", "*.attention.*"]);
    let config = written(&TinyBert::f32(), &recipe.clone().into());
    insta::assert_json_snapshot!(config["quantization_config"], @r#"
    {
      "quant_method": "compressed-tensors",
      "format": "pack-quantized",
      "quantization_status": "compressed",
      "global_compression_ratio": null,
      "ignore": [
        "re:(.*\\.)?encoder\\.layer\\.(0|1)\\.attention\\.output\\.dense$",
        "re:(.*\\.)?encoder\\.layer\\.(0|1)\\.attention\\.self\\.key$",
        "re:(.*\\.)?encoder\\.layer\\.(0|1)\\.attention\\.self\\.query$",
        "re:(.*\\.)?encoder\\.layer\\.(0|1)\\.attention\\.self\\.value$",
        "re:(.*\\.)?encoder\\.layer\\.1\\.intermediate\\.dense$",
        "re:(.*\\.)?encoder\\.layer\\.1\\.output\\.dense$",
        "re:(.*\\.)?pooler\\.dense$",
        "re:(.*\\.)?classifier$"
      ],
      "kv_cache_scheme": null,
      "sparsity_config": {},
      "transform_config": {},
      "version": "0.20.0",
      "config_groups": {
        "group_0": {
          "format": "pack-quantized",
          "targets": [
            "re:(.*\\.)?encoder\\.layer\\.0\\.intermediate\\.dense$",
            "re:(.*\\.)?encoder\\.layer\\.0\\.output\\.dense$"
          ],
          "weights": {
            "num_bits": 8,
            "type": "int",
            "symmetric": true,
            "strategy": "channel",
            "group_size": null,
            "dynamic": false,
            "block_structure": null,
            "actorder": null,
            "observer": "minmax",
            "observer_kwargs": {}
          },
          "input_activations": null,
          "output_activations": null
        }
      }
    }
    "#);
    // Of one format, as transformers wants it: a table is never packed.
    let recipe = recipe.with_embeddings(EmbeddingStorage::Int8).into();
    let config = written(&TinyBert::f32(), &recipe);
    insta::assert_json_snapshot!(config["quantization_config"], @r#"
    {
      "quant_method": "compressed-tensors",
      "format": "int-quantized",
      "quantization_status": "compressed",
      "global_compression_ratio": null,
      "ignore": [
        "re:(.*\\.)?encoder\\.layer\\.(0|1)\\.attention\\.output\\.dense$",
        "re:(.*\\.)?encoder\\.layer\\.(0|1)\\.attention\\.self\\.key$",
        "re:(.*\\.)?encoder\\.layer\\.(0|1)\\.attention\\.self\\.query$",
        "re:(.*\\.)?encoder\\.layer\\.(0|1)\\.attention\\.self\\.value$",
        "re:(.*\\.)?encoder\\.layer\\.1\\.intermediate\\.dense$",
        "re:(.*\\.)?encoder\\.layer\\.1\\.output\\.dense$",
        "re:(.*\\.)?pooler\\.dense$",
        "re:(.*\\.)?classifier$"
      ],
      "kv_cache_scheme": null,
      "sparsity_config": {},
      "transform_config": {},
      "version": "0.20.0",
      "config_groups": {
        "group_0": {
          "format": "int-quantized",
          "targets": [
            "re:(.*\\.)?encoder\\.layer\\.0\\.intermediate\\.dense$",
            "re:(.*\\.)?encoder\\.layer\\.0\\.output\\.dense$"
          ],
          "weights": {
            "num_bits": 8,
            "type": "int",
            "symmetric": true,
            "strategy": "channel",
            "group_size": null,
            "dynamic": false,
            "block_structure": null,
            "actorder": null,
            "observer": "minmax",
            "observer_kwargs": {}
          },
          "input_activations": null,
          "output_activations": null
        },
        "group_1": {
          "format": "int-quantized",
          "targets": [
            "re:(.*\\.)?embeddings\\.word_embeddings$"
          ],
          "weights": {
            "num_bits": 8,
            "type": "int",
            "symmetric": true,
            "strategy": "channel",
            "group_size": null,
            "dynamic": false,
            "block_structure": null,
            "actorder": null,
            "observer": "minmax",
            "observer_kwargs": {}
          },
          "input_activations": null,
          "output_activations": null
        }
      }
    }
    "#);
}

#[test]
fn int8_embeddings_alone_have_a_configuration() {
    let recipe = Recipe::from(
        IntegerRecipe::weight_only()
            .with_embeddings(EmbeddingStorage::Int8)
            .with_skip(["encoder.*"]),
    );
    let config = written(&TinyBert::f32(), &recipe);
    insta::assert_json_snapshot!(config["quantization_config"]["config_groups"], @r#"
    {
      "group_0": {
        "format": "int-quantized",
        "targets": [
          "re:(.*\\.)?embeddings\\.word_embeddings$"
        ],
        "weights": {
          "num_bits": 8,
          "type": "int",
          "symmetric": true,
          "strategy": "channel",
          "group_size": null,
          "dynamic": false,
          "block_structure": null,
          "actorder": null,
          "observer": "minmax",
          "observer_kwargs": {}
        },
        "input_activations": null,
        "output_activations": null
      }
    }
    "#);
}
