//! Relative positions of disentangled attention: see [`DisentangledAttention`].
//!
//! Their keys and queries depend on weights alone. They are computed once, by the layers that make them and with the arithmetic of these; the
//! kernels take what a text reaches.

use super::Network;
use super::encoder_layer::EncoderLayer;
use super::scratch::LinearScratch;
use crate::ModelError;
use crate::packed_linear::{LinearEpilogue, LinearInput, PackedLinear};
use crate::spec::DisentangledAttention;
use crate::tap::Viewer;
use fewbit_kernels::{Kernels, QuantizedRows, RelativePositions};

/// The table of relative positions.
pub(super) struct PositionTable {
    disentangled: DisentangledAttention,
    columns: usize,
    /// (2 * span, columns), normalized where the model has it so, from keys far before the query to those far after it.
    rows: Vec<f32>,
}

/// Keys and queries of the rows of the table in one layer, (2 * span, query columns) each.
#[derive(Default)]
pub(super) struct LayerPositions {
    keys: Option<Vec<f32>>,
    queries: Option<Vec<f32>>,
}

/// The row of the table for each distance.
#[derive(Default)]
pub(super) struct DistanceRows {
    /// From the longest distance before the query to the longest after it.
    rows: Vec<u32>,
}

impl PositionTable {
    /// Of the rows of the checkpoint, which are in descending order of distances from the query to the key.
    pub(super) fn new(disentangled: DisentangledAttention, columns: usize, stored: &[f32]) -> Self {
        let rows = stored.chunks_exact(columns.max(1)).rev();
        Self {
            disentangled,
            columns,
            rows: rows.flatten().copied().collect(),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(self.rows.as_slice())
    }
}

impl LayerPositions {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_none() && self.queries.is_none()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let parts = [&self.keys, &self.queries].into_iter().flatten();
        parts.map(|rows| size_of_val(rows.as_slice())).sum()
    }

    /// What the kernels take, for texts that `rows` reach.
    pub(super) fn of_distances<'a>(
        &'a self,
        rows: &'a DistanceRows,
        columns: usize,
    ) -> RelativePositions<'a> {
        RelativePositions {
            keys: self.keys.as_deref(),
            queries: self.queries.as_deref(),
            row_stride: columns,
            buckets: &rows.rows,
            center: rows.center(),
        }
    }
}

impl DistanceRows {
    /// Makes the rows reach from one end of a sequence of `tokens` to the other.
    pub(super) fn fit(&mut self, tokens: usize, disentangled: DisentangledAttention) {
        if self.rows.len() < 2 * tokens - 1 {
            let distances = 1 - tokens as i64..tokens as i64;
            self.rows.clear();
            // From the key to the query, as the table has them.
            self.rows
                .extend(distances.map(|distance| row(-distance, disentangled)));
        }
    }

    fn center(&self) -> usize {
        self.rows.len() / 2
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<u32>()
    }
}

/// The row of [`PositionTable`] for a distance = query position - key position.
fn row(distance: i64, disentangled: DisentangledAttention) -> u32 {
    2 * disentangled.span as u32 - 1 - disentangled.stored_row(distance)
}

impl DisentangledAttention {
    /// The row of the checkpoint's table for a distance = query position - key position.
    ///
    /// With n rows on each side and logarithmic ones, distances up to m = n / 2 have rows of their own; of further ones, those that are
    /// `m + ceil(ln(d / m) / ln((max_distance - 1) / m) * (m - 1))`. Logarithms are rounded to f32 and so is each operation, as in transformers.
    pub fn stored_row(self, distance: i64) -> u32 {
        let span = self.span as i64;
        let middle = span / 2;
        let offset = match self.max_distance {
            Some(max_distance) if distance.abs() > middle => {
                let logarithm = |ratio: f32| libm::log(f64::from(ratio)) as f32;
                let far = logarithm(distance.unsigned_abs() as f32 / middle as f32);
                let farthest = logarithm((max_distance - 1) as f32 / middle as f32);
                let steps = (far / farthest * (middle - 1) as f32).ceil();
                distance.signum() * (steps as i64 + middle)
            }
            _ => distance,
        };
        (offset + span).clamp(0, 2 * span - 1) as u32
    }
}

impl EncoderLayer {
    /// The layers that make keys and queries of positions, where the model has these.
    fn position_projections(
        &self,
        disentangled: DisentangledAttention,
    ) -> [Option<&PackedLinear>; 2] {
        let DisentangledAttention {
            content_to_position,
            position_to_content,
            shared_projections,
            ..
        } = disentangled;
        let [key, query] = match shared_projections {
            true => [Some(&self.key), Some(&self.query)],
            false => [self.position_key.as_ref(), self.position_query.as_ref()],
        };
        [
            key.filter(|_| content_to_position),
            query.filter(|_| position_to_content),
        ]
    }

