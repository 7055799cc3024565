//! Attention of the sequences of a batch.

use super::softmax::{softmax_gradients, softmax_rows};
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
        }
        softmax_rows(scores, tokens, self.kernels);
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

    /// With P the weights of the values and g the gradient of the result, values get `Pᵀ g`, and scores what [`softmax_gradients`] makes of
    /// `g valuesᵀ`.
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
            softmax_gradients(&weights, &mut of_scores, tokens, self.scale);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::finite_differences::{assert_gradients, random};

    fn attention(heads: usize, key_value_heads: usize, lengths: &[usize]) -> Attention {
        let ends = lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        Attention {
            heads,
            key_value_heads,
            head_size: 3,
            scale: 0.7,
            offsets: std::iter::once(0).chain(ends).collect(),
            bias: None,
            kernels: Kernels::from_environment().expect("kernels"),
        }
    }

    fn inputs(attention: &Attention) -> [Tensor; 3] {
        let tokens = attention.offsets.last().copied().unwrap_or(0);
        [
            random(&[tokens, attention.columns()], 1),
            random(&[tokens, attention.key_columns()], 2),
            random(&[tokens, attention.key_columns()], 3),
        ]
    }

    fn assert_its_gradients(attention: &Attention) {
        assert_gradients(&inputs(attention), |inputs| {
            attention.clone().attend(&inputs[0], &inputs[1], &inputs[2])
        });
    }

    #[test]
    fn gradients_are_those_of_differences() {
        assert_its_gradients(&attention(2, 2, &[4, 1, 7]));
    }

    #[test]
    fn heads_that_share_keys_add_their_gradients() {
        assert_its_gradients(&attention(4, 2, &[3, 2]));
        assert_its_gradients(&attention(3, 1, &[4]));
    }

    /// A bias for each head and distance, which hides keys behind the query and those more than two before it.
    #[test]
    fn hidden_keys_have_no_gradient() {
        let (heads, longest) = (2, 5);
        let bias = |distance: isize, head: usize| match distance {
            -2..=0 => 0.3 * distance as f32 + head as f32,
            _ => f32::NEG_INFINITY,
        };
        let values =
            (0..heads).flat_map(|head| (1 - longest..longest).map(move |at| bias(at, head)));
        let attention = Attention {
            bias: Some(DistanceTable {
                values: values.collect(),
                head_stride: 2 * longest as usize - 1,
                center: longest as usize - 1,
            }),
            ..attention(heads, 2, &[5, 3])
        };
        assert_its_gradients(&attention);
        let [queries, keys, values] = inputs(&attention);
        let values = candle_core::Var::from_tensor(&values).expect("a variable");
        let attended = attention.attend(&queries, &keys, &values).expect("runs");
        let first = attended
            .narrow(0, 0, 2)
            .expect("rows")
            .sum_all()
            .expect("a sum");
        let gradients = first.backward().expect("gradients");
        let gradient = gradients.get(&values).expect("a gradient");
        let gradient = gradient.to_vec2::<f32>().expect("rows");
        assert!(gradient[1].iter().all(|x| *x != 0.0));
        assert!(gradient[2..].iter().flatten().all(|x| *x == 0.0));
    }

    #[test]
    fn rows_that_are_not_those_of_the_sequences_are_an_error() {
        let attention = attention(2, 2, &[4]);
        let [queries, keys, _] = inputs(&attention);
        let short = random(&[3, 6], 1);
        assert!(attention.attend(&queries, &keys, &short).is_err());
    }
}
