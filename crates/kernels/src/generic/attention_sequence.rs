//! Keys and values of a sequence, quantized and packed for products with queries and with exponentials of the softmax.

use crate::attention::AttentionInput;
use crate::generic::attention_codes::{
    HeadRows, SEGMENT_GROUPS, pack_keys, pack_values, quantize_heads, value_segment,
};
use crate::generic::int8_panels::{Int8Panels, Int8Rows, TileEpilogue, TileSums, multiply_panels};
use crate::int8_tile::{INT8_GROUP, Int8Accumulators, Int8Tile};
use crate::quantized_rows::QuantizedRows;
use crate::quantized_sequence::QuantizedSequence;
use crate::simd::{LANES, Simd};
use crate::workspace::Workspace;

/// Added to the codes of queries, so that they are unsigned.
pub(crate) const QUERY_OFFSET: u8 = 128;

/// Subtracted from the codes of exponentials where these are signed numbers of sixteen bits ([`Int8Tile::WIDE`]).
pub(crate) const WIDE_EXPONENTIAL_OFFSET: i32 = 1 << 15;

/// Sizes of a sequence's parts, padded to whole vectors.
#[derive(Clone, Copy)]
pub(crate) struct PaddedSizes {
    pub(crate) tokens: usize,
    /// Features of a head.
    pub(crate) features: usize,
    /// Groups of features.
    pub(crate) key_groups: usize,
    /// Groups of tokens.
    pub(crate) value_groups: usize,
    /// Segments of groups of tokens.
    pub(crate) segments: usize,
}

impl PaddedSizes {
    #[inline(always)]
    pub(crate) fn new(tokens: usize, head_size: usize) -> Self {
        let (tokens, features) = (
            tokens.next_multiple_of(LANES),
            head_size.next_multiple_of(LANES),
        );
        let value_groups = tokens / INT8_GROUP;
        Self {
            tokens,
            features,
            key_groups: features / INT8_GROUP,
            value_groups,
            segments: value_groups.div_ceil(SEGMENT_GROUPS),
        }
    }
}

impl QuantizedSequence {
    /// Keys of one head.
    #[inline(always)]
    pub(crate) fn key_panels(keys: &[i8], sizes: PaddedSizes, head: usize) -> Int8Panels<'_> {
        let length = sizes.tokens * sizes.features;
        Int8Panels {
            codes: &keys[head * length..][..length],
            outputs: sizes.tokens,
            groups: sizes.key_groups,
            prefetch: false,
        }
    }

    /// Values of one head and segment.
    #[inline(always)]
    pub(crate) fn value_panels(
        values: &[i8],
        sizes: PaddedSizes,
        head: usize,
        segment: usize,
    ) -> Int8Panels<'_> {
        let groups = value_segment(sizes.value_groups, segment);
        let start = (head * sizes.value_groups + groups.start) * INT8_GROUP * sizes.features;
        let length = groups.len() * INT8_GROUP * sizes.features;
        Int8Panels {
            codes: &values[start..start + length],
            outputs: sizes.features,
            groups: groups.len(),
            prefetch: false,
        }
    }
}

