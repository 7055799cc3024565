//! A convolution by itself, without a model around it, as products of its windows.

use crate::ModelError;
use crate::linear::{Linear, ROWS_OF_STEP, threads_for, with_threads};
use fewbit_checkpoint::{CheckpointError, CheckpointErrorKind, StoredWeight};
use rayon::prelude::*;

/// Its name in errors.
const NAME: &str = "convolution";

/// How the windows of a convolution lie, in height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Size of the kernel.
    pub kernel: [usize; 2],
    /// Distance of neighbouring windows.
    pub stride: [usize; 2],
    /// Distance of neighbouring elements of a window.
    pub dilation: [usize; 2],
    /// Zeros before the first and after the last row, and before the first and after the last column.
    pub padding: [[usize; 2]; 2],
}

impl Windows {
    /// Number of windows in an input of this height and width; 0 where not even one fits.
    pub fn count(&self, size: [usize; 2]) -> [usize; 2] {
        [0, 1].map(|axis| {
            let extent = self.dilation[axis] * (self.kernel[axis] - 1) + 1;
            let padded = size[axis] + self.padding[axis][0] + self.padding[axis][1];
            match padded.checked_sub(extent) {
                Some(rest) => rest / self.stride[axis] + 1,
                None => 0,
            }
        })
    }
}

/// A convolution over height and width. Each window is a row of a product with the weight, so that an int8 convolution quantizes its inputs window by
/// window: what is said of the rows of a [`Linear`] holds for the windows. Channels are the last axis of inputs, outputs and weights.
///
/// ```
/// use fewbit_checkpoint::StoredWeight;
/// use fewbit_model::convolution::{Convolution, Windows};
///
/// let windows = Windows { kernel: [1, 2], stride: [1, 1], dilation: [1, 1], padding: [[0, 0], [0, 1]] };
/// let weight = StoredWeight::of_values(&[1.0, 10.0]);
/// let convolution = Convolution::new(&weight, Some(&[0.5]), [1, 1], 1, windows)?;
/// let mut y = [0.0; 3];
/// convolution.forward_into(&[1.0, 2.0, 3.0], [1, 1, 3], &mut y, 1)?;
/// assert_eq!(y, [21.5, 32.5, 3.5]);
/// # Ok::<(), fewbit_model::ModelError>(())
/// ```
#[derive(Debug)]
pub struct Convolution {
    /// A product for each group of channels.
    groups: Vec<Linear>,
    windows: Windows,
    /// Channels of inputs and of outputs.
    channels: [usize; 2],
}

impl Convolution {
    /// Packs a weight (out, kernel height, kernel width, in / groups) of `channels` (in, out); without `bias` (out) it is 0.
    ///
    /// # Errors
    /// Channels that are not whole groups; a kernel, stride or dilation of 0; what [`Linear::new`] refuses.
    pub fn new(
        weight: &StoredWeight<'_>,
        bias: Option<&[f32]>,
        channels: [usize; 2],
        groups: usize,
        windows: Windows,
    ) -> Result<Self, ModelError> {
        let [inside, out] = channels;
        if [inside, out, groups].contains(&0)
            || !inside.is_multiple_of(groups)
            || !out.is_multiple_of(groups)
        {
            return Err(ModelError::Input(format!(
                "{NAME}: expected channels that are whole groups, found {inside} and {out} channels in {groups} groups"
            )));
        }
        let sizes = [windows.kernel, windows.stride, windows.dilation];
        if sizes.as_flattened().contains(&0) {
            return Err(ModelError::Input(format!(
                "{NAME}: expected a kernel, strides and dilations of at least 1, found {windows:?}"
            )));
        }
        let [height, width] = windows.kernel;
        let shape = [out / groups, height * width * (inside / groups)];
        weight.expect_shape([out, shape[1]])?;
        if let Some(bias) = bias
            && bias.len() != out
        {
            let message = format!("bias: expected {out} elements, found {}", bias.len());
            return Err(CheckpointError::new(CheckpointErrorKind::WrongShape, message).into());
        }
        let group = |group: usize| {
            let rows = group * shape[0]..(group + 1) * shape[0];
            let bias = bias.map(|bias| &bias[rows.clone()]);
            Linear::new(weight.rows(rows, shape[1])?, bias, shape)
        };
        Ok(Self {
            groups: (0..groups).map(group).collect::<Result<_, ModelError>>()?,
            windows,
            channels,
        })
    }

    /// How its windows lie.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// How many of `threads` threads are worth their while for `outputs` numbers of output; see [`Linear::useful_threads`].
    pub fn useful_threads(&self, outputs: usize, threads: usize) -> usize {
        let [_, inside] = self.groups[0].shape();
        threads_for(outputs.saturating_mul(inside), threads)
    }

