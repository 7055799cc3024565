//! From tensors to the parts of a network, keeping the ledger.

use crate::embeddings::EmbeddingTable;
use crate::finite::check_tensor;
use crate::linear::Linear;
use crate::network::{
    EncoderLayer, LayerNorm, Network, Pool, RelativeBias, ThreadPools, arithmetic, chunk_rows,
};
use crate::spec::{LayerLinear, LinearModule, about_sizes};
use crate::{EncoderSpec, LoadLedger, ModelError, WeightOnlyArithmetic, tap};
use fewbit_checkpoint::{Checkpoint, StoredWeight};
use fewbit_kernels::Kernels;
use std::collections::HashSet;

struct Loader<'c> {
    checkpoint: &'c Checkpoint,
    spec: &'c EncoderSpec,
    kernels: &'static Kernels,
    weight_only: WeightOnlyArithmetic,
    applied: HashSet<String>,
}

pub(crate) fn load(
    checkpoint: &Checkpoint,
    spec: EncoderSpec,
    kernels: &'static Kernels,
    weight_only: WeightOnlyArithmetic,
) -> Result<(Network, LoadLedger), ModelError> {
    let mut loader = Loader {
        checkpoint,
        spec: &spec,
        kernels,
        weight_only,
        applied: HashSet::new(),
    };
    let names = &spec.names;
    let embedding_table = |loader: &mut Loader<'_>, path: &str, rows: usize| {
        loader.table(&LinearModule {
            name: spec.module(path),
            shape: [rows, spec.embedding_size],
        })
    };
    let word_embeddings = loader.table(&spec.word_embeddings())?;
    let position_embeddings =
        embedding_table(&mut loader, names.position_embeddings, spec.positions.count)?;
    let token_type_embeddings = match spec.token_types {
        0 => None,
        rows => Some(embedding_table(
            &mut loader,
            names.token_type_embeddings,
            rows,
        )?),
    };
    let embeddings_norm = loader.norm(
        &spec.module(names.embeddings_norm),
        tap::EMBEDDINGS_NORM.to_owned(),
        spec.embedding_size,
    )?;
    let embeddings_projection = match spec.embeddings_projection() {
        None => None,
        Some(module) => Some(loader.linear(&module, tap::EMBEDDINGS_PROJECTION.to_owned())?),
    };
    let relative_bias = match spec.relative_attention {
        None => None,
        Some(relative) => {
            let module = LinearModule {
                name: spec.module(names.relative_attention_bias),
                shape: [relative.rows, spec.heads],
            };
            let table = loader.stored_table(&module)?.dequantize(module.shape)?;
            Some(RelativeBias::new(relative, spec.heads, table))
        }
    };
    let layers = (0..spec.layers)
        .map(|layer| loader.layer(layer))
        .collect::<Result<Vec<_>, _>>()?;
    let ledger = loader.ledger();
    let linears = layers.iter().flat_map(EncoderLayer::linears);
    let reads_whole_texts = linears
        .chain(embeddings_projection.as_ref())
        .any(Linear::reads_whole_texts);
    let chunk_rows = chunk_rows(arithmetic(&layers), kernels.isa());
    let network = Network {
        kernels,
        word_embeddings,
        position_embeddings,
        token_type_embeddings,
        embeddings_norm,
        embeddings_projection,
        relative_bias,
        layers,
        reads_whole_texts,
        chunk_rows,
        block_scratch: Pool::default(),
        row_scratch: Pool::default(),
        thread_pools: ThreadPools::default(),
        spec,
    };
    Ok((network, ledger))
}

