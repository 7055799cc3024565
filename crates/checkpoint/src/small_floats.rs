//! Weights whose elements are floats of 8 or 4 bits.
use crate::{CheckpointError, CheckpointErrorKind};
use fewbit_numerics::small_floats::{
    MXFP4_GROUP, NVFP4_GROUP, dequantize_e2m1, e4m3_to_f32, e8m0_to_f32,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// A type of floats with the scales that belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmallFloatType {
    /// E4M3 with one F32 scale for a row.
    Fp8,
    /// E2M1 with an E4M3 scale for each 16 columns, and one F32 scale that all of these are divided by.
    Nvfp4,
    /// E2M1 with a power of two for each 32 columns.
    Mxfp4,
}

impl SmallFloatType {
    /// As recipes and command lines spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp8 => "fp8",
            Self::Nvfp4 => "nvfp4",
            Self::Mxfp4 => "mxfp4",
        }
    }

    /// Columns that share a scale; none: a row.
    pub fn group_size(self) -> Option<usize> {
        match self {
            Self::Fp8 => None,
            Self::Nvfp4 => Some(NVFP4_GROUP),
            Self::Mxfp4 => Some(MXFP4_GROUP),
        }
    }

    /// Bytes of the codes of a row, whose columns are whole groups.
    pub fn row_bytes(self, columns: usize) -> usize {
        match self {
            Self::Fp8 => columns,
            Self::Nvfp4 | Self::Mxfp4 => columns / 2,
        }
    }

    /// Scales of a row, whose columns are whole groups.
    pub fn row_scales(self, columns: usize) -> usize {
        self.group_size().map_or(1, |size| columns / size)
    }
}

impl fmt::Display for SmallFloatType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A (out, in) weight of small floats, none of them NaN.
#[derive(Debug, Clone)]
pub struct SmallFloats<'a> {
    /// E4M3 codes (out, in), or E2M1 codes, two a byte, the first in the low nibble (out, in / 2).
    pub codes: Cow<'a, [u8]>,
    /// What the codes are multiplied with, finite.
    pub scales: SmallFloatScales<'a>,
}

/// The scales of small floats.
#[derive(Debug, Clone)]
pub enum SmallFloatScales<'a> {
    /// Of FP8: (out)
    Rows(Vec<f32>),
    /// Of NVFP4.
    Nvfp4 {
        /// E4M3 (out, in / 16)
        codes: Cow<'a, [u8]>,
        /// What each is divided by.
        global_scale: f32,
    },
    /// Of MXFP4: E8M0 (out, in / 32)
    Mxfp4(Cow<'a, [u8]>),
}

impl<'a> SmallFloats<'a> {
    /// The type of the elements.
    pub fn kind(&self) -> SmallFloatType {
        match self.scales {
            SmallFloatScales::Rows(_) => SmallFloatType::Fp8,
            SmallFloatScales::Nvfp4 { .. } => SmallFloatType::Nvfp4,
            SmallFloatScales::Mxfp4(_) => SmallFloatType::Mxfp4,
        }
    }

    /// The scales that there are.
    pub(crate) fn scale_count(&self) -> usize {
        match &self.scales {
            SmallFloatScales::Rows(scales) => scales.len(),
            SmallFloatScales::Nvfp4 { codes, .. } | SmallFloatScales::Mxfp4(codes) => codes.len(),
        }
    }

