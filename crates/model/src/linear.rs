//! A linear layer by itself, without a model around it.

use crate::ModelError;
use crate::network::kernels_from_environment;
use crate::network::thread_pools::in_shared_pool;
use crate::packed_linear::{LinearEpilogue, LinearInput, PackedLinear};
use crate::weight_only::WeightOnlyArithmetic;
use fewbit_checkpoint::{CheckpointError, CheckpointErrorKind, StoredWeight};
use fewbit_kernels::{Kernels, QuantizedRows, Workspace};
use fewbit_numerics::finite::first_non_finite;
use rayon::prelude::*;

/// Its name in errors.
const NAME: &str = "linear";

/// Rows that are quantized and multiplied together: their codes and outputs stay in the second-level cache.
pub(crate) const ROWS_OF_STEP: usize = 128;

/// Rows for each thread from which on threads share rows, so that they share the quantization of the input, too. With fewer they share columns.
const LEAST_ROWS_OF_THREAD: usize = 16;

/// Products from which on other threads are worth waking: with fewer they come later than one is done.
const LEAST_PRODUCTS_OF_THREADS: usize = 1 << 25;

/// `threads`, or 1 where `products` multiplications and additions are too few to share; 0 stays 0. It is never a number in between: the pool of the layers
/// would be made anew for each of them.
pub(crate) fn threads_for(products: usize, threads: usize) -> usize {
    match products < LEAST_PRODUCTS_OF_THREADS {
        true => threads.min(1),
        false => threads,
    }
}

/// Runs `work` in the pool of `threads` threads that all layers without a model around them share.
///
/// # Errors
/// [`ModelError::Input`]: `threads` is 0 or cannot be started.
pub(crate) fn with_threads<T: Send>(
    threads: usize,
    work: impl FnOnce() -> T + Send,
) -> Result<T, ModelError> {
    match threads {
        0 => Err(ModelError::Input(
            "threads: expected at least 1, found 0\n  hint: 1 runs on the calling thread"
                .to_owned(),
        )),
        1 => Ok(work()),
        _ => in_shared_pool(threads, work),
    }
}

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

    /// How many of `threads` threads are worth their while for `rows` rows, all or one: layers that run one by one wake them for each product.
    ///
    /// ```
    /// # use fewbit_model::Linear;
    /// let linear = Linear::from_matrix(&[0.5; 64 * 64], None, [64, 64])?;
    /// assert_eq!(linear.useful_threads(16, 8), 1);
    /// assert_eq!(linear.useful_threads(100_000, 8), 8);
    /// # Ok::<(), fewbit_model::ModelError>(())
    /// ```
    pub fn useful_threads(&self, rows: usize, threads: usize) -> usize {
        let [out, inside] = self.shape();
        threads_for(rows.saturating_mul(out * inside), threads)
    }

    /// The outputs (rows, out) of `x` (rows, in), computed on `threads` threads, which share the rows, or the columns where rows are few: also
    /// those of a single row. The result has the same bits with any number of threads.
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
        if self.packed.reads_whole_texts() || rows < threads.max(1) * LEAST_ROWS_OF_THREAD {
            return with_threads(threads, || self.product(x, y, threads))?;
        }
        // Whole steps for every thread; the last ones may be smaller.
        let step = rows.div_ceil(threads.max(1)).clamp(1, ROWS_OF_STEP);
        let parts = x
            .chunks(step * inside)
            .zip(y.chunks_mut((step * out).max(1)));
        let mut parts = parts.enumerate().map(|(part, rows)| (part * step, rows));
        let product = |(first, (x, y)): (usize, (&[f32], &mut [f32]))| {
            let error = |error: ModelError| error.at_row(|row| first + row);
            self.product(x, y, 1).map_err(error)
        };
        if threads == 1 {
            return parts.try_for_each(product);
        }
        let parts: Vec<_> = parts.collect();
        with_threads(threads, || parts.into_par_iter().map(product).collect())?
    }

    /// The product of all rows at once, whose columns `threads` threads of the current pool share.
    pub(crate) fn product(
        &self,
        x: &[f32],
        y: &mut [f32],
        threads: usize,
    ) -> Result<(), ModelError> {
        let rows = x.len().checked_div(self.packed.in_features()).unwrap_or(0);
        let mut workspaces: Vec<Workspace> = (0..threads).map(|_| Workspace::default()).collect();
        let mut quantized = QuantizedRows::new();
        let mut input = LinearInput::new(rows, x, &mut quantized, None);
        PackedLinear::forward(
            [(&self.packed, y)],
            &mut input,
            LinearEpilogue::Store,
            self.kernels,
            &mut workspaces,
        )
    }
}

impl std::fmt::Debug for Linear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linear")
            .field("shape", &self.shape())
            .finish_non_exhaustive()
    }
}