    /// The outputs `y` (images, windows in height, windows in width, out) of `x`, whose shape is `images` (number, height, width) and the channels.
    /// Threads share the windows; the result has the same bits with any number of threads.
    ///
    /// # Errors
    /// [`ModelError::Input`]: `x` or `y` has another shape, or `threads` is 0 or cannot be started.
    /// [`ModelError::NonFinite`]: an input or an output is NaN or infinite; its row is the number of the window.
    pub fn forward_into(
        &self,
        x: &[f32],
        images: [usize; 3],
        y: &mut [f32],
        threads: usize,
    ) -> Result<(), ModelError> {
        let [number, height, width] = images;
        let [inside, out] = self.channels;
        let [rows, columns] = self.windows.count([height, width]);
        if x.len() != number * height * width * inside || y.len() != number * rows * columns * out {
            return Err(ModelError::Input(format!(
                "{NAME}: expected {images:?} images of {inside} channels and {rows} x {columns} windows of {out} channels for each, found {} and {} numbers",
                x.len(),
                y.len()
            )));
        }
        if y.is_empty() {
            return Ok(());
        }
        if self.reads_single_pixels() {
            return self.groups[0].forward_into(x, y, threads);
        }
        // Equal shares of the windows for all threads.
        let step = (y.len() / out).div_ceil(threads.max(1)).min(ROWS_OF_STEP);
        let parts = y.chunks_mut(step * out).enumerate();
        let parts: Vec<_> = parts.map(|(part, y)| (part * step, y)).collect();
        let run = |buffers: &mut Buffers, (first, y): (usize, &mut [f32])| {
            self.run_windows(x, images, first, y, buffers)
                .map_err(|error| error.at_row(|row| first + row))
        };
        with_threads(threads, || {
            if threads == 1 {
                let mut buffers = Buffers::default();
                return parts
                    .into_iter()
                    .try_for_each(|part| run(&mut buffers, part));
            }
            parts
                .into_par_iter()
                .map_init(Buffers::default, run)
                .collect()
        })?
    }

    /// Whether its windows are the pixels, as they lie.
    fn reads_single_pixels(&self) -> bool {
        self.groups.len() == 1
            && self.windows.kernel == [1, 1]
            && self.windows.stride == [1, 1]
            && self.windows.padding == [[0, 0]; 2]
    }

    /// The outputs `y` (windows, out) of the windows from `first` on.
    fn run_windows(
        &self,
        x: &[f32],
        images: [usize; 3],
        first: usize,
        y: &mut [f32],
        buffers: &mut Buffers,
    ) -> Result<(), ModelError> {
        let out = self.channels[1];
        let windows = y.len() / out;
        for (group, linear) in self.groups.iter().enumerate() {
            let [group_out, inside] = linear.shape();
            buffers.input.clear();
            buffers.input.resize(windows * inside, 0.0);
            for (window, row) in buffers.input.chunks_exact_mut(inside).enumerate() {
                self.read_window(x, images, first + window, group, row);
            }
            if self.groups.len() == 1 {
                return linear.product(&buffers.input, y, 1);
            }
            buffers.output.resize(windows * group_out, 0.0);
            linear.product(&buffers.input, &mut buffers.output, 1)?;
            let rows = y.chunks_exact_mut(out);
            for (row, output) in rows.zip(buffers.output.chunks_exact(group_out)) {
                row[group * group_out..][..group_out].copy_from_slice(output);
            }
        }
        Ok(())
    }

    /// Copies the channels of a group in one window to `row` (kernel height, kernel width, channels), which holds zeros.
    fn read_window(
        &self,
        x: &[f32],
        [_, height, width]: [usize; 3],
        window: usize,
        group: usize,
        row: &mut [f32],
    ) {
        let Windows {
            kernel,
            stride,
            dilation,
            padding,
        } = self.windows;
        let all = self.channels[0];
        let channels = all / self.groups.len();
        let [rows, columns] = self.windows.count([height, width]);
        let (image, place) = (window / (rows * columns), window % (rows * columns));
        let top = place / columns * stride[0];
        let left = place % columns * stride[1];
        // Where an element of the kernel lies in the image, if not in its padding.
        let inside = |start: usize, element: usize, axis: usize, size: usize| {
            (start + element * dilation[axis])
                .checked_sub(padding[axis][0])
                .filter(|&place| place < size)
        };
        for kernel_row in 0..kernel[0] {
            let Some(y) = inside(top, kernel_row, 0, height) else {
                continue;
            };
            let line = &x[(image * height + y) * width * all..][..width * all];
            let row = &mut row[kernel_row * kernel[1] * channels..][..kernel[1] * channels];
            for (element, pixel) in row.chunks_exact_mut(channels).enumerate() {
                if let Some(x) = inside(left, element, 1, width) {
                    pixel.copy_from_slice(&line[x * all + group * channels..][..channels]);
                }
            }
        }
    }
}

/// Windows and outputs of one group of channels.
#[derive(Default)]
struct Buffers {
    input: Vec<f32>,
    output: Vec<f32>,
}
