//! The weight of a module, whatever its layout.
//!
//! The one place that knows every layout that is read: what `quantization_config` says decides which of them does it.
use crate::float_weight::{inconsistent, read_float};
use crate::{
    Checkpoint, CheckpointError, QuantizationConfig, StoredWeight, awq, bitsandbytes,
    compressed_tensors, gptq,
};

/// What follows the module's name in the names of the tensors that make up a weight, all layouts together.
pub(crate) fn suffixes() -> impl Iterator<Item = &'static str> {
    let quantized = bitsandbytes::SUFFIXES
        .iter()
        .chain(&compressed_tensors::SUFFIXES)
        // Those of AWQ are among them.
        .chain(&gptq::SUFFIXES);
    ["weight"].into_iter().chain(quantized.copied())
}

/// The module that the tensor `name` is a part of the quantized weight of; none of a tensor whose name says no such thing.
pub(crate) fn parts_of_quantized_weights(name: &str) -> Option<&str> {
    suffixes()
        .filter(|suffix| *suffix != "weight")
        .find_map(|suffix| name.strip_suffix(suffix)?.strip_suffix('.'))
}

impl Checkpoint {
    /// The weight of the module `module` (for instance `encoder.layer.0.output.dense`) of shape (out, in), in whatever form it is stored.
    ///
    /// Which tensors exist decides the form; `quantization()` must agree with them. Every part's dtype and shape is checked, and
    /// scales are checked to be finite.
    pub fn stored_weight(
        &self,
        module: &str,
        shape: [usize; 2],
    ) -> Result<StoredWeight<'_>, CheckpointError> {
        match self.quantization() {
            QuantizationConfig::None => read_float(self, module, shape),
            QuantizationConfig::BitsAndBytes(_) => bitsandbytes::read(self, module, shape),
            QuantizationConfig::CompressedTensors(config) => {
                compressed_tensors::read(self, config, module, shape)
            }
            QuantizationConfig::Gptq(config) => gptq::read(self, config, module, shape),
            QuantizationConfig::Awq(_) => awq::read(self, module, shape),
        }
    }

    /// Errors if there are codes of a quantized weight although config.json, or a missing one, says nothing of a quantization: nobody could tell
    /// what they stand for.
    pub fn expect_no_codes_without_config(&self) -> Result<(), CheckpointError> {
        if self.quantization().is_quantized() {
            return Ok(());
        }
        let codes = [
            "weight_packed",
            "weight_scale",
            "weight.absmax",
            "SCB",
            "qweight",
        ];
        let is_of_codes = |name: &str| {
            codes.iter().any(|part| {
                let module = name.strip_suffix(part);
                module.is_some_and(|module| module.ends_with('.'))
            })
        };
        match self.tensors().find(|info| is_of_codes(&info.name)) {
            None => Ok(()),
            Some(info) => Err(inconsistent(
                self,
                &info.name,
                "float weights",
                "a part of a quantized one",
            )
            .in_file(&info.file)),
        }
    }

    /// The shape of the weight of `module`, in whatever form it is stored; none if it has none.
    ///
    /// # Errors
    /// What says the shape of a packed weight (`weight_shape`, the bitsandbytes quant_state, `qweight`) is malformed or missing.
    pub fn weight_shape(&self, module: &str) -> Result<Option<Vec<usize>>, CheckpointError> {
        if let Some(shape) = bitsandbytes::four_bit_shape(self, module)? {
            return Ok(Some(shape));
        }
        if self.contains(&format!("{module}.weight_packed")) {
            return compressed_tensors::packed_shape(self, module).map(Some);
        }
        let of_words = match self.quantization() {
            QuantizationConfig::Gptq(config) => gptq::packed_shape(self, config, module)?,
            QuantizationConfig::Awq(_) => awq::packed_shape(self, module)?,
            _ => None,
        };
        if of_words.is_some() {
            return Ok(of_words);
        }
        let Some(weight) = self.get(&format!("{module}.weight")) else {
            return Ok(None);
        };
        Ok(Some(
            bitsandbytes::eight_bit_shape(self, module, &weight)
                .unwrap_or_else(|| weight.info.shape.clone()),
        ))
    }

    /// Names of the tensors that `stored_weight(module)` consists of (for the load ledger), those that exist.
    pub fn weight_tensor_names(&self, module: &str) -> Vec<String> {
        suffixes()
            .map(|suffix| format!("{module}.{suffix}"))
            .filter(|name| self.contains(name))
            .collect()
    }
}
