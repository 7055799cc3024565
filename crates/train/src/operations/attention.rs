//! Attention of the sequences of a batch.

use super::exponentials::exponentials_of_halves;
use super::values::{slice, values};
use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Tensor};
use fewbit_kernels::{AttentionInput, DistanceBias, Kernels, Workspace};
use std::sync::Arc;

/// What attention computes of queries, keys and values.
#[derive(Clone)]
pub(crate) struct Attention {
    /// Heads of the queries.
    pub(crate) heads: usize,
    /// Heads of keys and values, which divide those.
    pub(crate) key_value_heads: usize,
    /// Columns of a head.
    pub(crate) head_size: usize,
    /// Multiplies scores.
    pub(crate) scale: f32,
    /// Sequence i is the rows `offsets[i]..offsets[i + 1]`.
    pub(crate) offsets: Arc<[usize]>,
    /// Added to the scaled scores.
    pub(crate) bias: Option<DistanceTable>,
    /// Whose attention runs forward.
    pub(crate) kernels: &'static Kernels,
}

/// Numbers for distances between keys and queries, as [`DistanceBias`] has them. Minus infinity hides a key.
#[derive(Clone)]
pub(crate) struct DistanceTable {
    /// Head after head, distances ascending.
    pub(crate) values: Arc<[f32]>,
    /// From one head to the next; 0: all have the same.
    pub(crate) head_stride: usize,
    /// The element of distance 0.
    pub(crate) center: usize,
}

impl DistanceTable {
    fn of_all(&self) -> DistanceBias<'_> {
        DistanceBias {
            values: &self.values,
            head_stride: self.head_stride,
            center: self.center,
        }
    }

    /// The biases of the keys `0..tokens` for one query.
    fn of_query(&self, head: usize, query: usize, tokens: usize) -> &[f32] {
        &self.values[head * self.head_stride + self.center - query..][..tokens]
    }
}

impl Attention {
    /// `softmax(scale * queries keysᵀ + bias) values` of each head and sequence: queries (tokens, heads * head_size), keys and values (tokens,
    /// key_value_heads * head_size) -> (tokens, heads * head_size).
    ///
    /// # Errors
    /// Shapes that do not fit together.
    pub(crate) fn attend(self, queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
        queries
            .contiguous()?
            .apply_op3(&keys.contiguous()?, &values.contiguous()?, self)
    }

    fn columns(&self) -> usize {
        self.heads * self.head_size
    }

    fn key_columns(&self) -> usize {
        self.key_value_heads * self.head_size
    }

    /// The heads of the rows of a sequence, (heads, tokens, head_size); those of keys and values as often as queries share them.
    fn heads_of(&self, rows: &Tensor, start: usize, tokens: usize) -> Result<Tensor> {
        let (_, columns) = rows.dims2()?;
        let heads = columns / self.head_size.max(1);
        let rows = rows.detach().narrow(0, start, tokens)?;
        let rows = rows.reshape((tokens, heads, self.head_size))?;
        let rows = rows.transpose(0, 1)?;
        if heads == self.heads {
            return Ok(rows);
        }
        let group = self.heads / heads;
        let shape = (heads, group, tokens, self.head_size);
        let rows = rows.unsqueeze(1)?.broadcast_as(shape)?;
        rows.reshape((self.heads, tokens, self.head_size))
    }

    /// Adds `of_heads` (heads, tokens, head_size) to the rows of a sequence in `out` (all tokens, columns), which may have fewer heads.
    fn add_heads(
        &self,
        of_heads: &Tensor,
        start: usize,
        out: &mut [f32],
        columns: usize,
    ) -> Result<()> {
        let (heads, tokens, size) = of_heads.dims3()?;
        let group = heads * size / columns.max(1);
        let of_heads = of_heads.contiguous()?;
        let numbers = values(&of_heads)?;
        for (head, rows) in numbers.chunks_exact((tokens * size).max(1)).enumerate() {
            let first = head / group.max(1) * size;
            let out = out[start * columns..].chunks_exact_mut(columns);
            for (row, out) in rows.chunks_exact(size).zip(out) {
                let out = &mut out[first..first + size];
                out.iter_mut().zip(row).for_each(|(out, x)| *out += x);
            }
        }
        Ok(())
    }

