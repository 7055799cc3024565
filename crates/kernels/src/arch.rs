//! Instruction sets: one folder each, holding leaf intrinsics, and one row of [`TABLE`].
//!
//! To add one: a folder with a token that implements [`Simd`](crate::simd::Simd) and one that implements
//! [`Int8Tile`](crate::int8_tile::Int8Tile) (either may be that of another set), a `kernel_set!` that instantiates the algorithms for
//! them (only what differs from the set whose token it has), a variant of [`Isa`](crate::Isa), and a row below. Dispatch, tests and
//! benchmarks read the table.

#[cfg(test)]
mod agreement;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512_bf16;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512_vnni;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx_vnni;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon_dotprod;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon_i8mm;
pub(crate) mod scalar;

use crate::kernels::Kernels;

/// The routines of every instruction set that this program was built with, from plain to fast.
pub(crate) static TABLE: &[&Kernels] = &[
    &scalar::KERNELS,
    #[cfg(target_arch = "x86_64")]
    &avx2::KERNELS,
    #[cfg(target_arch = "x86_64")]
    &avx_vnni::KERNELS,
    #[cfg(target_arch = "x86_64")]
    &avx512_vnni::KERNELS,
    #[cfg(target_arch = "x86_64")]
    &avx512_bf16::KERNELS,
    #[cfg(target_arch = "aarch64")]
    &neon::KERNELS,
    #[cfg(target_arch = "aarch64")]
    &neon_dotprod::KERNELS,
    #[cfg(target_arch = "aarch64")]
    &neon_i8mm::KERNELS,
];

