//! `fewbit convert` of Llama, Mistral and Qwen to GGUF files and back.

use crate::tiny_model::Workspace;
use fewbit::checkpoint::gguf::{GgufFile, RowOrder};
use fewbit::model::byte_pairs::ByteLevelRule;
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};

const TEXTS: &str = "the cat\nthe dogs of the sea\nx y z\n";

/// A tokenizer of letters and three longer tokens; `before` and `after` stand around texts.
fn tokenizer(rule: Option<ByteLevelRule>, before: Option<&str>, after: Option<&str>) -> Value {
    let space = if rule.is_some() {
        "\u{120}"
    } else {
        "\u{2581}"
    };
    let special = ["<unk>", "<s>", "</s>"];
    let mut vocabulary: Map<String, Value> = Map::new();
    let letters = ('a'..='z').map(String::from);
    let longer = ["th".to_owned(), "the".to_owned(), format!("{space}the")];
    let tokens = special.map(str::to_owned).into_iter();
    for token in tokens
        .chain(letters)
        .chain([space.to_owned()])
        .chain(longer)
    {
        let id = vocabulary.len();
        vocabulary.insert(token, id.into());
    }
    let merges = json!([["t", "h"], ["th", "e"], [space, "the"]]);
    let added = special.iter().enumerate().map(|(id, token)| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
    });
    let token = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let single = before
        .map(token)
        .into_iter()
        .chain([json!({"Sequence": {"id": "A", "type_id": 0}})]);
    let single: Vec<Value> = single.chain(after.map(token)).collect();
    let named = before.iter().chain(&after).map(|token| {
        let id = special.iter().position(|known| known == token);
        (
            (*token).to_owned(),
            json!({"id": token, "ids": [id], "tokens": [token]}),
        )
    });
    let level = |own: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": own});
    let pre_tokenizer = match rule.map(|rule| rule.words) {
        None => {
            json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": false})
        }
        Some(None) => level(true),
        Some(Some(words)) => json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": false},
            level(false),
        ]}),
    };
    json!({
        "version": "1.0",
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": single,
            "special_tokens": named.collect::<Map<_, _>>(),
        },
        "decoder": null,
        "model": {
            "type": "BPE",
            "unk_token": rule.is_none().then_some("<unk>"),
            "fuse_unk": rule.is_none(),
            "byte_fallback": rule.is_none(),
            "ignore_merges": rule.is_some_and(|rule| rule.ignores_merges),
            "vocab": vocabulary,
            "merges": merges,
        },
    })
}

fn workspace(golden: &str, tokenizer: &Value, class: &str) -> Workspace {
    let workspace = Workspace::with(golden);
    std::fs::remove_file(workspace.path("model/vocab.txt")).unwrap();
    workspace.write("model/tokenizer.json", tokenizer.to_string());
    let config = json!({
        "tokenizer_class": class,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": true,
        "legacy": false,
    });
    workspace.write("model/tokenizer_config.json", config.to_string());
    workspace
}

fn rule(name: &str) -> Option<ByteLevelRule> {
    ByteLevelRule::ALL
        .into_iter()
        .find(|rule| rule.name == name)
}

fn embeddings(workspace: &Workspace, model: &str) -> String {
    workspace.write("texts.txt", TEXTS);
    workspace
        .succeed(&["embed", model, "-i", "texts.txt"])
        .stdout
}

/// Writes the model as a file, and that as a directory again: the same tensors and embeddings.
fn comes_back(workspace: &Workspace) {
    workspace.succeed(&["convert", "model", "-o", "m.gguf", "--to", "gguf:f32"]);
    workspace.succeed(&["convert", "m.gguf", "-o", "back", "--to", "f32"]);
    let (source, back) = (
        workspace.read("model/model.safetensors"),
        workspace.read("back/model.safetensors"),
    );
    let source = SafeTensors::deserialize(&source).unwrap();
    let back = SafeTensors::deserialize(&back).unwrap();
    assert_eq!(back.len(), source.len());
    for (name, tensor) in source.tensors() {
        assert_eq!(back.tensor(&name).unwrap().data(), tensor.data(), "{name}");
    }
    assert_eq!(
        embeddings(workspace, "back"),
        embeddings(workspace, "model")
    );
}

#[test]
fn decoders_come_back_bit_for_bit_and_embed_alike() {
    for (golden, name, before, after) in [
        ("qwen3", "qwen2", None, Some("</s>")),
        ("llama", "llama-bpe", Some("<s>"), None),
        ("llama-linear-rotation", "gpt-2", Some("<s>"), None),
        ("llama-yarn", "gpt-2", Some("<s>"), None),
    ] {
        let tokenizer = tokenizer(rule(name), before, after);
        let workspace = workspace(golden, &tokenizer, "PreTrainedTokenizerFast");
        comes_back(&workspace);
        let file = GgufFile::open(workspace.path("m.gguf")).unwrap();
        let metadata = file.metadata();
        assert_eq!(metadata.text("tokenizer.ggml.pre").unwrap(), Some(name));
        let flags = ["bos", "eos"].map(|end| {
            let key = format!("tokenizer.ggml.add_{end}_token");
            metadata.flag(&key).unwrap()
        });
        assert_eq!(flags, [Some(before.is_some()), Some(after.is_some())]);
    }
    let workspace = workspace(
        "llama",
        &tokenizer(None, Some("<s>"), None),
        "LlamaTokenizer",
    );
    comes_back(&workspace);
    let file = GgufFile::open(workspace.path("m.gguf")).unwrap();
    let metadata = file.metadata();
    assert_eq!(
        metadata.text("tokenizer.ggml.model").unwrap(),
        Some("llama")
    );
    let scores = metadata.floats("tokenizer.ggml.scores").unwrap().unwrap();
    // The merges in their order, and what is of no merge behind them.
    assert_eq!(scores[30..33], [-0.0, -1.0, -2.0]);
    assert!(scores[..30].iter().all(|score| *score == -3.0));
}

