//! Directories that are more than one checkpoint: an adapter beside its base, an encoder in a folder.

use crate::tiny_model::Workspace;
use serde_json::Value;
use std::path::Path;

/// Copies the golden adapter of this name beside the model.
fn add_adapter(workspace: &Workspace, name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../model/tests/golden/adapters")
        .join(name);
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        let bytes = std::fs::read(folder.join(file)).unwrap();
        workspace.write(&format!("model/{file}"), bytes);
    }
}

fn largest_difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn base_and_adapter_are_quantized_into_one_model() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a cat\nthe long walk by the sea\n");
    let embed = |model: &str| {
        workspace
            .succeed(&["embed", model, "-i", "texts.txt"])
            .embeddings()
    };
    let base = embed("model");
    add_adapter(&workspace, "lora");
    let both = embed("model");
    assert!(largest_difference(&base, &both) > 0.01);

    let report = workspace.succeed(&["quantize", "model", "-o", "merged", "--method", "fp16"]);
    assert!(report.stdout.contains("adapter"), "{}", report.stdout);
    let files = workspace.entries("merged");
    assert!(
        files.iter().all(|name| !name.starts_with("adapter")),
        "{files:?}"
    );
    // fp16 keeps 11 bits; the base alone is farther away by far.
    let merged = embed("merged");
    assert!(largest_difference(&merged, &both) < 0.01);

    let inspection = workspace.succeed(&["inspect", "model", "--json"]).json();
    assert_eq!(inspection["model_type"], "bert");
}

/// `compare` and `bench` run base and adapter together, also in the models that they make.
#[test]
fn base_and_adapter_are_compared_and_timed_as_one_model() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a cat\nthe long walk by the sea\n");
    let rows = |what: &str| {
        let comparison = workspace.succeed(&[
            "compare",
            "model",
            "--texts",
            "texts.txt",
            "--methods",
            "fp16,dynamic",
            "--keep",
            what,
            "--threads",
            "1",
            "--json",
        ]);
        comparison.json()["rows"].as_array().unwrap().clone()
    };
    rows("base-only");
    add_adapter(&workspace, "lora");
    let rows = rows("both");
    let names: Vec<&str> = rows
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["original", "fp16", "dynamic"]);
    let files = ["model/model.safetensors", "model/adapter_model.safetensors"];
    let stored: usize = files.iter().map(|file| workspace.read(file).len()).sum();
    assert_eq!(rows[0]["disk_bytes"], stored);
    let inspection = workspace.succeed(&["inspect", "model", "--json"]).json();
    assert_eq!(inspection["size"]["disk_bytes"], stored);
    let embed = |model: &str| {
        workspace
            .succeed(&["embed", model, "-i", "texts.txt"])
            .embeddings()
    };
    let both = embed("model");
    // fp16 keeps 11 bits; the base alone is farther away by far.
    assert!(largest_difference(&embed("both/fp16"), &both) < 0.01);
    assert!(largest_difference(&embed("base-only/fp16"), &both) > 0.01);
    for row in &rows[1..] {
        let cosine = row["agreement"]["mean_cosine"].as_f64().unwrap();
        assert!(cosine > 0.99, "{row}");
    }

    let quick = ["--seconds", "0.001", "--rounds", "1"];
    let bench = [
        "bench",
        "model",
        "both/fp16",
        "--batch",
        "1",
        "--tokens",
        "8",
    ];
    let benchmark =
        workspace.succeed(&[&bench[..], &["--threads", "1", "--json"], &quick].concat());
    let results = &benchmark.json()["shapes"][0]["models"];
    let models: Vec<&Value> = results
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["model"])
        .collect();
    assert_eq!(models, ["model", "fp16"]);
}

