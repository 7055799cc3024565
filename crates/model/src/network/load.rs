//! From tensors to the parts of a network, keeping the ledger.

mod beside_layers;

use crate::catalogue::about_sizes;
use crate::embeddings::EmbeddingTable;
use crate::finite::check_tensor;
use crate::network::Network;
use crate::network::disentangled::LayerPositions;
use crate::network::encoder_layer::{EncoderLayer, LayerNorm};
use crate::network::head::TaskHead;
use crate::network::plan::{LayerPlan, NetworkPlan};
use crate::network::relative_bias::RelativeBias;
use crate::network::scratch::Pool;
use crate::network::thread_pools::ThreadPools;
use crate::network::window::Windows;
use crate::packed_linear::PackedLinear;
use crate::task_head::HeadSpec;
use crate::{
    Catalogue, EncoderSpec, LoadLedger, ModelError, Module, Role, WeightOnlyArithmetic,
    WeightSource,
};
use fewbit_checkpoint::{Checkpoint, CheckpointError, CheckpointErrorKind, StoredWeight};
use fewbit_kernels::Kernels;
use fewbit_numerics::finite::first_non_finite;
use std::collections::HashSet;
use std::ops::Range;

/// Takes the tensors of modules, and notes which.
pub(super) struct Loader<'c> {
    pub(super) checkpoint: &'c Checkpoint,
    weights: &'c dyn WeightSource,
    catalogue: Catalogue,
    /// Added to the weights of normalizations.
    weight_offset: f32,
    pub(super) kernels: &'static Kernels,
    pub(super) weight_only: WeightOnlyArithmetic,
    applied: HashSet<String>,
}

pub(crate) fn load(
    checkpoint: &Checkpoint,
    weights: &dyn WeightSource,
    spec: EncoderSpec,
    kernels: &'static Kernels,
    weight_only: WeightOnlyArithmetic,
) -> Result<(Network, LoadLedger), ModelError> {
    let (network, loader) = load_network(checkpoint, weights, spec, kernels, weight_only)?;
    Ok((network, loader.ledger()))
}

/// [`load`] with a task head, whose tensors are applied too.
pub(crate) fn load_with_head(
    checkpoint: &Checkpoint,
    weights: &dyn WeightSource,
    spec: EncoderSpec,
    head: &HeadSpec,
    kernels: &'static Kernels,
    weight_only: WeightOnlyArithmetic,
) -> Result<(Network, TaskHead, LoadLedger), ModelError> {
    let (network, mut loader) = load_network(checkpoint, weights, spec, kernels, weight_only)?;
    let head = loader.head(head)?;
    let ledger = LoadLedger {
        // A pooler that the head does not read is no part of its model class.
        missing: Vec::new(),
        ..loader.ledger()
    };
    Ok((network, head, ledger))
}

fn load_network<'c>(
    checkpoint: &'c Checkpoint,
    weights: &'c dyn WeightSource,
    spec: EncoderSpec,
    kernels: &'static Kernels,
    weight_only: WeightOnlyArithmetic,
) -> Result<(Network, Loader<'c>), ModelError> {
    let catalogue = spec.catalogue();
    catalogue.refuse_shared_names(&checkpoint.config_file())?;
    let mut loader = Loader {
        checkpoint,
        weights,
        catalogue,
        weight_offset: spec.norm.weight_offset,
        kernels,
        weight_only,
        applied: HashSet::new(),
    };
    let word_embeddings = loader.table(&loader.required(Role::WordEmbeddings, None)?)?;
    let position_embeddings = loader.optional_table(Role::PositionEmbeddings)?;
    let token_type_embeddings = loader.optional_table(Role::TokenTypeEmbeddings)?;
    let embeddings_norm = loader.optional_norm(Role::EmbeddingsNorm, None)?;
    let embeddings_projection = match loader.module(Role::EmbeddingsProjection, None) {
        None => None,
        Some(module) => Some(loader.linear(&module)?),
    };
    let relative_bias = match (
        spec.relative_attention,
        loader.module(Role::RelativeAttentionBias, None),
    ) {
        (Some(relative), Some(module)) => {
            let table = loader.stored_table(&module)?.dequantize(module.shape)?;
            Some(RelativeBias::new(relative, spec.heads, table))
        }
        _ => None,
    };
    let positions = loader.positions(&spec)?;
    let windows = Windows::new(&spec);
    let mut layers = (0..spec.layers)
        .map(|layer| loader.layer(&spec, layer, &windows))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(first) = layers.first_mut() {
        first.convolution = loader.convolution(&spec)?;
    }
    for layer in &mut layers {
        layer.project_positions(positions.as_ref(), kernels)?;
        layer.plan_anew();
    }
    let final_norm = loader.optional_norm(Role::FinalNorm, None)?;
    let linears: Vec<_> = layers.iter().flat_map(EncoderLayer::linears).collect();
    let network = Network {
        plan: NetworkPlan::of(&linears, embeddings_projection.as_ref(), kernels.isa()),
        kernels,
        word_embeddings,
        position_embeddings,
        token_type_embeddings,
        embeddings_norm,
        embeddings_projection,
        relative_bias,
        positions,
        layers,
        passes: spec.passes(),
        final_norm,
        block_scratch: Pool::default(),
        row_scratch: Pool::default(),
        thread_pools: ThreadPools::default(),
        spec,
    };
    Ok((network, loader))
}

