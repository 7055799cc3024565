//! Scores between tokens and relative positions: see [`DisentangledAttention`].

use candle_core::{Device, Result, Tensor};
use fewbit_checkpoint::Checkpoint;
use fewbit_model::spec::DisentangledAttention;
use fewbit_model::{Catalogue, EncoderSpec, Module, Role};

use super::norm::NormModule;
use super::run::Run;
use crate::TrainError;
use crate::operations::softmax::softmax;

/// The table of relative positions, which all layers share.
#[derive(Debug)]
pub(super) struct PositionTable {
    disentangled: DisentangledAttention,
    /// (2 * span, hidden_size)
    rows: Tensor,
    norm: Option<NormModule>,
}

/// The rows of the table that the sequences of a batch reach, normalized where the model has it so.
pub(super) struct ReachedPositions {
    disentangled: DisentangledAttention,
    /// The row of the table that comes first.
    first: u32,
    /// (rows, hidden_size)
    rows: Tensor,
}

/// What makes keys and queries of positions in a layer, where it has them.
#[derive(Debug)]
pub(super) struct PositionProjections {
    key: Option<Module>,
    query: Option<Module>,
}

impl PositionTable {
    /// The table of a model whose attention is disentangled.
    pub(super) fn read(
        spec: &EncoderSpec,
        catalogue: &Catalogue,
        checkpoint: &Checkpoint,
    ) -> std::result::Result<Option<Self>, TrainError> {
        let module = catalogue.get(Role::RelativePositions, None);
        let (Some(disentangled), Some(module)) = (spec.disentangled, module) else {
            return Ok(None);
        };
        let rows = module.stored_table(checkpoint)?.dequantize(module.shape)?;
        let [count, columns] = module.shape;
        Ok(Some(Self {
            disentangled,
            rows: Tensor::from_vec(rows, (count, columns), &Device::Cpu)?,
            norm: NormModule::of_role(catalogue, Role::RelativePositionsNorm, None, checkpoint),
        }))
    }

    /// The rows that sequences of at most `tokens` tokens reach.
    pub(super) fn reached(&self, run: &Run<'_>, tokens: usize) -> Result<ReachedPositions> {
        let farthest = tokens as i64 - 1;
        let [first, last] =
            [-farthest, farthest].map(|distance| self.disentangled.stored_row(distance));
        let rows = self
            .rows
            .narrow(0, first as usize, (last - first) as usize + 1)?;
        let rows = match &self.norm {
            Some(norm) => run.normalize(norm, &rows)?,
            None => rows,
        };
        Ok(ReachedPositions {
            disentangled: self.disentangled,
            first,
            rows,
        })
    }
}

impl PositionProjections {
    /// Of a layer whose tokens are projected by `tokens`, queries and keys.
    pub(super) fn new(
        disentangled: DisentangledAttention,
        catalogue: &Catalogue,
        layer: usize,
        tokens: [Option<&Module>; 2],
    ) -> Self {
        let [query, key] = match disentangled.shared_projections {
            true => tokens.map(|module| module.cloned()),
            false => [Role::PositionQuery, Role::PositionKey]
                .map(|role| catalogue.get(role, Some(layer)).cloned()),
        };
        Self {
            key: key.filter(|_| disentangled.content_to_position),
            query: query.filter(|_| disentangled.position_to_content),
        }
    }

    /// Whether a layer has neither.
    pub(super) fn is_empty(&self) -> bool {
        self.key.is_none() && self.query.is_none()
    }

    /// The weighted values (tokens, heads * head_size) of queries, keys and values of these.
    pub(super) fn attend(
        &self,
        run: &Run<'_>,
        positions: &ReachedPositions,
        [query, key, value]: [&Tensor; 3],
    ) -> Result<Tensor> {
        let projected = |module: &Option<Module>| {
            let Some(module) = module else {
                return Ok(None);
            };
            let rows = run.linear(module, &positions.rows)?;
            let count = positions.rows.dim(0)?;
            Ok::<_, candle_core::Error>(Some(heads_of(run, &rows, 0, count)?))
        };
        let (position_keys, position_queries) = (projected(&self.key)?, projected(&self.query)?);
        let heads = run.spec.heads;
        let sequences = run.sequences().map(|range| {
            let (start, tokens) = (range.start, range.len());
            let query = heads_of(run, query, start, tokens)?;
            let key = heads_of(run, key, start, tokens)?;
            let value = heads_of(run, value, start, tokens)?;
            let mut scores = query.matmul(&key.t()?)?;
            if let Some(positions_of_keys) = &position_keys {
                let products = query.matmul(&positions_of_keys.t()?)?;
                let rows = positions.rows_of_pairs(tokens, heads, |query, key| query - key)?;
                scores = (scores + products.gather(&rows, 2)?)?;
            }
            if let Some(positions_of_queries) = &position_queries {
                let products = key.matmul(&positions_of_queries.t()?)?;
                let rows = positions.rows_of_pairs(tokens, heads, |key, query| query - key)?;
                scores = (scores + products.gather(&rows, 2)?.t()?)?;
            }
            let weights = softmax(&(scores * f64::from(run.spec.score_scale))?, run.kernels)?;
            let context = weights.matmul(&value)?.transpose(0, 1)?.contiguous()?;
            context.reshape((tokens, run.spec.query_columns()))
        });
        Tensor::cat(&sequences.collect::<Result<Vec<_>>>()?, 0)
    }
}

impl ReachedPositions {
    /// For each head and pair of tokens, the row of the distance that `distance` says (query - key): (heads, tokens, tokens).
    fn rows_of_pairs(
        &self,
        tokens: usize,
        heads: usize,
        distance: impl Fn(i64, i64) -> i64,
    ) -> Result<Tensor> {
        let tokens_of = || 0..tokens as i64;
        let row = |distance| self.disentangled.stored_row(distance) - self.first;
        let pairs = tokens_of().flat_map(|first| tokens_of().map(move |second| (first, second)));
        let rows: Vec<u32> = pairs
            .map(|(first, second)| row(distance(first, second)))
            .collect();
        Tensor::from_vec(rows.repeat(heads), (heads, tokens, tokens), &Device::Cpu)
    }
}

/// The heads of some rows, (heads, rows, head_size).
fn heads_of(run: &Run<'_>, rows: &Tensor, start: usize, count: usize) -> Result<Tensor> {
    let rows = rows.narrow(0, start, count)?;
    let rows = rows.reshape((count, run.spec.heads, run.spec.head_size))?;
    rows.transpose(0, 1)?.contiguous()
}
