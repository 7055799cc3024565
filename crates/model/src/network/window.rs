//! Attention to near tokens only.

use fewbit_kernels::DistanceBias;
use std::ops::Range;

/// Queries that see the same keys, of which the window hides some. Where they begin is fixed, so that a token's sums are the same however
/// the tokens of a sequence come to threads.
const TILE: usize = 64;

/// The tokens within a distance of a query.
pub(super) struct Window {
    distance: usize,
    /// 0 for the distances of the window, minus infinity for others: `-center..=center`.
    bias: Vec<f32>,
}

/// Queries of one sequence, and the keys that they see together.
#[derive(Debug, PartialEq)]
pub(super) struct Tile {
    pub(super) queries: Range<usize>,
    pub(super) keys: Range<usize>,
}

impl Window {
    pub(super) fn new(distance: usize) -> Self {
        let center = TILE + 2 * distance;
        let hidden = |place: usize| place.abs_diff(center) > distance;
        let of_place = |place| {
            if hidden(place) {
                f32::NEG_INFINITY
            } else {
                0.0
            }
        };
        Self {
            distance,
            bias: (0..=2 * center).map(of_place).collect(),
        }
    }

    /// Cuts queries of a sequence of `tokens` tokens.
    pub(super) fn tiles(&self, queries: Range<usize>, tokens: usize) -> impl Iterator<Item = Tile> {
        let tiles = queries.start / TILE..queries.end.div_ceil(TILE);
        tiles.map(move |tile| {
            let (start, end) = (tile * TILE, (tile + 1) * TILE);
            Tile {
                queries: start.max(queries.start)..end.min(queries.end),
                keys: start.saturating_sub(self.distance)..(end + self.distance).min(tokens),
            }
        })
    }

    /// Hides the keys of a tile that are too far from a query.
    pub(super) fn bias(&self) -> DistanceBias<'_> {
        DistanceBias {
            values: &self.bias,
            head_stride: 0,
            center: TILE + 2 * self.distance,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_hold_every_key_of_the_window() {
        let window = Window::new(5);
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
                                let near = query.abs_diff(key) <= 5;
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
        let window = Window::new(9);
        let all: Vec<_> = window.tiles(0..300, 300).map(|tile| tile.keys).collect();
        for query in 0..300 {
            let tile = window.tiles(query..query + 1, 300).next().unwrap();
            assert_eq!(tile.keys, all[query / TILE]);
        }
    }
}
