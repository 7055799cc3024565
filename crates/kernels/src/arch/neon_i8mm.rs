//! 64-bit ARM with products of matrices of bytes (i8mm): the float operations of NEON.

mod int8;

use crate::arch::neon::Neon;
use int8::MatrixTile;

crate::arch::kernel_set! {
    isa: crate::Isa::NeonI8mm,
    name: "neon-i8mm",
    attribute: [target_feature(enable = "neon,i8mm")],
    token: Neon,
    int8_tile: MatrixTile,
    int8_tile_name: "6x16",
    float_tile_name: "6x16",
    others_of: neon,
}
