//! The files of a model directory other than its weights.

use std::path::Path;
use std::{fs, io};

use fewbit_checkpoint::CheckpointError;
use fewbit_checkpoint::gguf::GgufFile;
use fewbit_model::EncoderSpec;
use serde_json::{Value, json};

use super::{byte_pairs, unsupported, word_piece};
use crate::gguf_architecture::GgufArchitecture;

/// Names, with `/`, and contents.
#[derive(Debug, Default)]
pub(super) struct ModelFiles(Vec<(&'static str, Vec<u8>)>);

impl ModelFiles {
    pub(super) fn add_json(&mut self, name: &'static str, value: &Value) {
        self.0.push((name, format!("{value:#}\n").into_bytes()));
    }

    /// tokenizer.json and tokenizer_config.json.
    ///
    /// # Errors
    /// A tokenizer of another kind than llama.cpp has for the architecture, or a vocabulary that is none.
    pub(super) fn add_tokenizer(
        &mut self,
        architecture: GgufArchitecture,
        spec: &EncoderSpec,
        file: &GgufFile,
        notes: &mut Vec<String>,
    ) -> Result<(), CheckpointError> {
        const KEY: &str = "tokenizer.ggml.model";
        let (tokenizer, config) = match (architecture.is_causal(), file.metadata().text(KEY)?) {
            (_, None | Some("none" | "no_vocab")) => {
                notes.push(
                    "the file has no tokenizer: texts are not cut into tokens without one"
                        .to_owned(),
                );
                return Ok(());
            }
            (false, Some("bert")) => word_piece::tokenizer(spec, file, notes)?,
            (true, Some("gpt2")) => byte_pairs::of_bytes(architecture, spec, file)?,
            (true, Some("llama")) => byte_pairs::of_sentencepiece(spec, file)?,
            (is_causal, Some(other)) => {
                let expected = if is_causal {
                    "`gpt2` or `llama`"
                } else {
                    "`bert`"
                };
                return Err(unsupported(
                    file,
                    format!("metadata `{KEY}`: expected {expected}, of which fewbit reads the tokenizers of {}, found `{other}`", architecture.name()),
                )
                .hint("use the safetensors checkpoint that the file was made from"));
            }
        };
        self.add_json("tokenizer.json", &tokenizer);
        self.add_json("tokenizer_config.json", &config);
        Ok(())
    }

    /// modules.json and the pooling that the file says.
    pub(super) fn add_pooling(
        &mut self,
        architecture: GgufArchitecture,
        spec: &EncoderSpec,
        file: &GgufFile,
        notes: &mut Vec<String>,
    ) -> Result<(), CheckpointError> {
        let pooling = file.metadata().size(&architecture.key("pooling_type"))?;
        let mode = match pooling {
            None | Some(0) => return Ok(()),
            Some(1) => "mean_tokens",
            Some(2) => "cls_token",
            Some(3) => "lasttoken",
            Some(other) => {
                notes.push(format!(
                    "the pooling of the file, number {other}, is none of mean, CLS and last token, and is left out"
                ));
                return Ok(());
            }
        };
        let modules = json!([
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ]);
        let mut settings = json!({"word_embedding_dimension": spec.hidden_size});
        let modes = [
            "cls_token",
            "mean_tokens",
            "max_tokens",
            "mean_sqrt_len_tokens",
            "weightedmean_tokens",
            "lasttoken",
        ];
        for known in modes {
            settings[format!("pooling_mode_{known}")] = (known == mode).into();
        }
        settings["include_prompt"] = true.into();
        self.add_json("modules.json", &modules);
        self.add_json("1_Pooling/config.json", &settings);
        let transformer = json!({
            "max_seq_length": spec.positions.max_tokens(),
            "do_lower_case": false,
        });
        self.add_json("sentence_bert_config.json", &transformer);
        notes.push(
            "a GGUF file does not say whether embeddings are normalized: here they are not"
                .to_owned(),
        );
        Ok(())
    }

    /// Writes all of them to `directory`, which is made.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        for (name, bytes) in &self.0 {
            let path = directory.join(name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, bytes)?;
        }
        Ok(())
    }
}
