//! The product of a linear layer.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

/// `x Wᵀ + b`: x (rows, in), W (out, in), b (out) -> (rows, out).
///
/// # Errors
/// Shapes that do not fit together.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let product = x
        .contiguous()?
        .apply_op2(&weight.contiguous()?, TransposedProduct)?;
    match bias {
        Some(bias) => product.broadcast_add(bias),
        None => Ok(product),
    }
}

/// `x Wᵀ`. As an operation of its own it gives the weight's gradient in the weight's order; candle's product of a transposed view would give a
/// transposed one, and add it up element by element.
struct TransposedProduct;

impl CustomOp2 for TransposedProduct {
    fn name(&self) -> &'static str {
        "transposed product"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, inputs) = x_layout.shape().dims2()?;
        let (outputs, weight_inputs) = weight_layout.shape().dims2()?;
        if inputs != weight_inputs {
            candle_core::bail!("a weight of {weight_inputs} inputs for rows of {inputs}");
        }
        let sizes = (1, rows, outputs, inputs);
        let product = x.matmul(weight, sizes, x_layout, &weight_layout.transpose(0, 1)?)?;
        Ok((product, (rows, outputs).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _product: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        Ok((
            Some(gradient.matmul(weight)?),
            Some(gradient.t()?.matmul(x)?),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn gradients_are_those_of_the_sums() -> Result<()> {
        let tensor =
            |values: &[f32], shape: (usize, usize)| Tensor::from_slice(values, shape, &Device::Cpu);
        let x = Var::from_tensor(&tensor(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], (2, 3))?)?;
        let weight = Var::from_tensor(&tensor(&[1.0, 0.0, -1.0, 2.0, 1.0, 0.5], (2, 3))?)?;
        let bias = Var::from_tensor(&Tensor::from_slice(&[10.0f32, 20.0], 2, &Device::Cpu)?)?;
        let y = linear(&x, &weight, Some(&bias))?;
        assert_eq!(y.to_vec2::<f32>()?, [[8.0, 25.5], [8.0, 36.0]]);
        let weights = tensor(&[1.0, 2.0, 3.0, 4.0], (2, 2))?;
        let gradients = (y * weights)?.sum_all()?.backward()?;
        let of = |tensor: &Tensor| gradients.get(tensor).map(Tensor::clone).expect("a leaf");
        assert_eq!(
            of(&x).to_vec2::<f32>()?,
            [[5.0, 2.0, 0.0], [11.0, 4.0, -1.0]]
        );
        assert_eq!(
            of(&weight).to_vec2::<f32>()?,
            [[13.0, 17.0, 21.0], [18.0, 24.0, 30.0]]
        );
        assert_eq!(of(&bias).to_vec1::<f32>()?, [4.0, 6.0]);
        Ok(())
    }
}