/// Instantiates every algorithm for one instruction set and collects the routines in `KERNELS`.
///
/// `attribute` goes on each routine and enables the CPU features; `token` and `int8_tile` are the types that implement the traits, and
/// the tile names say how many rows and columns their tiles have. The list below is the one place where operation, name, arguments and
/// algorithm of a routine meet.
///
/// A set with a faster tile for weights that cannot saturate gives its routines as `saturation_proof`.
///
/// A set whose token is that of another one takes over the routines that are the same there: `others_of` names its module.
///
/// A set that rounds operands gives the float tile for products with bf16 weights and for attention, and the types of these products; all
/// else is that of `others_of`.
macro_rules! kernel_set {
    (
        isa: $isa:expr,
        name: $name:literal,
        attribute: $attribute:tt,
        token: $token:ident,
        int8_tile: $int8:ident,
        int8_tile_name: $int8_name:literal,
        float_tile_name: $float_name:literal,
        $($rest:tt)*
    ) => {
        $crate::arch::kernel_set! { @rest
            [($isa) $name $attribute ($token) ($int8) $int8_name $float_name] $($rest)* }
    };
    (@rest [$($set:tt)*] $(saturation_proof: $proof:expr $(,)?)?) => {
        use $crate::generic::f32_tile::F32Tile;
        $crate::arch::kernel_set! { @list $($set)* ($($proof)?)
            (F32Tile, SameBits, "f32bf16f32", "f32") own own own }
    };
    (@rest [$($set:tt)*] others_of: $base:ident $(,)?) => {
        $crate::arch::kernel_set! { @list $($set)* ()
            (F32Tile, SameBits, "f32bf16f32", "f32") $base own $base }
    };
    (@rest [$($set:tt)*] bf16_tile: $bf16:ident, bf16_types: $bf16_types:literal, others_of: $base:ident $(,)?) => {
        $crate::arch::kernel_set! { @list $($set)* ()
            ($bf16, RoundedToBf16, $bf16_types, $bf16_types) $base $base own }
    };
    (@list ($isa:expr) $name:literal $attribute:tt ($token:ident) ($int8:ident) $int8_name:literal $float_name:literal
        ($($proof:expr)?)
        ($bf16:ident, $exactness:ident, $bf16_types:literal, $attention_types:literal)
        $floats:ident $integers:ident $rounding:ident) => {
        $crate::arch::kernel_set! { @emit ($isa) $name $attribute ($token) ($int8 $(, $proof)?)
            $floats LinearF32, "linear" "f32f32f32" $float_name SameBits:
                linear_f32(call: Linear<'_>, source: Stored<'_, f32>) = linear::linear<float F32Tile>;
            $floats LinearF16, "linear" "f32f16f32" $float_name SameBits:
                linear_f16(call: Linear<'_>, source: Stored<'_, F16>) = linear::linear<float F32Tile>;
            $rounding LinearBf16, "linear" $bf16_types $float_name $exactness:
                linear_bf16(call: Linear<'_>, source: Stored<'_, Bf16>) = linear::linear<float $bf16>;
            $floats LinearWeightOnlyInt8, "linear" "f32s8f32" $float_name SameBits:
                linear_weight_only_int8(call: Linear<'_>, source: DecodedInt8<'_>)
                    = linear::linear<float F32Tile>;
            $floats LinearFourBit, "linear" "f32u4f32" $float_name SameBits:
                linear_four_bit(call: Linear<'_>, source: DecodedFourBit<'_>)
                    = linear::linear<float F32Tile>;
            $integers LinearInt8, "linear" "u8s8i32" $int8_name SameBits:
                linear_int8(call: LinearInt8<'_>, output: Output<'_>)
                    = linear_int8::linear_int8<int8 $int8>;
            $integers LinearRequantize, "linear_requantize" "u8s8u8" $int8_name SameBits:
                linear_requantize(call: LinearInt8<'_>, output: Requantize<'_>)
                    = linear_int8::linear_requantize<int8 $int8>;
            $integers LinearInt4, "linear" "u8s4f32" $int8_name SameBits:
                linear_int4(call: LinearInt4<'_>, output: Output<'_>)
                    = linear_int4::linear_int4<int8 $int8>;
            $floats QuantizeRows, "quantize_rows" "f32u8" "1x16" SameBits:
                quantize_rows(x: &[f32], scale: RowScale, out: &mut QuantizedRows) -> bool
                    = quantize_rows::quantize_rows<>;
            $floats LayerNorm, "layer_norm" "f32" "1x16" SameBits:
                layer_norm(call: LayerNorm<'_>) = layer_norm::layer_norm<>;
            $floats LayerNormQuantize, "layer_norm_quantize" "f32u8" "1x16" SameBits:
                layer_norm_quantize(call: LayerNorm<'_>, scale: RowScale, out: &mut QuantizedRows) -> bool
                    = layer_norm::layer_norm_quantize<>;
            $floats Activation, "activation" "f32" "1x16" SameBits:
                activation(kind: Activation, x: &mut [f32]) = activation::activation<>;
            $floats Add, "add" "f32" "1x16" SameBits: add(x: &mut [f32], y: &[f32]) = vector::add<>;
            $floats Rotate, "rotate" "f32" "1x16" SameBits: rotate(call: Rotate<'_>) = rotary::rotate<>;
            $floats Normalize, "normalize" "f32" "1x16" SameBits:
                normalize(x: &mut [f32]) = vector::normalize<>;
            $rounding Attention, "attention" $attention_types $float_name $exactness:
                attention(input: &AttentionInput<'_>, out: &mut [f32], workspace: &mut Workspace)
                    = attention::attention<float $bf16>;
            $integers QuantizeSequence, "quantize_sequence" "f32s8" $int8_name SameBits:
                quantize_sequence(input: &AttentionInput<'_>, out: &mut QuantizedSequence, workspace: &mut Workspace)
                    = attention_sequence::quantize_sequence<int8 $int8>;
            $integers AttentionInt8, "attention" "u8s8f32" $int8_name SameBits:
                attend(input: &AttentionInput<'_>, sequence: &QuantizedSequence, out: &mut [f32], workspace: &mut Workspace)
                    = attention_int8::attend<int8 $int8>;
            $floats QuantizeFourBitF32, "quantize_four_bit" "f32u4" "1x64" SameBits:
                quantize_four_bit_f32(call: QuantizeFourBit<'_, f32>) -> bool
                    = four_bit_codec::quantize<>;
            $floats QuantizeFourBitF16, "quantize_four_bit" "f16u4" "1x64" SameBits:
                quantize_four_bit_f16(call: QuantizeFourBit<'_, F16>) -> bool
                    = four_bit_codec::quantize<>;
            $floats QuantizeFourBitBf16, "quantize_four_bit" "bf16u4" "1x64" SameBits:
                quantize_four_bit_bf16(call: QuantizeFourBit<'_, Bf16>) -> bool
                    = four_bit_codec::quantize<>;
            $floats DequantizeFourBit, "dequantize_four_bit" "u4f32" "1x16" SameBits:
                dequantize_four_bit(call: DequantizeFourBit<'_>) = four_bit_codec::dequantize<>;
            $floats FitFourBitScales, "fit_four_bit_scales" "f32" "16x1" SameBits:
                fit_four_bit_scales(call: FitFourBitScales<'_>) = four_bit_scales::fit<>;
            $floats FitInt4, "fit_int4" "f32" "16x1" SameBits:
                fit_int4(call: FitInt4<'_>) = int4_scales::fit<>;
            $floats EncodeInt4, "encode_int4" "f32s4" "1x64" SameBits:
                encode_int4(call: EncodeInt4<'_>) = int4_codec::encode<>;
            $floats DequantizeInt4, "dequantize_int4" "s4f32" "1x16" SameBits:
                dequantize_int4(call: DequantizeInt4<'_>) = int4_codec::dequantize<>;
            $floats QuantizeInt8F32, "quantize_int8" "f32s8" "1x64" SameBits:
                quantize_int8_f32(call: QuantizeInt8<'_, f32>) -> bool
                    = int8_codec::quantize<>;
            $floats QuantizeInt8F16, "quantize_int8" "f16s8" "1x64" SameBits:
                quantize_int8_f16(call: QuantizeInt8<'_, F16>) -> bool
                    = int8_codec::quantize<>;
            $floats QuantizeInt8Bf16, "quantize_int8" "bf16s8" "1x64" SameBits:
                quantize_int8_bf16(call: QuantizeInt8<'_, Bf16>) -> bool
                    = int8_codec::quantize<>;
            $floats DequantizeInt8, "dequantize_int8" "s8f32" "1x16" SameBits:
                dequantize_int8(call: DequantizeInt8<'_>) = int8_codec::dequantize<>;
            $floats GroupAbsmaxF32, "group_absmax" "f32" "1x64" SameBits:
                group_absmax_f32(call: GroupAbsmax<'_, f32>) -> bool
                    = group_absmax::group_absmax<>;
            $floats GroupAbsmaxF16, "group_absmax" "f16f32" "1x64" SameBits:
                group_absmax_f16(call: GroupAbsmax<'_, F16>) -> bool
                    = group_absmax::group_absmax<>;
            $floats GroupAbsmaxBf16, "group_absmax" "bf16f32" "1x64" SameBits:
                group_absmax_bf16(call: GroupAbsmax<'_, Bf16>) -> bool
                    = group_absmax::group_absmax<>;
            $floats ErrorSumsF32, "error_sums" "f32f64" "1x16" SameBits:
                error_sums_f32(reference: Elements<'_, f32>, approximation: &[f32]) -> ErrorSums
                    = error_sums::error_sums<>;
            $floats ErrorSumsF16, "error_sums" "f16f64" "1x16" SameBits:
                error_sums_f16(reference: Elements<'_, F16>, approximation: &[f32]) -> ErrorSums
                    = error_sums::error_sums<>;
            $floats ErrorSumsBf16, "error_sums" "bf16f64" "1x16" SameBits:
                error_sums_bf16(reference: Elements<'_, Bf16>, approximation: &[f32]) -> ErrorSums
                    = error_sums::error_sums<>;
        }
    };
    (@emit ($isa:expr) $name:literal $attribute:tt ($token:ident) ($int8:ident $(, $proof:expr)?) $(
        $source:ident $operation:ident, $operation_name:literal $types:literal $tile:literal $exactness:ident:
            $routine:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?
                = $module:ident::$algorithm:ident<$($kind:ident $tile_type:ident)?>;
    )*) => {
        pub(crate) mod routines {
            #![allow(unused_imports, reason = "routines of another set name no types")]
            use fewbit_numerics::error_statistics::ErrorSums;
            use $crate::attention::AttentionInput;
            use $crate::float_bytes::Elements;
            use $crate::generic::four_bit_codec::{DequantizeFourBit, QuantizeFourBit};
            use $crate::generic::four_bit_scales::FitFourBitScales;
            use $crate::generic::group_absmax::GroupAbsmax;
            use $crate::generic::int4_codec::{DequantizeInt4, EncodeInt4};
            use $crate::generic::int4_scales::FitInt4;
            use $crate::generic::int8_codec::{DequantizeInt8, QuantizeInt8};
            use $crate::generic::layer_norm::LayerNorm;
            use $crate::generic::linear::Linear;
            use $crate::generic::linear_int4::LinearInt4;
            use $crate::generic::linear_int8::{LinearInt8, Output, Requantize};
            use $crate::generic::panel_element::{Bf16, F16};
            use $crate::generic::panel_source::{DecodedFourBit, DecodedInt8, Stored};
            use $crate::generic::rotary::Rotate;
            use $crate::int8_tile::Int8Tile;
            use $crate::quantized_rows::{QuantizedRows, RowScale};
            use $crate::quantized_sequence::QuantizedSequence;
            use $crate::row_operations::Activation;
            use $crate::simd::Simd;
            use $crate::workspace::Workspace;

            $(
                $crate::arch::kernel_set! { @routine $source $attribute ($token)
                    $routine($($argument: $type),*) $(-> $result)? = $module::$algorithm<$($kind $tile_type)?> }
            )*

            /// # Safety
            ///
            /// The CPU has the instruction set.
            # $attribute
            pub(super) unsafe fn float_peak(rounds: usize) -> usize {
                // SAFETY: this function's contract.
                let s = unsafe { <super::$token as Simd>::assume_supported() };
                $crate::generic::peak::float_peak(s, rounds)
            }

            /// # Safety
            ///
            /// The CPU has the instruction set.
            # $attribute
            pub(super) unsafe fn int8_peak(rounds: usize) -> usize {
                // SAFETY: this function's contract.
                let s = unsafe { <super::$token as Simd>::assume_supported() };
                // SAFETY: as above.
                let t = unsafe { <super::$int8 as Int8Tile>::assume_supported() };
                $crate::generic::peak::int8_peak(s, t, rounds)
            }
        }

        /// The routines of this instruction set.
        pub(crate) static KERNELS: $crate::kernels::Kernels = $crate::kernels::Kernels {
            isa: $isa,
            routines: &[$(
                $crate::kernels::Routine {
                    name: concat!($name, "_", $operation_name, "_", $types, "_", $tile),
                    isa: $isa,
                    operation: $crate::kernels::Operation::$operation,
                    operation_name: $operation_name,
                    types: $types,
                    tile: $tile,
                    exactness: $crate::kernels::Exactness::$exactness,
                },
            )*],
            saturation_proof: $crate::arch::kernel_set!(@proof $($proof)?),
            int8_layout: <$int8 as $crate::int8_tile::Int8Tile>::LAYOUT,
            int8_activation_offset: <$int8 as $crate::int8_tile::Int8Tile>::ACTIVATION_OFFSET,
            $($routine: routines::$routine,)*
            float_peak: routines::float_peak,
            int8_peak: routines::int8_peak,
        };
    };
    (@routine own $attribute:tt ($token:ident) $routine:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?
        = $module:ident::$algorithm:ident<$($kind:ident $tile_type:ident)?>) => {
        /// # Safety
        ///
        /// The CPU has the instruction set.
        # $attribute
        pub(crate) unsafe fn $routine($($argument: $type),*) $(-> $result)? {
            // SAFETY: this function's contract.
            let s = unsafe { <super::$token as Simd>::assume_supported() };
            $crate::generic::$module::$algorithm(
                s,
                $(
                    // SAFETY: this function's contract.
                    $crate::arch::kernel_set!(@$kind super::$tile_type),
                )?
                $($argument),*
            )
        }
    };
    (@routine $base:ident $attribute:tt ($token:ident) $routine:ident($($arguments:tt)*) $($rest:tt)*) => {
        pub(crate) use $crate::arch::$base::routines::$routine;
    };
    (@proof) => {
        None
    };
    (@proof $proof:expr) => {
        Some($proof)
    };
    (@int8 $tile:ty) => {
        // SAFETY: expanded in routines whose contract is that the CPU has the instruction set.
        unsafe { <$tile as Int8Tile>::assume_supported() }
    };
    (@float $tile:ty) => {
        // SAFETY: as above.
        unsafe { <$tile>::assume_supported() }
    };
}
pub(crate) use kernel_set;
