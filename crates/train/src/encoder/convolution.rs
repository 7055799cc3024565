//! The convolution beside the first layer: see [`Convolution`](spec::Convolution).

use candle_core::{Device, Result, Tensor};
use fewbit_checkpoint::Checkpoint;
use fewbit_model::{Catalogue, EncoderSpec, Role, spec};

use super::norm::NormModule;
use super::run::Run;
use super::{missing_role, vector};
use crate::TrainError;
use crate::operations::activation::activate;
use crate::operations::linear::Product;

/// A convolution, which training does not change, but for the normalization that follows it.
#[derive(Debug)]
pub(super) struct Convolution {
    spec: spec::Convolution,
    /// Of each group (columns / groups, size * columns / groups): of each output the weights of the first token, then of the second …
    weights: Vec<Tensor>,
    /// (columns)
    bias: Tensor,
    /// Of the first layer's output with what the convolution gives.
    norm: NormModule,
}

impl Convolution {
    /// The convolution of a model that has one.
    pub(super) fn read(
        spec: &EncoderSpec,
        catalogue: &Catalogue,
        checkpoint: &Checkpoint,
    ) -> std::result::Result<Option<Self>, TrainError> {
        let module = catalogue.get(Role::Convolution, None);
        let (Some(convolution), Some(module)) = (spec.convolution, module) else {
            return Ok(None);
        };
        let (columns, size) = (spec.hidden_size, convolution.size);
        let of_group = columns / convolution.groups;
        let view = checkpoint.require(&format!("{}.weight", module.name))?;
        view.expect_shape(&[columns, of_group, size])?;
        let mut weight = vec![0.0; columns * of_group * size];
        view.read_finite_range(0, &mut weight)?;
        let weight = Tensor::from_vec(weight, (columns, of_group, size), &Device::Cpu)?;
        let by_token = weight.transpose(1, 2)?.contiguous()?;
        let by_token = by_token.reshape((columns, size * of_group))?;
        let group = |group| by_token.narrow(0, group * of_group, of_group);
        let norm = NormModule::of_role(catalogue, Role::ConvolutionNorm, None, checkpoint);
        Ok(Some(Self {
            spec: convolution,
            weights: (0..convolution.groups).map(group).collect::<Result<_>>()?,
            bias: vector(checkpoint, &format!("{}.bias", module.name), columns)?,
            norm: norm.ok_or_else(|| missing_role(Role::ConvolutionNorm, catalogue))?,
        }))
    }

    /// What the first layer gives, `output`, with the convolution of what it reads, `input`: (tokens, hidden_size).
    pub(super) fn forward(&self, run: &Run<'_>, input: &Tensor, output: &Tensor) -> Result<Tensor> {
        let (tokens, columns) = input.dims2()?;
        let size = self.spec.size;
        // Beyond the ends of a sequence there are zeros.
        let zeros = Tensor::zeros((1, columns), input.dtype(), input.device())?;
        let rows = Tensor::cat(&[input, &zeros], 0)?;
        let places = run.sequences().flat_map(|sequence| {
            let of_token = move |(token, sequence): (usize, std::ops::Range<usize>)| {
                (token..token + size).map(move |place| match place.checked_sub(size / 2) {
                    Some(place) if sequence.contains(&place) => place as u32,
                    _ => tokens as u32,
                })
            };
            sequence
                .clone()
                .map(move |token| (token, sequence.clone()))
                .flat_map(of_token)
        });
        let places = Tensor::from_vec(places.collect(), tokens * size, &Device::Cpu)?;
        let windows = rows.index_select(&places, 0)?;
        let windows = windows.reshape((tokens, size, columns))?;
        let of_group = columns / self.spec.groups;
        let products = self.weights.iter().enumerate().map(|(group, weight)| {
            let window = windows
                .narrow(2, group * of_group, of_group)?
                .contiguous()?;
            let bias = self.bias.narrow(0, group * of_group, of_group)?;
            let rows = window.reshape((tokens, size * of_group))?;
            Product::new(run.kernels).linear(&rows, weight, Some(&bias))
        });
        let products = Tensor::cat(&products.collect::<Result<Vec<_>>>()?, 1)?;
        let activated = activate(&products, self.spec.activation, run.kernels)?;
        run.normalize(&self.norm, &(output + activated)?)
    }
}
