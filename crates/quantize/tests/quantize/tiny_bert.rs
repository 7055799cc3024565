//! A BERT small enough to write in a test.

use std::path::{Path, PathBuf};

use fewbit_checkpoint::{Checkpoint, CheckpointWriter, TensorPlan};
use fewbit_numerics::dtype::DType;
use fewbit_numerics::half_precision::{f32_to_bf16_bytes, f32_to_f16_bytes};
use fewbit_quantize::{QuantizeError, QuantizeReport, Recipe, quantize_model};
use serde_json::{Value, json};

pub(crate) const HIDDEN: usize = 32;
pub(crate) const INTERMEDIATE: usize = 48;
pub(crate) const LAYERS: usize = 2;
pub(crate) const VOCABULARY: usize = 40;

/// A tensor that the model is written with.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) plan: TensorPlan,
    pub(crate) bytes: Vec<u8>,
}

/// What to write: random weights of the given dtype, names with a prefix, a pooler and a classifier.
#[derive(Debug, Clone)]
pub(crate) struct TinyBert {
    dtype: DType,
    pub(crate) config: Value,
    pub(crate) tensors: Vec<Tensor>,
}

impl TinyBert {
    pub(crate) fn new(dtype: DType, prefix: &str) -> Self {
        let mut model = Self {
            dtype,
            config: json!({
                "architectures": ["BertForSequenceClassification"],
                "hidden_act": "gelu",
                "hidden_size": HIDDEN,
                "intermediate_size": INTERMEDIATE,
                "layer_norm_eps": 1e-12,
                "max_position_embeddings": 16,
                "model_type": "bert",
                "num_attention_heads": 4,
                "num_hidden_layers": LAYERS,
                "pad_token_id": 0,
                "type_vocab_size": 2,
                "vocab_size": VOCABULARY,
            }),
            tensors: Vec::new(),
        };
        let embeddings = format!("{prefix}embeddings");
        model.matrix(&format!("{embeddings}.word_embeddings"), VOCABULARY, HIDDEN);
        model.matrix(&format!("{embeddings}.position_embeddings"), 16, HIDDEN);
        model.matrix(&format!("{embeddings}.token_type_embeddings"), 2, HIDDEN);
        model.layer_norm(&format!("{embeddings}.LayerNorm"));
        model.tensors.push(Tensor {
            plan: TensorPlan::new(format!("{embeddings}.position_ids"), DType::I64, [1, 16]),
            bytes: (0..16i64).flat_map(i64::to_le_bytes).collect(),
        });
        for layer in 0..LAYERS {
            let layer = format!("{prefix}encoder.layer.{layer}");
            for name in ["self.query", "self.key", "self.value", "output.dense"] {
                model.linear(&format!("{layer}.attention.{name}"), HIDDEN, HIDDEN);
            }
            model.layer_norm(&format!("{layer}.attention.output.LayerNorm"));
            model.linear(&format!("{layer}.intermediate.dense"), INTERMEDIATE, HIDDEN);
            model.linear(&format!("{layer}.output.dense"), HIDDEN, INTERMEDIATE);
            model.layer_norm(&format!("{layer}.output.LayerNorm"));
        }
        model.linear(&format!("{prefix}pooler.dense"), HIDDEN, HIDDEN);
        model.linear("classifier", 3, HIDDEN);
        model
    }

    /// No BERT: random f32 tensors of these names and shapes.
    pub(crate) fn of_tensors(config: Value, tensors: &[(&str, &[usize])]) -> Self {
        let mut model = Self {
            dtype: DType::F32,
            config,
            tensors: Vec::new(),
        };
        for (name, shape) in tensors {
            let values = random(name.len() as u64, shape.iter().product(), 0.1);
            model.float(name, shape, &values);
        }
        model
    }

    /// No BERT: one f32 matrix with these values.
    pub(crate) fn of_values(
        config: Value,
        module: &str,
        shape: [usize; 2],
        values: &[f32],
    ) -> Self {
        let mut model = Self::of_tensors(config, &[]);
        model.float(&format!("{module}.weight"), &shape, values);
        model
    }

    /// The usual one: f32, `bert.`.
    pub(crate) fn f32() -> Self {
        Self::new(DType::F32, "bert.")
    }

    fn linear(&mut self, module: &str, rows: usize, columns: usize) {
        self.matrix(module, rows, columns);
        self.float(
            &format!("{module}.bias"),
            &[rows],
            &random(module.len() as u64, rows, 0.1),
        );
    }

    fn matrix(&mut self, module: &str, rows: usize, columns: usize) {
        let seed = self.tensors.len() as u64;
        self.float(
            &format!("{module}.weight"),
            &[rows, columns],
            &random(seed, rows * columns, 0.08),
        );
    }

