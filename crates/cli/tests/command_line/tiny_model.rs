//! A directory to run in, with a tiny BERT and a tokenizer of letters.

use assert_cmd::Command;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Longest input of the tiny model, special tokens included.
pub(crate) const MAX_TOKENS: usize = 36;
/// Embedding dimension of the tiny model.
pub(crate) const DIMENSION: usize = 32;

/// A temporary directory that commands run in, so that paths in messages are relative; the model lies in `model`.
pub(crate) struct Workspace {
    directory: TempDir,
}

/// What a command left behind.
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Workspace {
    /// With the golden model of this name.
    pub(crate) fn with(golden: &str) -> Self {
        let workspace = Self::of_golden("architectures", golden);
        workspace.write("model/vocab.txt", vocabulary());
        workspace.write(
            "model/tokenizer_config.json",
            r#"{"tokenizer_class": "BertTokenizer", "do_lower_case": true}"#,
        );
        workspace
    }

    /// With the golden model of this name that has a head, its own tokenizer, and words.
    pub(crate) fn predicting(golden: &str) -> Self {
        Self::of_golden("predictions", golden)
    }

    fn of_golden(folder: &str, golden: &str) -> Self {
        let workspace = Workspace {
            directory: TempDir::new().unwrap(),
        };
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../model/tests/golden")
            .join(folder)
            .join(golden);
        let model = workspace.path("model");
        std::fs::create_dir(&model).unwrap();
        for entry in std::fs::read_dir(source).unwrap() {
            let entry = entry.unwrap();
            if !entry.file_name().to_string_lossy().starts_with("expected.") {
                std::fs::write(
                    model.join(entry.file_name()),
                    std::fs::read(entry.path()).unwrap(),
                )
                .unwrap();
            }
        }
        workspace
    }

    /// With the tiny BERT.
    pub(crate) fn new() -> Self {
        Self::with("bert")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(name)).unwrap()
    }

    /// Names in the directory, sorted, hidden ones too.
    pub(crate) fn entries(&self, name: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path(name))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Changes config.json of the model.
    pub(crate) fn edit_config(&self, edit: impl FnOnce(&mut Value)) {
        let mut config = self.json("model/config.json");
        edit(&mut config);
        self.write("model/config.json", config.to_string());
    }

    /// Changes header and data of model.safetensors.
    pub(crate) fn edit_weights(&self, edit: impl FnOnce(&mut Value, &mut Vec<u8>)) {
        let bytes = self.read("model/model.safetensors");
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let mut data = bytes[8 + length..].to_vec();
        edit(&mut header, &mut data);
        let header = header.to_string().into_bytes();
        let mut out = (header.len() as u64).to_le_bytes().to_vec();
        out.extend(header);
        out.extend(data);
        self.write("model/model.safetensors", out);
    }

    /// The program, run here; the environment variables that it listens to are unset.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::cargo_bin("fewbit").unwrap();
        command.current_dir(self.directory.path()).args(arguments);
        for variable in [
            "FEWBIT_NUM_THREADS",
            "RAYON_NUM_THREADS",
            "OMP_NUM_THREADS",
            "FEWBIT_ISA",
            "FEWBIT_WEIGHT_ONLY",
            "RUST_LOG",
        ] {
            command.env_remove(variable);
        }
        // A name that is no directory must not go looking for a network.
        command
            .env("HF_HUB_OFFLINE", "1")
            .env("HF_HOME", self.path("hugging-face-home"));
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(arguments))
    }

    /// Runs and expects success.
    pub(crate) fn succeed(&self, arguments: &[&str]) -> Outcome {
        let outcome = self.run(arguments);
        assert_eq!(outcome.code, Some(0), "{arguments:?}: {}", outcome.stderr);
        outcome
    }

    /// Runs, expects exit code 1 and nothing on standard output, and gives standard error.
    pub(crate) fn fail(&self, arguments: &[&str]) -> String {
        self.refuse(arguments, 1)
    }

    /// Runs, expects exit code 2 and nothing on standard output, and gives standard error.
    pub(crate) fn misuse(&self, arguments: &[&str]) -> String {
        self.refuse(arguments, 2)
    }

    fn refuse(&self, arguments: &[&str], code: i32) -> String {
        let outcome = self.run(arguments);
        assert_eq!(
            outcome.code,
            Some(code),
            "{arguments:?}: {}",
            outcome.stderr
        );
        assert_eq!(outcome.stdout, "", "{arguments:?}");
        // Where a message has an absolute path, it is below the directory of this run.
        let here = self.directory.path().canonicalize().unwrap();
        outcome
            .stderr
            .replace(here.to_str().unwrap(), "[here]")
            .replace(self.directory.path().to_str().unwrap(), "[here]")
    }
}

impl Outcome {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Outcome {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    /// The embeddings of JSONL output.
    pub(crate) fn embeddings(&self) -> Vec<Vec<f32>> {
        self.stdout
            .lines()
            .map(|line| numbers(&serde_json::from_str::<Value>(line).unwrap()["embedding"]))
            .collect()
    }
}

fn numbers(array: &Value) -> Vec<f32> {
    array
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_f64().unwrap() as f32)
        .collect()
}

/// Special tokens, letters, and letters that continue a word: every lowercase Latin word has tokens.
fn vocabulary() -> String {
    let letters = 'a'..='z';
    let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .map(str::to_owned)
        .into_iter();
    let tokens = tokens
        .chain(letters.clone().map(String::from))
        .chain(letters.map(|letter| format!("##{letter}")));
    tokens.map(|token| token + "\n").collect()
}

/// Pairs with scores, as `compare --data` reads them.
pub(crate) fn scored_pairs() -> String {
    let pairs = [
        ("a cat", "a cat", 5.0),
        ("a dog", "the dogs", 3.5),
        ("red", "a long walk by the sea", 0.5),
        ("one two", "two one", 4.0),
    ];
    pairs
        .map(|(first, second, score)| {
            json!({"sentence1": first, "sentence2": second, "score": score}).to_string() + "\n"
        })
        .concat()
}
