//! The gradients of weights, computed once for several forward passes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Result, Tensor};

use crate::operations::linear::weight_gradient;

/// What a product `x Wᵀ` read and the gradient of what it gave: (rows, in) and (rows, out).
type ProductGradients = [Tensor; 2];

/// What the weights' gradients of one forward pass are made of, by the names of the weights.
///
/// A gradient of a weight is a sum over rows of small factors. Factors of several passes, put below each other, make one product; a tape would make one for each pass, each as large as the weight,
/// and add them up.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProductRecord(Arc<Mutex<BTreeMap<String, Vec<ProductGradients>>>>);

impl ProductRecord {
    /// Keeps what a product with the weight `name` read, and the gradient of what it gave.
    pub(crate) fn add(&self, name: &str, x: &Tensor, gradient: &Tensor) {
        let mut products = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_weight = products.entry(name.to_owned()).or_default();
        of_weight.push([x.detach(), gradient.detach()]);
    }

    fn of_weight(&self, name: &str) -> Vec<ProductGradients> {
        let mut products = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        products.remove(name).unwrap_or_default()
    }
}

/// Takes the gradient of the weight `name` (out, in) out of `records`, in their order; none if no product with it had a gradient.
///
/// # Errors
/// Products whose shapes do not fit together.
pub(crate) fn take_gradient(name: &str, records: &[ProductRecord]) -> Result<Option<Tensor>> {
    let products = records.iter().flat_map(|record| record.of_weight(name));
    let (inputs, gradients): (Vec<Tensor>, Vec<Tensor>) =
        products.map(|[x, gradient]| (x, gradient)).unzip();
    if inputs.is_empty() {
        return Ok(None);
    }
    let (x, gradient) = (Tensor::cat(&inputs, 0)?, Tensor::cat(&gradients, 0)?);
    weight_gradient(&x, &gradient).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::linear::Product;
    use candle_core::{Device, Var};
    use fewbit_kernels::Kernels;

    fn rows(values: &[f32], columns: usize) -> Result<Tensor> {
        Tensor::from_slice(values, (values.len() / columns, columns), &Device::Cpu)
    }

    /// Numbers that are exact in any order.
    #[test]
    fn what_passes_leave_makes_the_gradient_of_their_tapes() -> Result<()> {
        let kernels = Kernels::from_environment().expect("kernels");
        let weight = Var::from_tensor(&rows(&[1.0, 2.0, -3.0, 4.0, 0.5, 0.0], 3)?)?;
        let passes = [
            rows(&[1.0, 2.0, 3.0], 3)?,
            rows(&[-1.0, 0.0, 2.0, 4.0, 1.0, 0.5], 3)?,
        ];
        let (mut taped, mut records) = (Vec::new(), Vec::new());
        for x in &passes {
            let of = |product: Product| {
                product
                    .linear(x, &weight, None)?
                    .sqr()?
                    .sum_all()?
                    .backward()
            };
            taped.push(of(Product::new(kernels))?.get(&weight).cloned());
            let record = ProductRecord::default();
            let recording = Product {
                record: Some((record.clone(), "w".to_owned())),
                ..Product::new(kernels)
            };
            assert!(of(recording)?.get(&weight).is_none());
            records.push(record);
        }
        let [Some(first), Some(second)] = taped.as_slice() else {
            panic!("a leaf without a gradient");
        };
        let gradient = take_gradient("w", &records)?.expect("a gradient");
        assert_eq!(
            gradient.to_vec2::<f32>()?,
            (first + second)?.to_vec2::<f32>()?
        );
        assert!(take_gradient("w", &records)?.is_none());
        assert!(take_gradient("another", &records)?.is_none());
        Ok(())
    }
}
