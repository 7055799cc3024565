//! Inputs of linear layers as the quantized model has them.

use std::collections::{BTreeMap, HashMap};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Device, Layout, Result, Shape, Tensor};
use fewbit_checkpoint::StoredWeight;
use fewbit_checkpoint::stored_weight::Int8Activations;
use fewbit_model::Module;
use fewbit_numerics::activation::ActivationScheme;
use fewbit_numerics::affine::{AffineParameters, CodeRange};
use fewbit_numerics::fake_quantize::gradients;
use fewbit_quantize::{StaticInput, fake_quantize};

use crate::operations::values::{slice, values};
use crate::{LayerInputs, Parameters};

/// How the rows that a linear layer reads are quantized.
#[derive(Debug, Clone, PartialEq)]
enum InputFormat {
    /// Each over its own range to codes of 8 bits.
    Rows,
    /// With one scale, which is trained.
    One {
        /// The parameter that holds its logarithm; layers that read the same rows with the same scale share it.
        parameter: String,
        zero_point: i32,
        range: CodeRange,
    },
}

/// Formats by the names of modules; inputs of others are floats.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct InputQuantizers {
    formats: HashMap<String, InputFormat>,
    /// The scales of static inputs to begin with, by the names of parameters.
    scales: BTreeMap<String, f32>,
}

impl InputQuantizers {
    /// Takes in that of `module`, as `stored` says. Returns whether that is one that is trained.
    pub(crate) fn add(&mut self, module: &Module, stored: &StoredWeight<'_>) -> bool {
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
                let site = module.input_site.as_ref().unwrap_or(&module.name);
                let parameter = format!("{site} {zero_point} {:08x}", scale.to_bits());
                self.scales.insert(parameter.clone(), *scale);
                InputFormat::One {
                    parameter,
                    zero_point: *zero_point,
                    range: *codes,
                }
            }
            Some(
                Int8Activations::Dynamic(ActivationScheme::Symmetric)
                | Int8Activations::DynamicPerTensor { .. },
            ) => return false,
        };
        self.formats.insert(module.name.clone(), format);
        true
    }

    /// The parameters of scales, and the scales to begin with.
    pub(crate) fn scales(&self) -> &BTreeMap<String, f32> {
        &self.scales
    }

    /// The quantization of the inputs with scales whose logarithms are among `parameters`.
    pub(crate) fn with<'a>(&'a self, parameters: &'a Parameters) -> QuantizedInputs<'a> {
        QuantizedInputs {
            quantizers: self,
            parameters,
        }
    }

    /// Scale and zero point of static inputs, by the names of modules; `logarithm` gives those of parameters.
    pub(crate) fn static_inputs(
        &self,
        logarithm: impl Fn(&str) -> Option<f32>,
    ) -> BTreeMap<String, StaticInput> {
        let formats = self.formats.iter();
        formats
            .filter_map(|(module, format)| match format {
                InputFormat::Rows => None,
                InputFormat::One {
                    parameter,
                    zero_point,
                    ..
                } => {
                    let input = StaticInput {
                        scale: logarithm(parameter)?.exp(),
                        zero_point: i8::try_from(*zero_point).ok()?,
                    };
                    Some((module.clone(), input))
                }
            })
            .collect()
    }
}

/// Inputs in one step of training.
pub(crate) struct QuantizedInputs<'a> {
    quantizers: &'a InputQuantizers,
    parameters: &'a Parameters,
}

impl LayerInputs for QuantizedInputs<'_> {
    fn quantized(&self, module: &Module, input: &Tensor) -> Result<Tensor> {
        match self.quantizers.formats.get(&module.name) {
            None => Ok(input.clone()),
            Some(InputFormat::Rows) => input.contiguous()?.apply_op1(QuantizedRows),
            Some(InputFormat::One {
                parameter,
                zero_point,
                range,
            }) => {
                let operation = QuantizedWithOneScale {
                    zero_point: *zero_point,
                    range: *range,
                };
                let logarithm = self.parameters.get(parameter)?;
                input.contiguous()?.apply_op2(logarithm, operation)
            }
        }
    }

    fn are_alike(&self, first: &Module, other: &Module) -> bool {
        let formats = &self.quantizers.formats;
        formats.get(&first.name) == formats.get(&other.name)
    }
}

