//! The settings of sentence-transformers' Dense module: a linear layer with an activation function.

use super::module::{Feature, required_size};
use crate::ModelError;
use crate::config_fields::ConfigFields;
use fewbit_kernels::Activation;
use std::path::{Path, PathBuf};

/// A Dense module as its config.json describes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DenseSettings {
    /// The folder of its weights.
    pub(crate) folder: PathBuf,
    pub(crate) in_features: usize,
    pub(crate) out_features: usize,
    pub(crate) bias: bool,
    pub(crate) activation: DenseActivation,
    /// What it reads and writes.
    pub(crate) feature: Feature,
    /// Whether its input, through a linear layer of its own where the widths differ, is added to its output.
    pub(crate) residual: bool,
}

/// An activation function of torch with the arguments that it has by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DenseActivation {
    /// One that feed-forward layers have, too.
    OfKernels(Activation),
    /// 1 / (1 + exp(-x))
    Sigmoid,
    /// x, or 0.01 x below 0
    LeakyRelu,
    /// x, or exp(x) - 1 below 0
    Elu,
}

/// Names of classes of torch.
const ACTIVATIONS: [(&str, DenseActivation); 8] = [
    ("Tanh", DenseActivation::OfKernels(Activation::Tanh)),
    ("Identity", DenseActivation::OfKernels(Activation::Identity)),
    ("ReLU", DenseActivation::OfKernels(Activation::Relu)),
    ("GELU", DenseActivation::OfKernels(Activation::Gelu)),
    ("SiLU", DenseActivation::OfKernels(Activation::Silu)),
    ("Sigmoid", DenseActivation::Sigmoid),
    ("LeakyReLU", DenseActivation::LeakyRelu),
    ("ELU", DenseActivation::Elu),
];

/// Modules of torch in which the classes are found.
const TORCH_MODULES: [&str; 3] = [
    "torch.nn",
    "torch.nn.modules",
    "torch.nn.modules.activation",
];

impl DenseActivation {
    /// The function of the class at `path`.
    fn of_path(path: &str) -> Option<Self> {
        let (module, class) = path.rsplit_once('.')?;
        let known = TORCH_MODULES.contains(&module)
            || (module == "torch.nn.modules.linear" && class == "Identity");
        let mut activations = ACTIVATIONS.into_iter();
        let (_, activation) = activations.find(|(name, _)| known && *name == class)?;
        let in_activation = module == "torch.nn.modules.activation" && class == "Identity";
        (!in_activation).then_some(activation)
    }
}

/// Fields of the file that are honoured.
const FIELDS: [&str; 7] = [
    "in_features",
    "out_features",
    "bias",
    "activation_function",
    "module_input_name",
    "module_output_name",
    "use_residual",
];

impl DenseSettings {
    /// Reads the settings of the module in `folder`.
    pub(super) fn read(folder: &Path, fields: &ConfigFields<'_>) -> Result<Self, ModelError> {
        for field in ["init_weight", "init_bias"] {
            if let Some(found) = fields.get(field).filter(|found| !found.is_null()) {
                let hint = "the values are in the module's file of weights";
                return Err(fields.unsupported(field, "no such field", found, hint));
            }
        }
        if let Some((name, _)) = fields.unknown(|name| FIELDS.contains(&name)) {
            tracing::warn!(
                "{}: `{name}` is not known and passed over, as sentence-transformers 6.2 does",
                fields.file().display()
            );
        }
        Ok(Self {
            folder: folder.to_owned(),
            in_features: required_size(fields, "in_features")?,
            out_features: required_size(fields, "out_features")?,
            bias: fields.flag("bias", true)?,
            activation: Self::activation(fields)?,
            feature: Feature::read(fields)?,
            residual: fields.flag("use_residual", false)?,
        })
    }

