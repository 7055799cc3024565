//! Instruction sets: one folder each, holding leaf intrinsics, and one row of [`TABLE`].
//!
//! To add one: a folder with a token that implements [`Simd`](crate::simd::Simd) and one that implements
//! [`Int8Tile`](crate::int8_tile::Int8Tile) (either may be that of another set), a `kernel_set!` that instantiates the algorithms for
//! them, a variant of [`Isa`](crate::Isa), and a row below. Dispatch, tests and benchmarks read the table.

#[cfg(test)]
mod agreement;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
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
macro_rules! kernel_set {
    (
        isa: $isa:expr,
        name: $name:literal,
        attribute: $attribute:tt,
        token: $token:ident,
        int8_tile: $int8:ident,
        int8_tile_name: $int8_name:literal,
        float_tile_name: $float_name:literal $(,)?
    ) => {
        $crate::arch::kernel_set! { @emit ($isa) $name $attribute ($token) ($int8)
            LinearF32, "linear_f32f32f32", $float_name:
                linear_f32(call: Linear<'_>, source: Stored<'_, f32>) = linear::linear<>;
            LinearF16, "linear_f32f16f32", $float_name:
                linear_f16(call: Linear<'_>, source: Stored<'_, F16>) = linear::linear<>;
            LinearBf16, "linear_f32bf16f32", $float_name:
                linear_bf16(call: Linear<'_>, source: Stored<'_, Bf16>) = linear::linear<>;
            LinearWeightOnlyInt8, "linear_f32s8f32", $float_name:
                linear_weight_only_int8(call: Linear<'_>, source: DecodedInt8<'_>)
                    = linear::linear<>;
            LinearFourBit, "linear_f32u4f32", $float_name:
                linear_four_bit(call: Linear<'_>, source: DecodedFourBit<'_>) = linear::linear<>;
            LinearInt8, "linear_u8s8i32", $int8_name:
                linear_int8(call: LinearInt8<'_>, output: Output<'_>)
                    = linear_int8::linear_int8<tile>;
            LinearRequantize, "linear_requantize_u8s8u8", $int8_name:
                linear_requantize(call: LinearInt8<'_>, output: Requantize<'_>)
                    = linear_int8::linear_requantize<tile>;
            QuantizeRows, "quantize_rows_f32u8", "1x16":
                quantize_rows(x: &[f32], scale: RowScale, out: &mut QuantizedRows) -> bool
                    = quantize_rows::quantize_rows<>;
            LayerNorm, "layer_norm_f32", "1x16":
                layer_norm(call: LayerNorm<'_>) = layer_norm::layer_norm<>;
            LayerNormQuantize, "layer_norm_quantize_f32u8", "1x16":
                layer_norm_quantize(call: LayerNorm<'_>, scale: RowScale, out: &mut QuantizedRows) -> bool
                    = layer_norm::layer_norm_quantize<>;
            Activation, "activation_f32", "1x16":
                activation(kind: Activation, x: &mut [f32]) = activation::activation<>;
            Add, "add_f32", "1x16": add(x: &mut [f32], y: &[f32]) = vector::add<>;
            Normalize, "normalize_f32", "1x16": normalize(x: &mut [f32]) = vector::normalize<>;
            Attention, "attention_f32", $float_name:
                attention(input: &AttentionInput<'_>, out: &mut [f32], workspace: &mut Workspace)
                    = attention::attention<>;
        }
    };
    (@emit ($isa:expr) $name:literal $attribute:tt ($token:ident) ($int8:ident) $(
        $operation:ident, $prefix:literal, $tile:literal:
            $routine:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?
                = $module:ident::$algorithm:ident<$($with:ident)?>;
    )*) => {
        mod routines {
            use $crate::attention::AttentionInput;
            use $crate::generic::layer_norm::LayerNorm;
            use $crate::generic::linear::Linear;
            use $crate::generic::linear_int8::{LinearInt8, Output, Requantize};
            use $crate::generic::panel_element::{Bf16, F16};
            use $crate::generic::panel_source::{DecodedFourBit, DecodedInt8, Stored};
            use $crate::int8_tile::Int8Tile;
            use $crate::quantized_rows::{QuantizedRows, RowScale};
            use $crate::row_operations::Activation;
            use $crate::simd::Simd;
            use $crate::workspace::Workspace;

            $(
                /// # Safety
                ///
                /// The CPU has the instruction set.
                # $attribute
                pub(super) unsafe fn $routine($($argument: $type),*) $(-> $result)? {
                    // SAFETY: this function's contract.
                    let s = unsafe { <super::$token as Simd>::assume_supported() };
                    $crate::generic::$module::$algorithm(
                        s,
                        $(
                            // SAFETY: this function's contract.
                            $crate::arch::kernel_set!(@$with super::$int8),
                        )?
                        $($argument),*
                    )
                }
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
                let t = $crate::arch::kernel_set!(@tile super::$int8);
                $crate::generic::peak::int8_peak(s, t, rounds)
            }
        }

        /// The routines of this instruction set.
        pub(crate) static KERNELS: $crate::kernels::Kernels = $crate::kernels::Kernels {
            isa: $isa,
            routines: &[$(
                $crate::kernels::Routine {
                    name: concat!($name, "_", $prefix, "_", $tile),
                    isa: $isa,
                    operation: $crate::kernels::Operation::$operation,
                },
            )*],
            $($routine: routines::$routine,)*
            float_peak: routines::float_peak,
            int8_peak: routines::int8_peak,
        };
    };
    (@tile $int8:ty) => {
        // SAFETY: expanded in routines whose contract is that the CPU has the instruction set.
        unsafe { <$int8 as Int8Tile>::assume_supported() }
    };
}
pub(crate) use kernel_set;
