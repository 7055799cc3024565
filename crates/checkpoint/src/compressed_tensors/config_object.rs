//! The `quantization_config` object that fewbit writes.
use super::{CompressedScheme, WeightScales};
use crate::stored_weight::Int8Activations;
use fewbit_numerics::activation::ActivationScheme;
use fewbit_numerics::affine::CodeRange;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The release of compressed-tensors whose layout is written.
const LAYOUT_VERSION: &str = "0.20.0";

/// The name of a class instead of a module's: every linear layer but for those of `ignore`.
pub const EVERY_LINEAR: &str = "Linear";

/// The quantization_config object: a group for each of the `linear` schemes with its modules, embeddings (int8 per row) in a
/// group of their own if given; `ignore` lists what stays float. What a scheme has for a single module, a scale, is of no
/// account here.
///
/// Names are given without the model's prefix (`encoder.layer.0.output.dense`, not `bert.encoder…`). They are written as
/// expressions that accept any prefix, so that `AutoModel` and a class with a head find the same modules, and name every
/// quantized module, so that a head that transformers adds to the model is never taken for a quantized one. An entry that
/// starts with `re:`, and [`EVERY_LINEAR`], are written as they are. A list without modules makes no group.
pub fn config(
    linear: &[(CompressedScheme, &[String])],
    embedding_modules: &[String],
    ignore: &[String],
) -> Value {
    // An embedding table looks rows up: there is no input to quantize. transformers reads int8 tables in the
    // int-quantized layout only.
    let embeddings = CompressedScheme::WeightOnlyInt8Unpacked;
    let groups = linear
        .iter()
        .copied()
        .chain([(embeddings, embedding_modules)]);
    let mut config_groups = Map::new();
    let mut formats: Vec<&str> = Vec::new();
    for (scheme, modules) in groups {
        if modules.is_empty() {
            continue;
        }
        let format = scheme.format();
        let group_size = match scheme {
            CompressedScheme::Int4(scheme) => scheme.group_size,
            CompressedScheme::WeightOnlyInt8Groups { group_size, .. } => Some(group_size),
            _ => None,
        };
        let strategy = match (scheme.weight_scales(), group_size) {
            (WeightScales::PerChannel, None) => "channel",
            (WeightScales::PerChannel, Some(_)) => "group",
            (WeightScales::PerTensor, _) => "tensor",
        };
        let weights = match scheme {
            CompressedScheme::Float(scheme) => scheme.weight_arguments(),
            _ => json!({
                "num_bits": scheme.bits(),
                "type": "int",
                "symmetric": !scheme.is_asymmetric(),
                "strategy": strategy,
                "group_size": group_size,
                "dynamic": false,
                "block_structure": null,
                "actorder": null,
                "observer": "minmax",
                "observer_kwargs": {},
            }),
        };
        let group = json!({
            "format": format,
            "targets": patterns(modules),
            "weights": weights,
            "input_activations": scheme.input_activations(),
            "output_activations": null,
        });
        config_groups.insert(format!("group_{}", config_groups.len()), group);
        formats.push(format);
    }
    formats.dedup();
    let format = match formats[..] {
        [only] => only,
        [] => "dense",
        _ => "mixed-precision",
    };
    json!({
        "quant_method": "compressed-tensors",
        "format": format,
        "quantization_status": "compressed",
        "global_compression_ratio": null,
        "ignore": patterns(ignore),
        "kv_cache_scheme": null,
        "sparsity_config": {},
        "transform_config": {},
        "version": LAYOUT_VERSION,
        "config_groups": config_groups,
    })
}

impl CompressedScheme {
    fn format(self) -> &'static str {
        if let CompressedScheme::Float(scheme) = self {
            return scheme.format();
        }
        match self.is_packed() {
            true => "pack-quantized",
            false => "int-quantized",
        }
    }

    /// Affine, per token or for the whole input at run time or with stored parameters; or none. compressed-tensors forbids keys that it does not know here.
    fn input_activations(self) -> Value {
        if let CompressedScheme::Float(scheme) = self {
            return scheme.input_activations();
        }
        let Some(activations) = self.activations() else {
            return Value::Null;
        };
        let arguments = |bits: usize, symmetric: bool, strategy: &str, dynamic: bool| {
            json!({
                "num_bits": bits,
                "type": "int",
                "symmetric": symmetric,
                "strategy": strategy,
                "dynamic": dynamic,
                "group_size": null,
            })
        };
        match activations {
            Int8Activations::Dynamic(scheme) => {
                arguments(8, scheme == ActivationScheme::Symmetric, "token", true)
            }
            Int8Activations::DynamicPerTensor { reduce_range } => {
                let mut inputs = arguments(8, false, "tensor", true);
                inputs["observer_kwargs"] = json!({"reduce_range": reduce_range});
                inputs
            }
            Int8Activations::Static { codes, .. } => {
                let bits = if codes == CodeRange::INT8 { 8 } else { 7 };
                arguments(bits, false, "tensor", false)
            }
        }
    }
}