    /// `activation_function` is the path of a class of Python; sentence-transformers makes an object of it without arguments.
    fn activation(fields: &ConfigFields<'_>) -> Result<DenseActivation, ModelError> {
        const FIELD: &str = "activation_function";
        const DEFAULT: &str = "torch.nn.modules.activation.Tanh";
        let path = fields.string(FIELD, DEFAULT)?;
        DenseActivation::of_path(path).ok_or_else(|| {
            let names = ACTIVATIONS.map(|(name, _)| name).join(", ");
            let hint = if path.starts_with("torch.") {
                "another function would give other embeddings"
            } else {
                "sentence-transformers runs Tanh in place of a function that is not torch's, unless it may execute the model's code: if Tanh is meant, name torch.nn.modules.activation.Tanh"
            };
            fields.error(
                FIELD,
                format!("supported is a class of torch.nn, one of {names}, found \"{path}\""),
                hint,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(changes: &Value) -> Result<DenseSettings, String> {
        let mut config = json!({"in_features": 4, "out_features": 2});
        for (field, value) in changes.as_object().into_iter().flatten() {
            config[field] = value.clone();
        }
        let fields = ConfigFields::new(Path::new("2_Dense/config.json"), &config);
        DenseSettings::read(Path::new("2_Dense"), &fields).map_err(|error| error.to_string())
    }

    #[test]
    fn paths_of_activation_functions() {
        let activation = |path: &str| DenseActivation::of_path(path);
        let tanh = Some(DenseActivation::OfKernels(Activation::Tanh));
        for path in [
            "torch.nn.Tanh",
            "torch.nn.modules.Tanh",
            "torch.nn.modules.activation.Tanh",
        ] {
            assert_eq!(activation(path), tanh, "{path}");
        }
        let identity = Some(DenseActivation::OfKernels(Activation::Identity));
        assert_eq!(activation("torch.nn.modules.linear.Identity"), identity);
        for path in [
            "Tanh",
            "torch.tanh",
            "torch.nn.modules.linear.Tanh",
            "torch.nn.modules.activation.Identity",
            "torch.nn.Softmax",
            "",
        ] {
            assert_eq!(activation(path), None, "{path}");
        }
    }

    #[test]
    fn what_is_left_out_has_the_module_s_own_defaults() {
        let dense = read(&json!({})).unwrap();
        assert!(dense.bias && !dense.residual);
        assert_eq!(
            dense.activation,
            DenseActivation::OfKernels(Activation::Tanh)
        );
        assert_eq!(dense.feature, Feature::SentenceEmbedding);
        let tokens = json!({"module_input_name": "token_embeddings", "module_output_name": null});
        assert_eq!(read(&tokens).unwrap().feature, Feature::TokenEmbeddings);
    }

    #[test]
    fn what_is_refused() {
        let error = |changes: Value| read(&changes).expect_err("refused");
        let texts = [
            error(json!({"in_features": null})),
            error(json!({"out_features": 0})),
            error(json!({"bias": "yes"})),
            error(json!({"activation_function": null})),
            error(json!({"activation_function": "torch.nn.modules.activation.Softmax"})),
            error(json!({"activation_function": "my_package.Swish"})),
            error(json!({"module_input_name": "all_layer_embeddings"})),
            error(json!({"module_output_name": "token_embeddings"})),
            error(json!({"init_bias": [0.0, 1.0]})),
        ];
        insta::assert_snapshot!(texts.join("\n\n"), @r#"
        2_Dense/config.json: `in_features`: expected a whole number from 1 to 16777216, found null
          hint: correct the value or fetch the file again

        2_Dense/config.json: `out_features`: expected a whole number from 1 to 16777216, found 0
          hint: correct the value or fetch the file again

        2_Dense/config.json: `bias`: expected true or false, found "yes"
          hint: correct the value or fetch the file again

        2_Dense/config.json: `activation_function`: expected a string, found null
          hint: correct the value or fetch the file again

        2_Dense/config.json: `activation_function`: supported is a class of torch.nn, one of Tanh, Identity, ReLU, GELU, SiLU, Sigmoid, LeakyReLU, ELU, found "torch.nn.modules.activation.Softmax"
          hint: another function would give other embeddings

        2_Dense/config.json: `activation_function`: supported is a class of torch.nn, one of Tanh, Identity, ReLU, GELU, SiLU, Sigmoid, LeakyReLU, ELU, found "my_package.Swish"
          hint: sentence-transformers runs Tanh in place of a function that is not torch's, unless it may execute the model's code: if Tanh is meant, name torch.nn.modules.activation.Tanh

        2_Dense/config.json: `module_input_name`: supported is "token_embeddings" or "sentence_embedding", found "all_layer_embeddings"
          hint: fewbit keeps one vector for each token and one for each text

        2_Dense/config.json: `module_output_name`: supported is "sentence_embedding", which is read, found "token_embeddings"
          hint: fewbit runs modules that write what they read

        2_Dense/config.json: `init_bias`: supported is no such field, found [0.0,1.0]
          hint: the values are in the module's file of weights
        "#);
    }
}