    /// The outputs `rows` of a weight of `columns` inputs.
    pub(crate) fn rows(&self, rows: Range<usize>, columns: usize) -> Self {
        let (bytes, scales) = (
            self.kind().row_bytes(columns),
            self.kind().row_scales(columns),
        );
        let part = |whole: &Cow<'a, [u8]>, width: usize| match whole {
            Cow::Borrowed(whole) => Cow::Borrowed(&whole[rows.start * width..rows.end * width]),
            Cow::Owned(whole) => Cow::Owned(whole[rows.start * width..rows.end * width].to_vec()),
        };
        Self {
            codes: part(&self.codes, bytes),
            scales: match &self.scales {
                SmallFloatScales::Rows(scales) => {
                    SmallFloatScales::Rows(scales[rows.clone()].to_vec())
                }
                SmallFloatScales::Nvfp4 {
                    codes,
                    global_scale,
                } => SmallFloatScales::Nvfp4 {
                    codes: part(codes, scales),
                    global_scale: *global_scale,
                },
                SmallFloatScales::Mxfp4(codes) => SmallFloatScales::Mxfp4(part(codes, scales)),
            },
        }
    }

    /// The same numbers, their codes where they are.
    pub fn borrowed(&self) -> SmallFloats<'_> {
        SmallFloats {
            codes: Cow::Borrowed(&self.codes),
            scales: match &self.scales {
                SmallFloatScales::Rows(scales) => SmallFloatScales::Rows(scales.clone()),
                SmallFloatScales::Nvfp4 {
                    codes,
                    global_scale,
                } => SmallFloatScales::Nvfp4 {
                    codes: Cow::Borrowed(codes),
                    global_scale: *global_scale,
                },
                SmallFloatScales::Mxfp4(codes) => SmallFloatScales::Mxfp4(Cow::Borrowed(codes)),
            },
        }
    }

    /// The same in memory of its own.
    pub fn into_owned(self) -> SmallFloats<'static> {
        let owned = |codes: Cow<'_, [u8]>| Cow::Owned(codes.into_owned());
        SmallFloats {
            codes: owned(self.codes),
            scales: match self.scales {
                SmallFloatScales::Rows(scales) => SmallFloatScales::Rows(scales),
                SmallFloatScales::Nvfp4 {
                    codes,
                    global_scale,
                } => SmallFloatScales::Nvfp4 {
                    codes: owned(codes),
                    global_scale,
                },
                SmallFloatScales::Mxfp4(codes) => SmallFloatScales::Mxfp4(owned(codes)),
            },
        }
    }

    /// The values, (out, in), of parts that have the lengths of that shape.
    pub(crate) fn values(&self, columns: usize) -> Vec<f32> {
        let rows = self.scale_count() / self.kind().row_scales(columns).max(1);
        let mut values = vec![0.0; rows * columns];
        match &self.scales {
            SmallFloatScales::Rows(scales) => {
                let rows = values.chunks_exact_mut(columns.max(1));
                let rows = rows.zip(self.codes.chunks_exact(columns.max(1)));
                for ((values, codes), scale) in rows.zip(scales) {
                    for (value, code) in values.iter_mut().zip(codes) {
                        *value = e4m3_to_f32(*code) * scale;
                    }
                }
            }
            SmallFloatScales::Nvfp4 {
                codes,
                global_scale,
            } => {
                let scales = codes.iter().map(|code| e4m3_to_f32(*code) / global_scale);
                self.e2m1_values(NVFP4_GROUP, scales, &mut values);
            }
            SmallFloatScales::Mxfp4(codes) => {
                let scales = codes.iter().map(|code| e8m0_to_f32(*code));
                self.e2m1_values(MXFP4_GROUP, scales, &mut values);
            }
        }
        values
    }

    fn e2m1_values(&self, size: usize, scales: impl Iterator<Item = f32>, values: &mut [f32]) {
        let groups = values.chunks_exact_mut(size);
        let groups = groups.zip(self.codes.chunks_exact(size / 2));
        for ((values, packed), scale) in groups.zip(scales) {
            dequantize_e2m1(packed, scale, values);
        }
    }

    /// Errors if the parts are not those of a weight of this shape, whose number of elements does not overflow.
    pub(crate) fn expect_shape(&self, [rows, columns]: [usize; 2]) -> Result<(), CheckpointError> {
        let kind = self.kind();
        let size = kind.group_size().unwrap_or(1);
        let wrong = |what: &str, found: usize| {
            let message = format!(
                "{what}: expected as many as {kind} weights of shape {:?} have, found {found}",
                [rows, columns]
            );
            Err(CheckpointError::new(
                CheckpointErrorKind::WrongShape,
                message,
            ))
        };
        match () {
            () if !columns.is_multiple_of(size) => wrong("columns of whole groups", columns),
            () if self.codes.len() != rows * kind.row_bytes(columns) => {
                wrong("bytes of codes", self.codes.len())
            }
            () if self.scale_count() != rows * kind.row_scales(columns) => {
                wrong("scales", self.scale_count())
            }
            () => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoredWeight;

    #[test]
    fn rows_are_rows_of_the_values() {
        let codes = |count: usize| -> Vec<u8> {
            (0..count).map(|index| (index * 37 % 0x7f) as u8).collect()
        };
        let weights = [
            SmallFloats {
                codes: codes(3 * 64).into(),
                scales: SmallFloatScales::Rows(vec![0.5, 2.0, 3.0]),
            },
            SmallFloats {
                codes: codes(3 * 32).into(),
                scales: SmallFloatScales::Nvfp4 {
                    codes: codes(12).into(),
                    global_scale: 3.0,
                },
            },
            SmallFloats {
                codes: codes(3 * 32).into(),
                scales: SmallFloatScales::Mxfp4(vec![127, 126, 128, 100, 0, 120].into()),
            },
        ];
        for weight in weights {
            let whole = StoredWeight::SmallFloats(weight);
            let values = whole.dequantize([3, 64]).unwrap();
            assert!(whole.dequantize([4, 64]).is_err());
            assert!(whole.dequantize([3, 60]).is_err());
            for rows in [0..1, 1..3, 2..3, 0..0] {
                let part = whole.rows(rows.clone(), 64).unwrap().into_owned().unwrap();
                let expected = &values[rows.start * 64..rows.end * 64];
                assert_eq!(part.dequantize([rows.len(), 64]).unwrap(), expected);
            }
        }
    }
}
