//! A model in another layout: floats again, or other codes.

use std::path::{Path, PathBuf};
use std::time::Instant;

use fewbit_checkpoint::gguf::gguf_source;
use fewbit_checkpoint::temporary_directory::TemporaryDirectory;
use fewbit_checkpoint::{Checkpoint, CheckpointWriter};
use fewbit_model::{Catalogue, Role, open_checkpoint};
use serde::Serialize;

use crate::conversion_target::TargetOutput;
use crate::gguf_export::PlannedGguf;
use crate::gguf_import::GgufModel;
use crate::overlap::refuse_overlap;
use crate::{ConversionTarget, OutputOptions, PlannedConversion, QuantizeError};

/// What [`convert_model`] may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConvertOptions {
    /// Give codes to weights that were codes before: what both lost adds up.
    pub allow_requantize: bool,
    /// How the output is written. A GGUF file is one file, whatever its size, and begun anew.
    pub output: OutputOptions,
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
    /// How many files of weights.
    pub files: usize,
    /// Values other than zero that a conversion to fp16 or bf16 rounded to zero.
    pub underflowed: usize,
    /// What a user should know about the result, one sentence each.
    pub notes: Vec<String>,
    /// Wall time of the whole conversion.
    pub elapsed_seconds: f64,
}

/// What [`convert_model`] would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConvertPlan {
    /// What is read.
    pub source: PathBuf,
    /// The layout of the output.
    pub target: ConversionTarget,
    /// How the source says it is quantized; none of floats.
    pub source_quantization: Option<String>,
    /// Weights of the source that are codes.
    pub dequantized: usize,
    /// Bytes of tensor data in the source.
    pub source_bytes: usize,
    /// Bytes of tensor data that would be written.
    pub output_bytes: usize,
    /// Bytes of the files of weights, headers included.
    pub file_bytes: u64,
    /// The files of weights.
    pub files: Vec<PlannedFile>,
    /// What a user should know about the result, one sentence each.
    pub notes: Vec<String>,
}

/// A file of weights that would be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedFile {
    /// Its name; none of a GGUF file, which is the output itself.
    pub name: Option<String>,
    /// Its bytes, header included.
    pub bytes: u64,
}

/// Writes the model in `source`, in any layout that fewbit reads, to `out` in the layout `target`, one tensor at a time.
///
/// Codes are dequantized as the library that wrote them does ([`fewbit_checkpoint::StoredWeight::dequantize`]; those of a GGUF file as ggml does). What `target` makes of the
/// floats is what [`quantize_model`](crate::quantize_model) makes of them, and so is everything else that it says: other files come along,
/// of a GGUF file all that it has a place for; the result appears when it is whole, the same source gives the same bytes, `progress(done_bytes, total_bytes, tensor)` is called as tensors are
/// dealt with.
///
/// # Errors
/// Codes in the source and in the target, without [`ConvertOptions::allow_requantize`]; those of [`PlannedConversion::write`] but for a
/// source that is quantized.
///
/// ```no_run
/// use fewbit_quantize::{ConversionTarget, ConvertOptions, FloatDType, convert_model};
///
/// let target = ConversionTarget::Floats(FloatDType::Fp16);
/// let options = ConvertOptions::default();
/// convert_model("models/minilm-nf4", &target, "models/minilm-fp16", options, &mut |_, _, _| {})?;
/// convert_model("models/minilm.gguf", &target, "models/minilm-again", options, &mut |_, _, _| {})?;
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
    let started = Instant::now();
    let read = FloatSource::open(source, target, options)?;
    let mut report = ConvertReport {
        source: source.to_owned(),
        output: out.to_owned(),
        target: target.clone(),
        source_quantization: read.quantization,
        dequantized: read.dequantized,
        source_bytes: read.source_bytes,
        output_bytes: 0,
        file_bytes: 0,
        files: 1,
        underflowed: 0,
        notes: read.notes,
        elapsed_seconds: 0.0,
    };
    match target.output() {
        TargetOutput::Gguf(kind) => {
            refuse_overlap(source, out)?;
            let planned = PlannedGguf::new(&read.files, &name(source), &read.checkpoint, kind)?;
            report.underflowed = planned.write(out, options.output.force, progress)?;
            report.output_bytes = planned.output_bytes;
            report.file_bytes = planned.file_bytes()?;
            report.notes.extend(planned.notes);
        }
        TargetOutput::Directory(recipe) => {
            let (source, files) = (source.to_owned(), read.files);
            let conversion =
                PlannedConversion::of_checkpoint(source, files, read.checkpoint, &recipe)?;
            let written = conversion.write(None, out, &options.output, progress)?;
            report.output = written.output;
            report.output_bytes = written.output_bytes;
            report.file_bytes = written.file_bytes;
            report.files = written.files;
            report.underflowed = written.underflowed;
            report.notes.extend(written.notes);
        }
    }
    report.elapsed_seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// What [`convert_model`] would make of the model in `source`. Reads no weight. With `out`, that is checked as far as a hidden directory beside it shows
