//! Products with float weights.

use crate::aligned::Scratch;
use crate::float_tile::{Columns, Combine, FloatTile, Rows};
use crate::generic::activation::activation;
use crate::generic::panel_source::PanelSource;
use crate::output_columns::OutputColumns;
use crate::panels::panel_count;
use crate::row_operations::{Epilogue, EpilogueKind};
use crate::simd::{LANES, Simd};
use std::ops::Range;

/// `y = x * W^T + bias`, then the epilogue.
pub(crate) struct Linear<'a> {
    /// (rows, in_features)
    pub(crate) x: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) in_features: usize,
    /// Columns of (rows, out_features), from a whole panel on.
    pub(crate) out: OutputColumns<'a>,
    pub(crate) epilogue: Epilogue<'a>,
    /// For the activations, see [`FloatTile::activations`].
    pub(crate) scratch: &'a mut Scratch,
}

/// Panels outside, row tiles inside: a panel is read (or decoded) once and stays in the cache for all rows. A source may
/// multiply the first rows while it decodes.
#[inline(always)]
pub(crate) fn linear<S: Simd, P: PanelSource, T: FloatTile<S, P::Element>>(
    s: S,
    t: T,
    call: Linear<'_>,
    mut source: P,
) {
    let Linear {
        x,
        rows,
        in_features,
        mut out,
        epilogue: Epilogue { bias, kind },
        scratch,
    } = call;
    if rows == 0 {
        return;
    }
    let floats = Rows {
        values: x,
        stride: in_features,
        count: rows,
    };
    let x = t.activations(s, floats, in_features, scratch);
    let Range { start, end } = out.columns();
    let total = panel_count(end);
    let mut panel = start / LANES;
    while panel < total {
        let at_once = P::at_once::<S>(rows, total - panel);
        let first = panel * LANES;
        let count = (at_once * LANES).min(end - first);
        let part = first - start..first - start + count;
        let mut columns = Columns {
            columns: out.part(part.clone()),
            bias: bias.map(|bias| &bias[first..first + count]),
            combine: match kind {
                EpilogueKind::Add => Combine::Add,
                EpilogueKind::Multiply => Combine::Multiply,
                EpilogueKind::Store | EpilogueKind::Activation(_) => Combine::Replace,
            },
        };
        let (done, panels) = source.panels(s, panel, at_once, floats, &mut columns);
        if done < rows {
            let mut columns = columns.after(done);
            t.multiply(s, x.after(done), panels, at_once, in_features, &mut columns);
        }
        if let EpilogueKind::Activation(kind) = kind {
            for row in 0..rows {
                activation(s, kind, out.slice(row, part.start, count));
            }
        }
        panel += at_once;
    }
}
