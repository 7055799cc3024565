//! Weights to codes and back.
//!
//! Sources are [`FloatBytes`]: what a file holds is quantized without being widened in memory. Every method gives the bits of its reference in
//! `fewbit-numerics`. A call runs on one thread: callers cut a weight at the bounds of blocks or groups and give each thread its part.

use fewbit_numerics::error_statistics::ErrorSums;
use fewbit_numerics::four_bit::FourBitType;

use crate::float_bytes::{FloatBytes, Typed};
use crate::generic::four_bit_codec::{DequantizeFourBit, QuantizeFourBit};
use crate::generic::four_bit_scales::FitFourBitScales;
use crate::generic::group_absmax::GroupAbsmax;
use crate::generic::int4_codec::{DequantizeInt4, EncodeInt4, Groups};
use crate::generic::int4_scales::FitInt4;
use crate::generic::int8_codec::{DequantizeInt8, GroupScales, QuantizeInt8};
use crate::kernels::Kernels;

impl Kernels {
    /// [`quantize_blocks`](fewbit_numerics::four_bit::quantize_blocks) of `source` into `packed` (ceil(n / 2)) and `absmax`
    /// (ceil(n / `block_size`)). The last block may be short.
    ///
    /// Returns whether all elements are finite. Where they are not, codes and absmax mean nothing.
    ///
    /// ```
    /// use fewbit_kernels::{FloatBytes, Kernels};
    /// use fewbit_numerics::four_bit::FourBitType;
    /// let kernels = Kernels::from_environment()?;
    /// let (mut packed, mut absmax) = ([0; 2], [0.0]);
    /// let source = FloatBytes::of_f32(&[2.0, -2.0, 0.0, 0.1]);
    /// assert!(kernels.quantize_four_bit(source, 4, FourBitType::Nf4, &mut packed, &mut absmax));
    /// assert_eq!((packed, absmax), ([0xf0, 0x78], [2.0]));
    /// # Ok::<(), fewbit_kernels::IsaError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If `block_size` is odd or 0, or a slice does not have its length.
    #[must_use]
    pub fn quantize_four_bit(
        &self,
        source: FloatBytes<'_>,
        block_size: usize,
        kind: FourBitType,
        packed: &mut [u8],
        absmax: &mut [f32],
    ) -> bool {
        assert_blocks(source.len(), block_size, packed.len(), absmax.len());
        macro_rules! call {
            ($routine:ident, $source:expr) => {{
                let call = QuantizeFourBit {
                    source: $source,
                    block_size,
                    kind,
                    packed,
                    absmax,
                };
                // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
                unsafe { (self.$routine)(call) }
            }};
        }
        match source.0 {
            Typed::F32(source) => call!(quantize_four_bit_f32, source),
            Typed::F16(source) => call!(quantize_four_bit_f16, source),
            Typed::Bf16(source) => call!(quantize_four_bit_bf16, source),
        }
    }

    /// [`dequantize_range`](fewbit_numerics::four_bit::dequantize_range) of the elements from the first one of a block on: `packed`
    /// (ceil(n / 2)) and `absmax` (ceil(n / `block_size`)) of n elements into `out`.
    ///
    /// # Panics
    ///
    /// If `block_size` is odd or 0, or a slice does not have its length.
    pub fn dequantize_four_bit(
        &self,
        packed: &[u8],
        absmax: &[f32],
        block_size: usize,
        kind: FourBitType,
        out: &mut [f32],
    ) {
        assert_blocks(out.len(), block_size, packed.len(), absmax.len());
        let call = DequantizeFourBit {
            packed,
            absmax,
            block_size,
            kind,
            out,
        };
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { (self.dequantize_four_bit)(call) }
    }

    /// [`least_error_scale`](fewbit_numerics::four_bit_scales::least_error_scale) of whole blocks (finite), whose largest magnitudes `scales` hold at first; with the
    /// importance of each element [`least_weighted_error_scale`](fewbit_numerics::four_bit_scales::least_weighted_error_scale).
    ///
    /// # Panics
    ///
    /// If there are not `block_size` values for each scale, or not as many importances as values.
    pub fn fit_four_bit_scales(
        &self,
        values: &[f32],
        importance: Option<&[f32]>,
        block_size: usize,
        kind: FourBitType,
        scales: &mut [f32],
    ) {
        assert_values(values, importance, block_size, scales.len());
        let call = FitFourBitScales {
            values,
            importance,
            block_size,
            kind,
            scales,
        };
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { (self.fit_four_bit_scales)(call) }
    }

