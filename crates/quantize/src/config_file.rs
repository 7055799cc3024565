//! The changes to config.json.

use fewbit_numerics::dtype::DType;
use serde_json::{Map, Value};

/// `config` with the dtype that the written floats have, under the name that it already uses: `dtype`
/// since transformers 5, `torch_dtype` before; `dtype` where it has neither.
pub(crate) fn with_dtype(config: &Value, dtype: DType) -> Value {
    let name = Value::from(transformers_name(dtype));
    let mut object = as_object(config);
    let mut named = false;
    for key in ["dtype", "torch_dtype"] {
        if let Some(value) = object.get_mut(key) {
            *value = name.clone();
            named = true;
        }
    }
    if !named {
        object.insert("dtype".to_owned(), name);
    }
    Value::Object(object)
}

/// Whether `config` says a dtype.
pub(crate) fn has_dtype(config: &Value) -> bool {
    ["dtype", "torch_dtype"]
        .into_iter()
        .any(|key| config.get(key).is_some_and(Value::is_string))
}

/// `config` with `quantization_config`, and with float32 in the place of float64, in which nothing is written beside quantized
/// weights.
pub(crate) fn with_quantization(config: &Value, quantization_config: Value) -> Value {
    let mut object = as_object(config);
    for key in ["dtype", "torch_dtype"] {
        if let Some(dtype) = object.get_mut(key).filter(|dtype| **dtype == "float64") {
            *dtype = transformers_name(DType::F32).into();
        }
    }
    object.insert("quantization_config".to_owned(), quantization_config);
    Value::Object(object)
}

/// torch's name of a float dtype, as config.json and quant_state spell it.
pub(crate) fn transformers_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        DType::F64 => "float64",
        _ => "float32",
    }
}

fn as_object(config: &Value) -> Map<String, Value> {
    config.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_dtype_is_updated_under_the_name_in_use() {
        assert_eq!(
            with_dtype(&json!({"torch_dtype": "float32", "a": 1}), DType::F16),
            json!({"torch_dtype": "float16", "a": 1})
        );
        assert_eq!(
            with_dtype(&json!({"dtype": "float32"}), DType::BF16),
            json!({"dtype": "bfloat16"})
        );
        assert_eq!(
            with_dtype(
                &json!({"dtype": "float32", "torch_dtype": "float32"}),
                DType::BF16
            ),
            json!({"dtype": "bfloat16", "torch_dtype": "bfloat16"})
        );
    }

    #[test]
    fn the_dtype_is_added_where_there_is_none() {
        assert_eq!(
            with_dtype(&json!({"a": 1}), DType::F16),
            json!({"a": 1, "dtype": "float16"})
        );
    }

    #[test]
    fn beside_quantized_weights_float64_becomes_float32() {
        let dtype =
            |name: &str| with_quantization(&json!({"dtype": name}), json!({}))["dtype"].clone();
        assert_eq!(dtype("float64"), "float32");
        assert_eq!(dtype("bfloat16"), "bfloat16");
    }

    #[test]
    fn other_fields_keep_their_order() {
        let config = json!({"z": 1, "a": 2});
        let text = with_quantization(&config, json!({})).to_string();
        assert_eq!(text, r#"{"z":1,"a":2,"quantization_config":{}}"#);
    }
}
