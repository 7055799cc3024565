//! What the layouts of GPTQ and AWQ have in common: tensors whose rows are inputs, words of codes, float16 scales, zero points for every group.
use crate::weight_layout::{no_place_for, other_rows};
use crate::{CheckpointError, CheckpointErrorKind, StoredWeight, TensorView};
use fewbit_numerics::half_precision::{f16_bytes_to_f32, f32_to_f16_bytes};
use fewbit_numerics::rows::dequantize_groups;
use std::borrow::Cow;
use std::fmt;

/// A weight to write, of 4 bits.
pub(crate) struct GroupedColumns<'a> {
    /// (out, in)
    pub(crate) codes: &'a [i8],
    /// (out, in / group size)
    pub(crate) scales: &'a [f32],
    /// As the scales; 0 of symmetric groups.
    pub(crate) zero_points: Cow<'a, [i8]>,
    pub(crate) group_size: usize,
}

impl<'a> GroupedColumns<'a> {
    /// The parts of a whole weight, if it is in `groups`: so many columns each, all of a row if none, with zero points or not. `layout` is how errors name that.
    pub(crate) fn of_weight(
        module: &str,
        shape: [usize; 2],
        first_row: usize,
        rows: &'a StoredWeight<'_>,
        groups: (Option<usize>, bool),
        layout: &dyn fmt::Display,
    ) -> Result<Self, CheckpointError> {
        let (size, asymmetric) = groups;
        if first_row != 0 {
            return Err(other_rows(module, 0..shape[0], first_row, shape[0]));
        }
        match rows {
            StoredWeight::Groups {
                codes,
                scales,
                zero_points,
                group_size,
                bits: 4,
                activations: None,
            } if *group_size == size.unwrap_or(shape[1]) && zero_points.is_some() == asymmetric => {
                rows.expect_shape(shape)
                    .map_err(|error| error.at_tensor(format!("{module}.weight")))?;
                // Eight outputs are a word of zero points, eight inputs or outputs one of codes.
                if !(shape[0].is_multiple_of(8) && shape[1].is_multiple_of(8)) {
                    let whole = format!("{layout}, and multiples of 8 outputs and inputs");
                    return Err(no_place_for(rows, module, whole));
                }
                Ok(Self {
                    codes,
                    scales,
                    zero_points: match zero_points {
                        Some(points) => Cow::Borrowed(points),
                        None => Cow::Owned(vec![0; scales.len()]),
                    },
                    group_size: *group_size,
                })
            }
            _ => Err(no_place_for(rows, module, layout)),
        }
    }

    /// Names a layout of these in an error.
    pub(crate) fn describe(
        f: &mut fmt::Formatter<'_>,
        name: &str,
        group_size: Option<usize>,
        asymmetric: bool,
    ) -> fmt::Result {
        write!(f, "{name} codes of 4 bits ")?;
        match group_size {
            Some(size) => write!(f, "in groups of {size}")?,
            None => f.write_str("in whole rows")?,
        }
        f.write_str(match asymmetric {
            true => " with zero points",
            false => "",
        })
    }
}

/// Little-endian bytes.
pub(crate) fn word_bytes(words: impl IntoIterator<Item = i32>) -> Vec<u8> {
    words.into_iter().flat_map(i32::to_le_bytes).collect()
}

/// The bytes of `scales` of the weight `rows` in float16.
///
/// # Errors
/// One that is none.
pub(crate) fn half_scales(
    rows: &StoredWeight<'_>,
    module: &str,
    scales: &[f32],
) -> Result<Vec<u8>, CheckpointError> {
    let mut bytes = vec![0; 2 * scales.len()];
    f32_to_f16_bytes(scales, &mut bytes);
    let mut stored = vec![0.0; scales.len()];
    f16_bytes_to_f32(&bytes, &mut stored);
    let mut pairs = scales.iter().zip(&stored);
    match pairs.find(|(scale, stored)| scale != stored) {
        None => Ok(bytes),
        Some((scale, _)) => {
            let expected = format!("scales that are float16 (not {scale})");
            Err(no_place_for(rows, module, expected))
        }
    }
}

/// The elements of an I32 tensor.
pub(crate) fn words_of(view: &TensorView<'_>) -> Result<Vec<i32>, CheckpointError> {
    let (words, _) = view.stored_bytes()?.as_chunks::<4>();
    Ok(words.iter().map(|word| i32::from_le_bytes(*word)).collect())
}

/// Scales, finite and not 0.
pub(crate) fn scales_of(view: &TensorView<'_>) -> Result<Vec<f32>, CheckpointError> {
    let scales = view.finite_f32()?;
    match scales.iter().position(|scale| *scale == 0.0) {
        None => Ok(scales),
        Some(index) => Err(view
            .error(
                CheckpointErrorKind::Malformed,
                format!(
                    "scale at {:?}: expected a number other than 0, found 0",
                    view.index_of(index)
                ),
            )
            .hint("the checkpoint is damaged, or its scales were too small for their dtype")),
    }
}

/// A weight that was read.
pub(crate) struct ReadColumns {
    /// (out, in), less half of their range.
    pub(crate) codes: Vec<i8>,
    /// (out, groups), likewise.
    pub(crate) zero_points: Vec<i8>,
    /// (out, groups)
    pub(crate) scales: Vec<f32>,
    pub(crate) groups: usize,
    pub(crate) bits: usize,
    /// Less than `groups`, for each column.
    pub(crate) group_of_column: Vec<usize>,
}

impl ReadColumns {
    /// Groups of neighbours stay codes; where a group is of columns anywhere, as activation order makes them, the weight is of floats.
    pub(crate) fn into_weight(
        self,
        shape: [usize; 2],
    ) -> Result<StoredWeight<'static>, CheckpointError> {
        let [out, inside] = shape;
        let size = inside / self.groups;
        let is_in_order = inside.is_multiple_of(self.groups)
            && size > 0
            && self
                .group_of_column
                .iter()
                .enumerate()
                .all(|(column, group)| *group == column / size);
        if is_in_order {
            let is_symmetric = self.zero_points.iter().all(|point| *point == 0);
            return Ok(StoredWeight::Groups {
                codes: Cow::Owned(self.codes),
                scales: self.scales,
                zero_points: (!is_symmetric).then_some(self.zero_points),
                group_size: size,
                bits: self.bits,
                activations: None,
            });
        }
        let mut values = Vec::with_capacity(self.codes.len());
        for row in 0..out {
            let codes = &self.codes[row * inside..][..inside];
            for (code, group) in codes.iter().zip(&self.group_of_column) {
                let place = row * self.groups + group;
                let points = Some(&self.zero_points[place..=place]);
                values.extend(dequantize_groups(
                    &[*code],
                    &self.scales[place..=place],
                    points,
                    1,
                ));
            }
        }
        Ok(StoredWeight::of_values(&values))
    }
}