/// `0_Transformer`, as sentence-transformers once wrote it.
#[test]
fn an_encoder_in_a_folder_is_found_by_every_command() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a cat\nthe long walk by the sea\n");
    std::fs::create_dir_all(workspace.path("old/1_Pooling")).unwrap();
    std::fs::rename(workspace.path("model"), workspace.path("old/0_Transformer")).unwrap();
    let modules = r#"[
        {"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
    ]"#;
    workspace.write("old/modules.json", modules);
    workspace.write(
        "old/1_Pooling/config.json",
        r#"{"word_embedding_dimension": 32, "pooling_mode_mean_tokens": true}"#,
    );
    // What versions before 1.0 wrote beside the folders.
    workspace.write("old/config.json", r#"{"__version__": "0.2.5"}"#);
    let embed = |model: &str| {
        workspace
            .succeed(&["embed", model, "-i", "texts.txt"])
            .embeddings()
    };
    let before = embed("old");
    let inspection = workspace.succeed(&["inspect", "old", "--json"]).json();
    assert_eq!(inspection["model_type"], "bert");
    workspace.succeed(&["quantize", "old", "-o", "new", "--method", "fp16"]);
    assert_eq!(workspace.json("new/modules.json")[0]["path"], "");
    assert!(!workspace.path("new/0_Transformer").exists());
    assert!(workspace.path("new/model.safetensors").exists());
    assert!(largest_difference(&embed("new"), &before) < 0.01);
    workspace.succeed(&[
        "quantize",
        "old",
        "-o",
        "new-dynamic",
        "--method",
        "dynamic",
        "--dry-run",
    ]);
}

/// int8 embeddings are refused where they are asked for, and not among what is tried unasked.
#[test]
fn a_head_that_shares_the_embeddings_keeps_them_float() {
    let workspace = Workspace::with("bert-masked-lm");
    let error = workspace.fail(&[
        "quantize",
        "model",
        "-o",
        "out",
        "--method",
        "dynamic",
        "--quantize-embeddings",
    ]);
    assert!(error.contains("cls.predictions"), "{error}");
    assert!(error.contains("hint:"), "{error}");
    assert!(!workspace.path("out").exists());
    let shown = workspace.succeed(&["quantize", "model", "-o", "out", "--method", "dynamic"]);
    let line = "a head shares the embedding table, which other loaders cannot run on codes";
    assert!(shown.stdout.contains(line), "{}", shown.stdout);
    let recipe = String::from_utf8(workspace.read("out/recipe.toml")).unwrap();
    assert!(!recipe.contains("embeddings"), "{recipe}");
    // There is but one form: it is not named beside itself.
    let inspection = workspace.succeed(&["inspect", "model", "--json"]).json();
    let methods = inspection["methods"].as_array().unwrap();
    assert!(!methods.is_empty());
    assert!(
        methods
            .iter()
            .all(|method| !method["label"].as_str().unwrap().contains("embeddings"))
    );
}

/// The golden model of every test, as `torch.save` writes it.
fn pickle_weights(workspace: &Workspace) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../checkpoint/tests/golden/pytorch/bert/pytorch_model.bin");
    std::fs::remove_file(workspace.path("model/model.safetensors")).unwrap();
    workspace.write("model/pytorch_model.bin", std::fs::read(file).unwrap());
}

#[test]
fn a_pytorch_checkpoint_gives_what_its_safetensors_twin_gives() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a cat\nthe long walk by the sea\n");
    let results = |out: &str| {
        let embeddings = workspace
            .succeed(&["embed", "model", "-i", "texts.txt"])
            .stdout;
        workspace.succeed(&["quantize", "model", "-o", out, "--method", "dynamic"]);
        let inspection = workspace.succeed(&["inspect", "model", "--json"]).json();
        (
            embeddings,
            workspace.entries(out),
            workspace.read(&format!("{out}/model.safetensors")),
            ["parameters", "parameter_bytes", "buffer_bytes"]
                .map(|field| inspection["size"][field].as_u64().unwrap()),
        )
    };
    let twin = results("from-safetensors");
    pickle_weights(&workspace);
    let found = results("from-pickle");
    assert!(twin == found, "the twin differs");
    assert!(
        found.1.iter().all(|name| !name.ends_with(".bin")),
        "{:?}",
        found.1
    );

    let comparison = workspace
        .succeed(&[
            "compare",
            "model",
            "--texts",
            "texts.txt",
            "--methods",
            "fp16",
            "--threads",
            "1",
            "--json",
        ])
        .json();
    let file = workspace.read("model/pytorch_model.bin");
    assert_eq!(comparison["rows"][0]["disk_bytes"], file.len());
}