    /// [`group_parameters`](fewbit_numerics::int4_groups::group_parameters) with the least squared error of whole groups (finite), asymmetric where there is
    /// room for zero points; with the importance of each element
    /// [`weighted_group_parameters`](fewbit_numerics::int4_groups::weighted_group_parameters).
    ///
    /// # Panics
    ///
    /// If there are not `group_size` values for each scale, as many importances as values, and as many zero points as scales.
    pub fn fit_int4(
        &self,
        values: &[f32],
        importance: Option<&[f32]>,
        group_size: usize,
        scales: &mut [f32],
        zero_points: Option<&mut [i8]>,
    ) {
        assert_values(values, importance, group_size, scales.len());
        if let Some(zero_points) = &zero_points {
            assert_eq!(zero_points.len(), scales.len(), "one for each group");
        }
        let call = FitInt4 {
            values,
            importance,
            group_size,
            asymmetric: zero_points.is_some(),
            scales,
            zero_points,
        };
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { (self.fit_int4)(call) }
    }

    /// [`encode_groups`](fewbit_numerics::int4_groups::encode_groups): codes (n) of whole groups of `values` (n, finite) with these scales, whose inverses are finite, and
    /// zero points (-8..=7; n / `group_size`).
    ///
    /// ```
    /// use fewbit_kernels::Kernels;
    /// let kernels = Kernels::from_environment()?;
    /// let mut codes = [0; 4];
    /// kernels.encode_int4(&[3.0, -9.0, 0.4, 1.0], 2, &[0.5, 0.2], Some(&[0, -8]), &mut codes);
    /// assert_eq!(codes, [6, -8, -6, -3]);
    /// let mut floats = [0.0; 4];
    /// kernels.dequantize_int4(&codes, 2, &[0.5, 0.2], Some(&[0, -8]), &mut floats);
    /// assert_eq!(floats, [3.0, -4.0, 0.4, 1.0]);
    /// # Ok::<(), fewbit_kernels::IsaError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If there are not `group_size` values for each scale, as many codes as values, and as many zero points as scales.
    pub fn encode_int4(
        &self,
        values: &[f32],
        group_size: usize,
        scales: &[f32],
        zero_points: Option<&[i8]>,
        codes: &mut [i8],
    ) {
        assert_eq!(codes.len(), values.len(), "codes: one for each element");
        assert_whole_groups(values.len(), group_size, scales.len());
        let call = EncodeInt4 {
            values,
            groups: int4_groups(group_size, scales, zero_points),
            codes,
        };
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { (self.encode_int4)(call) }
    }

    /// [`dequantize_groups`](fewbit_numerics::rows::dequantize_groups) of whole groups: codes (n) with scales and zero points (n / `group_size`) into `out`.
    ///
    /// # Panics
    ///
    /// If there are not `group_size` codes for each scale, as many floats as codes, and as many zero points as scales.
    pub fn dequantize_int4(
        &self,
        codes: &[i8],
        group_size: usize,
        scales: &[f32],
        zero_points: Option<&[i8]>,
        out: &mut [f32],
    ) {
        assert_eq!(codes.len(), out.len(), "codes: one for each element");
        assert_whole_groups(codes.len(), group_size, scales.len());
        let call = DequantizeInt4 {
            codes,
            groups: int4_groups(group_size, scales, zero_points),
            out,
        };
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { (self.dequantize_int4)(call) }
    }

    /// [`quantize_rows_int8`](fewbit_numerics::rows::quantize_rows_int8) of groups of `group_size` neighbouring elements, a row of a matrix or a
    /// part of one: codes (n) and scales (ceil(n / `group_size`)). The last group may be short.
    ///
    /// Returns whether all elements are finite. Where they are not, codes and scales mean nothing.
    ///
    /// # Panics
    ///
    /// If `group_size` is 0, or a slice does not have its length.
    #[must_use]
    pub fn quantize_int8(
        &self,
        source: FloatBytes<'_>,
        group_size: usize,
        codes: &mut [i8],
        scales: &mut [f32],
    ) -> bool {
        assert_groups(source.len(), group_size, scales.len());
        self.int8_codes(source, group_size, codes, GroupScales::OfEachGroup(scales))
    }

    /// [`quantize_int8_with_scale`](fewbit_numerics::rows::quantize_int8_with_scale): codes (n) of elements that share the positive `scale`.
    ///
    /// Returns whether all elements are finite. Where they are not, codes mean nothing.
    ///
    /// # Panics
    ///
    /// If there are not as many codes as elements.
    #[must_use]
    pub fn quantize_int8_with_scale(
        &self,
        source: FloatBytes<'_>,
        scale: f32,
        codes: &mut [i8],
    ) -> bool {
        let group_size = source.len();
        self.int8_codes(source, group_size, codes, GroupScales::Given(scale))
    }