    /// Scores (heads, tokens, tokens) become the weights of the values.
    fn softmax(&self, scores: &mut [f32], tokens: usize) {
        let rows = scores.chunks_exact_mut(tokens.max(1)).enumerate();
        for (index, row) in rows {
            let (head, query) = (index / tokens, index % tokens);
            match &self.bias {
                Some(bias) => {
                    let bias = bias.of_query(head, query, tokens);
                    let row = row.iter_mut().zip(bias);
                    row.for_each(|(score, bias)| *score = *score * self.scale + bias);
                }
                None => row.iter_mut().for_each(|score| *score *= self.scale),
            }
            let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let halve = |score: &mut f32| *score = 0.5 * (*score - greatest);
            row.iter_mut().for_each(halve);
        }
        exponentials_of_halves(scores, self.kernels);
        for row in scores.chunks_exact_mut(tokens.max(1)) {
            let inverse = 1.0 / row.iter().sum::<f32>();
            row.iter_mut().for_each(|weight| *weight *= inverse);
        }
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        queries: &CpuStorage,
        query_layout: &Layout,
        keys: &CpuStorage,
        key_layout: &Layout,
        values: &CpuStorage,
        value_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (columns, key_columns) = (self.columns(), self.key_columns());
        let tokens = self.offsets.last().copied().unwrap_or(0);
        for (layout, columns) in [
            (query_layout, columns),
            (key_layout, key_columns),
            (value_layout, key_columns),
        ] {
            let found = layout.shape().dims2()?;
            if found != (tokens, columns) {
                candle_core::bail!(
                    "rows of attention: expected {tokens} of {columns}, found {found:?}"
                );
            }
        }
        let queries = slice(queries, query_layout)?;
        let keys = slice(keys, key_layout)?;
        let values = slice(values, value_layout)?;
        let mut out = vec![0.0; tokens * columns];
        let mut workspace = Workspace::new();
        for pair in self.offsets.windows(2) {
            let (start, end) = (pair[0], pair[1]);
            let of_keys = start * key_columns..end * key_columns;
            let input = AttentionInput {
                queries: &queries[start * columns..end * columns],
                query_tokens: 0..end - start,
                keys: &keys[of_keys.clone()],
                values: &values[of_keys],
                row_stride: columns,
                key_row_stride: key_columns,
                tokens: end - start,
                heads: self.heads,
                key_value_heads: self.key_value_heads,
                head_size: self.head_size,
                scale: self.scale,
                bias: self.bias.as_ref().map(DistanceTable::of_all),
                positions: None,
            };
            let out = &mut out[start * columns..end * columns];
            self.kernels.attention(&input, out, &mut workspace);
        }
        Ok((CpuStorage::F32(out), (tokens, columns).into()))
    }

    /// With P the weights of the values and g the gradient of the result, values get `Pᵀ g`, and scores `P * (g valuesᵀ - sums of P * g valuesᵀ)`.
    fn bwd(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        values_of_keys: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let mut of_queries = vec![0.0; queries.elem_count()];
        let mut of_keys = vec![0.0; keys.elem_count()];
        let mut of_values = vec![0.0; values_of_keys.elem_count()];
        for pair in self.offsets.windows(2) {
            let (start, tokens) = (pair[0], pair[1] - pair[0]);
            let query = self.heads_of(queries, start, tokens)?;
            let key = self.heads_of(keys, start, tokens)?;
            let value = self.heads_of(values_of_keys, start, tokens)?;
            let gradient = self.heads_of(&gradient, start, tokens)?;
            let mut weights = values(&query.matmul(&key.t()?)?)?.to_vec();
            self.softmax(&mut weights, tokens);
            let mut of_scores = values(&gradient.matmul(&value.t()?)?)?.to_vec();
            let rows = of_scores
                .chunks_exact_mut(tokens)
                .zip(weights.chunks_exact(tokens));
            for (of_scores, weights) in rows {
                let products = of_scores.iter().zip(weights).map(|(x, weight)| x * weight);
                let sum = products.sum::<f32>();
                for (x, weight) in of_scores.iter_mut().zip(weights) {
                    *x = (*x - sum) * weight * self.scale;
                }
            }
            let shape = (self.heads, tokens, tokens);
            let weights = Tensor::from_vec(weights, shape, &Device::Cpu)?;
            let of_scores = Tensor::from_vec(of_scores, shape, &Device::Cpu)?;
            let (columns, key_columns) = (self.columns(), self.key_columns());
            let product = of_scores.matmul(&key)?;
            self.add_heads(&product, start, &mut of_queries, columns)?;
            let product = of_scores.t()?.matmul(&query)?;
            self.add_heads(&product, start, &mut of_keys, key_columns)?;
            let product = weights.t()?.matmul(&gradient)?;
            self.add_heads(&product, start, &mut of_values, key_columns)?;
        }
        let tensor = |numbers, like: &Tensor| Tensor::from_vec(numbers, like.shape(), &Device::Cpu);
        Ok((
            Some(tensor(of_queries, queries)?),
            Some(tensor(of_keys, keys)?),
            Some(tensor(of_values, values_of_keys)?),
        ))
    }
}
