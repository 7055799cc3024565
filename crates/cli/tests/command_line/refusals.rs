//! Every error that a user can run into with a model, as it reads on standard error.

use crate::tiny_model::{Outcome, Workspace};
use serde_json::json;

const QUERY: &str = "encoder.layer.1.attention.self.query.weight";

fn quantize(workspace: &Workspace) -> String {
    let text = workspace.fail(&["quantize", "model", "-o", "out", "--method", "dynamic"]);
    assert!(!workspace.path("out").exists());
    assert!(
        workspace
            .entries(".")
            .iter()
            .all(|name| !name.starts_with('.')),
        "{:?}",
        workspace.entries(".")
    );
    text
}

#[test]
fn no_such_directory() {
    let workspace = Workspace::new();
    insta::assert_snapshot!(workspace.fail(&["inspect", "./absent"]), @"
    error: ./absent: no such directory, and not a Hub id
      hint: a Hub id has the form `owner/name` or `owner/name@revision`
    ");
    insta::assert_snapshot!(workspace.fail(&["inspect", "absent/and/not/a/hub/id"]), @"
    error: absent/and/not/a/hub/id: no such directory, and not a Hub id
      hint: a Hub id has the form `owner/name` or `owner/name@revision`
    ");
}

/// A slip in a path is not sent to the Hub, whether there is a network or not.
#[test]
fn a_mistyped_path_is_no_hub_id() {
    let workspace = Workspace::new();
    let refused = |model: &str, offline: &str| {
        let outcome = Outcome::of(
            workspace
                .command(&["inspect", model])
                .env("HF_HUB_OFFLINE", offline)
                // Nothing listens there.
                .env("HF_ENDPOINT", "http://127.0.0.1:9"),
        );
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""));
        outcome.stderr
    };
    for offline in ["0", "1"] {
        for model in [
            "./x",
            "../x",
            "/x/y",
            "x/y/z",
            "x/",
            "model/",
            "a\\b",
            "~/x",
            "model/x/y",
        ] {
            if workspace.path(model).exists() {
                continue;
            }
            assert_eq!(
                refused(model, offline),
                format!(
                    "error: {model}: no such directory, and not a Hub id\n  hint: a Hub id has the form `owner/name` or `owner/name@revision`\n"
                )
            );
        }
        assert_eq!(
            refused("model/absent", offline),
            "error: model/absent: no such directory, though `model` is one, so that this is not taken for a Hub id\n  hint: check the name; `model/absent@main` names a model on the Hub wherever you are\n"
        );
    }
    assert!(
        refused("model/absent@main", "0")
            .contains("http://127.0.0.1:9 cannot be asked for model `model/absent`")
    );
    assert!(
        refused("owner/absent", "0")
            .contains("http://127.0.0.1:9 cannot be asked for model `owner/absent`")
    );
}