#[test]
fn queries_and_keys_of_llama_have_their_halves_interleaved() {
    let tokenizer = tokenizer(rule("gpt-2"), Some("<s>"), None);
    let workspace = workspace("llama", &tokenizer, "PreTrainedTokenizerFast");
    workspace.succeed(&["convert", "model", "-o", "m.gguf", "--to", "gguf:f32"]);
    let source = workspace.read("model/model.safetensors");
    let source = SafeTensors::deserialize(&source).unwrap();
    let weight = source.tensor("layers.1.self_attn.k_proj.weight").unwrap();
    let rows: Vec<&[u8]> = weight.data().chunks(32 * 4).collect();
    let order = RowOrder::InterleavedHeads { head_rows: 8 };
    let expected = (0..rows.len()).flat_map(|row| rows[order.of_stored(row)].to_vec());
    let expected: Vec<u8> = expected.collect();
    let file = workspace.read("m.gguf");
    let found = file
        .windows(expected.len())
        .any(|window| window == expected);
    assert!(found, "the rows in llama.cpp's order");
    // Values and Qwen's queries keep theirs.
    let values = source.tensor("layers.1.self_attn.v_proj.weight").unwrap();
    assert!(
        file.windows(values.data().len())
            .any(|window| window == values.data())
    );
}

#[test]
fn a_head_that_predicts_words_comes_along() {
    let tokenizer = tokenizer(rule("gpt-2"), Some("<s>"), None);
    let workspace = workspace(
        "llama-biases-llama3-rotation",
        &tokenizer,
        "PreTrainedTokenizerFast",
    );
    comes_back(&workspace);
    let config = workspace.json("back/config.json");
    let rotation = &config["rope_parameters"];
    assert_eq!(
        *rotation,
        workspace.json("model/config.json")["rope_parameters"]
    );
    let file = GgufFile::open(workspace.path("m.gguf")).unwrap();
    let divisors = file.tensor("rope_freqs.weight").unwrap();
    assert_eq!(divisors.shape, [8]);
    assert_eq!(config["architectures"][0], "LlamaForCausalLM");
    assert_eq!(config["attention_bias"], true);
    assert_eq!(config["mlp_bias"], true);
}

/// Divisors that no Llama has, and scalings that llama.cpp does not do, are refused.
#[test]
fn other_rotations_are_refused() {
    let tokenizer = tokenizer(rule("gpt-2"), Some("<s>"), None);
    let workspace = workspace(
        "llama-biases-llama3-rotation",
        &tokenizer,
        "PreTrainedTokenizerFast",
    );
    let convert = [
        "convert", "model", "-o", "m.gguf", "--to", "gguf:f32", "--force",
    ];
    workspace.edit_config(|config| config["rope_parameters"]["high_freq_factor"] = 9.0.into());
    workspace.succeed(&convert);
    let refused = workspace.fail(&["convert", "m.gguf", "-o", "back", "--to", "f32"]);
    assert!(
        refused.contains("m.gguf: tensor `rope_freqs.weight`: "),
        "{refused}"
    );
    assert!(refused.contains("divisor 0: expected "), "{refused}");
    workspace.edit_config(|config| {
        config["rope_parameters"] = json!({"rope_type": "yarn", "rope_theta": 500.0, "factor": 2.0, "attention_factor": 3.0});
    });
    let refused = workspace.fail(&convert);
    assert!(
        refused.contains("rotations that are scaled otherwise than llama.cpp does it there"),
        "{refused}"
    );
}

#[test]
fn a_file_is_for_texts_that_the_window_holds_whole() {
    let tokenizer = tokenizer(rule("gpt-2"), Some("<s>"), None);
    let workspace = workspace("mistral", &tokenizer, "PreTrainedTokenizerFast");
    let tokens_of_file = |window: Value| {
        workspace.edit_config(|config| config["sliding_window"] = window);
        let convert = [
            "convert", "model", "-o", "m.gguf", "--to", "gguf:f32", "--force",
        ];
        let report = workspace.succeed(&convert).stdout;
        let file = GgufFile::open(workspace.path("m.gguf")).unwrap();
        let metadata = file.metadata();
        let tokens = metadata.size("llama.context_length").unwrap().unwrap();
        (
            tokens as usize,
            report.contains("texts of at most 3 tokens"),
        )
    };
    let positions = workspace.json("model/config.json")["max_position_embeddings"].as_u64();
    let positions = positions.unwrap() as usize;
    assert_eq!(tokens_of_file(Value::Null), (positions, false));
    assert_eq!(
        tokens_of_file((positions + 1).into()),
        (positions, false),
        "a window that no text fills"
    );
    assert_eq!(tokens_of_file(3.into()), (3, true));
}

#[test]
fn what_llama_cpp_computes_otherwise_is_refused() {
    let tokenizer_of = |name| tokenizer(rule(name), Some("<s>"), None);
    let plain = "PreTrainedTokenizerFast";
    let workspace = workspace("mistral", &tokenizer_of("gpt-2"), plain);
    let convert = ["convert", "model", "-o", "m.gguf", "--to", "gguf:f16"];
    let mut other = tokenizer_of("qwen2");
    other["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\s+".into();
    workspace.write("model/tokenizer.json", other.to_string());
    let refused = workspace.fail(&convert);
    assert!(
        refused.contains("cut by a rule of gpt-2, qwen2, llama-bpe"),
        "{refused}"
    );
}
