//! Configurations whose mathematics the executor does not have.

use crate::golden_files::{cases, golden};
use fewbit_model::{EncoderSpec, ModelError};
use serde_json::{Value, json};
use std::path::Path;

fn refuse(config: &Value) -> ModelError {
    EncoderSpec::from_config(config, Path::new("model/config.json")).expect_err("refused")
}

#[test]
fn what_transformers_can_write_and_fewbit_cannot_run_names_the_field() {
    for case in cases("refused") {
        let folder = golden("refused").join(&case);
        let config = std::fs::read(folder.join("config.json")).expect("golden file");
        let field = std::fs::read_to_string(folder.join("field.txt")).expect("golden file");
        match refuse(&serde_json::from_slice(&config).expect("JSON")) {
            ModelError::Config { field: found, .. } => assert_eq!(found, field.trim(), "{case}"),
            other => panic!("{case}: {other}"),
        }
    }
}

#[test]
fn texts() {
    let bert = |field: &str, value: Value| {
        let mut config = json!({"model_type": "bert"});
        config[field] = value;
        refuse(&config).to_string()
    };
    let texts = [
        refuse(&json!({"hidden_size": 32})).to_string(),
        refuse(&json!({"model_type": "t5"})).to_string(),
        refuse(&json!(["not", "an", "object"])).to_string(),
        bert("hidden_act", json!("mish")),
        bert("position_embedding_type", json!("relative_key")),
        bert("is_decoder", json!(true)),
        bert("add_cross_attention", json!(true)),
        bert("pruned_heads", json!({"1": [0, 2]})),
        bert("num_attention_heads", json!(7)),
        bert("hidden_size", json!(0)),
        bert("num_hidden_layers", json!(1_000_000_000)),
        bert("vocab_size", json!("many")),
        bert("intermediate_size", Value::Null),
        bert("layer_norm_eps", json!(-1.0)),
        bert("layer_norm_eps", json!(1e300)),
        bert("layer_norm_eps", json!(0.999_999_999_9)),
        bert("feed_forward_type", json!("geglu")),
        bert(
            "auto_map",
            json!({"AutoConfig": "configuration_x.XConfig", "AutoModelForMaskedLM": "modeling_x.XModel"}),
        ),
        bert("auto_map", json!("modeling_x.XModel")),
        refuse(&json!({"model_type": "distilbert", "dim": 30, "n_heads": 4})).to_string(),
        refuse(&json!({"model_type": "roberta", "max_position_embeddings": 2})).to_string(),
        refuse(&json!({"model_type": "mpnet", "relative_attention_num_buckets": 16})).to_string(),
    ];
    insta::assert_snapshot!(texts.join("\n\n"), @r#"
    model/config.json: `model_type`: expected one of albert, bert, camembert, deberta, deberta-v2, distilbert, electra, eurobert, gemma3_text, gte, jina_embeddings_v3, llama, mistral, modernbert, mpnet, new, nomic_bert, qwen2, qwen3, roberta, xlm-roberta, found no such field
      hint: fewbit runs encoders of these families; of any other model it converts weights alone (fp16, bf16, weight-only, nf4, fp4)

    model/config.json: `model_type`: expected one of albert, bert, camembert, deberta, deberta-v2, distilbert, electra, eurobert, gemma3_text, gte, jina_embeddings_v3, llama, mistral, modernbert, mpnet, new, nomic_bert, qwen2, qwen3, roberta, xlm-roberta, found "t5"
      hint: fewbit runs encoders of these families; of any other model it converts weights alone (fp16, bf16, weight-only, nf4, fp4)

    model/config.json: `model_type`: expected one of albert, bert, camembert, deberta, deberta-v2, distilbert, electra, eurobert, gemma3_text, gte, jina_embeddings_v3, llama, mistral, modernbert, mpnet, new, nomic_bert, qwen2, qwen3, roberta, xlm-roberta, found no such field
      hint: fewbit runs encoders of these families; of any other model it converts weights alone (fp16, bf16, weight-only, nf4, fp4)

    model/config.json: `hidden_act`: supported is one of gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, quick_gelu, relu, silu, tanh, linear, found "mish"
      hint: the activation function changes every hidden state, so there is no substitute

    model/config.json: `position_embedding_type`: supported is "absolute", found "relative_key"
      hint: relative position keys are not implemented

    model/config.json: `is_decoder`: supported is false, found true
      hint: cross attention and generation are not implemented; a model is run once over a whole text

    model/config.json: `add_cross_attention`: supported is false, found true
      hint: cross attention and generation are not implemented; a model is run once over a whole text

    model/config.json: `pruned_heads`: supported is {}, found {"1":[0,2]}
      hint: attention layers with removed heads have other shapes; use the model before pruning

    model/config.json: `num_attention_heads`: expected a divisor of `hidden_size` 768, found 7
      hint: correct config.json or fetch it again

    model/config.json: `hidden_size`: expected a whole number from 1 to 262144, found 0
      hint: correct the value or fetch the file again

    model/config.json: `num_hidden_layers`: expected a whole number from 1 to 4096, found 1000000000
      hint: correct the value or fetch the file again

    model/config.json: `vocab_size`: expected a whole number from 1 to 16777216, found "many"
      hint: correct the value or fetch the file again

    model/config.json: `intermediate_size`: expected a whole number from 1 to 262144, found null
      hint: correct the value or fetch the file again

    model/config.json: `layer_norm_eps`: expected a number from 0 to below 1, found -1.0
      hint: correct the value or fetch the file again

    model/config.json: `layer_norm_eps`: expected a number from 0 to below 1, found 1e+300
      hint: correct the value or fetch the file again

    model/config.json: `layer_norm_eps`: expected a number from 0 to below 1, found 0.9999999999
      hint: correct the value or fetch the file again

    model/config.json: `feed_forward_type`: supported is "original", found "geglu"
      hint: a gated feed-forward has other tensors and other values

    model/config.json: `auto_map.AutoModelForMaskedLM`: supported is no model class of its own, found "modeling_x.XModel"
      hint: the model is defined by Python code of its own, not by its `model_type`

    model/config.json: `auto_map`: expected an object, found "modeling_x.XModel"
      hint: correct the value or fetch the file again

    model/config.json: `n_heads`: expected a divisor of `dim` 30, found 4
      hint: correct config.json or fetch it again

    model/config.json: `max_position_embeddings`: expected more than `pad_token_id` + 1, found 2
      hint: positions of this family are counted from `pad_token_id` + 1 on

    model/config.json: `relative_attention_num_buckets`: expected a whole number from 32 to 262144, found 16
      hint: correct the value or fetch the file again
    "#);
}

/// A checkpoint of these families has types, which would silently be left out.
#[test]
fn no_token_types_are_refused_where_the_family_has_them() {
    let read = |model_type: &str| {
        let config = json!({"model_type": model_type, "type_vocab_size": 0});
        EncoderSpec::from_config(&config, Path::new("config.json"))
            .map_err(|error| error.to_string())
    };
    for family in ["bert", "roberta", "xlm-roberta", "camembert", "electra"] {
        let text = read(family).expect_err("refused");
        assert!(
            text.contains("`type_vocab_size`: expected at least 1, found 0"),
            "{text}"
        );
    }
    for family in ["distilbert", "mpnet"] {
        assert!(read(family).is_ok(), "{family}");
    }
}

#[test]
fn harmless_fields_and_spellings_are_accepted() {
    for (field, value) in [
        ("position_embedding_type", Value::Null),
        ("position_embedding_type", json!("absolute")),
        ("pruned_heads", json!({})),
        ("pruned_heads", json!({"0": []})),
        ("is_decoder", json!(false)),
        ("gradient_checkpointing", json!(true)),
        ("hidden_dropout_prob", json!("ignored")),
        ("layer_norm_eps", json!(0)),
        ("feed_forward_type", json!("original")),
        ("auto_map", json!({"AutoConfig": "configuration_x.XConfig"})),
    ] {
        let mut config = json!({"model_type": "bert"});
        config[field] = value.clone();
        let spec = EncoderSpec::from_config(&config, Path::new("config.json"));
        assert!(spec.is_ok(), "{field} {value}: {spec:?}");
    }
}

#[test]
fn absent_fields_take_the_defaults_of_transformers() {
    let spec =
        |config: &Value| EncoderSpec::from_config(config, Path::new("config.json")).expect("valid");
    let bert = spec(&json!({"model_type": "bert"}));
    assert_eq!(
        (bert.vocab_size, bert.hidden_size, bert.layers, bert.heads),
        (30522, 768, 12, 12)
    );
    assert_eq!(
        (
            bert.intermediate_size,
            bert.positions.max_tokens(),
            bert.token_types
        ),
        (3072, 512, 2)
    );
    assert_eq!(bert.norm.epsilon, 1e-12);
    let electra = spec(&json!({"model_type": "electra"}));
    assert_eq!(
        (
            electra.embedding_size,
            electra.hidden_size,
            electra.heads,
            electra.intermediate_size
        ),
        (128, 256, 4, 1024)
    );
    let distilbert = spec(&json!({"model_type": "distilbert"}));
    assert_eq!(
        (
            distilbert.hidden_size,
            distilbert.layers,
            distilbert.token_types
        ),
        (768, 6, 0)
    );
    let roberta = spec(&json!({"model_type": "xlm-roberta", "max_position_embeddings": 514}));
    assert_eq!(
        (roberta.positions.padding_id, roberta.positions.max_tokens()),
        (Some(1), 512)
    );
    let mpnet = spec(&json!({"model_type": "mpnet", "pad_token_id": 7}));
    assert_eq!(
        (
            mpnet.vocab_size,
            mpnet.positions.padding_id,
            mpnet.positions.max_tokens()
        ),
        (30527, Some(1), 510)
    );
}