impl<'c> Loader<'c> {
    fn layer(&mut self, layer: usize) -> Result<EncoderLayer, ModelError> {
        let (spec, names) = (self.spec, &self.spec.names);
        let mut linear = |role| {
            self.linear(
                &spec.layer_linear(layer, role),
                tap::layer_linear(layer, role),
            )
        };
        let (query, key, value) = (
            linear(LayerLinear::Query)?,
            linear(LayerLinear::Key)?,
            linear(LayerLinear::Value)?,
        );
        let attention_output = linear(LayerLinear::AttentionOutput)?;
        let (intermediate, output) = (
            linear(LayerLinear::Intermediate)?,
            linear(LayerLinear::Output)?,
        );
        let mut norm =
            |path, site| self.norm(&spec.layer_module(layer, path), site, spec.hidden_size);
        let attention_norm = norm(names.attention_norm, tap::attention_norm(layer))?;
        let output_norm = norm(names.output_norm, tap::output_norm(layer))?;
        Ok(EncoderLayer {
            query,
            key,
            value,
            attention_output,
            attention_norm,
            intermediate,
            output,
            output_norm,
        })
    }

    fn linear(&mut self, module: &LinearModule, site: String) -> Result<Linear, ModelError> {
        let stored = module.stored_weight(self.checkpoint)?;
        self.take_weight(&module.name, &stored)?;
        let bias = self.vector(&format!("{}.bias", module.name), module.shape[0])?;
        let linear = Linear::new(
            site,
            &module.name,
            stored,
            bias,
            module.shape,
            self.kernels,
            self.weight_only,
        );
        self.release(&module.name);
        linear.map_err(|error| {
            let file = self
                .checkpoint
                .get(&format!("{}.weight", module.name))
                .map(|view| view.info.file.clone());
            match file {
                Some(file) => error.in_file(file).into(),
                None => error.into(),
            }
        })
    }

    fn table(&mut self, module: &LinearModule) -> Result<EmbeddingTable, ModelError> {
        let stored = self.stored_table(module)?;
        let mapped = match &stored {
            StoredWeight::Float(view) => self.checkpoint.mapped(&view.info.name),
            _ => None,
        };
        let table = EmbeddingTable::new(stored, mapped, module.shape)?;
        self.release(&module.name);
        Ok(table)
    }

    /// A table that is looked up. Quantization configurations speak of linear layers unless they name a table, so one
    /// that is there in floats is taken as it is.
    fn stored_table(&mut self, module: &LinearModule) -> Result<StoredWeight<'c>, ModelError> {
        let weight = self.checkpoint.get(&format!("{}.weight", module.name));
        let float = weight.filter(|view| view.info.is_readable_float());
        let stored = match float {
            Some(view) => {
                view.expect_shape(&module.shape).map_err(about_sizes)?;
                StoredWeight::Float(view)
            }
            None => module.stored_weight(self.checkpoint)?,
        };
        self.take_weight(&module.name, &stored)?;
        Ok(stored)
    }

    /// `weight` and `bias`, or `gamma` and `beta` as conversions from TensorFlow once named them.
    fn norm(&mut self, module: &str, site: String, size: usize) -> Result<LayerNorm, ModelError> {
        let mut either = |name: &str, old: &str| {
            let (name, old) = (format!("{module}.{name}"), format!("{module}.{old}"));
            let old_only = self.checkpoint.contains(&old) && !self.checkpoint.contains(&name);
            self.vector(if old_only { &old } else { &name }, size)
        };
        Ok(LayerNorm {
            gamma: either("weight", "gamma")?,
            beta: either("bias", "beta")?,
            site,
        })
    }

    fn vector(&mut self, name: &str, size: usize) -> Result<Vec<f32>, ModelError> {
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

    /// The weight of `module` has been copied.
    fn release(&self, module: &str) {
        for tensor in self.checkpoint.weight_tensor_names(module) {
            self.checkpoint.release(&tensor);
        }
    }

    /// The pooler's tensors that the checkpoint lacks.
    fn missing(&self) -> Vec<String> {
        let Some(pooler) = self.spec.names.pooler else {
            return Vec::new();
        };
        let module = self.spec.module(pooler);
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
                ledger
                    .unused
                    .push((tensor.name.clone(), self.spec.reason_unused(&tensor.name)));
            }
        }
        ledger
    }
}
