//! What few families have beside their layers: a table of relative positions, and a convolution.

use super::Loader;
use crate::catalogue::about_sizes;
use crate::network::convolution::Convolution;
use crate::network::disentangled::PositionTable;
use crate::{EncoderSpec, ModelError, Role};

impl Loader<'_> {
    /// The table of relative positions, where attention is disentangled.
    pub(super) fn positions(
        &mut self,
        spec: &EncoderSpec,
    ) -> Result<Option<PositionTable>, ModelError> {
        let (Some(disentangled), Some(module)) = (
            spec.disentangled,
            self.module(Role::RelativePositions, None),
        ) else {
            return Ok(None);
        };
        let mut rows = self.stored_table(&module)?.dequantize(module.shape)?;
        if let Some(norm) = self.optional_norm(Role::RelativePositionsNorm, None)? {
            self.kernels.layer_norm(&mut rows, None, norm.of(spec.norm));
        }
        Ok(Some(PositionTable::new(
            disentangled,
            spec.hidden_size,
            &rows,
        )))
    }

    /// The convolution beside the first layer, where there is one.
    pub(super) fn convolution(
        &mut self,
        spec: &EncoderSpec,
    ) -> Result<Option<Convolution>, ModelError> {
        let (Some(convolution), Some(module)) =
            (spec.convolution, self.module(Role::Convolution, None))
        else {
            return Ok(None);
        };
        let (columns, size) = (spec.hidden_size, convolution.size);
        let name = format!("{}.weight", module.name);
        let view = self.checkpoint.require(&name)?;
        view.expect_shape(&[columns, columns / convolution.groups, size])
            .map_err(about_sizes)?;
        let mut weight = vec![0.0; module.shape[0] * module.shape[1]];
        view.read_finite_range(0, &mut weight)?;
        self.applied.insert(name);
        let bias = self.vector(&format!("{}.bias", module.name), columns)?;
        let norm = self.norm(&self.required(Role::ConvolutionNorm, None)?)?;
        Ok(Some(Convolution::new(convolution, &weight, bias, norm)))
    }
}