/// Fills `out` with the keys and values of `input`; its queries take no part. Codes are as
/// [`attention_codes`](crate::generic::attention_codes) says.
#[inline(always)]
pub(crate) fn quantize_sequence<S: Simd, T: Int8Tile>(
    s: S,
    t: T,
    input: &AttentionInput<'_>,
    out: &mut QuantizedSequence,
    workspace: &mut Workspace,
) {
    let AttentionInput {
        key_row_stride: row_stride,
        tokens,
        key_value_heads: heads,
        head_size,
        ..
    } = *input;
    out.tokens = tokens;
    out.heads = heads;
    out.head_size = head_size;
    out.layout = Some(T::LAYOUT);
    if tokens == 0 || heads * head_size == 0 {
        return;
    }
    let sizes = PaddedSizes::new(tokens, head_size);
    let shape = [heads, head_size];
    let mut accumulators = Int8Accumulators::new();

    let padded = &mut workspace.padded_keys;
    let keys = HeadRows::new(input.keys, row_stride, tokens, shape, padded);
    let scales_of_rows = workspace.key_scales_of_rows.slice(tokens * heads);
    let codes = workspace.key_codes.slice(tokens * heads * sizes.features);
    quantize_heads(s, keys, 0, codes, scales_of_rows);
    let codes = workspace
        .key_codes
        .slice::<f32>(tokens * heads * sizes.key_groups);
    let panels = out.keys.slice::<i8>(heads * sizes.tokens * sizes.features);
    let key_scales = out.key_scales.slice::<f32>(heads * sizes.tokens);
    let corrections = out.key_corrections.slice::<i32>(heads * sizes.tokens);
    // One query of zeros for all heads.
    let zero_query = &mut workspace.query_codes;
    zero_query.resize(1, sizes.features, 1);
    zero_query.codes.fill(QUERY_OFFSET);
    let (zero_codes, stride) = t.activations(zero_query, &mut workspace.activations);
    let zero_rows = Int8Rows {
        codes: zero_codes,
        stride,
        rows: 1,
        planes: 1,
    };
    let key_stride = heads * sizes.key_groups;
    for head in 0..heads {
        let length = sizes.tokens * sizes.features;
        let head_panels = &mut panels[head * length..][..length];
        let start = head * sizes.key_groups;
        pack_keys(
            s,
            T::LAYOUT,
            codes,
            key_stride,
            start,
            sizes.key_groups,
            head_panels,
        );
        let scales = key_scales[head * sizes.tokens..][..sizes.tokens].iter_mut();
        for (scale, scales) in scales.zip(scales_of_rows.chunks_exact(heads)) {
            *scale = scales[head];
        }
        let mut store = StoreSums {
            sums: &mut corrections[head * sizes.tokens..][..sizes.tokens],
        };
        let panels = QuantizedSequence::key_panels(panels, sizes, head);
        multiply_panels(s, t, zero_rows, panels, &mut accumulators, &mut store);
    }

    let panels = out
        .values
        .slice::<i8>(heads * sizes.features * sizes.tokens);
    let value_scales = out.value_scales.slice::<f32>(heads * sizes.features);
    let inverses = workspace.scores.slice::<f32>(heads * sizes.features);
    let padded = &mut workspace.padded_queries;
    let values = HeadRows::new(input.values, row_stride, tokens, shape, padded);
    pack_values(s, T::LAYOUT, values, panels, value_scales, inverses);

    // Where the tile takes codes of exponentials as they are, products with zeros are zeros.
    if !has_exponential_offset::<T>() {
        return;
    }
    let corrections = out
        .value_corrections
        .slice::<i32>(heads * sizes.segments * sizes.features);
    let zeros = zero_exponentials(
        t,
        &mut workspace.exponentials,
        &mut workspace.exponential_activations,
    );
    for head in 0..heads {
        for segment in 0..sizes.segments {
            let index = head * sizes.segments + segment;
            let mut store = StoreSums {
                sums: &mut corrections[index * sizes.features..][..sizes.features],
            };
            let panels = QuantizedSequence::value_panels(panels, sizes, head, segment);
            multiply_panels(s, t, zeros, panels, &mut accumulators, &mut store);
        }
    }
}

/// Whether the tile takes the codes of exponentials less an offset, so that its sums of products with values need a correction.
#[inline(always)]
pub(crate) fn has_exponential_offset<T: Int8Tile>() -> bool {
    T::WIDE || T::ACTIVATION_OFFSET != 0
}

/// The codes of a row of exponentials that are zero, as long as a segment: what they give with the values is to be subtracted.
#[inline(always)]
fn zero_exponentials<'a, T: Int8Tile>(
    t: T,
    exponentials: &'a mut QuantizedRows,
    activations: &'a mut crate::aligned::Scratch,
) -> Int8Rows<'a, T::Activation> {
    let columns = SEGMENT_GROUPS * INT8_GROUP;
    let (codes, stride) = if T::WIDE {
        activations
            .slice::<i16>(columns)
            .fill((-WIDE_EXPONENTIAL_OFFSET) as i16);
        (&*activations.slice::<T::Activation>(columns), columns)
    } else {
        exponentials.resize(1, columns, 1);
        exponentials.codes.fill(0);
        t.activations(exponentials, activations)
    };
    Int8Rows {
        codes,
        stride,
        rows: 1,
        planes: 1,
    }
}

/// Stores the sums of one row as they are.
struct StoreSums<'a> {
    /// (outputs)
    sums: &'a mut [i32],
}

impl<S: Simd> TileEpilogue<S> for StoreSums<'_> {
    #[inline(always)]
    fn apply<const VECTORS: usize>(&mut self, _s: S, tile: TileSums<'_>) {
        let vectors = self.sums.as_chunks_mut::<LANES>().0;
        vectors[tile.first_vector..][..VECTORS].copy_from_slice(tile.row::<VECTORS>(0));
    }
}
