//! The settings of sentence-transformers' SpladePooling module.

use super::module::refuse_unknown;
use crate::ModelError;
use crate::config_fields::ConfigFields;

/// How the logits of a text's tokens become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpladeSettings {
    pub(crate) strategy: SpladeStrategy,
    /// Whether the logarithm is taken twice (`log1p_relu`).
    twice: bool,
}

/// How the values of tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpladeStrategy {
    Max,
    Sum,
}

/// The width of the result is that of the model's vocabulary, and how many tokens go together changes nothing.
const FIELDS: [&str; 5] = [
    "pooling_strategy",
    "activation_function",
    "embedding_dimension",
    "word_embedding_dimension",
    "chunk_size",
];

impl SpladeSettings {
    pub(super) fn read(fields: &ConfigFields<'_>) -> Result<Self, ModelError> {
        const HINT: &str = "sentence-transformers 6.2 has no other";
        refuse_unknown(fields, &FIELDS)?;
        let one_of = |field: &str, default: &'static str, other: &'static str| {
            let found = fields.string(field, default)?;
            if found == default || found == other {
                return Ok(found == default);
            }
            let supported = format!("\"{default}\" or \"{other}\"");
            Err(fields.unsupported(field, &supported, &found.into(), HINT))
        };
        Ok(Self {
            strategy: match one_of("pooling_strategy", "max", "sum")? {
                true => SpladeStrategy::Max,
                false => SpladeStrategy::Sum,
            },
            twice: !one_of("activation_function", "relu", "log1p_relu")?,
        })
    }

    /// log(1 + max(x, 0)), once or twice.
    pub(crate) fn activation(self, logit: f32) -> f32 {
        let once = libm::log1p(f64::from(logit.max(0.0)));
        let value = if self.twice { libm::log1p(once) } else { once };
        value as f32
    }
}
