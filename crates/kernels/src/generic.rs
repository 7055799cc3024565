//! The algorithms, written once over [`crate::simd::Simd`] and instantiated by [`crate::arch`].
//!
//! Everything here is `#[inline(always)]`, so that it is compiled with the instruction set of the function that it ends up in. Closures
//! and iterator adaptors around vector code are avoided for the same reason: they would be functions of their own.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod attention_codes;
pub(crate) mod attention_exponentials;
pub(crate) mod attention_int8;
pub(crate) mod attention_positions;
pub(crate) mod attention_sequence;
pub(crate) mod coefficients;
pub(crate) mod error_sums;
pub(crate) mod exponential;
pub(crate) mod f32_tile;
pub(crate) mod four_bit_codec;
pub(crate) mod four_bit_panels;
pub(crate) mod four_bit_scales;
pub(crate) mod group_absmax;
pub(crate) mod int4_codec;
pub(crate) mod int4_scales;
pub(crate) mod int8_codec;
pub(crate) mod int8_panels;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod linear_int4;
pub(crate) mod linear_int8;
pub(crate) mod panel_element;
pub(crate) mod panel_source;
pub(crate) mod peak;
pub(crate) mod quantize_rows;
pub(crate) mod rotary;
pub(crate) mod side_by_side;
pub(crate) mod softmax;
pub(crate) mod vector;
