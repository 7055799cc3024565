//! The product of a linear layer.

use super::values::{slice, values};
use crate::weight_gradients::ProductRecord;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Device, Layout, Result, Shape, Tensor};
use fewbit_kernels::{Epilogue, Kernels, OutputColumns, PackedFloat, Workspace};
use std::sync::Arc;

/// A weight (out, in) as the kernels read it.
///
/// # Errors
/// It is not an f32 matrix.
pub(crate) fn pack(weight: &Tensor) -> Result<PackedFloat> {
    let (outputs, inputs) = weight.dims2()?;
    let weight = weight.contiguous()?;
    Ok(PackedFloat::from_f32(&values(&weight)?, outputs, inputs))
}

/// `x Wᵀ`, or with a bias `x Wᵀ + b`: x (rows, in), W (out, in), b (out) -> (rows, out), the bits of the executor.
///
/// As an operation of its own it gives the weight's gradient in the weight's order; candle's product of a transposed view would give a
/// transposed one, and add it up element by element.
pub(crate) struct Product {
    /// The weight, if it has been packed already.
    pub(crate) packed: Option<Arc<PackedFloat>>,
    /// Where what the weight's gradient is made of is left under this name, and no gradient is given.
    pub(crate) record: Option<(ProductRecord, String)>,
    pub(crate) kernels: &'static Kernels,
}

impl Product {
    /// A product that packs its weight and gives its gradient.
    pub(crate) fn new(kernels: &'static Kernels) -> Self {
        Self {
            packed: None,
            record: None,
            kernels,
        }
    }

    /// The product of `x` with `weight`.
    ///
    /// # Errors
    /// Shapes that do not fit together.
    pub(crate) fn linear(
        self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (x, weight) = (x.contiguous()?, weight.contiguous()?);
        match bias {
            None => x.apply_op2(&weight, self),
            Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, self),
        }
    }

    fn of(
        &self,
        (x, x_layout): (&CpuStorage, &Layout),
        (weight, weight_layout): (&CpuStorage, &Layout),
        bias: Option<&[f32]>,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, inputs) = x_layout.shape().dims2()?;
        let (outputs, weight_inputs) = weight_layout.shape().dims2()?;
        let biases = bias.map_or(outputs, <[f32]>::len);
        if inputs != weight_inputs || biases != outputs {
            candle_core::bail!(
                "a weight of {outputs} outputs and {weight_inputs} inputs, with {biases} biases, for rows of {inputs}"
            );
        }
        let x = slice(x, x_layout)?;
        let mut out = vec![0.0; rows * outputs];
        let columns = OutputColumns::of_matrix(&mut out, outputs);
        let (epilogue, mut workspace) = (Epilogue::store(bias), Workspace::new());
        let packed_here;
        let weight = match &self.packed {
            Some(packed) => packed.as_ref(),
            None => {
                let weight = slice(weight, weight_layout)?;
                packed_here = PackedFloat::from_f32(weight, outputs, inputs);
                &packed_here
            }
        };
        self.kernels
            .linear_float(x, rows, weight, epilogue, columns, &mut workspace);
        Ok((CpuStorage::F32(out), (rows, outputs).into()))
    }

    /// The gradients of x and of the weight.
    fn gradients(
        &self,
        x: &Tensor,
        weight: &Tensor,
        gradient: &Tensor,
    ) -> Result<[Option<Tensor>; 2]> {
        let of_weight = match &self.record {
            None => Some(weight_gradient(x, gradient)?),
            Some((record, name)) => {
                record.add(name, x, gradient);
                None
            }
        };
        Ok([Some(gradient.matmul(&weight.detach())?), of_weight])
    }
}

/// The gradient of W (out, in) in `x Wᵀ` with x (rows, in), by the gradient (rows, out) of the product.
///
/// # Errors
/// Shapes that do not fit together.
pub(crate) fn weight_gradient(x: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    gradient.t()?.matmul(&x.detach())
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = ((x, x_layout), (weight, weight_layout));
        self.of(x, weight, None)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _product: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [x, weight] = self.gradients(x, weight, &gradient.contiguous()?)?;
        Ok((x, weight))
    }
}

impl CustomOp3 for Product {
    fn name(&self) -> &'static str {
        "linear with a bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = ((x, x_layout), (weight, weight_layout));
        let bias = slice(bias, bias_layout)?;
        self.of(x, weight, Some(bias))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _product: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let [x, weight] = self.gradients(x, weight, &gradient)?;
        let mut sums = vec![0.0; bias.elem_count()];
        for row in values(&gradient)?.chunks_exact(sums.len().max(1)) {
            sums.iter_mut().zip(row).for_each(|(sum, y)| *sum += y);
        }
        let bias = Tensor::from_vec(sums, bias.shape(), &Device::Cpu)?;
        Ok((x, weight, Some(bias)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    #[test]
    fn gradients_are_those_of_the_sums() -> Result<()> {
        let tensor =
            |values: &[f32], shape: (usize, usize)| Tensor::from_slice(values, shape, &Device::Cpu);
        let x = Var::from_tensor(&tensor(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], (2, 3))?)?;
        let weight = Var::from_tensor(&tensor(&[1.0, 0.0, -1.0, 2.0, 1.0, 0.5], (2, 3))?)?;
        let bias = Var::from_tensor(&Tensor::from_slice(&[10.0f32, 20.0], 2, &Device::Cpu)?)?;
        let product = || Product::new(Kernels::from_environment().expect("kernels"));
        let y = product().linear(&x, &weight, Some(&bias))?;
        assert_eq!(y.to_vec2::<f32>()?, [[8.0, 25.5], [8.0, 36.0]]);
        let weights = tensor(&[1.0, 2.0, 3.0, 4.0], (2, 2))?;
        let gradients = (y * &weights)?.sum_all()?.backward()?;
        let of = |tensor: &Tensor| gradients.get(tensor).cloned().expect("a leaf");
        assert_eq!(
            of(&x).to_vec2::<f32>()?,
            [[5.0, 2.0, 0.0], [11.0, 4.0, -1.0]]
        );
        assert_eq!(
            of(&weight).to_vec2::<f32>()?,
            [[13.0, 17.0, 21.0], [18.0, 24.0, 30.0]]
        );
        assert_eq!(of(&bias).to_vec1::<f32>()?, [4.0, 6.0]);
        let without = product().linear(&x, &weight, None)?;
        assert_eq!(without.to_vec2::<f32>()?, [[-2.0, 5.5], [-2.0, 16.0]]);
        let gradients = (without * weights)?.sum_all()?.backward()?;
        let x = gradients.get(&x).expect("a leaf").to_vec2::<f32>()?;
        assert_eq!(x, [[5.0, 2.0, 0.0], [11.0, 4.0, -1.0]]);
        Ok(())
    }
}
