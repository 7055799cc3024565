//! Self-attention of a layer.

use candle_core::{Result, Tensor};
use fewbit_checkpoint::Checkpoint;
use fewbit_model::{Catalogue, EncoderSpec, Module, Role};

use super::disentangled::{PositionProjections, ReachedPositions};
use super::missing_role;
use super::norm::NormModule;
use super::run::Run;
use crate::TrainError;
use crate::operations::rotary::rotate;

/// What makes queries, keys and values, and what becomes of them before they meet.
#[derive(Debug)]
pub(super) struct SelfAttention {
    projections: Projections,
    /// Of each head of the queries, and of the keys.
    query_norm: Option<NormModule>,
    key_norm: Option<NormModule>,
    /// Of relative positions, where attention is disentangled.
    positions: Option<PositionProjections>,
    /// Whether tokens attend to near ones only.
    is_local: bool,
}

/// The layers of queries, keys and values.
#[derive(Debug)]
enum Projections {
    /// One each.
    Separate([Module; 3]),
    /// One after the other in one matrix.
    Fused(Module),
    /// Head by head in one matrix, with biases of queries and values by these names.
    ByHead {
        module: Module,
        query_bias: String,
        value_bias: String,
    },
}

impl SelfAttention {
    pub(super) fn new(
        spec: &EncoderSpec,
        catalogue: &Catalogue,
        layer: usize,
        checkpoint: &Checkpoint,
    ) -> std::result::Result<Self, TrainError> {
        let of_layer = Some(layer);
        let optional = |role| catalogue.get(role, of_layer).cloned();
        let required = |role| optional(role).ok_or_else(|| missing_role(role, catalogue));
        let projections = if let Some(fused) = optional(Role::QueryKeyValue) {
            Projections::Fused(fused)
        } else if let Some(module) = optional(Role::QueryKeyValueByHead) {
            Projections::ByHead {
                module,
                query_bias: required(Role::QueryBias)?.name,
                value_bias: required(Role::ValueBias)?.name,
            }
        } else {
            let [query, key, value] = [Role::Query, Role::Key, Role::Value].map(required);
            Projections::Separate([query?, key?, value?])
        };
        let positions = spec.disentangled.map(|disentangled| {
            let tokens = match &projections {
                Projections::Separate([query, key, _]) => [Some(query), Some(key)],
                _ => [None, None],
            };
            PositionProjections::new(disentangled, catalogue, layer, tokens)
        });
        let norm = |role| NormModule::of_role(catalogue, role, of_layer, checkpoint);
        let local = spec.local_attention.as_ref();
        Ok(Self {
            projections,
            positions,
            query_norm: norm(Role::QueryNorm),
            key_norm: norm(Role::KeyNorm),
            is_local: local.is_some_and(|local| local.layers[layer]),
        })
    }

    /// The weighted values (tokens, heads * head_size) of what attention reads.
    pub(super) fn forward(
        &self,
        run: &Run<'_>,
        positions: Option<&ReachedPositions>,
        x: &Tensor,
    ) -> Result<Tensor> {
        let [query, key, value] = self.project(run, x)?;
        let prepared = |norm: &Option<NormModule>, rows: Tensor| {
            let rows = match norm {
                Some(norm) => {
                    let heads = rows.reshape(((), run.spec.head_size))?;
                    run.normalize(norm, &heads)?.reshape(rows.shape())?
                }
                None => rows,
            };
            match run.turns(self.is_local) {
                Some(turns) => rotate(&rows, turns, run.spec.head_size, run.kernels),
                None => Ok(rows),
            }
        };
        let query = prepared(&self.query_norm, query)?;
        let key = prepared(&self.key_norm, key)?;
        match (&self.positions, positions) {
            (Some(projections), Some(positions)) if !projections.is_empty() => {
                projections.attend(run, positions, [&query, &key, &value])
            }
            _ => run.attention(self.is_local).attend(&query, &key, &value),
        }
    }

    /// Queries, keys and values.
    fn project(&self, run: &Run<'_>, x: &Tensor) -> Result<[Tensor; 3]> {
        match &self.projections {
            Projections::Separate(modules) => {
                let [query, key, value] = modules;
                let rows = run.quantized(query, x)?;
                let product = |module: &Module| match run.reads_same_rows(query, module) {
                    true => run.product(module, &rows),
                    false => run.linear(module, x),
                };
                Ok([product(query)?, product(key)?, product(value)?])
            }
            Projections::Fused(module) => {
                let all = run.linear(module, x)?;
                let size = module.shape[0] / 3;
                let part = |index| all.narrow(1, index * size, size);
                Ok([part(0)?, part(1)?, part(2)?])
            }
            Projections::ByHead {
                module,
                query_bias,
                value_bias,
            } => {
                let size = run.spec.head_size;
                let all = run.linear(module, x)?;
                let all = all.reshape(((), run.spec.heads, 3, size))?;
                let part = |index| {
                    let heads = all.narrow(2, index, 1)?.contiguous()?;
                    heads.reshape(((), run.spec.heads * size))
                };
                Ok([
                    part(0)?.broadcast_add(run.parameter(query_bias)?)?,
                    part(1)?,
                    part(2)?.broadcast_add(run.parameter(value_bias)?)?,
                ])
            }
        }
    }
}
