//! config.json of the model in a file.

use fewbit_checkpoint::CheckpointError;
use fewbit_checkpoint::gguf::{GgufFile, GgufTensor};
use serde_json::{Map, Value, json};

use crate::gguf_architecture::GgufArchitecture;
use crate::gguf_export::ROTATIONS;

/// The sizes and settings of `architecture`, from metadata and, where these do not say them, from the shapes of tensors.
pub(super) fn model_config(
    architecture: GgufArchitecture,
    file: &GgufFile,
) -> Result<Value, CheckpointError> {
    let reader = Reader { architecture, file };
    let mut config = json!({
        "architectures": [class(architecture, file)],
        "model_type": architecture.model_type(),
        "vocab_size": reader.rows_of("token_embd.weight")?,
        "hidden_size": reader.size("embedding_length")?,
        "num_hidden_layers": reader.size("block_count")?,
        "num_attention_heads": reader.size("attention.head_count")?,
        "intermediate_size": reader.size("feed_forward_length")?,
        "max_position_embeddings": reader.size("context_length")?,
    });
    if let Some(fields) = config.as_object_mut() {
        match architecture {
            GgufArchitecture::Bert => reader.like_bert(fields)?,
            GgufArchitecture::NomicBert => {
                reader.like_bert(fields)?;
                fields.insert("hidden_act".to_owned(), "silu".into());
                fields.insert("rope_parameters".to_owned(), reader.rotation(1000.0, 0)?);
            }
            _ => reader.like_llama(fields)?,
        }
    }
    Ok(config)
}

/// The class of transformers that has these tensors.
fn class(architecture: GgufArchitecture, file: &GgufFile) -> String {
    let family = match architecture {
        GgufArchitecture::Bert => "Bert",
        GgufArchitecture::NomicBert => "NomicBert",
        GgufArchitecture::Llama => "Llama",
        GgufArchitecture::Qwen2 => "Qwen2",
        GgufArchitecture::Qwen3 => "Qwen3",
    };
    let has_head = architecture.is_causal() && file.tensor(super::HEAD).is_some();
    format!("{family}{}", if has_head { "ForCausalLM" } else { "Model" })
}

struct Reader<'a> {
    architecture: GgufArchitecture,
    file: &'a GgufFile,
}

