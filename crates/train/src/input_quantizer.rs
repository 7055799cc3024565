//! Inputs of linear layers as the quantized model has them.

use std::collections::HashMap;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use fewbit_checkpoint::StoredWeight;
use fewbit_checkpoint::stored_weight::Int8Activations;
use fewbit_model::Module;
use fewbit_numerics::activation::ActivationScheme;
use fewbit_numerics::affine::{AffineParameters, CodeRange};
use fewbit_quantize::fake_quantize;

use crate::LayerInputs;

/// How the rows that a linear layer reads are quantized.
#[derive(Debug, Clone, Copy, PartialEq)]
enum InputFormat {
    /// Each over its own range to codes of 8 bits.
    Rows,
    /// With one scale.
    One(AffineParameters, CodeRange),
}

/// Formats by the names of modules; inputs of others are floats.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct InputQuantizers {
    formats: HashMap<String, InputFormat>,
}

impl InputQuantizers {
    /// Takes in that of `module`, as `stored` says. Returns whether that is one that is trained.
    pub(crate) fn add(&mut self, module: &str, stored: &StoredWeight<'_>) -> bool {
        let activations = match stored {
            StoredWeight::Int8 { activations, .. } => Some(activations),
            StoredWeight::Groups { activations, .. } => activations.as_ref(),
            _ => None,
        };
        let format = match activations {
            None => return true,
            Some(Int8Activations::Dynamic(ActivationScheme::Affine)) => InputFormat::Rows,
            Some(Int8Activations::Static {
                scale,
                zero_point,
                codes,
            }) => {
                let parameters = AffineParameters {
                    scale: *scale,
                    zero_point: *zero_point,
                };
                InputFormat::One(parameters, *codes)
            }
            Some(
                Int8Activations::Dynamic(ActivationScheme::Symmetric)
                | Int8Activations::DynamicPerTensor { .. },
            ) => return false,
        };
        self.formats.insert(module.to_owned(), format);
        true
    }
}

impl LayerInputs for InputQuantizers {
    fn quantized(&self, module: &Module, input: &Tensor) -> Result<Tensor> {
        match self.formats.get(&module.name) {
            None => Ok(input.clone()),
            Some(format) => {
                let operation = QuantizedInput { format: *format };
                input.contiguous()?.apply_op1(operation)
            }
        }
    }
}

/// What the codes of rows stand for; the gradient passes where nothing was clipped.
struct QuantizedInput {
    format: InputFormat,
}

impl CustomOp1 for QuantizedInput {
    fn name(&self) -> &'static str {
        "quantized input"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, columns) = layout.shape().dims2()?;
        let (start, end) = layout
            .contiguous_offsets()
            .expect("callers make it contiguous");
        let input = &input.as_slice::<f32>()?[start..end];
        let mut out = vec![0.0; input.len()];
        let finite = match self.format {
            InputFormat::Rows => fake_quantize::rows(input, columns, CodeRange::UINT8, &mut out),
            InputFormat::One(parameters, range) => {
                let mut passes = vec![0; input.len()];
                fake_quantize::with_one_scale(input, parameters, range, &mut out, &mut passes)
            }
        };
        if !finite {
            // So that the loss is not finite either.
            out.fill(f32::NAN);
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, input: &Tensor, _out: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        match self.format {
            // A row's own range clips nothing.
            InputFormat::Rows => Ok(Some(gradient.clone())),
            InputFormat::One(parameters, range) => {
                let mask = input.apply_op1_no_bwd(&PassingMask { parameters, range })?;
                Ok(Some((gradient * mask)?))
            }
        }
    }
}

/// 1 where the gradient passes, and 0 where a value was clipped.
struct PassingMask {
    parameters: AffineParameters,
    range: CodeRange,
}

impl CustomOp1 for PassingMask {
    fn name(&self) -> &'static str {
        "passing mask"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (start, end) = layout
            .contiguous_offsets()
            .expect("the input of a forward pass was contiguous");
        let input = &input.as_slice::<f32>()?[start..end];
        let mut passes = vec![0; input.len()];
        fewbit_numerics::fake_quantize::straight_through(
            input,
            self.parameters,
            self.range,
            &mut passes,
        );
        let mask = passes.into_iter().map(f32::from).collect();
        Ok((CpuStorage::F32(mask), layout.shape().clone()))
    }
}
