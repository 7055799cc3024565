//! Outputs of several files, and runs that go on from those that are whole.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fewbit_checkpoint::{Checkpoint, CheckpointErrorKind, partial_path};
use fewbit_quantize::{
    FloatDType, FourBitRecipe, IntegerRecipe, Method, OutputOptions, PlannedConversion,
    QuantizeError, QuantizeReport, Recipe, ShardSize,
};
use serde_json::{Value, json};

use crate::tiny_bert::{Source, TinyBert};

fn options(bytes: u64) -> OutputOptions {
    OutputOptions {
        max_shard_size: ShardSize::from_bytes(bytes).unwrap(),
        ..OutputOptions::default()
    }
}

fn resumed(bytes: u64) -> OutputOptions {
    OutputOptions {
        resume: true,
        ..options(bytes)
    }
}

fn write(
    source: &Source,
    recipe: &Recipe,
    out: &str,
    options: OutputOptions,
) -> Result<QuantizeReport, QuantizeError> {
    let conversion = PlannedConversion::new(&source.directory, recipe).unwrap();
    conversion.write(None, source.out(out), &options, &mut |_, _, _| {})
}

/// Stops the run when the first file is whole, as an exception in the callback of a program does.
fn interrupt(source: &Source, recipe: &Recipe, out: &str, options: OutputOptions) {
    let conversion = PlannedConversion::new(&source.directory, recipe).unwrap();
    let partial = partial_path(&source.out(out));
    let mut tensors = 0;
    let mut progress = |_, _, _: &str| {
        tensors += 1;
        // The twentieth tensor is not in the first file in any of these tests: what was finished before is kept by another thread.
        if tensors == 20 {
            while !partial.exists() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            std::panic::resume_unwind(Box::new("stopped"));
        }
    };
    let run = || conversion.write(None, source.out(out), &options, &mut progress);
    assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    assert!(!source.out(out).exists());
}

fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect()
}

/// Everything but where and how long.
fn found(report: &QuantizeReport) -> Value {
    let mut report = serde_json::to_value(report).unwrap();
    for field in ["output", "elapsed_seconds"] {
        report.as_object_mut().unwrap().remove(field);
    }
    report
}

fn recipes() -> Vec<Recipe> {
    vec![
        Recipe::new(Method::Fp16),
        Recipe::new(Method::Dynamic),
        Recipe::new(Method::WeightOnly),
        IntegerRecipe::dynamic()
            .with_float_dtype(FloatDType::Bf16)
            .into(),
        FourBitRecipe::nf4().with_double_quantization(true).into(),
    ]
}

/// A checkpoint whose report has something of everything: a value that vanishes in fp16, and one in a head that is no number.
fn source() -> Source {
    let mut tiny = TinyBert::f32();
    tiny.poke("bert.pooler.dense.bias", 1, 1e-30);
    tiny.poke("bert.pooler.dense.weight", 3, f32::INFINITY);
    tiny.write()
}

