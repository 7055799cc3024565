//! What a static range does to the embeddings.
//!
//! # The measure
//!
//! The model of the method `dynamic` embeds texts, first as it is and then once for each site, with that site alone static. With e_t
//! the float model's embedding of text t and e'_t the other's,
//!
//! ```text
//! loss = 1 - mean over t of cosine(e_t, e'_t)
//! ```
//!
//! and the effect of a site is the loss with it static less the loss without. It is what the user sees of the site, and it can be below
//! zero where an error cancels another. The small errors of several sites add up, nearly.
//!
//! The int8 weights are made in memory and the model runs as one that was written: what is measured is what the executor computes, skipped
//! layers and int8 embeddings included. It costs one pass over the texts for each site, on int8 weights.

use fewbit_checkpoint::stored_weight::Int8Activations;
use fewbit_model::{Embeddings, EncodeOptions, Encoder, ModelError, open_checkpoint};
use fewbit_numerics::error_statistics::cosine;
use std::path::Path;

use super::{Calibrator, SiteSensitivity};
use crate::unwritten_weights::UnwrittenWeights;
use crate::{DynamicInputs, IntegerInputs, IntegerRecipe, QuantizeError, Rounding};

/// Texts that the effect is measured on, at most.
pub const OUTPUT_TEXTS: usize = 32;

impl Calibrator {
    /// Sets [`SiteSensitivity::output_effect`] of each of `sites`, those of [`Sensitivity`](super::Sensitivity) of what was collected so
    /// far, that a quantized layer reads: `options` say which layers are quantized, and whether the embeddings are.
    /// `progress(done, total)` counts passes over the texts.
    ///
    /// # Errors
    /// Those of [`QuantizePlan::new`](crate::QuantizePlan::new) and [`Encoder::encode`]; [`QuantizeError::Calibration`] for no text.
    pub fn measure_output_effect<S: AsRef<str> + Sync>(
        &self,
        sites: &mut [SiteSensitivity],
        options: &IntegerRecipe,
        texts: &[S],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), QuantizeError> {
        if texts.is_empty() {
            return Err(QuantizeError::Calibration {
                place: "effect on the output".to_owned(),
                expected: "at least one text".to_owned(),
                found: "none".to_owned(),
                hint: "saved statistics hold no texts: give some with --calibration".to_owned(),
            });
        }
        let inputs = self.statistics.inputs()?;
        let codes = self.statistics.signed_codes();
        let total = inputs.len() + 2;
        let mut done = 0;
        let mut pass = |encoder: &Encoder| -> Result<Embeddings, ModelError> {
            let embeddings = encoder.encode(texts, &EncodeOptions::default())?;
            done += 1;
            progress(done, total);
            Ok(embeddings)
        };
        let reference = pass(&self.encoder)?;
        let mut dynamic = dynamic_model(&self.source, options)?;
        let loss_of_dynamic = embedding_loss(&reference, &pass(&dynamic)?);
        for sensitivity in sites {
            let found = inputs
                .iter()
                .find(|(site, _)| site.name == sensitivity.site);
            let Some((site, input)) = found else { continue };
            let activations = Int8Activations::Static {
                scale: input.scale,
                zero_point: input.zero_point.into(),
                codes,
            };
            let embeddings = dynamic.with_input_quantization(&site.name, activations, &mut pass);
            sensitivity.output_effect = embeddings
                .transpose()?
                .map(|embeddings| embedding_loss(&reference, &embeddings) - loss_of_dynamic);
        }
        Ok(())
    }
}

/// The model of the method `dynamic`, with what else `options` say, but for GPTQ, which has little to do with ranges of inputs.
fn dynamic_model(source: &Path, options: &IntegerRecipe) -> Result<Encoder, QuantizeError> {
    let dynamic = IntegerRecipe {
        inputs: IntegerInputs::Dynamic(DynamicInputs::default()),
        rounding: Rounding::Nearest,
        ..options.clone()
    };
    let checkpoint = open_checkpoint(source)?;
    let weights = UnwrittenWeights::new(&checkpoint, &dynamic.into())?;
    Ok(Encoder::open_with_weights(source, &weights)?)
}

/// 1 - mean cosine.
pub(crate) fn embedding_loss(reference: &Embeddings, embeddings: &Embeddings) -> f64 {
    let cosines = (0..reference.rows).map(|row| cosine(reference.row(row), embeddings.row(row)));
    1.0 - cosines.sum::<f64>() / reference.rows as f64
}
