//! A model in another layout: floats again, or other codes.

use std::path::{Path, PathBuf};
use std::time::Instant;

use fewbit_checkpoint::Checkpoint;
use fewbit_model::{Catalogue, Role, open_checkpoint};
use serde::Serialize;

use crate::conversion_target::TargetOutput;
use crate::{ConversionTarget, OutputOptions, PlannedConversion, QuantizeError, gguf_export};

/// What [`convert_model`] may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConvertOptions {
    /// Give codes to weights that were codes before: what both lost adds up.
    pub allow_requantize: bool,
    /// Replace the output if it exists.
    pub force: bool,
}

/// What [`convert_model`] did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConvertReport {
    /// What was read.
    pub source: PathBuf,
    /// What was written.
    pub output: PathBuf,
    /// The layout of the output.
    pub target: ConversionTarget,
    /// How the source says it is quantized; none of floats.
    pub source_quantization: Option<String>,
    /// Weights of the source that were codes.
    pub dequantized: usize,
    /// Bytes of tensor data in the source.
    pub source_bytes: usize,
    /// Bytes of tensor data written.
    pub output_bytes: usize,
    /// Bytes of the files of weights that were written, headers included.
    pub file_bytes: u64,
    /// Values other than zero that a conversion to fp16 or bf16 rounded to zero.
    pub underflowed: usize,
    /// What a user should know about the result, one sentence each.
    pub notes: Vec<String>,
    /// Wall time of the whole conversion.
    pub elapsed_seconds: f64,
}

/// Writes the model in `source`, in any layout that fewbit reads, to `out` in the layout `target`, one tensor at a time.
///
/// Codes are dequantized as the library that wrote them does ([`fewbit_checkpoint::StoredWeight::dequantize`]). What `target` makes of the
/// floats is what [`quantize_model`](crate::quantize_model) makes of them, and so is everything else that it says: other files come along,
/// of a GGUF file all that it has a place for; the result appears when it is whole, the same source gives the same bytes, `progress(done_bytes, total_bytes, tensor)` is called as tensors are
/// dealt with.
///
/// # Errors
/// Codes in the source and in the target, without [`ConvertOptions::allow_requantize`]; those of [`quantize_model`](crate::quantize_model) but for a
/// source that is quantized. Nothing is left behind.
///
/// ```no_run
/// use fewbit_quantize::{ConversionTarget, ConvertOptions, FloatDType, convert_model};
///
/// let target = ConversionTarget::Floats(FloatDType::Fp16);
/// let options = ConvertOptions::default();
/// convert_model("models/minilm-nf4", &target, "models/minilm-fp16", options, &mut |_, _, _| {})?;
/// # Ok::<(), fewbit_quantize::QuantizeError>(())
/// ```
pub fn convert_model(
    source: impl AsRef<Path>,
    target: &ConversionTarget,
    out: impl AsRef<Path>,
    options: ConvertOptions,
    progress: &mut dyn FnMut(usize, usize, &str),
) -> Result<ConvertReport, QuantizeError> {
    let (source, out) = (source.as_ref(), out.as_ref());
    let read = FloatSource::open(source, target, options)?;
    let started = Instant::now();
    let recipe = match target.output() {
        TargetOutput::Directory(recipe) => recipe,
        TargetOutput::Gguf(kind) => {
            let checkpoint = &read.checkpoint;
            let written =
                gguf_export::write(source, checkpoint, kind, out, options.force, progress)?;
            let mut notes = read.notes;
            notes.extend(written.notes);
            return Ok(ConvertReport {
                source: source.to_owned(),
                output: out.to_owned(),
                target: target.clone(),
                source_quantization: read.quantization,
                dequantized: read.dequantized,
                source_bytes: read.source_bytes,
                output_bytes: written.output_bytes,
                file_bytes: written.file_bytes,
                underflowed: written.underflowed,
                notes,
                elapsed_seconds: started.elapsed().as_secs_f64(),
            });
        }
    };
    let conversion = PlannedConversion::of_checkpoint(source.to_owned(), read.checkpoint, &recipe)?;
    let report = conversion.write(
        None,
        out,
        &OutputOptions::with_force(options.force),
        progress,
    )?;
    let mut notes = read.notes;
    notes.extend(report.notes);
    Ok(ConvertReport {
        source: report.source,
        output: report.output,
        target: target.clone(),
        source_quantization: read.quantization,
        dequantized: read.dequantized,
        source_bytes: read.source_bytes,
        output_bytes: report.output_bytes,
        file_bytes: report.file_bytes,
        underflowed: report.underflowed,
        notes,
        elapsed_seconds: report.elapsed_seconds,
    })
}

/// A source as floats, and what it was.
struct FloatSource {
    checkpoint: Checkpoint,
    quantization: Option<String>,
    dequantized: usize,
    source_bytes: usize,
    notes: Vec<String>,
}

impl FloatSource {
    fn open(
        source: &Path,
        target: &ConversionTarget,
        options: ConvertOptions,
    ) -> Result<Self, QuantizeError> {
        let checkpoint = open_checkpoint(source)?;
        let quantization = checkpoint.quantization();
        let quantization = quantization
            .is_quantized()
            .then(|| quantization.to_string());
        let mut notes = Vec::new();
        if let Some(method) = &quantization
            && target.is_lossy()
        {
            if !options.allow_requantize {
                return Err(QuantizeError::Requantizes {
                    file: checkpoint.config_file(),
                    method: method.clone(),
                    target: target.to_string(),
                });
            }
            notes.push(format!(
                "{method} to {target}: what the source lost stays lost, and the new codes lose more"
            ));
        }
        let source_bytes = checkpoint.tensors().map(|info| info.byte_len).sum();
        let catalogue = Catalogue::of_checkpoint(&checkpoint)?;
        let transposed = catalogue.linear_modules();
        let transposed = transposed.filter(|module| module.role == Role::OtherTransposedLinear);
        let transposed = transposed.map(|module| module.name.clone()).collect();
        let checkpoint = checkpoint.dequantized_with_transposed(&transposed)?;
        let dequantized = checkpoint.dequantized_weights().count();
        Ok(Self {
            checkpoint,
            quantization,
            dequantized,
            source_bytes,
            notes,
        })
    }
}
