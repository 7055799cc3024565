//! The directory as a whole: what comes along, the recipe, determinism, replacing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fewbit_quantize::{FourBitRecipe, Method, Recipe};

use crate::tiny_bert::{Source, TinyBert};

/// Relative path and content of every file.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, directory: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, files);
            } else {
                let name = path
                    .strip_prefix(root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(directory, directory, &mut found);
    found
}

fn with_files(files: &[(&str, &str)]) -> Source {
    let source = TinyBert::f32().write();
    for (name, content) in files {
        let path = source.directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    source
}

#[test]
fn other_files_come_along_and_other_weights_do_not() {
    let source = with_files(&[
        ("tokenizer.json", "{}"),
        ("vocab.txt", "[PAD]\n"),
        ("README.md", "# model\n"),
        ("modules.json", r#"[{"idx": 1, "path": "1_Pooling"}]"#),
        (
            "1_Pooling/config.json",
            r#"{"pooling_mode_mean_tokens": true}"#,
        ),
        ("pytorch_model.bin", "x"),
        ("onnx/model.onnx", "x"),
        (".git/HEAD", "x"),
    ]);
    let report = source.quantize(&Recipe::new(Method::Dynamic)).unwrap();
    let written = files(&report.output);
    let names: Vec<&str> = written.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "1_Pooling/config.json",
            "README.md",
            "config.json",
            "model.safetensors",
            "modules.json",
            "recipe.toml",
            "tokenizer.json",
            "vocab.txt",
        ]
    );
    assert_eq!(written["vocab.txt"], b"[PAD]\n");
    assert_eq!(
        written["1_Pooling/config.json"],
        br#"{"pooling_mode_mean_tokens": true}"#
    );
}

#[test]
fn the_recipe_beside_the_model_makes_the_same_model() {
    let source = TinyBert::f32().write();
    let recipe = Recipe::from(
        FourBitRecipe::nf4()
            .with_double_quantization(true)
            .with_skip(["*.query"]),
    );
    let report = source.quantize(&recipe).unwrap();
    let replayed = Recipe::read(report.output.join("recipe.toml")).unwrap();
    assert_eq!(replayed, recipe);
    let again = source
        .quantize_into(&replayed, &source.out("again"), false)
        .unwrap();
    assert_eq!(files(&report.output), files(&again.output));
}

#[test]
fn every_method_gives_the_same_bytes_twice() {
    let source = TinyBert::f32().write();
    for recipe in Recipe::standard() {
        let first = source.out(&format!("{} first", recipe.label()));
        let second = source.out(&format!("{} second", recipe.label()));
        source.quantize_into(&recipe, &first, false).unwrap();
        source.quantize_into(&recipe, &second, false).unwrap();
        assert_eq!(files(&first), files(&second), "{}", recipe.label());
    }
}

#[test]
fn an_existing_output_is_replaced_only_with_force() {
    let source = TinyBert::f32().write();
    let out = source.out("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("old.txt"), "old").unwrap();
    // What makes it a model, which may be replaced.
    fs::write(out.join("config.json"), "{}").unwrap();
    let recipe = Recipe::new(Method::Fp16);
    source.quantize_into(&recipe, &out, false).unwrap_err();
    assert_eq!(fs::read(out.join("old.txt")).unwrap(), b"old");
    source.quantize_into(&recipe, &out, true).unwrap();
    assert!(!out.join("old.txt").exists());
    assert!(out.join("model.safetensors").exists());
    assert_eq!(source.siblings(), ["out"]);
}

#[cfg(unix)]
#[test]
fn a_source_of_symbolic_links_is_copied_as_files() {
    let source = with_files(&[("vocab.txt", "[PAD]\n")]);
    let linked = source.out("snapshot");
    fs::create_dir(&linked).unwrap();
    for name in ["config.json", "model.safetensors", "vocab.txt"] {
        std::os::unix::fs::symlink(source.directory.join(name), linked.join(name)).unwrap();
    }
    let recipe = Recipe::new(Method::Dynamic);
    let report = fewbit_quantize::quantize_model(
        &linked,
        &recipe,
        source.out("out"),
        false,
        &mut |_, _, _| {},
    )
    .unwrap();
    let vocabulary = report.output.join("vocab.txt");
    assert!(fs::symlink_metadata(&vocabulary).unwrap().is_file());
    assert_eq!(fs::read(vocabulary).unwrap(), b"[PAD]\n");
}

#[cfg(unix)]
#[test]
fn links_to_folders_are_not_followed() {
    use std::os::unix::fs::symlink;
    let source = with_files(&[
        ("vocab.txt", "[PAD]\n"),
        ("modules.json", r#"[{"path": "1_Pooling"}]"#),
    ]);
    let recipe = Recipe::new(Method::Dynamic);
    for (target, link) in [(".", "a"), ("..", "outside"), ("/", "1_Pooling")] {
        symlink(target, source.directory.join(link)).unwrap();
        let error = source.quantize(&recipe).unwrap_err().to_string();
        assert_eq!(
            error.replace(&source.directory.display().to_string(), "DIR"),
            format!(
                "DIR/{link}: expected a folder, found a symbolic link to one\n  hint: files may be links, folders may not: put a copy of the folder in its place, or remove the link"
            )
        );
        assert!(source.siblings().is_empty(), "{:?}", source.siblings());
        fs::remove_file(source.directory.join(link)).unwrap();
    }
    // What stays behind may be a link.
    symlink(".", source.directory.join("onnx")).unwrap();
    source.quantize(&recipe).unwrap();
}

#[test]
fn the_report_serializes() {
    let source = TinyBert::f32().write();
    let recipe = Recipe::from(FourBitRecipe::nf4().with_skip(["*.layer.1.*"]));
    let report = source.quantize(&recipe).unwrap();
    assert!(report.elapsed_seconds > 0.0);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["recipe"]["skip"][0], "*.layer.1.*");
    assert_eq!(json["modules"].as_array().unwrap().len(), 6);
    assert_eq!(json["output_bytes"], report.output_bytes);
    let parts: u64 = json["parts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part["output_bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(parts, report.output_bytes as u64);
    let module = &report.modules[0];
    assert_eq!(
        module.bits_per_weight,
        8.0 * module.output_bytes as f64 / 1024.0
    );
}
