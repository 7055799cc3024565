//! The options of `nf4` and `fp4`.

use fewbit_numerics::four_bit::FourBitType;

use super::{BlockScales, EmbeddingStorage, FloatDType, error};
use crate::QuantizeError;

/// Block size where none is named: that of bitsandbytes.
pub const DEFAULT_BLOCK_SIZE: usize = 64;

/// 4-bit codes with one absmax a block, in the bitsandbytes layout.
#[derive(Debug, Clone, PartialEq)]
pub struct FourBitRecipe {
    /// The code table.
    pub data_type: FourBitType,
    /// Elements that share one absmax: a power of two from 32 to 4096.
    pub block_size: usize,
    /// Whether the absmax values are themselves quantized to 8 bits.
    pub double_quantization: bool,
    /// How the scale of a block is chosen.
    pub scales: BlockScales,
    /// Whether codes are rounded by [GPTQ](crate::gptq), which needs calibration texts beside the recipe, and not to the nearest.
    pub gptq: bool,
    /// Whether weights are trained before they are written: quantization-aware training, which needs texts beside the recipe.
    pub trained: bool,
    /// How the word embedding table is stored. In codes, no loader but fewbit reads it: transformers makes 4-bit layers of linear ones alone.
    pub embeddings: EmbeddingStorage,
    /// The dtype of what is not quantized, and what weights dequantize to; none: that of the source, in F32 for F64.
    pub float_dtype: Option<FloatDType>,
    /// Globs on module names that stay float, added to the defaults (see [`selection`](crate::selection)).
    pub skip: Vec<String>,
}

impl FourBitRecipe {
    /// `nf4` in blocks of [`DEFAULT_BLOCK_SIZE`].
    pub fn nf4() -> Self {
        Self::new(FourBitType::Nf4)
    }

    /// `fp4` in blocks of [`DEFAULT_BLOCK_SIZE`].
    pub fn fp4() -> Self {
        Self::new(FourBitType::Fp4)
    }

    /// A code table, in blocks of [`DEFAULT_BLOCK_SIZE`] with their largest magnitudes, without double quantization; everything else as it is.
    pub fn new(data_type: FourBitType) -> Self {
        Self {
            data_type,
            block_size: DEFAULT_BLOCK_SIZE,
            double_quantization: false,
            scales: BlockScales::Absmax,
            gptq: false,
            trained: false,
            embeddings: EmbeddingStorage::Keep,
            float_dtype: None,
            skip: Vec::new(),
        }
    }

    /// Sets [`block_size`](Self::block_size).
    #[must_use]
    pub fn with_block_size(self, block_size: usize) -> Self {
        Self { block_size, ..self }
    }

    /// Sets [`double_quantization`](Self::double_quantization).
    #[must_use]
    pub fn with_double_quantization(self, double_quantization: bool) -> Self {
        Self {
            double_quantization,
            ..self
        }
    }

    /// Sets [`scales`](Self::scales).
    #[must_use]
    pub fn with_scales(self, scales: BlockScales) -> Self {
        Self { scales, ..self }
    }

    /// Sets [`gptq`](Self::gptq).
    #[must_use]
    pub fn with_gptq(self, gptq: bool) -> Self {
        Self { gptq, ..self }
    }

    /// Sets [`trained`](Self::trained).
    #[must_use]
    pub fn with_training(self, trained: bool) -> Self {
        Self { trained, ..self }
    }

    /// Sets [`embeddings`](Self::embeddings).
    #[must_use]
    pub fn with_embeddings(self, embeddings: EmbeddingStorage) -> Self {
        Self { embeddings, ..self }
    }

    /// Sets [`float_dtype`](Self::float_dtype).
    #[must_use]
    pub fn with_float_dtype(self, dtype: FloatDType) -> Self {
        Self {
            float_dtype: Some(dtype),
            ..self
        }
    }

    /// Adds globs to [`skip`](Self::skip).
    #[must_use]
    pub fn with_skip<S: Into<String>>(mut self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.skip.extend(patterns.into_iter().map(Into::into));
        self
    }

    pub(super) fn label_of_options(&self) -> String {
        let mut label = String::new();
        if self.block_size != DEFAULT_BLOCK_SIZE {
            label += &format!(", blocks of {}", self.block_size);
        }
        if self.gptq {
            label += " + GPTQ";
        }
        if self.trained {
            label += " + QAT";
        }
        if self.double_quantization {
            label += " + double quantization";
        }
        if let Some(scales) = self.scales.label() {
            label += &format!(" + {scales}");
        }
        label += &self.embeddings.label(EmbeddingStorage::Keep);
        label += &FloatDType::label(self.float_dtype);
        label
    }

    pub(super) fn validate(&self) -> Result<(), QuantizeError> {
        if let Some(dtype) = self.embeddings.float_dtype()
            && self.float_dtype.map(FloatDType::dtype) != Some(dtype)
        {
            let form = self.embeddings;
            return error(
                "embeddings",
                format!("`float_dtype = \"{form}\"` beside `embeddings = \"{form}\"`"),
                self.float_dtype
                    .map_or("none".to_owned(), |dtype| format!("`{dtype}`")),
                "transformers runs 4-bit layers beside floats of one dtype alone: `float_dtype` is that of the embeddings, too",
            );
        }
        if !self.block_size.is_power_of_two() || !(32..=4096).contains(&self.block_size) {
            return error(
                "block_size",
                "a power of two from 32 to 4096",
                self.block_size.to_string(),
                "64 is what bitsandbytes uses",
            );
        }
        Ok(())
    }
}