#[test]
fn tensors_are_those_of_one_file_and_no_weight_is_parted() {
    let source = source();
    for recipe in recipes() {
        let whole = write(&source, &recipe, "whole", OutputOptions::default()).unwrap();
        assert_eq!(whole.files, 1);
        let report = write(&source, &recipe, "out", options(3000)).unwrap();
        let label = recipe.label();
        assert!(report.files > 2, "{label}");
        let (expected, written) = (
            Checkpoint::open(source.out("whole")).unwrap(),
            Checkpoint::open(source.out("out")).unwrap(),
        );
        assert_eq!(expected.tensors().count(), written.tensors().count());
        for tensor in expected.tensors() {
            let (a, b) = (
                expected.require(&tensor.name).unwrap(),
                written.require(&tensor.name).unwrap(),
            );
            assert_eq!((a.info.dtype, &a.info.shape), (b.info.dtype, &b.info.shape));
            assert_eq!(a.bytes().unwrap(), b.bytes().unwrap(), "{}", tensor.name);
        }
        // As transformers writes it.
        let index: Value = serde_json::from_slice(
            &fs::read(source.out("out/model.safetensors.index.json")).unwrap(),
        )
        .unwrap();
        assert_eq!(
            index["metadata"],
            json!({"total_size": report.output_bytes})
        );
        let weight_map = index["weight_map"].as_object().unwrap();
        let names: Vec<&String> = weight_map.keys().collect();
        assert!(names.is_sorted());
        assert_eq!(weight_map.len(), written.tensors().count());
        let mut total = 0;
        for number in 1..=report.files {
            let name = format!("model-{number:05}-of-{:05}.safetensors", report.files);
            let bytes = fs::metadata(source.out("out").join(&name)).unwrap().len();
            total += bytes;
            let held = weight_map.iter().filter(|(_, file)| **file == name);
            let held: Vec<_> = held.map(|(tensor, _)| tensor.as_str()).collect();
            assert!(!held.is_empty());
            let data: usize = (held.iter())
                .map(|tensor| written.require(tensor).unwrap().info.byte_len)
                .sum();
            let weights = held.iter().filter(|tensor| tensor.contains(".weight"));
            let modules = weights.map(|tensor| tensor.split(".weight").next());
            let modules: std::collections::BTreeSet<_> = modules.collect();
            assert!(data <= 3000 || modules.len() == 1, "{label}: {held:?}");
        }
        assert_eq!(total, report.file_bytes);
        for module in &report.modules {
            let of_module = weight_map
                .iter()
                .filter(|(tensor, _)| tensor.starts_with(&format!("{}.weight", module.module)));
            let of_module: std::collections::BTreeSet<_> =
                of_module.map(|(_, file)| file.as_str()).collect();
            assert_eq!(of_module.len(), 1, "{label}: {}", module.module);
        }
        // The rest of the report does not depend on the files.
        let (mut a, mut b) = (found(&whole), found(&report));
        for field in ["files", "file_bytes"] {
            a.as_object_mut().unwrap().remove(field);
            b.as_object_mut().unwrap().remove(field);
        }
        assert_eq!(a, b);
        assert_eq!(source.siblings(), ["out", "whole"], "nothing is kept");
        for name in ["out", "whole"] {
            fs::remove_dir_all(source.out(name)).unwrap();
        }
    }
}

#[test]
fn a_run_that_goes_on_writes_the_same_bytes_and_the_same_report() {
    let source = source();
    for recipe in recipes() {
        let whole = write(&source, &recipe, "whole", options(3000)).unwrap();
        interrupt(&source, &recipe, "out", options(3000));
        let partial = source.out("out.partial");
        let kept = files(&partial);
        let shards = kept.keys().filter(|name| name.ends_with(".safetensors"));
        assert!(shards.count() >= 1, "{:?}", kept.keys());
        assert_eq!(source.siblings(), ["out.partial", "whole"]);
        // Without --resume it is not passed over.
        let error = write(&source, &recipe, "out", options(3000)).unwrap_err();
        assert!(
            error.to_string().ends_with(
                "out.partial: expected nothing, found what was finished of a run that was interrupted\n  \
                 hint: go on with --resume, or remove the directory to start again"
            ),
            "{error}"
        );
        // What is kept is not written again: a mark in the data of a shard is still there.
        let marked = kept
            .keys()
            .find(|name| name.ends_with(".safetensors"))
            .unwrap();
        let mut bytes = kept[marked].clone();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(partial.join(marked), &bytes).unwrap();
        let report = write(&source, &recipe, "out", resumed(3000)).unwrap();
        assert_eq!(found(&report), found(&whole));
        let (mut found, expected) = (files(&source.out("out")), files(&source.out("whole")));
        assert_eq!(found[marked], bytes);
        *found.get_mut(marked).unwrap().last_mut().unwrap() ^= 1;
        assert!(found == expected);
        assert_eq!(source.siblings(), ["out", "whole"]);
        for name in ["out", "whole"] {
            fs::remove_dir_all(source.out(name)).unwrap();
        }
    }
}

