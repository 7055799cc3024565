//! The modules with weights of sentence-transformers that run after the encoder: Dense and LayerNorm.

use crate::ModelError;
use crate::finite::check_values;
use crate::packed_linear::{LinearEpilogue, LinearInput, PackedLinear};
use crate::sentence_modules::{DenseActivation, DenseSettings, Feature};
use crate::weight_only::WeightOnlyArithmetic;
use fewbit_checkpoint::{Checkpoint, CheckpointError, CheckpointErrorKind, StoredWeight};
use fewbit_kernels::{Kernels, Norm, NormKind, QuantizedRows, Workspace};
use std::path::Path;

/// torch.nn.LayerNorm's, which the module does not change.
const LAYER_NORM_EPSILON: f32 = 1e-5;

/// The weights in the folder of one module.
struct ModuleWeights {
    checkpoint: Checkpoint,
    /// The folder's name.
    name: String,
}

impl ModuleWeights {
    /// Opens model.safetensors or pytorch_model.bin in `folder`, which must hold the tensors `names` and no others, as
    /// sentence-transformers requires it.
    fn open(folder: &Path, names: &[&str]) -> Result<Self, ModelError> {
        let checkpoint = Checkpoint::open(folder)?;
        for name in names {
            checkpoint.require(name)?;
        }
        if let Some(other) = checkpoint
            .tensors()
            .find(|one| !names.contains(&one.name.as_str()))
        {
            let message = format!("expected {} only, found another tensor", names.join(", "));
            return Err(
                CheckpointError::new(CheckpointErrorKind::Malformed, message)
                    .in_file(&other.file)
                    .at_tensor(&other.name)
                    .hint("the module's config.json and its weights may belong to different models")
                    .into(),
            );
        }
        let name = folder.file_name().unwrap_or(folder.as_os_str());
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            checkpoint,
        })
    }

    fn expect_shape(&self, tensor: &str, shape: &[usize]) -> Result<(), ModelError> {
        let view = self.checkpoint.require(tensor)?;
        view.expect_shape(shape).map_err(|error| {
            error.hint("the expected shape follows from the sizes in the module's config.json; the two files may belong to different models")
        })?;
        Ok(())
    }

    fn vector(&self, tensor: &str, size: usize) -> Result<Vec<f32>, ModelError> {
        self.expect_shape(tensor, &[size])?;
        let mut values = vec![0.0; size];
        self.checkpoint
            .require(tensor)?
            .read_finite_range(0, &mut values)?;
        Ok(values)
    }

    /// The linear layer `path` of `shape` (out, in).
    fn linear(
        &self,
        path: &str,
        bias: bool,
        shape: [usize; 2],
        kernels: &Kernels,
    ) -> Result<PackedLinear, ModelError> {
        let weight = format!("{path}.weight");
        self.expect_shape(&weight, &shape)?;
        let view = self.checkpoint.require(&weight)?;
        view.check_finite(0..view.element_count())?;
        let bias = match bias {
            true => self.vector(&format!("{path}.bias"), shape[0])?,
            false => vec![0.0; shape[0]],
        };
        let site = format!("{}.{path}", self.name);
        // A float weight, which weight-only arithmetic is not for.
        let arithmetic = WeightOnlyArithmetic::default();
        let stored = StoredWeight::Float(view);
        Ok(PackedLinear::new(
            site, path, stored, bias, shape, kernels, arithmetic,
        )?)
    }
}

/// act(x W^T + b), and what of x is added to it.
pub(super) struct Dense {
    pub(super) feature: Feature,
    linear: PackedLinear,
    activation: DenseActivation,
    residual: Residual,
}

enum Residual {
    None,
    Input,
    Projected(Box<PackedLinear>),
}