#[test]
fn without_a_home_the_cache_is_not_put_where_the_program_runs() {
    let workspace = Workspace::new();
    let run = |arguments: &[&str]| {
        let mut command = workspace.command(arguments);
        for variable in [
            "HF_HOME",
            "HF_HUB_CACHE",
            "HUGGINGFACE_HUB_CACHE",
            "XDG_CACHE_HOME",
            "HOME",
            "USERPROFILE",
        ] {
            command.env_remove(variable);
        }
        Outcome::of(&mut command)
    };
    let outcome = run(&["inspect", "someone/some-model"]);
    assert_eq!(outcome.code, Some(1));
    insta::assert_snapshot!(outcome.stderr, @"
    error: no Hugging Face cache: expected HF_HOME (or HF_HUB_CACHE, XDG_CACHE_HOME, HOME) in the environment, found none of them
      hint: set HF_HOME to a directory that models may be stored in, or name a local directory
    ");
    assert_eq!(workspace.entries("."), ["model"]);
    assert_eq!(run(&["inspect", "model"]).code, Some(0));
    let doctor = run(&["doctor"]);
    assert_eq!(doctor.code, Some(0));
    assert!(
        doctor
            .stdout
            .contains("Hub cache        none: set HF_HOME to download models\n"),
        "{}",
        doctor.stdout
    );
}

#[test]
fn a_hub_id_offline() {
    let workspace = Workspace::new();
    insta::assert_snapshot!(workspace.fail(&["inspect", "someone/some-model"]), @"
    error: no such directory, and `someone/some-model` is not in the Hugging Face cache [here]/hugging-face-home/hub
      hint: offline mode (HF_HUB_OFFLINE) reads the cache only: unset it to download, or name a local directory
    ");
}

#[test]
fn config_missing() {
    let workspace = Workspace::new();
    std::fs::remove_file(workspace.path("model/config.json")).unwrap();
    insta::assert_snapshot!(workspace.fail(&["embed", "model", "-i", "texts.txt"]), @"
    error: model: not a checkpoint: expected config.json, found none
      hint: without it nothing says what model the weights are of; `inspect`, and `quantize` with fp16, bf16, weight-only, nf4 and fp4, need only these
    ");
    std::fs::remove_file(workspace.path("model/model.safetensors")).unwrap();
    insta::assert_snapshot!(workspace.fail(&["inspect", "model"]), @"
    error: model: not a checkpoint: expected config.json, found none
      hint: a checkpoint directory holds config.json, model.safetensors or pytorch_model.bin, and the tokenizer files
    ");
}

#[test]
fn config_that_is_no_json() {
    let workspace = Workspace::new();
    workspace.write("model/config.json", "{\"model_type\": \"bert\",");
    insta::assert_snapshot!(workspace.fail(&["inspect", "model"]), @"error: model/config.json: not valid JSON: EOF while parsing a value at line 1 column 22");
}

#[test]
fn unknown_model_type() {
    let workspace = Workspace::new();
    workspace.edit_config(|config| config["model_type"] = json!("mamba"));
    insta::assert_snapshot!(workspace.fail(&["embed", "model"]), @r#"
    error: model/config.json: `model_type`: expected one of albert, bert, camembert, deberta, deberta-v2, distilbert, electra, eurobert, gemma3_text, gte, jina_embeddings_v3, llama, mistral, modernbert, mpnet, new, nomic_bert, qwen2, qwen3, roberta, xlm-roberta, found "mamba"
      hint: fewbit runs encoders of these families; of any other model it converts weights alone (fp16, bf16, weight-only, nf4, fp4)
    "#);
    insta::assert_snapshot!(quantize(&workspace), @r#"
    error: model/config.json: `model_type`: expected one of albert, bert, camembert, deberta, deberta-v2, distilbert, electra, eurobert, gemma3_text, gte, jina_embeddings_v3, llama, mistral, modernbert, mpnet, new, nomic_bert, qwen2, qwen3, roberta, xlm-roberta, found "mamba"
      hint: fewbit runs encoders of these families; of any other model it converts weights alone (fp16, bf16, weight-only, nf4, fp4)
    "#);
}

#[test]
fn a_field_that_changes_the_mathematics() {
    let workspace = Workspace::new();
    workspace.edit_config(|config| config["hidden_act"] = json!("swishglu"));
    insta::assert_snapshot!(workspace.fail(&["embed", "model"]), @r#"
    error: model/config.json: `hidden_act`: supported is one of gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, quick_gelu, relu, silu, tanh, linear, found "swishglu"
      hint: the activation function changes every hidden state, so there is no substitute
    "#);
}

#[test]
fn shard_missing() {
    let workspace = Workspace::with("bert-sharded");
    std::fs::remove_file(workspace.path("model/model-00002-of-00003.safetensors")).unwrap();
    insta::assert_snapshot!(workspace.fail(&["inspect", "model"]), @"
    error: model/model.safetensors.index.json: shard `model-00002-of-00003.safetensors` is missing: expected 3 shards, found 2
      hint: download the model again, or copy the missing shard into the directory
    ");
}

#[test]
fn weights_missing() {
    let workspace = Workspace::new();
    std::fs::remove_file(workspace.path("model/model.safetensors")).unwrap();
    insta::assert_snapshot!(workspace.fail(&["inspect", "model"]), @"error: model: no weights: expected model.safetensors, pytorch_model.bin or an index of shards, found none of them");
}

#[test]
fn truncated_safetensors() {
    let workspace = Workspace::new();
    let bytes = workspace.read("model/model.safetensors");
    workspace.write("model/model.safetensors", &bytes[..bytes.len() - 1000]);
    insta::assert_snapshot!(workspace.fail(&["inspect", "model"]), @"
    error: model/model.safetensors: truncated safetensors file: expected 81496 bytes, found 80496
      hint: the file is incomplete or damaged: download or write it again
    ");
    workspace.write("model/model.safetensors", &bytes[..100]);
    insta::assert_snapshot!(workspace.fail(&["inspect", "model"]), @"
    error: model/model.safetensors: truncated safetensors file: expected 3960 bytes of length and header, found 100
      hint: the file is incomplete or damaged: download or write it again
    ");
    workspace.write("model/model.safetensors", b"");
    insta::assert_snapshot!(workspace.fail(&["inspect", "model"]), @"
    error: model/model.safetensors: truncated safetensors file: expected at least 8 bytes, found 0
      hint: the file is incomplete or damaged: download or write it again
    ");
}

#[test]
fn overlapping_offsets() {
    let workspace = Workspace::new();
    workspace.edit_weights(|header, _| {
        header["embeddings.LayerNorm.weight"]["data_offsets"] = json!([64, 192]);
    });
    insta::assert_snapshot!(workspace.fail(&["inspect", "model"]), @"error: model/model.safetensors: tensor `embeddings.LayerNorm.weight`: overlapping data offsets 64..192: expected a start at 128, where tensor `embeddings.LayerNorm.bias` (0..128) ends, found 64");
}

#[test]
fn wrong_shape() {
    let workspace = Workspace::new();
    workspace.edit_weights(|header, _| header[QUERY]["shape"] = json!([16, 64]));
    insta::assert_snapshot!(quantize(&workspace), @"
    error: model/model.safetensors: tensor `encoder.layer.1.attention.self.query.weight`: shape: expected [32, 32], found [16, 64]
      hint: the expected shape follows from the sizes in config.json; the two files may belong to different models
    ");
    insta::assert_snapshot!(workspace.fail(&["embed", "model"]), @"
    error: model/model.safetensors: tensor `encoder.layer.1.attention.self.query.weight`: shape: expected [32, 32], found [16, 64]
      hint: the expected shape follows from the sizes in config.json; the two files may belong to different models
    ");
}

#[test]
fn a_weight_that_is_missing() {
    let workspace = Workspace::new();
    workspace.edit_weights(|header, _| {
        let object = header.as_object_mut().unwrap();
        let entry = object.remove(QUERY).unwrap();
        object.insert(QUERY.replace("query", "qery"), entry);
    });
    insta::assert_snapshot!(workspace.fail(&["embed", "model"]), @"
    error: model/model.safetensors: tensor `encoder.layer.1.attention.self.query.weight`: missing: expected this tensor, found 39 others
      hint: near names in the checkpoint: encoder.layer.0.attention.self.query.weight
    ");
    insta::assert_snapshot!(quantize(&workspace), @"
    error: model/model.safetensors: tensor `encoder.layer.1.attention.self.query.weight`: missing: expected this tensor, found 39 others
      hint: near names in the checkpoint: encoder.layer.0.attention.self.query.weight
    ");
}

#[test]
fn nan_and_infinity_in_a_weight() {
    for (value, name) in [(f32::NAN, "nan"), (f32::NEG_INFINITY, "infinity")] {
        let workspace = Workspace::new();
        workspace.edit_weights(|header, data| {
            let start = header[QUERY]["data_offsets"][0].as_u64().unwrap() as usize;
            let at = start + 4 * (3 * 32 + 5);
            data[at..at + 4].copy_from_slice(&value.to_le_bytes());
        });
        insta::assert_snapshot!(format!("{name}_in_quantize"), quantize(&workspace));
        insta::assert_snapshot!(
            format!("{name}_in_embed"),
            Outcome::of(workspace.command(&["embed", "model"]).write_stdin("a dog")).stderr
        );
    }
}

#[test]
fn tokenizer_missing() {
    let workspace = Workspace::new();
    std::fs::remove_file(workspace.path("model/vocab.txt")).unwrap();
    insta::assert_snapshot!(workspace.fail(&["embed", "model"]), @"
    error: model: expected tokenizer.json, or a WordPiece vocab.txt, found neither
      hint: `AutoTokenizer.from_pretrained(…).save_pretrained(…)` of transformers writes tokenizer.json
    ");
}

#[test]
fn output_directory_not_empty() {
    let workspace = Workspace::new();
    std::fs::create_dir(workspace.path("out")).unwrap();
    workspace.write("out/precious.txt", "keep me");
    insta::assert_snapshot!(workspace.fail(&["quantize", "model", "-o", "out", "--method", "nf4"]), @"
    error: [here]/out: output exists: expected no such path or an empty directory, found a directory with files in it
      hint: name another output directory, or replace this one with --force
    ");
    assert_eq!(workspace.entries("out"), ["precious.txt"]);
}

#[test]
fn output_over_the_source() {
    let workspace = Workspace::new();
    insta::assert_snapshot!(workspace.fail(&["quantize", "model", "-o", "model", "--method", "nf4", "--force"]), @"
    error: model: expected an output directory apart from the source model, found one that is the source
      hint: write to a directory beside it
    ");
    workspace.succeed(&["inspect", "model"]);
}

#[test]
fn a_source_that_is_quantized_already() {
    let workspace = Workspace::new();
    workspace.succeed(&["quantize", "model", "-o", "small", "--method", "nf4"]);
    insta::assert_snapshot!(workspace.fail(&["quantize", "small", "-o", "smaller", "--method", "dynamic"]), @"
    error: small/config.json: `quantization_config`: expected a float checkpoint, found one quantized with bitsandbytes nf4
      hint: start from the float checkpoint that it was made from; where that is lost, `fewbit convert` gives floats again (--to f32)
    ");
    insta::assert_snapshot!(workspace.fail(&["compare", "small"]), @"
    error: small/config.json: `quantization_config`: expected a float checkpoint, found one quantized with bitsandbytes nf4
      hint: start from the float checkpoint that it was made from; where that is lost, `fewbit convert` gives floats again (--to f32)
    ");
}

#[test]
fn layers_that_config_json_does_not_ask_for() {
    let workspace = Workspace::new();
    workspace.edit_config(|config| config["num_hidden_layers"] = json!(1));
    let expected =
        "warning: the files hold 2 layers, config.json asks for 1: the others are not used\n";
    let inspected = workspace.succeed(&["inspect", "model", "--json"]);
    assert_eq!(inspected.stderr, expected);
    assert_eq!(inspected.json()["stored_layers"], 2);
    let flags = ["quantize", "model", "-o", "out", "--method", "dynamic"];
    assert_eq!(workspace.succeed(&flags).stderr, expected);
    let embedded = Outcome::of(
        workspace
            .command(&["embed", "model", "-v"])
            .write_stdin("a"),
    );
    assert!(
        embedded
            .stderr
            .contains("reason=layer 1: config.json asks for 1 layers"),
        "{}",
        embedded.stderr
    );
}

#[test]
fn a_skip_glob_that_matches_nothing() {
    let workspace = Workspace::new();
    insta::assert_snapshot!(workspace.misuse(&["quantize", "model", "-o", "out", "--method", "nf4", "--skip", "classifier"]), @"
    error: --skip: pattern `classifier` matches no module that would be quantized
      hint: modules with near names: encoder.layer.0.output.dense, encoder.layer.1.output.dense, encoder.layer.0.attention.self.key, encoder.layer.0.intermediate.dense, encoder.layer.1.attention.self.key
    ");
}

#[test]
fn skip_globs_of_a_recipe_file() {
    let workspace = Workspace::new();
    let recipe = "version = 1\nmethod = \"nf4\"\n";
    workspace.write("skip.toml", format!("{recipe}skip = [\"head*\"]\n"));
    workspace.write("all.toml", format!("{recipe}skip = [\"*\"]\n"));
    let quantize = |name| ["quantize", "model", "-o", "out", "--recipe", name];
    let text = workspace.fail(&quantize("skip.toml"));
    assert!(
        text.starts_with("error: skip.toml: `skip`: pattern `head*` matches no module that would be quantized\n  hint: "),
        "{text}"
    );
    let text = workspace.fail(&quantize("all.toml"));
    assert!(
        text.starts_with(
            "error: all.toml: `skip`: expected at least one module left to quantize, found none"
        ),
        "{text}"
    );
}

#[test]
fn recipe_files() {
    let workspace = Workspace::new();
    let refused =
        |name: &str| workspace.fail(&["quantize", "model", "-o", "out", "--recipe", name]);
    insta::assert_snapshot!(refused("absent.toml"), @"
    error: absent.toml: No such file or directory (os error 2)
      hint: check the path, and that you may read it
    ");
    workspace.write(
        "typo.toml",
        "version = 1\nmethod = \"nf4\"\nblocksize = 64\n",
    );
    insta::assert_snapshot!(refused("typo.toml"), @"
    error: typo.toml: not a recipe: TOML parse error at line 3, column 1
      |
    3 | blocksize = 64
      | ^^^^^^^^^
    unknown field `blocksize`, expected one of `version`, `method`, `weights`, `group_size`, `asymmetric`, `layout`, `block_size`, `double_quant`, `double_quantization`, `scales`, `embeddings`, `quantize_embeddings`, `float_dtype`, `activations`, `weight_scales`, `reduce_range`, `gptq`, `saturation_proof`, `qat`, `skip`, `weight_only`, `modules`, `static_inputs`
      hint: did you mean `block_size`?
    ");
    workspace.write("future.toml", "version = 2\nmethod = \"nf4\"\n");
    insta::assert_snapshot!(refused("future.toml"), @"
    error: future.toml: `version`: expected 1, found 2
      hint: the recipe was made for another version of fewbit
    ");
}

/// A full disk while the output is written: a file system of one megabyte is only at hand for a superuser on Linux.
#[cfg(target_os = "linux")]
#[test]
fn embeddings_on_a_full_device() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a dog\n".repeat(2000));
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = std::process::Command::new(assert_cmd::cargo::cargo_bin("fewbit"))
        .current_dir(workspace.path("."))
        .args(["embed", "model", "-i", "texts.txt"])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains(
            "error: cannot write to standard output\n  caused by: No space left on device"
        ),
        "{stderr}"
    );
}
