//! docs/recipe.md and docs/recipe.schema.json say what the parser does.

use std::path::Path;

use fewbit_quantize::recipe::RECIPE_KEYS;
use fewbit_quantize::{EmbeddingStorage, Method, Recipe};
use serde_json::{Value, json};

fn documentation(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(name);
    std::fs::read_to_string(path).expect("documentation")
}

fn schema() -> Value {
    serde_json::from_str(&documentation("recipe.schema.json")).expect("JSON")
}

/// The code blocks of this language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let parts = text.split(&fence).skip(1);
    parts
        .map(|part| part.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

/// Whether `value` fits `schema`, as far as recipe.schema.json goes: a keyword that is not known here is a failure.
fn fits(schema: &Value, value: &Value) -> bool {
    let rules = schema.as_object().expect("a schema is an object");
    let object = value.as_object();
    rules.iter().all(|(keyword, rule)| match keyword.as_str() {
        "$schema" | "title" | "description" | "default" | "deprecated" | "then" => true,
        "type" => match rule.as_str().expect("a type") {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "number" => value.is_number(),
            "integer" => value.is_i64(),
            other => panic!("type {other}"),
        },
        "const" => value == rule,
        "enum" => rule.as_array().expect("values").contains(value),
        "required" => rule.as_array().expect("names").iter().all(|name| {
            object.is_none_or(|object| object.contains_key(name.as_str().expect("a name")))
        }),
        "properties" => rule
            .as_object()
            .expect("schemas")
            .iter()
            .all(|(name, rule)| {
                let found = object.and_then(|object| object.get(name));
                found.is_none_or(|found| fits(rule, found))
            }),
        "additionalProperties" => object.is_none_or(|object| {
            let known = schema.get("properties").and_then(Value::as_object);
            let mut others = object
                .iter()
                .filter(|(name, _)| known.is_none_or(|known| !known.contains_key(*name)));
            others.all(|(_, found)| rule != false && fits(rule, found))
        }),
        "items" => value
            .as_array()
            .is_none_or(|items| items.iter().all(|item| fits(rule, item))),
        "minItems" => value
            .as_array()
            .is_none_or(|items| items.len() as u64 >= rule.as_u64().expect("a number")),
        "minProperties" => {
            object.is_none_or(|object| object.len() as u64 >= rule.as_u64().expect("a number"))
        }
        "minimum" => value.as_f64() >= rule.as_f64(),
        "maximum" => value.as_f64() <= rule.as_f64(),
        "exclusiveMinimum" => value.as_f64() > rule.as_f64(),
        "allOf" => rule
            .as_array()
            .expect("schemas")
            .iter()
            .all(|rule| fits(rule, value)),
        "anyOf" => rule
            .as_array()
            .expect("schemas")
            .iter()
            .any(|rule| fits(rule, value)),
        "if" => !fits(rule, value) || fits(&schema["then"], value),
        other => panic!("keyword {other}"),
    })
}

#[test]
fn every_example_is_a_recipe_and_fits_the_schema() {
    let text = documentation("recipe.md");
    let schema = schema();
    let mut methods = Vec::new();
    for example in blocks(&text, "toml") {
        let recipe = Recipe::from_toml(&example).expect(&example);
        let value: Value = toml::from_str(&example).expect("TOML");
        assert!(fits(&schema, &value), "{example}");
        methods.push(recipe.method());
    }
    for example in blocks(&text, "json") {
        Recipe::from_json(&example).expect(&example);
        assert!(fits(
            &schema,
            &serde_json::from_str(&example).expect("JSON")
        ));
    }
    for method in Method::ALL {
        assert!(methods.contains(&method), "{method}");
    }
}

#[test]
fn every_key_is_documented_and_is_what_the_parser_reads() {
    let schema = schema();
    let described: Vec<&String> = schema["properties"]
        .as_object()
        .expect("keys")
        .keys()
        .collect();
    let mut known = RECIPE_KEYS.to_vec();
    known.extend(["double_quantization", "quantize_embeddings"]);
    known.sort_unstable();
    let mut sorted = described.clone();
    sorted.sort();
    assert_eq!(sorted, known);
    let text = documentation("recipe.md");
    for key in RECIPE_KEYS {
        assert!(text.contains(&format!("\n| `{key}` |")), "{key}");
    }
    // The parser lists what it reads, where it finds something else.
    let refused = Recipe::from_json(r#"{"version": 1, "method": "nf4", "x": 1}"#).unwrap_err();
    let keys: Vec<String> = RECIPE_KEYS
        .map(|key| match key {
            "double_quant" => "`double_quant`, `double_quantization`".to_owned(),
            "embeddings" => "`embeddings`, `quantize_embeddings`".to_owned(),
            _ => format!("`{key}`"),
        })
        .to_vec();
    assert!(
        refused
            .to_string()
            .contains(&format!("expected one of {} at", keys.join(", "))),
        "{refused}"
    );
}

#[test]
fn parser_and_schema_agree_on_what_is_wrong() {
    let schema = schema();
    let input = json!({"a": {"scale": 0.5, "zero_point": 0}});
    let with =
        |method: &str, key: &str, value: Value| json!({"version": 1, "method": method, key: value});
    let mut cases = vec![
        json!({}),
        json!({"version": 1}),
        json!({"version": 2, "method": "nf4"}),
        with("int3", "skip", json!([])),
        with("nf4", "unknown", json!(1)),
        with("static", "static_inputs", json!({})),
        with(
            "static",
            "static_inputs",
            json!({"a": {"scale": 0.0, "zero_point": 0}}),
        ),
        with(
            "static",
            "static_inputs",
            json!({"a": {"scale": 0.5, "zero_point": 200}}),
        ),
        with("static", "static_inputs", json!({"a": {"scale": 0.5}})),
        with(
            "static",
            "static_inputs",
            json!({"a": {"scale": 0.5, "zero_point": 0, "x": 0}}),
        ),
        json!({"version": 1, "method": "dynamic", "activations": "per-tensor", "weight_scales": "per-tensor", "reduce_range": true}),
        json!({"version": 1, "method": "nf4", "embeddings": "fp16", "float_dtype": "fp16"}),
        json!({"version": 1, "method": "nf4", "embeddings": "fp16", "float_dtype": "bf16"}),
        json!({"version": 1, "method": "dynamic", "embeddings": "fp16", "float_dtype": "bf16"}),
        json!({"version": 1, "method": "dynamic", "quantize_embeddings": true, "embeddings": "int8"}),
        json!({"version": 1, "method": "dynamic", "quantize_embeddings": true, "embeddings": "fp16"}),
        json!({"version": 1, "method": "dynamic", "quantize_embeddings": false, "embeddings": "int8"}),
        json!({"version": 1, "method": "dynamic", "quantize_embeddings": false, "embeddings": "auto"}),
    ];
    let modules = |module: Value| json!({"*.query": module});
    for module in [
        json!({}),
        json!({"weights": "int4"}),
        json!({"weights": "int8"}),
        json!({"weights": "nf4"}),
        json!({"weights": "int4", "group_size": 32, "asymmetric": true, "scales": "absmax", "layout": "int-quantized"}),
        json!({"weights": "int4", "group_size": "channel"}),
        json!({"weights": "int4", "group_size": 0}),
        json!({"weights": "int4", "block_size": 32}),
        json!({"weights": "int8", "group_size": 32}),
        json!({"weights": "int8", "asymmetric": true}),
        json!({"weights": "int8", "asymmetric": false}),
        json!({"weights": "int8", "layout": "int-quantized"}),
        json!({"weights": "int8", "layout": "pack-quantized"}),
        json!({"weights": "int8", "scales": "mse"}),
        json!("int4"),
    ] {
        for method in ["nf4", "fp16", "dynamic", "static", "weight-only"] {
            let case = with(method, "modules", modules(module.clone()));
            for (key, value) in [
                ("weights", json!("int4")),
                ("activations", json!("per-tensor")),
                ("weight_scales", json!("per-tensor")),
                ("gptq", json!(true)),
            ] {
                let mut case = case.clone();
                case[key] = value;
                cases.push(case.clone());
                case["static_inputs"] = input.clone();
                cases.push(case.clone());
                case["saturation_proof"] = json!(true);
                cases.push(case);
            }
            cases.push(case);
        }
    }
    cases.push(with("nf4", "modules", json!({})));
    for method in ["nf4", "dynamic", "weight-only"] {
        for (key, value) in [
            ("group_size", json!(32)),
            ("group_size", json!("channel")),
            ("group_size", json!(0)),
            ("group_size", json!("row")),
            ("asymmetric", json!(true)),
            ("layout", json!("int-quantized")),
            ("layout", json!("gptq")),
            ("layout", json!("gptq_v2")),
            ("layout", json!("awq")),
            ("layout", json!("bitsandbytes")),
            ("layout", json!("packed")),
            ("scales", json!("mse")),
            ("scales", json!("absmax")),
            ("scales", json!("activation-weighted")),
            ("gptq", json!(true)),
            ("saturation_proof", json!(true)),
            ("activations", json!("per-tensor")),
        ] {
            let mut gptq = json!({"version": 1, "method": method, "weights": "int4", "gptq": true});
            gptq[key] = value.clone();
            cases.push(gptq);
            cases.push(json!({"version": 1, "method": method, "weights": "int4", key: value}));
        }
    }
    for method in ["nf4", "dynamic", "static", "weight-only"] {
        for weights in ["int8", "int4", "fp8", "nvfp4", "mxfp4"] {
            for layout in ["int-quantized", "gptq", "awq", "bitsandbytes"] {
                let case =
                    json!({"version": 1, "method": method, "weights": weights, "layout": layout});
                for (key, value) in [
                    ("skip", json!([])),
                    ("group_size", json!(32)),
                    ("group_size", json!("channel")),
                    ("asymmetric", json!(true)),
                    ("gptq", json!(true)),
                    ("embeddings", json!("int8")),
                    ("embeddings", json!("fp16")),
                    ("quantize_embeddings", json!(true)),
                ] {
                    let mut case = case.clone();
                    case[key] = value;
                    cases.push(case);
                }
            }
            for (key, value) in [
                ("group_size", json!(32)),
                ("group_size", json!("channel")),
                ("scales", json!("mse")),
                ("scales", json!("absmax")),
                ("gptq", json!(true)),
                ("embeddings", json!("int8")),
                ("embeddings", json!("keep")),
                ("weight_only", json!(["*.query"])),
                ("activations", json!("per-tensor")),
                ("weight_scales", json!("per-tensor")),
                ("reduce_range", json!(true)),
                ("static_inputs", input.clone()),
                (
                    "static_inputs",
                    json!({"a": {"scale": 0.5, "zero_point": 3}}),
                ),
            ] {
                let mut case =
                    json!({"version": 1, "method": method, "weights": weights, key: value});
                cases.push(case.clone());
                if method == "static" {
                    case["static_inputs"] = input.clone();
                    cases.push(case);
                }
            }
        }
    }
    for method in [
        "fp16",
        "bf16",
        "dynamic",
        "static",
        "weight-only",
        "nf4",
        "fp4",
        "int4",
    ] {
        cases.push(json!({"version": 1, "method": method}));
        for (key, value) in [
            ("scales", json!("activation-weighted")),
            ("weights", json!("int8")),
            ("weights", json!("int4")),
            ("weights", json!("nf4")),
            ("group_size", json!(32)),
            ("asymmetric", json!(true)),
            ("asymmetric", json!(false)),
            ("layout", json!("int-quantized")),
            ("layout", json!("pack-quantized")),
            ("block_size", json!(32)),
            ("block_size", json!(48)),
            ("block_size", json!("32")),
            ("double_quant", json!(true)),
            ("double_quant", json!(false)),
            ("scales", json!("absmax")),
            ("scales", json!("mse")),
            ("scales", json!("least")),
            ("double_quantization", json!(true)),
            ("quantize_embeddings", json!(true)),
            ("quantize_embeddings", json!(false)),
            ("embeddings", json!("auto")),
            ("embeddings", json!("keep")),
            ("embeddings", json!("int8")),
            ("embeddings", json!("nf4")),
            ("embeddings", json!("fp16")),
            ("embeddings", json!("bf16")),
            ("embeddings", json!("int4")),
            ("float_dtype", json!("f32")),
            ("float_dtype", json!("fp16")),
            ("float_dtype", json!("bf16")),
            ("float_dtype", json!("f16")),
            ("activations", json!("per-tensor")),
            ("activations", json!("per-token")),
            ("weight_scales", json!("per-tensor")),
            ("weight_scales", json!("per-channel")),
            ("reduce_range", json!(true)),
            ("gptq", json!(true)),
            ("gptq", json!(false)),
            ("gptq", json!("true")),
            ("saturation_proof", json!(true)),
            ("saturation_proof", json!(false)),
            ("skip", json!(["*.query"])),
            ("skip", json!([])),
            ("weight_only", json!(["*.query"])),
            ("weight_only", json!([])),
            ("weight_only", json!("*.query")),
            ("static_inputs", input.clone()),
        ] {
            cases.push(with(method, key, value.clone()));
            let mut calibrated = with(method, key, value.clone());
            calibrated["static_inputs"] = input.clone();
            cases.push(calibrated.clone());
            for mut gptq in [with(method, key, value), calibrated] {
                if key != "gptq" {
                    gptq["gptq"] = json!(true);
                    cases.push(gptq);
                }
            }
        }
    }
    for case in cases {
        let read = Recipe::from_json(&case.to_string());
        assert_eq!(read.is_ok(), fits(&schema, &case), "{case}: {read:?}");
    }
}

#[test]
fn the_old_name_of_a_key_is_read_and_the_new_one_written() {
    let old =
        Recipe::from_toml("version = 1\nmethod = \"nf4\"\ndouble_quantization = true\n").unwrap();
    assert!(old.four_bit().unwrap().double_quantization);
    assert!(old.to_toml().contains("\ndouble_quant = true\n"));
    assert_eq!(Recipe::from_toml(&old.to_toml()).unwrap(), old);
    let old = "version = 1\nmethod = \"dynamic\"\nquantize_embeddings = ";
    for (value, meaning) in [
        ("true", EmbeddingStorage::Int8),
        ("false", EmbeddingStorage::Keep),
    ] {
        let read = Recipe::from_toml(&format!("{old}{value}\n")).unwrap();
        assert_eq!(read.embeddings(), meaning);
        assert!(!read.to_toml().contains("quantize_embeddings"));
        assert_eq!(Recipe::from_toml(&read.to_toml()).unwrap(), read);
    }
    // A file that says nothing was written when embeddings stayed float unless it asked for more.
    let silent = Recipe::from_toml("version = 1\nmethod = \"dynamic\"\n").unwrap();
    assert_eq!(silent.embeddings(), EmbeddingStorage::Keep);
    let both = "version = 1\nmethod = \"nf4\"\ndouble_quant = true\ndouble_quantization = true\n";
    let refused = Recipe::from_toml(both).unwrap_err().to_string();
    assert!(refused.contains("duplicate field"), "{refused}");
}

#[test]
fn an_unknown_key_gets_a_hint() {
    let hint = |key: &str| {
        let refused = Recipe::from_toml(&format!("version = 1\nmethod = \"nf4\"\n{key} = 1\n"));
        let text = refused.unwrap_err().to_string();
        text.split("hint: ").nth(1).unwrap_or_default().to_owned()
    };
    for (key, meant) in [
        ("blocksize", "block_size"),
        ("block-size", "block_size"),
        ("double-quant", "double_quant"),
        ("embedding", "embeddings"),
        ("float-dtype", "float_dtype"),
        ("skips", "skip"),
        ("weight-only", "weight_only"),
        ("Static_Inputs", "static_inputs"),
    ] {
        assert_eq!(hint(key), format!("did you mean `{meant}`?"));
    }
    assert!(hint("min_sqnr").starts_with("`min_sqnr` belongs to calibration: "));
    assert!(hint("min-sqnr").starts_with("`min-sqnr` belongs to calibration: "));
    assert_eq!(
        hint("colour_of_paint"),
        "docs/recipe.md describes every key"
    );
}