    fn int8_codes(
        &self,
        source: FloatBytes<'_>,
        group_size: usize,
        codes: &mut [i8],
        scales: GroupScales<'_>,
    ) -> bool {
        assert_eq!(codes.len(), source.len(), "codes: one for each element");
        macro_rules! call {
            ($routine:ident, $source:expr) => {{
                let call = QuantizeInt8 {
                    source: $source,
                    group_size,
                    codes,
                    scales,
                };
                // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
                unsafe { (self.$routine)(call) }
            }};
        }
        match source.0 {
            Typed::F32(source) => call!(quantize_int8_f32, source),
            Typed::F16(source) => call!(quantize_int8_f16, source),
            Typed::Bf16(source) => call!(quantize_int8_bf16, source),
        }
    }

    /// [`dequantize_groups`](fewbit_numerics::rows::dequantize_groups): codes (n) with `scales` (ceil(n / `group_size`)) into `out`.
    ///
    /// # Panics
    ///
    /// If `group_size` is 0, or a slice does not have its length.
    pub fn dequantize_int8(
        &self,
        codes: &[i8],
        scales: &[f32],
        group_size: usize,
        out: &mut [f32],
    ) {
        assert_groups(out.len(), group_size, scales.len());
        assert_eq!(codes.len(), out.len(), "codes: one for each element");
        let call = DequantizeInt8 {
            codes,
            scales,
            group_size,
            out,
        };
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe { (self.dequantize_int8)(call) }
    }

    /// The largest magnitude of each group of `group_size` elements, of which the last may be short: [`absmax`](fewbit_numerics::absmax::absmax).
    ///
    /// Returns whether all elements are finite. Where they are not, the results mean nothing.
    ///
    /// # Panics
    ///
    /// If `group_size` is 0, or `absmax` does not have ceil(n / `group_size`) elements.
    #[must_use]
    pub fn group_absmax(
        &self,
        source: FloatBytes<'_>,
        group_size: usize,
        absmax: &mut [f32],
    ) -> bool {
        assert_groups(source.len(), group_size, absmax.len());
        macro_rules! call {
            ($routine:ident, $source:expr) => {{
                let call = GroupAbsmax {
                    source: $source,
                    group_size,
                    absmax,
                };
                // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
                unsafe { (self.$routine)(call) }
            }};
        }
        match source.0 {
            Typed::F32(source) => call!(group_absmax_f32, source),
            Typed::F16(source) => call!(group_absmax_f16, source),
            Typed::Bf16(source) => call!(group_absmax_bf16, source),
        }
    }

    /// [`ErrorSums`] of elements and what their codes stand for.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn error_sums(&self, reference: FloatBytes<'_>, approximation: &[f32]) -> ErrorSums {
        assert_eq!(
            reference.len(),
            approximation.len(),
            "as many values on both sides"
        );
        // SAFETY: the CPU has the instruction set of this table (see `for_isa`).
        unsafe {
            match reference.0 {
                Typed::F32(reference) => (self.error_sums_f32)(reference, approximation),
                Typed::F16(reference) => (self.error_sums_f16)(reference, approximation),
                Typed::Bf16(reference) => (self.error_sums_bf16)(reference, approximation),
            }
        }
    }
}

fn assert_blocks(elements: usize, block_size: usize, packed: usize, absmax: usize) {
    assert!(
        block_size > 0 && block_size.is_multiple_of(2),
        "the block size {block_size} is even and positive"
    );
    assert_eq!(
        (packed, absmax),
        (elements.div_ceil(2), elements.div_ceil(block_size)),
        "packed bytes and absmax of {elements} elements in blocks of {block_size}"
    );
}

fn assert_groups(elements: usize, group_size: usize, groups: usize) {
    assert!(group_size > 0, "the group size is at least 1");
    assert_eq!(
        groups,
        elements.div_ceil(group_size),
        "one for each group of {group_size} of {elements} elements"
    );
}

fn int4_groups<'a>(size: usize, scales: &'a [f32], zero_points: Option<&'a [i8]>) -> Groups<'a> {
    if let Some(zero_points) = zero_points {
        assert_eq!(zero_points.len(), scales.len(), "one for each group");
    }
    Groups {
        size,
        scales,
        zero_points,
    }
}

fn assert_whole_groups(elements: usize, size: usize, groups: usize) {
    assert!(size > 0, "a group has at least one element");
    let expected = groups.checked_mul(size);
    assert_eq!(Some(elements), expected, "{groups} groups of {size}");
}

fn assert_values(values: &[f32], importance: Option<&[f32]>, size: usize, groups: usize) {
    assert_whole_groups(values.len(), size, groups);
    if let Some(importance) = importance {
        assert_eq!(importance.len(), values.len(), "one for each element");
    }
}
