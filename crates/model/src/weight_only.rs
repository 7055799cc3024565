//! The arithmetic of layers whose weights alone are integers.

use crate::ModelError;
use serde::{Deserialize, Serialize};

/// The environment variable that chooses it.
const VARIABLE: &str = "FEWBIT_WEIGHT_ONLY";

/// The arithmetic of a layer whose weights alone are int8, with one scale for each output, or int4 in groups that
/// [have tiles](fewbit_kernels::PackedInt4::has_tiles_for). int8 layers with several scales for an output, or with more
/// than [`MAX_TWELVE_BIT_COLUMNS`](fewbit_numerics::activation::MAX_TWELVE_BIT_COLUMNS) inputs, always compute with floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightOnlyArithmetic {
    /// Activations become affine codes of twelve bits, one scale for each token, and products are exact sums of integers: hardly less
    /// accurate than floats, and as fast as int8.
    #[default]
    Integers,
    /// Activations stay floats, and the weights are dequantized for every product.
    Floats,
}

impl WeightOnlyArithmetic {
    /// `asked` if there is any, else the one of [`from_environment`](Self::from_environment); the environment is read only then.
    ///
    /// # Errors
    /// As [`from_environment`](Self::from_environment).
    pub fn resolve(asked: Option<Self>) -> Result<Self, ModelError> {
        asked.map_or_else(Self::from_environment, Ok)
    }

    /// The one that the environment variable `FEWBIT_WEIGHT_ONLY` names, `integers` or `floats`; integers where it is absent or empty.
    ///
    /// # Errors
    /// [`ModelError::Input`] if it names something else.
    pub fn from_environment() -> Result<Self, ModelError> {
        match std::env::var_os(VARIABLE) {
            None => Ok(Self::default()),
            Some(value) => Self::parse(&value.to_string_lossy()),
        }
    }

    fn parse(value: &str) -> Result<Self, ModelError> {
        match value {
            "" => Ok(Self::default()),
            "integers" => Ok(Self::Integers),
            "floats" => Ok(Self::Floats),
            other => Err(ModelError::Input(format!(
                "{VARIABLE}: expected `integers` or `floats`, found `{other}`"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        use WeightOnlyArithmetic::{Floats, Integers};
        for (word, expected) in [("", Integers), ("integers", Integers), ("floats", Floats)] {
            assert_eq!(WeightOnlyArithmetic::parse(word).unwrap(), expected);
        }
        let error = WeightOnlyArithmetic::parse("float").unwrap_err();
        assert_eq!(
            error.to_string(),
            "FEWBIT_WEIGHT_ONLY: expected `integers` or `floats`, found `float`"
        );
    }
}
