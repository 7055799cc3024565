//! 64-bit ARM with dot products of bytes: the float operations of NEON.

mod int8;

use crate::arch::neon::Neon;
use int8::DotProductTile;

crate::arch::kernel_set! {
    isa: crate::Isa::NeonDotprod,
    name: "neon-dotprod",
    attribute: [target_feature(enable = "neon,dotprod")],
    token: Neon,
    int8_tile: DotProductTile,
    int8_tile_name: "6x16",
    float_tile_name: "6x16",
    others_of: neon,
}