/// whether one can be written.
///
/// # Errors
/// Those of [`convert_model`] that are known before a weight is read.
pub fn plan_conversion(
    source: impl AsRef<Path>,
    target: &ConversionTarget,
    out: Option<&Path>,
    options: ConvertOptions,
) -> Result<ConvertPlan, QuantizeError> {
    let source = source.as_ref();
    let read = FloatSource::open(source, target, options)?;
    let mut plan = ConvertPlan {
        source: source.to_owned(),
        target: target.clone(),
        source_quantization: read.quantization,
        dequantized: read.dequantized,
        source_bytes: read.source_bytes,
        output_bytes: 0,
        file_bytes: 0,
        files: Vec::new(),
        notes: read.notes,
    };
    match target.output() {
        TargetOutput::Gguf(kind) => {
            let planned = PlannedGguf::new(&read.files, &name(source), &read.checkpoint, kind)?;
            if let Some(out) = out {
                refuse_overlap(source, out)?;
                planned.check_output(out, options.output.force)?;
            }
            plan.output_bytes = planned.output_bytes;
            let bytes = planned.file_bytes()?;
            plan.files.push(PlannedFile { name: None, bytes });
            plan.notes.extend(planned.notes);
        }
        TargetOutput::Directory(recipe) => {
            let (source, files) = (source.to_owned(), read.files);
            let conversion =
                PlannedConversion::of_checkpoint(source, files, read.checkpoint, &recipe)?;
            if let Some(out) = out {
                conversion.check_output(out, options.output.force)?;
            }
            plan.output_bytes = conversion.plan().output_bytes();
            let sizes = conversion.file_bytes(&options.output)?;
            let number = sizes.len();
            let sizes = sizes.into_iter().enumerate();
            plan.files.extend(sizes.map(|(index, bytes)| PlannedFile {
                name: Some(CheckpointWriter::file_name(index, number)),
                bytes,
            }));
            plan.notes.extend(conversion.plan().notes().iter().cloned());
        }
    }
    plan.file_bytes = plan.files.iter().map(|file| file.bytes).sum();
    Ok(plan)
}

/// What the model is called: the name of its directory or file.
fn name(source: &Path) -> String {
    let name = match source.is_dir() {
        true => source.file_name(),
        false => source.file_stem(),
    };
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// A source as floats, and what it was.
struct FloatSource {
    checkpoint: Checkpoint,
    /// Where its other files are.
    files: PathBuf,
    /// Those of a GGUF file, as long as they are needed.
    _made: Option<TemporaryDirectory>,
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
        let read = match gguf_source(source)? {
            Some(file) => Self::of_gguf(&file)?,
            None => Self::of_directory(source)?,
        };
        read.refuse_new_codes(target, options)
    }

    fn of_directory(source: &Path) -> Result<Self, QuantizeError> {
        let checkpoint = open_checkpoint(source)?;
        let quantization = checkpoint.quantization();
        let quantization = quantization
            .is_quantized()
            .then(|| quantization.to_string());
        let source_bytes = checkpoint.tensors().map(|info| info.byte_len).sum();
        let catalogue = Catalogue::of_checkpoint(&checkpoint)?;
        let transposed = catalogue.linear_modules();
        let transposed = transposed.filter(|module| module.role == Role::OtherTransposedLinear);
        let transposed = transposed.map(|module| module.name.clone()).collect();
        let checkpoint = checkpoint.dequantized_with_transposed(&transposed)?;
        let dequantized = checkpoint.dequantized_weights().count();
        Ok(Self {
            checkpoint,
            files: source.to_owned(),
            _made: None,
            quantization,
            dequantized,
            source_bytes,
            notes: Vec::new(),
        })
    }

    fn of_gguf(file: &Path) -> Result<Self, QuantizeError> {
        let model = GgufModel::open(file)?;
        Ok(Self {
            checkpoint: model.checkpoint,
            files: model.files,
            _made: Some(model.temporary),
            quantization: model.quantization,
            dequantized: model.dequantized,
            source_bytes: model.source_bytes,
            notes: model.notes,
        })
    }

    /// Errors where codes would be made of codes and nobody asked for that.
    fn refuse_new_codes(
        mut self,
        target: &ConversionTarget,
        options: ConvertOptions,
    ) -> Result<Self, QuantizeError> {
        if let Some(method) = &self.quantization
            && target.is_lossy()
        {
            if !options.allow_requantize {
                return Err(QuantizeError::Requantizes {
                    file: self.checkpoint.config_file(),
                    method: method.clone(),
                    target: target.to_string(),
                });
            }
            let note = format!(
                "{method} to {target}: what the source lost stays lost, and the new codes lose more"
            );
            self.notes.insert(0, note);
        }
        Ok(self)
    }
}