impl Reader<'_> {
    fn key(&self, key: &str) -> String {
        self.architecture.key(key)
    }

    /// A size that has to be there.
    fn size(&self, key: &str) -> Result<u32, CheckpointError> {
        let key = self.key(key);
        let metadata = self.file.metadata();
        metadata.size(&key)?.ok_or_else(|| metadata.missing(&key))
    }

    fn size_or(&self, key: &str, default: u32) -> Result<u32, CheckpointError> {
        Ok(self
            .file
            .metadata()
            .size(&self.key(key))?
            .unwrap_or(default))
    }

    /// A float that has to be there, as the shortest decimal number that stands for it.
    fn float(&self, key: &str) -> Result<Value, CheckpointError> {
        let key = self.key(key);
        let metadata = self.file.metadata();
        let float = metadata.float(&key)?;
        float.map(decimal).ok_or_else(|| metadata.missing(&key))
    }

    fn rows_of(&self, tensor: &str) -> Result<usize, CheckpointError> {
        let found: Option<&GgufTensor> = self.file.tensor(tensor);
        match found.map(|found| &found.shape[..]) {
            Some([rows, _]) => Ok(*rows),
            found => {
                let found = found.map_or("none".to_owned(), |shape| format!("the shape {shape:?}"));
                Err(
                    super::unsupported(self.file, format!("expected a table, found {found}"))
                        .at_tensor(tensor),
                )
            }
        }
    }

    fn like_bert(&self, fields: &mut Map<String, Value>) -> Result<(), CheckpointError> {
        let types = self.rows_of("token_types.weight")?;
        fields.insert("type_vocab_size".to_owned(), types.into());
        fields.insert("hidden_act".to_owned(), "gelu".into());
        let epsilon = self.float("attention.layer_norm_epsilon")?;
        fields.insert("layer_norm_eps".to_owned(), epsilon);
        if self.file.tensor("position_embd.weight").is_some() {
            let positions = self.rows_of("position_embd.weight")?;
            fields.insert("max_position_embeddings".to_owned(), positions.into());
        }
        let padding = self
            .file
            .metadata()
            .size("tokenizer.ggml.padding_token_id")?;
        fields.insert("pad_token_id".to_owned(), padding.unwrap_or(0).into());
        Ok(())
    }

    fn like_llama(&self, fields: &mut Map<String, Value>) -> Result<(), CheckpointError> {
        let heads = self.size("attention.head_count")?;
        let width = self.size("embedding_length")?;
        let keys = self.size_or("attention.head_count_kv", heads)?;
        let head_size = self.size_or("attention.key_length", width / heads.max(1))?;
        let values = self.size_or("attention.value_length", head_size)?;
        if values != head_size {
            let key = self.key("attention.value_length");
            let metadata = self.file.metadata();
            return Err(metadata.error(
                &key,
                format!("expected {head_size}, as keys have, found {values}"),
            ));
        }
        self.refuse_partial_rotation(head_size)?;
        let epsilon = self.float("attention.layer_norm_rms_epsilon")?;
        let has = |tensor: &str| self.file.tensor(tensor).is_some();
        let attention_bias = has("blk.0.attn_q.bias") || has("blk.0.attn_qkv.bias");
        fields.extend([
            ("num_key_value_heads".to_owned(), keys.into()),
            ("head_dim".to_owned(), head_size.into()),
            ("hidden_act".to_owned(), "silu".into()),
            ("rms_norm_eps".to_owned(), epsilon),
            (
                "rope_parameters".to_owned(),
                self.rotation(10_000.0, head_size)?,
            ),
        ]);
        if self.architecture != GgufArchitecture::Qwen2 {
            fields.insert("attention_bias".to_owned(), attention_bias.into());
        }
        if self.architecture == GgufArchitecture::Llama {
            fields.insert("mlp_bias".to_owned(), has("blk.0.ffn_up.bias").into());
        }
        if has(super::HEAD) {
            fields.insert("tie_word_embeddings".to_owned(), false.into());
        }
        let ids = [
            ("bos_token_id", "bos"),
            ("eos_token_id", "eos"),
            ("pad_token_id", "padding"),
        ];
        for (field, name) in ids {
            let id = format!("tokenizer.ggml.{name}_token_id");
            if let Some(id) = self.file.metadata().size(&id)? {
                fields.insert(field.to_owned(), id.into());
            }
        }
        Ok(())
    }

    fn refuse_partial_rotation(&self, head_size: u32) -> Result<(), CheckpointError> {
        let turned = self.size_or("rope.dimension_count", head_size)?;
        if turned == head_size {
            return Ok(());
        }
        let metadata = self.file.metadata();
        let key = self.key("rope.dimension_count");
        Err(metadata.error(
            &key,
            format!("expected {head_size}, all features of a head, found {turned}"),
        ))
    }

    /// `rope_parameters` of heads of this size, which Llamas alone need; a base that the file does not say is `base`, as llama.cpp takes it.
    fn rotation(&self, base: f32, head_size: u32) -> Result<Value, CheckpointError> {
        let metadata = self.file.metadata();
        let base = metadata.float(&self.key("rope.freq_base"))?.unwrap_or(base);
        let mut rotation = json!({"rope_type": "default", "rope_theta": decimal(base)});
        let kind = metadata.text(&self.key("rope.scaling.type"))?;
        let factor = metadata.float(&self.key("rope.scaling.factor"))?;
        let factor = match factor {
            None => metadata.float(&self.key("rope.scale_linear"))?,
            factor => factor,
        };
        let original = self.size_or("rope.scaling.original_context_length", 0)?;
        let original = (original > 0).then_some(original);
        match (kind, factor) {
            (None | Some("none"), None)
                if self.file.tensor(ROTATIONS).is_some()
                    && self.architecture == GgufArchitecture::Llama =>
            {
                super::rotations::of_llama3(self.file, head_size, base, original, &mut rotation)?;
            }
            _ if self.file.tensor(ROTATIONS).is_some() => {
                let message = "expected in a llama without another scaling, found elsewhere";
                return Err(super::unsupported(self.file, message).at_tensor(ROTATIONS));
            }
            (Some("yarn"), Some(factor)) => self.yarn(factor, original, &mut rotation)?,
            (None | Some("none"), None) | (Some("none"), Some(_)) => {}
            (None | Some("linear"), Some(factor)) => {
                rotation["rope_type"] = "linear".into();
                rotation["factor"] = decimal(factor);
            }
            (Some(kind), _) => {
                let key = self.key("rope.scaling.type");
                return Err(metadata.error(
                    &key,
                    format!("expected none, linear, or yarn with a factor, which fewbit reads, found `{kind}`"),
                ));
            }
        }
        Ok(rotation)
    }

    /// Adds the keys of YaRN; where the file leaves one out llama.cpp and transformers take the same.
    fn yarn(
        &self,
        factor: f32,
        original: Option<u32>,
        rotation: &mut Value,
    ) -> Result<(), CheckpointError> {
        let metadata = self.file.metadata();
        for name in ["yarn_ext_factor", "yarn_attn_factor", "attn_factor"] {
            let key = self.key(&format!("rope.scaling.{name}"));
            if let Some(found) = metadata.float(&key)?.filter(|found| *found != 1.0) {
                let message = format!("expected 1, or none, found {found}");
                return Err(metadata.error(&key, message));
            }
        }
        rotation["rope_type"] = "yarn".into();
        rotation["factor"] = decimal(factor);
        if let Some(original) = original {
            rotation["original_max_position_embeddings"] = original.into();
        }
        for name in ["beta_fast", "beta_slow"] {
            let key = self.key(&format!("rope.scaling.yarn_{name}"));
            if let Some(found) = metadata.float(&key)? {
                rotation[name] = decimal(found);
            }
        }
        Ok(())
    }
}

/// The shortest decimal number that is read as `value`.
pub(super) fn decimal(value: f32) -> Value {
    let shortest = value.to_string().parse::<f64>();
    shortest.unwrap_or_else(|_| value.into()).into()
}