impl Dense {
    pub(super) fn load(settings: &DenseSettings, kernels: &Kernels) -> Result<Self, ModelError> {
        let shape = [settings.out_features, settings.in_features];
        let projected = settings.residual && shape[0] != shape[1];
        let mut names = vec!["linear.weight"];
        names.extend(settings.bias.then_some("linear.bias"));
        names.extend(projected.then_some("residual.weight"));
        let weights = ModuleWeights::open(&settings.folder, &names)?;
        Ok(Self {
            feature: settings.feature,
            linear: weights.linear("linear", settings.bias, shape, kernels)?,
            activation: settings.activation,
            residual: match (settings.residual, projected) {
                (false, _) => Residual::None,
                (true, false) => Residual::Input,
                (true, true) => {
                    let residual = weights.linear("residual", false, shape, kernels)?;
                    Residual::Projected(Box::new(residual))
                }
            },
        })
    }

    pub(super) fn out_features(&self) -> usize {
        self.linear.out_features()
    }

    /// The outputs (rows, out) of `x` (rows, in).
    ///
    /// # Errors
    /// [`ModelError::NonFinite`]: an output is NaN or infinite.
    pub(super) fn forward(&self, x: &[f32], kernels: &Kernels) -> Result<Vec<f32>, ModelError> {
        let rows = x.len() / self.linear.in_features();
        let mut out = vec![0.0; rows * self.linear.out_features()];
        let run = |linear: &PackedLinear, out: &mut [f32], then| {
            let mut quantized = QuantizedRows::new();
            let mut input = LinearInput::new(rows, x, &mut quantized, None);
            let mut workspaces = [Workspace::default()];
            PackedLinear::forward([(linear, out)], &mut input, then, kernels, &mut workspaces)
        };
        match self.activation {
            DenseActivation::OfKernels(activation) => {
                run(&self.linear, &mut out, LinearEpilogue::Activate(activation))?;
            }
            other => {
                run(&self.linear, &mut out, LinearEpilogue::Store)?;
                for value in &mut out {
                    *value = apply(other, *value);
                }
            }
        }
        match &self.residual {
            Residual::None => {}
            Residual::Input => {
                kernels.add(&mut out, x);
                check_values(&out, self.out_features(), 0, self.linear.site(), "output")?;
            }
            Residual::Projected(residual) => run(residual, &mut out, LinearEpilogue::Add)?,
        }
        Ok(out)
    }
}

/// The functions that feed-forward layers do not have, in f64.
fn apply(activation: DenseActivation, x: f32) -> f32 {
    let wide = f64::from(x);
    match activation {
        DenseActivation::OfKernels(_) => x,
        DenseActivation::Sigmoid => (1.0 / (1.0 + libm::exp(-wide))) as f32,
        DenseActivation::LeakyRelu if x < 0.0 => 0.01 * x,
        DenseActivation::Elu if x < 0.0 => libm::expm1(wide) as f32,
        DenseActivation::LeakyRelu | DenseActivation::Elu => x,
    }
}

/// A layer normalization of a text's vector.
pub(super) struct LayerNorm {
    name: String,
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

impl LayerNorm {
    pub(super) fn load(folder: &Path, dimension: usize) -> Result<Self, ModelError> {
        let weights = ModuleWeights::open(folder, &["norm.weight", "norm.bias"])?;
        Ok(Self {
            gamma: weights.vector("norm.weight", dimension)?,
            beta: weights.vector("norm.bias", dimension)?,
            name: weights.name,
        })
    }

    /// Normalizes rows in place.
    ///
    /// # Errors
    /// [`ModelError::NonFinite`]: an output is NaN or infinite.
    pub(super) fn forward(&self, rows: &mut [f32], kernels: &Kernels) -> Result<(), ModelError> {
        let norm = Norm {
            kind: NormKind::Layer,
            gamma: &self.gamma,
            beta: &self.beta,
            epsilon: LAYER_NORM_EPSILON,
        };
        kernels.layer_norm(rows, None, norm);
        let site = format!("{}.norm", self.name);
        check_values(rows, self.gamma.len(), 0, &site, "output")
    }
}
