//! Attention to near tokens only, or to earlier ones.

use crate::EncoderSpec;
use fewbit_kernels::DistanceBias;
use std::ops::Range;
use std::sync::Arc;

/// Queries that see the same keys, of which the window hides some. Where they begin is fixed, so that a token's sums are the same however
/// the tokens of a sequence come to threads.
const TILE: usize = 64;

/// The tokens within some distances of a query.
pub(super) struct Window {
    /// How far before a query a key may be.
    before: usize,
    /// How far behind it.
    after: usize,
    /// 0 for the distances of the window, minus infinity for others, from `-center` on.
    bias: Vec<f32>,
}

/// The windows of a model's layers.
pub(super) struct Windows {
    global: Option<Arc<Window>>,
    local: Option<Arc<Window>>,
}

impl Windows {
    pub(super) fn new(spec: &EncoderSpec) -> Self {
        let window = |distance| {
            Arc::new(Window::new(
                distance,
                if spec.causal { 0 } else { distance },
            ))
        };
        let local = spec.local_attention.as_ref();
        Self {
            global: spec.causal.then(|| window(spec.positions.max_tokens())),
            local: local.map(|local| window(local.distance.min(spec.positions.max_tokens()))),
        }
    }

    /// Of a layer that attends to near tokens, or of one that attends to all (but, with causal attention, to none behind a query).
    pub(super) fn of_layer(&self, is_local: bool) -> Option<Arc<Window>> {
        match is_local {
            true => self.local.clone(),
            false => self.global.clone(),
        }
    }
}

/// Queries of one sequence, and the keys that they see together.
#[derive(Debug, PartialEq)]
pub(super) struct Tile {
    pub(super) queries: Range<usize>,
    pub(super) keys: Range<usize>,
}

impl Window {
    pub(super) fn new(before: usize, after: usize) -> Self {
        let center = TILE + before;
        let seen = center - before..=center + after;
        let of_place = |place| match seen.contains(&place) {
            true => 0.0,
            false => f32::NEG_INFINITY,
        };
        Self {
            before,
            after,
            bias: (0..center + TILE + after).map(of_place).collect(),
        }
    }

    /// Cuts queries of a sequence of `tokens` tokens.
    pub(super) fn tiles(&self, queries: Range<usize>, tokens: usize) -> impl Iterator<Item = Tile> {
        let tiles = queries.start / TILE..queries.end.div_ceil(TILE);
        tiles.map(move |tile| {
            let (start, end) = (tile * TILE, (tile + 1) * TILE);
            Tile {
                queries: start.max(queries.start)..end.min(queries.end),
                keys: start.saturating_sub(self.before)..(end + self.after).min(tokens),
            }
        })
    }

    /// Hides the keys of a tile that are too far from a query.
    pub(super) fn bias(&self) -> DistanceBias<'_> {
        DistanceBias {
            values: &self.bias,
            head_stride: 0,
            center: TILE + self.before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_hold_every_key_of_the_window() {
        for (before, after) in [(5, 5), (5, 0), (200, 0)] {
            check_window(before, after);
        }
    }

    fn check_window(before: usize, after: usize) {
        let window = Window::new(before, after);
        for tokens in [1, 6, 64, 65, 200] {
            for start in [0, 3, 64, 150] {
                for end in [start, start + 1, start + 70, tokens] {
                    let queries = start.min(tokens)..end.min(tokens);
                    let tiles: Vec<_> = window.tiles(queries.clone(), tokens).collect();
                    let covered = tiles.iter().flat_map(|tile| tile.queries.clone());
                    assert!(covered.eq(queries));
                    for Tile { queries, keys } in tiles {
                        for query in queries {
                            for key in 0..tokens {
                                let near = query <= key + before && key <= query + after;
                                let seen = keys.contains(&key) && {
                                    let bias = window.bias();
                                    let (query, key) = (query - keys.start, key - keys.start);
                                    bias.values[bias.center + key - query] == 0.0
                                };
                                assert_eq!(seen, near, "{query} {key}");
                            }
                        }
                    }
                }
            }
        }
    }

    /// A part of a tile sees the same keys as the whole.
    #[test]
    fn keys_do_not_depend_on_how_queries_are_cut() {
        let window = Window::new(9, 9);
        let all: Vec<_> = window.tiles(0..300, 300).map(|tile| tile.keys).collect();
        for query in 0..300 {
            let tile = window.tiles(query..query + 1, 300).next().unwrap();
            assert_eq!(tile.keys, all[query / TILE]);
        }
    }
}