#[test]
fn shards_of_another_run_are_refused_and_damaged_ones_written_again() {
    let source = source();
    let recipe = Recipe::new(Method::WeightOnly);
    write(&source, &recipe, "whole", options(3000)).unwrap();
    interrupt(&source, &recipe, "out", options(3000));
    let before = files(&source.out("out.partial"));
    let other = |recipe: &Recipe, size: u64| {
        let error = write(&source, recipe, "out", resumed(size)).unwrap_err();
        assert!(
            error.to_string().ends_with(
                "out.partial: expected shards of the same source, recipe, size of shards and version of fewbit, found those of another run\n  \
                 hint: give the flags of the run that was interrupted, or remove the directory to start again"
            ),
            "{error}"
        );
        assert_eq!(source.siblings(), ["out.partial", "whole"]);
    };
    other(&recipe, 3001);
    // Also one that has a single file.
    other(&recipe, 1 << 30);
    other(&Recipe::new(Method::Dynamic), 3000);
    other(
        &IntegerRecipe::weight_only()
            .with_float_dtype(FloatDType::Bf16)
            .into(),
        3000,
    );
    let weights = source.directory.join("model.safetensors");
    let modified = fs::metadata(&weights).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(&weights).unwrap();
    file.set_modified(modified + std::time::Duration::from_secs(1))
        .unwrap();
    other(&recipe, 3000);
    file.set_modified(modified).unwrap();
    // One that another process works on.
    let lock = fs::File::open(source.out("out.partial/.fewbit-lock")).unwrap();
    lock.lock().unwrap();
    let error = write(&source, &recipe, "out", resumed(3000)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("found one that another process works on"),
        "{error}"
    );
    drop(lock);
    assert!(files(&source.out("out.partial")) == before);

    // Shortened, with another header, and without a record that can be read.
    let shard = before
        .keys()
        .find(|name| name.ends_with(".safetensors"))
        .unwrap();
    let bytes = &before[shard];
    let mut other_header = bytes.clone();
    other_header[20] ^= 1;
    for (name, damaged) in [
        (shard.clone(), &bytes[..bytes.len() - 1]),
        (shard.clone(), &other_header[..]),
        (format!("{shard}.json"), b"{"),
    ] {
        if !source.out("out.partial").exists() {
            interrupt(&source, &recipe, "out", options(3000));
        }
        fs::write(source.out("out.partial").join(name), damaged).unwrap();
        write(&source, &recipe, "out", resumed(3000)).unwrap();
        assert!(files(&source.out("out")) == files(&source.out("whole")));
        assert_eq!(source.siblings(), ["out", "whole"]);
        fs::remove_dir_all(source.out("out")).unwrap();
    }

    // A record of something else.
    interrupt(&source, &recipe, "out", options(3000));
    fs::write(
        source.out("out.partial").join(format!("{shard}.json")),
        "{}",
    )
    .unwrap();
    let error = write(&source, &recipe, "out", resumed(3000)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the record of a whole file: expected what was found of this tensor"),
        "{error}"
    );
    assert_eq!(source.siblings(), ["whole"]);
}

/// Another try cannot mend the source: what was finished goes, too.
#[test]
fn an_error_of_the_source_leaves_nothing() {
    let mut tiny = TinyBert::f32();
    let last = "bert.encoder.layer.1.output.dense.weight";
    tiny.poke(last, 5, f32::NAN);
    let source = tiny.write();
    for recipe in recipes() {
        let error = write(&source, &recipe, "out", options(1)).unwrap_err();
        let QuantizeError::Checkpoint(error) = error else {
            panic!("{error}")
        };
        assert_eq!(error.kind(), CheckpointErrorKind::NonFinite);
        assert!(error.tensor().unwrap().ends_with(last), "{error}");
        assert!(source.siblings().is_empty(), "{:?}", source.siblings());
    }
}

/// What others put into the directory is not removed.
#[test]
fn other_files_beside_kept_shards_stay() {
    let source = source();
    let recipe = Recipe::new(Method::Nf4);
    interrupt(&source, &recipe, "out", options(2000));
    fs::write(source.out("out.partial/notes"), "precious").unwrap();
    write(&source, &recipe, "out", resumed(2000)).unwrap();
    assert_eq!(source.siblings(), ["out", "out.partial"]);
    assert_eq!(
        fs::read(source.out("out.partial/notes")).unwrap(),
        b"precious"
    );
}
