//! Everything that is measured about one model directory.

use std::fs;
use std::path::Path;
use std::time::Instant;

use fewbit_model::{Embeddings, EncodeOptions, Encoder, EncoderSettings};
use serde::{Deserialize, Serialize};

use crate::{EvaluateError, Latency, Throughput, peak_resident_bytes};

/// What to measure and how long.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasureOptions {
    /// Worker threads.
    pub threads: usize,
    /// Texts that run together when throughput is measured.
    pub batch_size: usize,
    /// The latency is measured on the first so many texts.
    pub latency_texts: usize,
    /// How often each of them is timed.
    pub latency_repetitions: usize,
    /// All texts are encoded over and over until so many seconds have passed, at least once.
    pub throughput_seconds: f64,
    /// How the model is opened.
    pub settings: EncoderSettings,
}

impl Default for MeasureOptions {
    /// One thread, batches of 32, 16 texts timed 5 times each, one second of throughput, the model as its directory says.
    fn default() -> Self {
        Self {
            threads: 1,
            batch_size: 32,
            latency_texts: 16,
            latency_repetitions: 5,
            throughput_seconds: 1.0,
            settings: EncoderSettings::default(),
        }
    }
}

/// What was measured about one model directory. Travels between processes as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Bytes of all files, tokenizer and configuration included.
    pub directory_bytes: u64,
    /// Bytes of the files of the model's weights.
    pub weight_bytes: u64,
    /// Bytes of parameters in memory, in the form in which they are computed with.
    pub weight_memory_bytes: u64,
    /// Bytes of activation buffers that the executor keeps after the throughput run.
    pub scratch_bytes: u64,
    /// Seconds to open the directory and prepare the weights.
    pub load_seconds: f64,
    /// Time to encode one text.
    pub latency: Latency,
    /// Speed in batches.
    pub throughput: Throughput,
    /// Texts that were encoded.
    pub texts: usize,
    /// Texts that were cut at the model's limit.
    pub truncated_texts: usize,
    /// Worker threads.
    pub threads: usize,
    /// Peak resident memory of the process that measured, from its start; `None` where the system
    /// does not tell. Of this model only if the process did nothing else.
    pub peak_resident_bytes: Option<u64>,
}

/// A measured model: figures and embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredModel {
    /// What the model is called in tables.
    pub name: String,
    /// The figures.
    pub measurement: Measurement,
    /// The embeddings of all texts, in their order.
    pub embeddings: Embeddings,
}

/// Opens the model in `directory`, encodes `texts` with it and measures along the way.
///
/// # Errors
/// No texts; errors of reading the directory or running the model.
pub fn measure<S: AsRef<str>>(
    name: &str,
    directory: impl AsRef<Path>,
    texts: &[S],
    options: &MeasureOptions,
) -> Result<MeasuredModel, EvaluateError> {
    let directory = directory.as_ref();
    let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
    if texts.is_empty() {
        return Err(EvaluateError::TooLittleData {
            origin: "texts to measure with".to_owned(),
            expected: "one text",
            found: 0,
            hint: "give at least one text",
        });
    }
    let (directory_bytes, weight_bytes) = (directory_bytes(directory)?, weight_bytes(directory)?);

    let started = Instant::now();
    let encoder = Encoder::open_with_settings(directory, &options.settings)?;
    let load_seconds = started.elapsed().as_secs_f64();

    let latency_texts = &texts[..options.latency_texts.clamp(1, texts.len())];
    let latency = Latency::measure(
        &encoder,
        latency_texts,
        options.latency_repetitions.max(1),
        options.threads,
    )?;
    let encode_options = EncodeOptions {
        threads: options.threads,
        batch_size: options.batch_size,
    };
    let (throughput, embeddings) = Throughput::measure(
        &encoder,
        &texts,
        &encode_options,
        options.throughput_seconds,
    )?;
    let measurement = Measurement {
        directory_bytes,
        weight_bytes,
        weight_memory_bytes: encoder.network().memory_bytes() as u64,
        scratch_bytes: encoder.network().scratch_bytes() as u64,
        load_seconds,
        latency,
        throughput,
        texts: texts.len(),
        truncated_texts: embeddings.truncated.len(),
        threads: options.threads,
        peak_resident_bytes: peak_resident_bytes(),
    };
    Ok(MeasuredModel {
        name: name.to_owned(),
        measurement,
        embeddings,
    })
}