impl<'c> Loader<'c> {
    fn module(&self, role: Role, layer: Option<usize>) -> Option<Module> {
        self.catalogue.get(role, layer).cloned()
    }

    pub(super) fn required(&self, role: Role, layer: Option<usize>) -> Result<Module, ModelError> {
        self.module(role, layer).ok_or_else(|| {
            ModelError::Input(format!(
                "{}: expected a module of the role {role:?}, found none\n  hint: the name table of this family lacks it",
                self.catalogue.model_type
            ))
        })
    }

    fn layer(
        &mut self,
        spec: &EncoderSpec,
        layer: usize,
        windows: &Windows,
    ) -> Result<EncoderLayer, ModelError> {
        let of_layer = Some(layer);
        let [query, key, value] = self.query_key_value(spec, of_layer)?;
        let [position_key, position_query] =
            [Role::PositionKey, Role::PositionQuery].map(|role| self.module(role, of_layer));
        let position_key = position_key
            .map(|module| self.linear(&module))
            .transpose()?;
        let position_query = position_query
            .map(|module| self.linear(&module))
            .transpose()?;
        let attention_output = self.linear(&self.required(Role::AttentionOutput, of_layer)?)?;
        let (intermediate, gate) = self.first_of_feed_forward(layer)?;
        let output = self.linear(&self.required(Role::Output, of_layer)?)?;
        let local = spec.local_attention.as_ref();
        let local = local.is_some_and(|local| local.layers[layer]);
        let window = windows.of_layer(local);
        let plan = LayerPlan::new(
            [&query, &key, &value],
            &intermediate,
            gate.as_ref(),
            &output,
            window.is_none(),
        );
        Ok(EncoderLayer {
            query,
            key,
            value,
            position_key,
            position_query,
            positions: LayerPositions::default(),
            attention_output,
            attention_norm: self.optional_norm(Role::AttentionNorm, of_layer)?,
            query_norm: self.optional_norm(Role::QueryNorm, of_layer)?,
            key_norm: self.optional_norm(Role::KeyNorm, of_layer)?,
            attention_output_norm: self.optional_norm(Role::AttentionOutputNorm, of_layer)?,
            output_norm: self.optional_norm(Role::OutputNorm, of_layer)?,
            feed_forward_norm: self.norm(&self.required(Role::FeedForwardNorm, of_layer)?)?,
            intermediate,
            gate,
            output,
            convolution: None,
            local,
            window,
            plan,
        })
    }

    /// The layers of queries, keys and values.
    fn query_key_value(
        &mut self,
        spec: &EncoderSpec,
        layer: Option<usize>,
    ) -> Result<[PackedLinear; 3], ModelError> {
        if let Some(fused) = self.module(Role::QueryKeyValue, layer) {
            return self.fused(&fused);
        }
        if let Some(fused) = self.module(Role::QueryKeyValueByHead, layer) {
            let columns = spec.query_columns();
            let mut bias = |role| {
                let name = self.required(role, layer)?.name;
                self.vector(&name, columns)
            };
            let (query, value) = (bias(Role::QueryBias)?, bias(Role::ValueBias)?);
            let bias = [query, vec![0.0; columns], value].concat();
            let size = spec.head_size;
            let stored = self.weight_of(&fused)?;
            return self.parts(&fused, stored, &bias, |part| {
                let head = |head| (3 * head + part) * size..(3 * head + part + 1) * size;
                (0..spec.heads).map(head).collect()
            });
        }
        let mut linear = |role| self.linear(&self.required(role, layer)?);
        Ok([
            linear(Role::Query)?,
            linear(Role::Key)?,
            linear(Role::Value)?,
        ])
    }