fn is_as_given(name: &str) -> bool {
    name.starts_with("re:") || name == EVERY_LINEAR
}

/// Expressions that match exactly the modules `names`, under any prefix. Names that differ in their first number only (layers)
/// share one: `re:(.*\.)?encoder\.layer\.(0|1)\.output\.dense$`.
fn patterns(names: &[String]) -> Vec<String> {
    let mut as_given: Vec<String> = names
        .iter()
        .filter(|name| is_as_given(name))
        .cloned()
        .collect();
    // What stands before and after the number, to the numbers.
    let mut families: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
    let mut plain: Vec<String> = Vec::new();
    for name in names.iter().filter(|name| !is_as_given(name)) {
        let components: Vec<&str> = name.split('.').collect();
        match components.iter().position(|component| {
            component.bytes().all(|byte| byte.is_ascii_digit()) && !component.is_empty()
        }) {
            None => plain.push(format!("re:(.*\\.)?{}$", regex::escape(name))),
            Some(number) => {
                let before: String = components[..number]
                    .iter()
                    .map(|component| format!("{}\\.", regex::escape(component)))
                    .collect();
                let after: String = components[number + 1..]
                    .iter()
                    .map(|component| format!("\\.{}", regex::escape(component)))
                    .collect();
                families
                    .entry((before, after))
                    .or_default()
                    .push(components[number]);
            }
        }
    }
    as_given.extend(families.into_iter().map(|((before, after), numbers)| {
        let numbers = if numbers.len() == 1 {
            numbers[0].to_owned()
        } else {
            format!("({})", numbers.join("|"))
        };
        format!("re:(.*\\.)?{before}{numbers}{after}$")
    }));
    as_given.extend(plain);
    as_given
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn layers_share_an_expression() {
        let modules = names(&[
            "encoder.layer.0.output.dense",
            "embeddings_project",
            "encoder.layer.11.output.dense",
            "a.7.b.3",
            "re:x+",
        ]);
        assert_eq!(
            patterns(&modules),
            [
                "re:x+",
                r"re:(.*\.)?a\.7\.b\.3$",
                r"re:(.*\.)?encoder\.layer\.(0|11)\.output\.dense$",
                r"re:(.*\.)?embeddings_project$",
            ]
        );
    }

    #[test]
    fn groups_and_formats() {
        let (linear, embeddings) = (names(&["l.0.d"]), names(&["embeddings.word_embeddings"]));
        let format = |scheme, linear: &[String], embeddings: &[String]| {
            let config = config(&[(scheme, linear)], embeddings, &[]);
            (
                config["format"].as_str().unwrap().to_owned(),
                config["config_groups"].as_object().unwrap().len(),
            )
        };
        use CompressedScheme::{DynamicInt8, StaticInt8, WeightOnlyInt8};
        assert_eq!(
            format(DynamicInt8, &linear, &[]),
            ("int-quantized".to_owned(), 1)
        );
        assert_eq!(
            format(DynamicInt8, &linear, &embeddings),
            ("int-quantized".to_owned(), 2)
        );
        assert_eq!(
            format(WeightOnlyInt8, &linear, &[]),
            ("pack-quantized".to_owned(), 1)
        );
        assert_eq!(
            format(WeightOnlyInt8, &linear, &embeddings),
            ("mixed-precision".to_owned(), 2)
        );
        let fixed = StaticInt8 {
            scale: 1.0,
            zero_point: 0,
            weights: WeightScales::PerChannel,
            reduce_range: false,
        };
        let mixed = config(
            &[(fixed, &linear), (DynamicInt8, &linear)],
            &embeddings,
            &[],
        );
        assert_eq!(mixed["format"], "int-quantized");
        let dynamic =
            |group: &str| mixed["config_groups"][group]["input_activations"]["dynamic"].as_bool();
        let groups = ["group_0", "group_1", "group_2"].map(dynamic);
        assert_eq!(groups, [Some(false), Some(true), None]);
        assert_eq!(
            format(WeightOnlyInt8, &[], &embeddings),
            ("int-quantized".to_owned(), 1)
        );
    }
}