/// What the codes of rows over their own ranges stand for. The range of a row clips nothing of it, so that the whole gradient passes.
struct QuantizedRows;

impl CustomOp1 for QuantizedRows {
    fn name(&self) -> &'static str {
        "quantized rows"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, columns) = layout.shape().dims2()?;
        let input = slice(input, layout)?;
        let mut out = vec![0.0; input.len()];
        if !fake_quantize::rows(input, columns, CodeRange::UINT8, &mut out) {
            // So that the loss is not finite either.
            out.fill(f32::NAN);
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _input: &Tensor, _out: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(gradient.clone()))
    }
}

/// What codes with one scale stand for, of rows and the logarithm of the scale: the gradient passes where nothing was clipped, and the scale's is that of learned steps.
struct QuantizedWithOneScale {
    zero_point: i32,
    range: CodeRange,
}

impl QuantizedWithOneScale {
    fn parameters(&self, logarithm: f32) -> AffineParameters {
        AffineParameters {
            scale: logarithm.exp(),
            zero_point: self.zero_point,
        }
    }
}

impl CustomOp2 for QuantizedWithOneScale {
    fn name(&self) -> &'static str {
        "quantized with one scale"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        layout: &Layout,
        logarithm: &CpuStorage,
        place: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let input = slice(input, layout)?;
        let parameters = self.parameters(slice(logarithm, place)?[0]);
        let mut out = vec![f32::NAN; input.len()];
        if parameters.scale.is_normal() {
            let mut passes = vec![0; input.len()];
            let finite =
                fake_quantize::with_one_scale(input, parameters, self.range, &mut out, &mut passes);
            if !finite {
                out.fill(f32::NAN);
            }
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        logarithm: &Tensor,
        _out: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let parameters = self.parameters(values(logarithm)?[0]);
        let gradient = gradient.contiguous()?;
        let (x, gradient) = (values(input)?, values(&gradient)?);
        let mut of_input = vec![0.0; x.len()];
        let of_scale = gradients(&x, &gradient, parameters, self.range, &mut of_input);
        // The slope of the exponential is the scale. The factor is that of Esser et al. 2020, section 2.2.
        let steps = x.len() as f32 * (self.range.max - self.range.min) as f32;
        let of_logarithm = of_scale * parameters.scale / steps.max(1.0).sqrt();
        Ok((
            Some(Tensor::from_vec(of_input, input.shape(), &Device::Cpu)?),
            Some(Tensor::from_vec(vec![of_logarithm], 1, &Device::Cpu)?),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    #[test]
    fn clipped_inputs_pull_the_scale_up() -> Result<()> {
        let input = Var::from_vec(vec![0.2f32, 40.0, -50.0, 0.1], (2, 2), &Device::Cpu)?;
        let logarithm = Var::from_vec(vec![(0.1f32).ln()], 1, &Device::Cpu)?;
        let operation = QuantizedWithOneScale {
            zero_point: 0,
            range: CodeRange::INT8,
        };
        let out = input.apply_op2(&logarithm, operation)?;
        let values = out.flatten_all()?.to_vec1::<f32>()?;
        let scale = (0.1f32).ln().exp();
        assert_eq!(values, [2.0, 127.0, -128.0, 1.0].map(|code| code * scale));
        let store = (out.sqr()?.sum_all()? * 0.5)?.backward()?;
        let of_input = store.get(&input).expect("a leaf").flatten_all()?;
        let of_input = of_input.to_vec1::<f32>()?;
        assert_eq!([of_input[1], of_input[2]], [0.0, 0.0]);
        assert!(of_input[0] > 0.19 && of_input[3] > 0.09);
        // More of it makes clipped values larger, and the loss here is their square.
        let of_logarithm = store.get(&logarithm).expect("a leaf").to_vec1::<f32>()?[0];
        let clipped = (127.0f32 * 127.0 + 128.0 * 128.0) * scale * scale;
        let expected = clipped / (4.0f32 * 255.0).sqrt();
        assert!(
            (of_logarithm / expected - 1.0).abs() < 1e-3,
            "{of_logarithm} {expected}"
        );
        Ok(())
    }
}