    /// The first linear layer of the feed-forward, and the gate if there is one.
    fn first_of_feed_forward(
        &mut self,
        layer: usize,
    ) -> Result<(PackedLinear, Option<PackedLinear>), ModelError> {
        let of_layer = Some(layer);
        if let Some(fused) = self.module(Role::GatedIntermediate, of_layer) {
            let [intermediate, gate] = self.fused(&fused)?;
            return Ok((intermediate, Some(gate)));
        }
        if let Some(fused) = self.module(Role::GateAndIntermediate, of_layer) {
            let [gate, intermediate] = self.fused(&fused)?;
            return Ok((intermediate, Some(gate)));
        }
        let intermediate = self.linear(&self.required(Role::Intermediate, of_layer)?)?;
        let gate = self.module(Role::Gate, of_layer);
        let gate = gate.map(|module| self.linear(&module)).transpose()?;
        Ok((intermediate, gate))
    }

    pub(super) fn linear(&mut self, module: &Module) -> Result<PackedLinear, ModelError> {
        let [linear] = self.fused(module)?;
        Ok(linear)
    }

    /// The linear layers that are packed into a module, of which each has an equal part of the outputs.
    fn fused<const N: usize>(&mut self, module: &Module) -> Result<[PackedLinear; N], ModelError> {
        let [out, _] = module.shape;
        let stored = self.weight_of(module)?;
        let bias = match module.bias {
            true => self.vector(&format!("{}.bias", module.name), out)?,
            false => vec![0.0; out],
        };
        let size = out / N;
        let part = |index: usize| std::iter::once(index * size..(index + 1) * size).collect();
        self.parts(module, stored, &bias, part)
    }