/// Bytes of all files in a directory and its folders. Symbolic links to files count as what they point
/// to; those to folders are not followed, as they may lead out of the directory or in circles.
///
/// # Errors
/// A file or folder that cannot be read.
pub fn directory_bytes(directory: &Path) -> Result<u64, EvaluateError> {
    sum_files(directory, true, &|_| true)
}

/// Bytes of the safetensors files of the model itself, where there are none, of its `pytorch_model*.bin`: those in the directory, not
/// in its folders.
///
/// # Errors
/// A file or folder that cannot be read.
pub fn weight_bytes(directory: &Path) -> Result<u64, EvaluateError> {
    let named = |begin: &str, end: &str| {
        sum_files(directory, false, &|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(begin) && name.ends_with(end))
        })
    };
    match named("", ".safetensors")? {
        0 => named("pytorch_model", ".bin"),
        bytes => Ok(bytes),
    }
}

fn sum_files(
    directory: &Path,
    with_folders: bool,
    counts: &dyn Fn(&Path) -> bool,
) -> Result<u64, EvaluateError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| EvaluateError::Io { path, source }
    };
    let mut bytes = 0;
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let path = entry.map_err(failed(directory))?.path();
        let metadata = fs::metadata(&path).map_err(failed(&path))?;
        if metadata.is_dir() {
            if with_folders && !path.is_symlink() {
                bytes += sum_files(&path, with_folders, counts)?;
            }
        } else if counts(&path) {
            bytes += metadata.len();
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_directory_and_of_its_weights() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: usize| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![0; bytes]).unwrap();
        };
        write("model-00001-of-00002.safetensors", 100);
        write("model-00002-of-00002.safetensors", 20);
        write("config.json", 3);
        write("2_Dense/model.safetensors", 4000);
        assert_eq!(weight_bytes(directory.path()).unwrap(), 120);
        assert_eq!(directory_bytes(directory.path()).unwrap(), 4123);
        // Where there are safetensors files, they are what is read.
        write("pytorch_model.bin", 500);
        assert_eq!(weight_bytes(directory.path()).unwrap(), 120);
    }

    #[test]
    fn bytes_of_the_files_of_pytorch() {
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in [
            ("pytorch_model-00001-of-00002.bin", 100),
            ("pytorch_model-00002-of-00002.bin", 20),
            ("pytorch_model.bin.index.json", 3),
            ("training_args.bin", 4000),
        ] {
            fs::write(directory.path().join(name), vec![0; bytes]).unwrap();
        }
        assert_eq!(weight_bytes(directory.path()).unwrap(), 120);
    }

    #[cfg(unix)]
    #[test]
    fn links_to_files_count_and_links_to_folders_are_not_followed() {
        use std::os::unix::fs::symlink;
        let directory = tempfile::tempdir().unwrap();
        let blob = directory.path().join("blob");
        fs::write(&blob, [0; 50]).unwrap();
        let model = directory.path().join("model");
        fs::create_dir(&model).unwrap();
        symlink(&blob, model.join("model.safetensors")).unwrap();
        for (target, link) in [(".", "a"), (".", "b"), ("..", "outside")] {
            symlink(target, model.join(link)).unwrap();
        }
        assert_eq!(directory_bytes(&model).unwrap(), 50);
        assert_eq!(weight_bytes(&model).unwrap(), 50);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("none");
        assert_eq!(
            directory_bytes(&path).unwrap_err().to_string(),
            format!(
                "{}: No such file or directory (os error 2)\n  hint: check the path, and that you may read it",
                path.display()
            )
        );
    }
}