    fn layer_norm(&mut self, module: &str) {
        self.float(&format!("{module}.weight"), &[HIDDEN], &[1.0; HIDDEN]);
        self.float(
            &format!("{module}.bias"),
            &[HIDDEN],
            &random(1, HIDDEN, 0.01),
        );
    }

    fn float(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes = to_bytes(values, self.dtype);
        self.tensors.push(Tensor {
            plan: TensorPlan::new(name, self.dtype, shape),
            bytes,
        });
    }

    pub(crate) fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors
            .iter_mut()
            .find(|tensor| tensor.plan.name == name)
            .unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// Replaces one element of an f32 tensor.
    pub(crate) fn poke(&mut self, name: &str, element: usize, value: f32) -> &mut Self {
        let tensor = self.tensor(name);
        tensor.bytes[4 * element..][..4].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// Writes the model into a directory of its own, with a few files beside it.
    pub(crate) fn write(&self) -> Source {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("source");
        let mut writer = CheckpointWriter::create(&directory, false).unwrap();
        writer.write_json("config.json", &self.config).unwrap();
        writer
            .plan_tensors(
                self.tensors
                    .iter()
                    .map(|tensor| tensor.plan.clone())
                    .collect(),
            )
            .unwrap();
        for tensor in &self.tensors {
            writer
                .write_tensor(&tensor.plan.name, &tensor.bytes)
                .unwrap();
        }
        writer.finish().unwrap();
        Source { root, directory }
    }
}

/// A written model, and room for outputs beside it.
pub(crate) struct Source {
    pub(crate) root: tempfile::TempDir,
    pub(crate) directory: PathBuf,
}

impl Source {
    pub(crate) fn open(&self) -> Checkpoint {
        Checkpoint::open(&self.directory).unwrap()
    }

    pub(crate) fn out(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn quantize(&self, recipe: &Recipe) -> Result<QuantizeReport, QuantizeError> {
        self.quantize_into(recipe, &self.out("out"), false)
    }

    pub(crate) fn quantize_into(
        &self,
        recipe: &Recipe,
        out: &Path,
        force: bool,
    ) -> Result<QuantizeReport, QuantizeError> {
        quantize_model(&self.directory, recipe, out, force, &mut |_, _, _| {})
    }

    /// Quantizes, and opens what was written.
    pub(crate) fn converted(&self, recipe: &Recipe) -> (QuantizeReport, Checkpoint) {
        let report = self.quantize(recipe).unwrap();
        let checkpoint = Checkpoint::open(&report.output).unwrap();
        (report, checkpoint)
    }

    /// [`Source::converted`] into a directory of its own.
    pub(crate) fn converted_into(
        &self,
        recipe: &Recipe,
        name: &str,
    ) -> (QuantizeReport, Checkpoint) {
        let report = self.quantize_into(recipe, &self.out(name), false).unwrap();
        let checkpoint = Checkpoint::open(&report.output).unwrap();
        (report, checkpoint)
    }

    /// Names of everything beside the source.
    pub(crate) fn siblings(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "source")
            .collect();
        names.sort();
        names
    }
}

/// Paths of the linear layers of the encoder, without a prefix.
pub(crate) fn linear_modules() -> Vec<(String, [usize; 2])> {
    (0..LAYERS)
        .flat_map(|layer| {
            [
                ("attention.self.query", [HIDDEN, HIDDEN]),
                ("attention.self.key", [HIDDEN, HIDDEN]),
                ("attention.self.value", [HIDDEN, HIDDEN]),
                ("attention.output.dense", [HIDDEN, HIDDEN]),
                ("intermediate.dense", [INTERMEDIATE, HIDDEN]),
                ("output.dense", [HIDDEN, INTERMEDIATE]),
            ]
            .map(|(name, shape)| (format!("encoder.layer.{layer}.{name}"), shape))
        })
        .collect()
}

pub(crate) fn to_bytes(values: &[f32], dtype: DType) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * dtype.bytes()];
    match dtype {
        DType::F16 => {
            f32_to_f16_bytes(values, &mut bytes);
        }
        DType::BF16 => {
            f32_to_bf16_bytes(values, &mut bytes);
        }
        _ => {
            bytes = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
        }
    }
    bytes
}

/// Reproducible values in -`width`..`width` (a linear congruential generator, upper bits).
fn random(seed: u64, count: usize, width: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let unit = (state >> 40) as f32 / (1u64 << 24) as f32;
            (2.0 * unit - 1.0) * width
        })
        .collect()
}