#[test]
fn a_pickle_that_runs_programs_is_refused_by_what_it_names() {
    let workspace = Workspace::new();
    pickle_weights(&workspace);
    // The older form, whose state dict calls os.system("touch owned").
    workspace.write(
        "model/pytorch_model.bin",
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}X\x0d\0\0\0little_endian\x88s.\
          \x80\x02cos\nsystem\nX\x0b\0\0\0touch owned\x85R.",
    );
    insta::assert_snapshot!(workspace.fail(&["inspect", "model"]), @"
    error: model/pytorch_model.bin: state dict: byte 2 of the pickle: the pickle refers to `os.system`: expected only what a state dict of tensors needs
      hint: fewbit executes nothing that a file says; if you trust the file, load it with torch.load(FILE, weights_only=True) and save its tensors with safetensors.torch.save_file as model.safetensors
    ");
    assert!(!workspace.path("owned").exists() && !workspace.path("model/owned").exists());
}

/// transformers would run such a file with random weights, and says so: what is right here would be wrong there.
#[test]
fn names_of_a_wrapped_model_are_read_with_a_warning() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a cat\n");
    let embed = || workspace.succeed(&["--quiet", "embed", "model", "-i", "texts.txt"]);
    let plain = embed();
    assert_eq!(plain.stderr, "");
    workspace.edit_weights(|header, _| {
        let tensors = header.as_object_mut().unwrap();
        for (name, tensor) in std::mem::take(tensors) {
            let prefix = if name == "__metadata__" {
                ""
            } else {
                "module."
            };
            tensors.insert(format!("{prefix}{name}"), tensor);
        }
    });
    let found = embed();
    assert_eq!(found.stdout, plain.stdout);
    let warning = "model: names of tensors begin with `module.`, where transformers expects `bert.` or nothing";
    assert!(found.stderr.contains(warning), "{}", found.stderr);
}

/// A sentencepiece file of letters: protocol buffers with a text, a score and a type for each piece.
fn letters_of_sentencepiece() -> Vec<u8> {
    let letters = ('a'..='z').map(|letter| (letter.to_string(), 1));
    let symbols = [("<unk>", 2), ("<s>", 3), ("</s>", 3), ("\u{2581}", 1)];
    let symbols = symbols.map(|(text, kind)| (text.to_owned(), kind));
    let pieces = symbols.into_iter().chain(letters);
    let pieces = pieces.flat_map(|(text, kind)| {
        let mut piece = vec![0x0a, text.len() as u8];
        piece.extend(text.as_bytes());
        piece.push(0x15);
        piece.extend((-1.0f32).to_le_bytes());
        piece.extend([0x18, kind]);
        [vec![0x0a, piece.len() as u8], piece].concat()
    });
    pieces.collect()
}

#[test]
fn a_sentencepiece_file_goes_with_the_quantized_model() {
    let workspace = Workspace::with("camembert");
    workspace.write("texts.txt", "a cat\nthe long walk by the sea\n");
    std::fs::remove_file(workspace.path("model/vocab.txt")).unwrap();
    workspace.write("model/tokenizer_config.json", "{}");
    let file = letters_of_sentencepiece();
    workspace.write("model/sentencepiece.bpe.model", &file);
    let embed = |model: &str| {
        workspace
            .succeed(&["embed", model, "-i", "texts.txt"])
            .embeddings()
    };
    let expected = embed("model");
    workspace.succeed(&["quantize", "model", "-o", "out", "--method", "fp16"]);
    assert_eq!(workspace.read("out/sentencepiece.bpe.model"), file);
    // fp16 keeps 11 bits.
    assert!(largest_difference(&embed("out"), &expected) < 0.01);

    workspace.write("model/sentencepiece.bpe.model", &file[..file.len() - 1]);
    insta::assert_snapshot!(workspace.fail(&["embed", "model", "-i", "texts.txt"]), @"
    error: model/sentencepiece.bpe.model: expected a model of sentencepiece, found something else: byte 361: expected 10 more bytes, found 9: the file is incomplete or damaged
      hint: fetch the file again
    ");
}