    /// Computes the keys and queries of positions.
    ///
    /// # Errors
    /// [`ModelError::NonFinite`] where one overflows; they are there nevertheless, and so is what overflowed.
    pub(super) fn project_positions(
        &mut self,
        table: Option<&PositionTable>,
        kernels: &Kernels,
    ) -> Result<(), ModelError> {
        let Some(table) = table else { return Ok(()) };
        let (mut quantized, mut scratch) = (QuantizedRows::default(), LinearScratch::default());
        scratch.share(1);
        let rows = 2 * table.disentangled.span;
        let mut result = Ok(());
        let mut project = |linear: &PackedLinear| {
            let mut out = vec![0.0; rows * linear.out_features()];
            let mut input = LinearInput::new(rows, &table.rows, &mut quantized, None);
            let done = PackedLinear::forward(
                [(linear, &mut *out)],
                &mut input,
                LinearEpilogue::Store,
                kernels,
                scratch.workspaces(),
            );
            if result.is_ok() {
                result = done;
            }
            out
        };
        let [keys, queries] = self.position_projections(table.disentangled);
        self.positions = LayerPositions {
            keys: keys.map(&mut project),
            queries: queries.map(&mut project),
        };
        result
    }
}

impl Network {
    /// Shows a tap the rows of positions that a text of `tokens` tokens reaches, and what `layer` makes of them.
    pub(super) fn show_positions(
        &self,
        layer: &EncoderLayer,
        tokens: usize,
        viewer: &mut Viewer<'_>,
    ) {
        let Some(table) = self.positions.as_ref().filter(|_| viewer.is_tapped()) else {
            return;
        };
        let farthest = tokens as i64 - 1;
        let [first, last] = [farthest, -farthest].map(|distance| row(distance, table.disentangled));
        let of = |columns: usize| first as usize * columns..(last as usize + 1) * columns;
        let LayerPositions { keys, queries } = &layer.positions;
        let projections = layer.position_projections(table.disentangled);
        for (linear, out) in projections.into_iter().zip([keys, queries]) {
            let (Some(linear), Some(out)) = (linear, out) else {
                continue;
            };
            let (inside, outside) = (table.columns, linear.out_features());
            viewer.show_input(linear.site(), inside, &table.rows[of(inside)]);
            viewer.show_output(linear.site(), outside, &out[of(outside)]);
        }
        // Queries, keys and values have one site for what they read: that of the queries.
        if table.disentangled.shared_projections && queries.is_none() && keys.is_some() {
            let columns = table.columns;
            viewer.show_input(layer.query.site(), columns, &table.rows[of(columns)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBERTA_V3: DisentangledAttention = DisentangledAttention {
        span: 256,
        max_distance: Some(512),
        normalized: true,
        content_to_position: true,
        position_to_content: true,
        shared_projections: true,
    };

    /// Worked out by hand: 128 + ceil(ln(129 / 128) / ln(511 / 128) * 127) = 129, and 255 at a distance of 511.
    #[test]
    fn far_distances_share_rows() {
        for (distance, offset) in [(0, 0), (1, 1), (128, 128), (129, 129), (511, 255)] {
            assert_eq!(row(distance, DEBERTA_V3), 255 - offset, "{distance}");
            assert_eq!(row(-distance, DEBERTA_V3), 255 + offset, "-{distance}");
        }
        for distance in [512, 9999] {
            assert_eq!(row(distance, DEBERTA_V3), 0, "{distance}");
            assert_eq!(row(-distance, DEBERTA_V3), 511, "-{distance}");
        }
    }

    /// The rows that transformers looks up, for several numbers of rows and largest distances.
    #[test]
    fn rows_are_those_of_transformers() {
        let golden = "tests/golden/architectures/deberta-v2/expected.safetensors";
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(golden);
        let bytes = std::fs::read(file).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (span, max_distance) in [(256, 512), (32, 128), (8, 20), (7, 40)] {
            let disentangled = DisentangledAttention {
                span,
                max_distance: Some(max_distance),
                ..DEBERTA_V3
            };
            let name = format!("rows.{span}.{max_distance}");
            let expected = tensors.tensor(&name).unwrap();
            let expected = expected.data().as_chunks().0.iter();
            for (distance, expected) in (-700..=700).zip(expected) {
                let stored = 2 * span as i64 - 1 - i64::from(row(distance, disentangled));
                assert_eq!(stored, i64::from_le_bytes(*expected), "{name}, {distance}");
            }
        }
    }

    #[test]
    fn rows_ascend_from_keys_before_to_keys_after() {
        let clipped = DisentangledAttention {
            span: 3,
            max_distance: None,
            ..DEBERTA_V3
        };
        let mut rows = DistanceRows::default();
        rows.fit(5, clipped);
        assert_eq!(rows.rows, [0, 0, 0, 1, 2, 3, 4, 5, 5]);
        assert_eq!(rows.center(), 4);
        rows.fit(2, clipped);
        assert_eq!(rows.center(), 4);
    }
}