    /// The weight of a module, noted as applied.
    fn weight_of(&mut self, module: &Module) -> Result<StoredWeight<'c>, ModelError> {
        let stored = match self.replaced(module)? {
            Some(stored) => stored,
            None => module.stored_weight(self.checkpoint)?,
        };
        self.take_weight(&module.name, &stored)?;
        Ok(stored)
    }

    /// The linear layers that are packed into a module, of which each has as many outputs, in the rows that `rows_of` says of its number; `bias`
    /// has those of one after the other.
    fn parts<const N: usize>(
        &mut self,
        module: &Module,
        stored: StoredWeight<'c>,
        bias: &[f32],
        rows_of: impl Fn(usize) -> Vec<Range<usize>>,
    ) -> Result<[PackedLinear; N], ModelError> {
        let [out, inside] = module.shape;
        let size = out / N;
        let weights = if N == 1 {
            vec![stored]
        } else {
            let part = |index| stored.joined_rows(&rows_of(index), inside);
            (0..N).map(part).collect::<Result<_, _>>()?
        };
        let parts = weights
            .into_iter()
            .zip(bias.chunks(size.max(1)))
            .zip(&module.sites);
        let linears = parts.map(|((weight, bias), site)| {
            self.packed(
                site.clone(),
                &module.name,
                weight,
                bias.to_vec(),
                [size, inside],
            )
        });
        let linears = linears.collect::<Result<Vec<_>, _>>();
        self.release(&module.name);
        Ok(linears?
            .try_into()
            .unwrap_or_else(|_| panic!("a site for each of {N} layers")))
    }

    /// The linear layer with the weight of `module`, or a part of it; errors name the weight's file.
    pub(super) fn packed(
        &self,
        site: String,
        module: &str,
        weight: StoredWeight<'_>,
        bias: Vec<f32>,
        shape: [usize; 2],
    ) -> Result<PackedLinear, ModelError> {
        let (kernels, weight_only) = (self.kernels, self.weight_only);
        let linear = PackedLinear::new(site, module, weight, bias, shape, kernels, weight_only);
        Ok(linear.map_err(
            |error| match self.checkpoint.get(&format!("{module}.weight")) {
                Some(view) => error.in_file(view.info.file.clone()),
                None => error,
            },
        )?)
    }

    /// The weight that takes the place of the checkpoint's.
    fn replaced(&self, module: &Module) -> Result<Option<StoredWeight<'c>>, ModelError> {
        let Some(stored) = self.weights.weight(module)? else {
            return Ok(None);
        };
        let name = format!("{}.weight", module.name);
        let in_place = |error: CheckpointError| error.at_tensor(&name);
        stored.expect_shape(module.shape).map_err(in_place)?;
        if let StoredWeight::FloatBytes { .. } = stored
            && let Some((index, value)) = first_non_finite(&stored.dequantize(module.shape)?)
        {
            let message = format!("element {index}: expected a finite number, found {value}");
            return Err(in_place(CheckpointError::new(
                CheckpointErrorKind::NonFinite,
                message,
            ))
            .into());
        }
        Ok(Some(stored))
    }

    fn optional_table(&mut self, role: Role) -> Result<Option<EmbeddingTable>, ModelError> {
        match self.module(role, None) {
            None => Ok(None),
            Some(module) => Ok(Some(self.table(&module)?)),
        }
    }

    fn table(&mut self, module: &Module) -> Result<EmbeddingTable, ModelError> {
        let stored = self.stored_table(module)?;
        let mapped = match &stored {
            StoredWeight::Float(view) => self.checkpoint.mapped(&view.info.name),
            _ => None,
        };
        let table = EmbeddingTable::new(stored, mapped, module.shape)?;
        self.release(&module.name);
        Ok(table)
    }

    /// A table that is looked up.
    pub(super) fn stored_table(&mut self, module: &Module) -> Result<StoredWeight<'c>, ModelError> {
        if let Some(stored) = self.replaced(module)? {
            self.take_weight(&module.name, &stored)?;
            return Ok(stored);
        }
        let stored = module.stored_table(self.checkpoint)?;
        self.take_weight(&module.name, &stored)?;
        Ok(stored)
    }

    fn optional_norm(
        &mut self,
        role: Role,
        layer: Option<usize>,
    ) -> Result<Option<LayerNorm>, ModelError> {
        let module = self.module(role, layer);
        module.map(|module| self.norm(&module)).transpose()
    }

    pub(super) fn norm(&mut self, module: &Module) -> Result<LayerNorm, ModelError> {
        let (size, offset) = (module.shape[1], self.weight_offset);
        let [weight, bias] = module.norm_tensors(self.checkpoint);
        let weights = self.vector(&weight, size)?;
        Ok(LayerNorm {
            gamma: weights.into_iter().map(|weight| weight + offset).collect(),
            beta: match module.bias {
                true => self.vector(&bias, size)?,
                false => vec![0.0; size],
            },
            site: module.sites.concat(),
        })
    }

    pub(super) fn vector(&mut self, name: &str, size: usize) -> Result<Vec<f32>, ModelError> {
        let view = self.checkpoint.require(name)?;
        view.expect_shape(&[size]).map_err(about_sizes)?;
        let mut values = vec![0.0; size];
        view.read_finite_range(0, &mut values)?;
        self.applied.insert(name.to_owned());
        Ok(values)
    }

    /// Notes the tensors of a weight, and errors if a float one holds NaN or infinity (scales have been checked).
    ///
    /// A float weight is one tensor; of a quantized one, every tensor that any form could consist of counts as applied.
    fn take_weight(&mut self, module: &str, stored: &StoredWeight<'_>) -> Result<(), ModelError> {
        if let StoredWeight::Float(view) = stored {
            self.applied.insert(view.info.name.clone());
            check_tensor(view, self.checkpoint.mapped(&view.info.name).as_ref())?;
        } else {
            self.applied
                .extend(self.checkpoint.weight_tensor_names(module));
        }
        Ok(())
    }

    /// Releases the memory of the checkpoint's weight of `module`, which has been copied.
    pub(super) fn release(&self, module: &str) {
        for tensor in self.checkpoint.weight_tensor_names(module) {
            self.checkpoint.release(&tensor);
        }
    }

    /// The pooler's tensors that the checkpoint lacks.
    fn missing(&self) -> Vec<String> {
        let Some(Module { name: module, .. }) = self.module(Role::Pooler, None) else {
            return Vec::new();
        };
        let (weight, bias) = (format!("{module}.weight"), format!("{module}.bias"));
        let mut missing = Vec::new();
        // A quantized weight may have parts and no tensor of its own.
        if self.checkpoint.weight_tensor_names(&module).is_empty() {
            missing.push(weight);
        }
        if !self.checkpoint.contains(&bias) {
            missing.push(bias);
        }
        missing
    }

    fn ledger(mut self) -> LoadLedger {
        let mut ledger = LoadLedger {
            missing: self.missing(),
            ..LoadLedger::default()
        };
        for tensor in self.checkpoint.tensors() {
            if self.applied.remove(&tensor.name) {
                ledger.applied.push(tensor.name.clone());
            } else {
                ledger.unused.push((
                    tensor.name.clone(),
                    self.catalogue.reason_unused(&tensor.name),
                ));
            }
        }
        ledger
    }
}
