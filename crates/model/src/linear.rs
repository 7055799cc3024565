//! A linear layer by itself, without a model around it.

use crate::ModelError;
use crate::network::kernels_from_environment;
use crate::network::thread_pools::ThreadPools;
use crate::packed_linear::{LinearEpilogue, LinearInput, PackedLinear};
use crate::weight_only::WeightOnlyArithmetic;
use fewbit_checkpoint::{CheckpointError, CheckpointErrorKind, StoredWeight};
use fewbit_kernels::{Kernels, QuantizedRows, Workspace};
use fewbit_numerics::finite::first_non_finite;

/// Its name in errors.
const NAME: &str = "linear";

/// `y = x W^T + b`, with W in any form in which a weight is stored: floats, int8 codes with whatever activations, 4-bit codes.
///
/// ```
/// use fewbit_checkpoint::compressed_tensors::CompressedScheme;
/// use fewbit_model::Linear;
/// use fewbit_numerics::rows::quantize_rows_int8;
///
/// // Two outputs of three inputs.
/// let weight = [1.0, 2.0, 3.0, -1.0, 0.0, 1.0];
/// let linear = Linear::from_matrix(&weight, Some(&[0.5, 0.0]), [2, 3])?;
/// assert_eq!(linear.forward(&[1.0, 1.0, 1.0], 1)?, [6.5, 0.0]);
///
/// // The same in int8, with activations that are quantized as they come.
/// let codes = quantize_rows_int8(&weight, 2, 3);
/// let int8 = CompressedScheme::DynamicInt8.stored_weight(codes);
/// let linear = Linear::new(int8, Some(&[0.5, 0.0]), [2, 3])?;
/// let y = linear.forward(&[1.0, 1.0, 1.0], 1)?;
/// assert!((y[0] - 6.5).abs() < 0.1 && y[1].abs() < 0.1);
/// # Ok::<(), fewbit_model::ModelError>(())
/// ```
pub struct Linear {
    packed: PackedLinear,
    kernels: &'static Kernels,
    threads: ThreadPools,
}

impl Linear {
    /// Packs a weight of `shape` (out, in) for the kernels that this CPU runs best (or that `FEWBIT_ISA` names); without `bias` (out) it is 0.
    ///
    /// # Errors
    /// A weight or a bias of another shape, or with NaN or infinity; more inputs than int8 products can sum.
    pub fn new(
        weight: StoredWeight<'_>,
        bias: Option<&[f32]>,
        shape: [usize; 2],
    ) -> Result<Self, ModelError> {
        weight.expect_shape(shape)?;
        let [out, _] = shape;
        let bias = bias.map_or_else(|| vec![0.0; out], <[f32]>::to_vec);
        if bias.len() != out {
            let message = format!("bias: expected {out} elements, found {}", bias.len());
            return Err(CheckpointError::new(CheckpointErrorKind::WrongShape, message).into());
        }
        let is_float = matches!(
            weight,
            StoredWeight::Float(_) | StoredWeight::FloatBytes { .. }
        );
        let values = if is_float {
            weight.dequantize(shape)?
        } else {
            Vec::new()
        };
        for (what, values) in [("weight", &values), ("bias", &bias)] {
            if let Some((index, value)) = first_non_finite(values) {
                let message =
                    format!("{what}, element {index}: expected a finite number, found {value}");
                return Err(CheckpointError::new(CheckpointErrorKind::NonFinite, message).into());
            }
        }
        let kernels = kernels_from_environment()?;
        let arithmetic = WeightOnlyArithmetic::from_environment()?;
        let name = NAME.to_owned();
        Ok(Self {
            packed: PackedLinear::new(name, NAME, weight, bias, shape, kernels, arithmetic)?,
            kernels,
            threads: ThreadPools::default(),
        })
    }

    /// [`Linear::new`] of a float matrix (out, in), row-major.
    ///
    /// # Errors
    /// As [`Linear::new`].
    pub fn from_matrix(
        weight: &[f32],
        bias: Option<&[f32]>,
        shape: [usize; 2],
    ) -> Result<Self, ModelError> {
        Self::new(StoredWeight::of_values(weight), bias, shape)
    }

    /// (out, in)
    pub fn shape(&self) -> [usize; 2] {
        [self.packed.out_features(), self.packed.in_features()]
    }

    /// The outputs (rows, out) of `x` (rows, in), computed on `threads` threads, which share the columns: also of a single row. The result
    /// has the same bits with any number of threads.
    ///
    /// # Errors
    /// As [`Linear::forward_into`].
    pub fn forward(&self, x: &[f32], threads: usize) -> Result<Vec<f32>, ModelError> {
        let [out, inside] = self.shape();
        let mut y = vec![0.0; x.len() / inside.max(1) * out];
        self.forward_into(x, &mut y, threads)?;
        Ok(y)
    }

    /// [`Linear::forward`] into `y` (rows, out).
    ///
    /// # Errors
    /// [`ModelError::Input`]: `x` is not whole rows, `y` has another number of them, or `threads` is 0 or cannot be started.
    /// [`ModelError::NonFinite`]: an input or an output is NaN or infinite.
    pub fn forward_into(&self, x: &[f32], y: &mut [f32], threads: usize) -> Result<(), ModelError> {
        let [out, inside] = self.shape();
        let rows = x.len().checked_div(inside).unwrap_or(0);
        if rows * inside != x.len() || rows * out != y.len() {
            return Err(ModelError::Input(format!(
                "{NAME}: expected rows of {inside} inputs and as many of {out} outputs, found {} and {} numbers\n  hint: both are row-major, without gaps",
                x.len(),
                y.len()
            )));
        }
        if threads == 0 {
            return Err(ModelError::Input(
                "threads: expected at least 1, found 0\n  hint: 1 runs on the calling thread"
                    .to_owned(),
            ));
        }
        let mut run = || {
            let mut workspaces: Vec<Workspace> =
                (0..threads).map(|_| Workspace::default()).collect();
            let mut quantized = QuantizedRows::new();
            let mut input = LinearInput::new(rows, x, &mut quantized, None);
            let layer = [(&self.packed, &mut *y)];
            PackedLinear::forward(
                layer,
                &mut input,
                LinearEpilogue::Store,
                self.kernels,
                &mut workspaces,
            )
        };
        if threads == 1 {
            return run();
        }
        self.threads.with(threads, run)?
    }
}

impl std::fmt::Debug for Linear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linear")
            .field("shape", &self.shape())
            .finish_non_exhaustive()
    }
}
