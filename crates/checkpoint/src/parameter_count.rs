//! How many parameters a stored tensor stands for.
use crate::read_weight::suffixes;
use crate::{Checkpoint, CheckpointError, TensorInfo};

impl Checkpoint {
    /// Parameters that a tensor of this checkpoint holds: the elements of the weight that it encodes, whatever their storage. None for a
    /// buffer, which goes with parameters without being one: scales, zero points, code tables, position numbers.
    ///
    /// # Errors
    /// What says the shape of a packed weight (`weight_shape`, the bitsandbytes quant_state) is malformed or missing.
    pub fn parameter_count(&self, tensor: &TensorInfo) -> Result<Option<u64>, CheckpointError> {
        let Some((module, suffix)) = self.part_of_quantized_weight(&tensor.name) else {
            return Ok(tensor
                .dtype
                .is_float()
                .then(|| element_count(&tensor.shape)));
        };
        if !["weight", "weight_packed"].contains(&suffix) {
            return Ok(None);
        }
        let shape = self.weight_shape(module)?;
        Ok(shape.map(|shape| element_count(&shape)))
    }

    /// Module and suffix of a tensor of a module whose weight is stored in codes.
    fn part_of_quantized_weight<'a>(&self, tensor: &'a str) -> Option<(&'a str, &'static str)> {
        suffixes().find_map(|suffix| {
            let module = tensor.strip_suffix(suffix)?.strip_suffix('.')?;
            let codes = |name: &str| {
                self.get(&format!("{module}.{name}"))
                    .is_some_and(|codes| !codes.info.dtype.is_float())
            };
            // bitsandbytes may store 4-bit codes in tensors of any dtype.
            let four_bit = self.contains(&format!("{module}.weight.absmax"));
            (four_bit || codes("weight") || codes("weight_packed")).then_some((module, suffix))
        })
    }
}

fn element_count(shape: &[usize]) -> u64 {
    shape.iter().fold(1, |product: u64, &dimension| {
        product.saturating_mul(dimension as u64)
    })
}
