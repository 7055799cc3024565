//! `fewbit quantize`

use crate::tiny_model::Workspace;

/// Flags of every kind of output, and the least cosine to the float embeddings that its bits can be blamed for. The random
/// weights of the tiny model are the worst case for few bits; what is guarded here is that the right weights are read back,
/// which a wrong order, scale or code table would bring near 0.
const METHODS: [(&str, &[&str], f64); 11] = [
    ("fp16", &["--method", "fp16"], 0.999_99),
    ("bf16", &["--method", "bf16"], 0.999),
    ("dynamic", &["--method", "dynamic"], 0.99),
    (
        "dynamic-embeddings",
        &["--method", "dynamic", "--quantize-embeddings"],
        0.99,
    ),
    (
        "dynamic-float",
        &["--method", "dynamic", "--keep-embeddings"],
        0.99,
    ),
    (
        "weight-only",
        &["--method", "weight-only", "--float-dtype", "fp16"],
        0.99,
    ),
    ("nf4", &["--method", "nf4", "--float-dtype", "bf16"], 0.9),
    (
        "nf4-int8",
        &["--method", "nf4", "--embeddings", "int8"],
        0.9,
    ),
    ("nf4-nf4", &["--method", "nf4", "--embeddings", "nf4"], 0.9),
    (
        "nf4-double",
        &["--method", "int4", "--double-quant", "--block-size", "32"],
        0.9,
    ),
    ("fp4", &["--method", "fp4"], 0.9),
];

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| {
        x.iter()
            .zip(y)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum::<f64>()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn what_every_method_writes_can_be_embedded_with_and_inspected() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a small dog\nthe sea\nred\n");
    let float = workspace
        .succeed(&["embed", "model", "-i", "texts.txt"])
        .embeddings();
    let float_bytes =
        workspace.succeed(&["inspect", "model", "--json"]).json()["size"]["parameter_bytes"]
            .as_u64()
            .unwrap();
    for (out, flags, least) in METHODS {
        let outcome =
            workspace.succeed(&[&["quantize", "model", "-o", out, "--json"], flags].concat());
        let report = outcome.json();
        let embeddings = workspace
            .succeed(&["embed", out, "-i", "texts.txt"])
            .embeddings();
        for (float, found) in float.iter().zip(&embeddings) {
            let cosine = cosine(float, found);
            assert!(cosine >= least, "{out}: {cosine}");
        }
        let size = workspace.succeed(&["inspect", out, "--json"]).json()["size"].clone();
        let written =
            size["parameter_bytes"].as_u64().unwrap() + size["buffer_bytes"].as_u64().unwrap();
        assert_eq!(Some(written), report["output_bytes"].as_u64(), "{out}");
        assert_eq!(
            size["parameters"].as_u64().unwrap() * 4,
            float_bytes,
            "{out}: a quantized weight counts its elements"
        );
    }
    assert!(
        workspace
            .entries(".")
            .iter()
            .all(|name| !name.starts_with('.')),
        "{:?}",
        workspace.entries(".")
    );
}

#[test]
fn a_dry_run_shows_the_size_and_writes_nothing() {
    let workspace = Workspace::new();
    let plan = workspace.succeed(&["quantize", "model", "--method", "nf4", "--dry-run"]);
    insta::assert_snapshot!(plan.stdout);
    let planned = workspace
        .succeed(&[
            "quantize",
            "model",
            "-o",
            "out",
            "--method",
            "nf4",
            "--dry-run",
            "--json",
        ])
        .json();
    assert_eq!(workspace.entries("."), ["model"]);
    assert_eq!(planned["dry_run"], true);
    let done = workspace
        .succeed(&[
            "quantize", "model", "-o", "out", "--method", "nf4", "--json",
        ])
        .json();
    assert_eq!(planned["output_bytes"], done["output_bytes"]);
}

#[test]
fn the_report_says_sizes_what_stays_float_and_what_lost_most() {
    let workspace = Workspace::new();
    let outcome = workspace.succeed(&[
        "quantize",
        "model",
        "-o",
        "out",
        "--method",
        "int4",
        "--skip",
        "*.output.dense",
    ]);
    let (report, last) = outcome.stdout.trim_end().rsplit_once('\n').unwrap();
    insta::assert_snapshot!(report);
    assert!(last.starts_with("written to out in "), "{last}");
    assert_eq!(outcome.stderr, "int4 is nf4: 4-bit NormalFloat codes\n");
}

#[test]
fn a_recipe_file_does_what_the_flags_do_and_flags_may_not_contradict_it() {
    let workspace = Workspace::new();
    workspace.write(
        "nf4.toml",
        "version = 1\nmethod = \"nf4\"\nblock_size = 128\nskip = [\"*.layer.0.*\"]\n",
    );
    workspace.succeed(&[
        "quantize",
        "model",
        "-o",
        "by-recipe",
        "--recipe",
        "nf4.toml",
    ]);
    workspace.succeed(&[
        "quantize",
        "model",
        "-o",
        "by-flags",
        "--method",
        "nf4",
        "--block-size",
        "128",
        "--skip",
        "*.layer.0.*",
    ]);
    assert_eq!(
        workspace.read("by-recipe/model.safetensors"),
        workspace.read("by-flags/model.safetensors")
    );
    let agreeing = [
        "quantize",
        "model",
        "-o",
        "agreeing",
        "--recipe",
        "nf4.toml",
        "--method",
        "int4",
        "--block-size",
        "128",
    ];
    workspace.succeed(&agreeing);

    let refused = |flags: &[&str]| {
        workspace.misuse(
            &[
                &["quantize", "model", "-o", "no", "--recipe", "nf4.toml"],
                flags,
            ]
            .concat(),
        )
    };
    insta::assert_snapshot!(refused(&["--method", "fp4"]), @"
    error: --method contradicts the recipe file: the flag says fp4, the file nf4
      hint: leave out the flag, or change the file
    ");
    insta::assert_snapshot!(refused(&["--block-size", "64"]), @"
    error: --block-size contradicts the recipe file: the flag says 64, the file 128
      hint: leave out the flag, or change the file
    ");
    insta::assert_snapshot!(refused(&["--double-quant"]), @"
    error: --double-quant contradicts the recipe file: the flag says true, the file false
      hint: leave out the flag, or change the file
    ");
    insta::assert_snapshot!(refused(&["--quantize-embeddings"]), @"
    error: --quantize-embeddings contradicts the recipe file: the flag says int8, the file keep
      hint: leave out the flag, or change the file
    ");
    assert!(!workspace.path("no").exists());
}

#[test]
fn flags_that_do_not_fit_the_method_are_wrong_usage() {
    let workspace = Workspace::new();
    let refused =
        |flags: &[&str]| workspace.misuse(&[&["quantize", "model", "-o", "no"], flags].concat());
    insta::assert_snapshot!(refused(&["--method", "dynamic", "--block-size", "64"]), @"
    error: --block-size: does not go with the method `dynamic`
      hint: `nf4` and `fp4` have a block size
    ");
    insta::assert_snapshot!(refused(&["--method", "nf4", "--block-size", "65"]), @"
    error: --block-size: expected a power of two from 32 to 4096, found 65
      hint: 64 is what bitsandbytes uses
    ");
    insta::assert_snapshot!(refused(&["--method", "dynamic", "--double-quant"]), @"
    error: --double-quant: does not go with the method `dynamic`
      hint: `nf4` and `fp4` have double quantization
    ");
    insta::assert_snapshot!(refused(&["--method", "nf4", "--quantize-embeddings"]), @r#"
    error: --quantize-embeddings: does not go with the method `nf4`
      hint: no other loader reads int8 embeddings in the bitsandbytes layout: if fewbit alone is to read them, `embeddings = "int8"` writes them
    "#);
    insta::assert_snapshot!(refused(&["--method", "dynamic", "--embeddings", "nf4"]), @"
    error: --embeddings: expected `auto`, `keep`, `int8`, `fp16` or `bf16` with integer weights, found `nf4`
      hint: the compressed-tensors layout has no NF4 codes: use `int8`, or the method `nf4`
    ");
    insta::assert_snapshot!(refused(&["--method", "fp16", "--float-dtype", "bf16"]), @"
    error: --float-dtype: does not go with the method `fp16`
      hint: `fp16` and `bf16` are the dtype of every tensor: leave it out
    ");
    insta::assert_snapshot!(refused(&["--method", "fp16", "--skip", "*.key"]), @r#"
    error: --skip: does not go with the method `fp16`
      hint: a checkpoint of mixed dtypes is loaded as one dtype: leave the patterns out
    "#);
    insta::assert_snapshot!(refused(&["--method", "nf4", "--skip", "*"]), @"
    error: --skip: expected at least one module left to quantize, found none: the patterns match all 12
      hint: use narrower patterns, or copy the directory if nothing is to be quantized
    ");
    let long = format!("x{}", "y".repeat(5000));
    let text = refused(&["--method", "nf4", "--skip", &long]);
    assert!(text.starts_with("error: --skip: pattern `xyyyy"), "{text}");
}

#[test]
fn a_dry_run_refuses_the_outputs_that_the_run_would() {
    let workspace = Workspace::new();
    std::fs::create_dir(workspace.path("full")).unwrap();
    workspace.write("full/precious.txt", "keep me");
    workspace.write("file", "keep me");
    let before = workspace.entries(".");
    for flags in [
        ["full", "--json"],
        ["full", "--force"],
        ["file", "--force"],
        ["model", "--force"],
        ["model", "--json"],
        ["model/inside", "--json"],
        [".", "--force"],
        ["file/below", "--json"],
    ] {
        let arguments = [
            &["quantize", "model", "--method", "nf4", "-o"],
            flags.as_slice(),
        ]
        .concat();
        let refused = workspace.fail(&arguments);
        assert_eq!(
            workspace.fail(&[arguments.as_slice(), &["--dry-run"]].concat()),
            refused
        );
    }
    let fine = [
        "quantize",
        "model",
        "--method",
        "nf4",
        "-o",
        "a/b/c",
        "--dry-run",
    ];
    workspace.succeed(&fine);
    assert_eq!(workspace.entries("."), before);
}

#[test]
fn a_model_that_has_the_dtype_already_is_said() {
    let workspace = Workspace::new();
    workspace.succeed(&["quantize", "model", "-o", "half", "--method", "fp16"]);
    let again = workspace.succeed(&["quantize", "half", "-o", "again", "--method", "fp16"]);
    assert_eq!(
        again.stderr,
        "already fp16: every tensor is written as it is\n"
    );
    assert_eq!(
        workspace.read("again/model.safetensors"),
        workspace.read("half/model.safetensors")
    );
}

#[test]
fn the_embedding_table_is_int8_unless_it_is_kept() {
    let workspace = Workspace::new();
    let dry_run = ["quantize", "model", "--method", "dynamic", "--dry-run"];
    let shown = workspace.succeed(&dry_run).stdout;
    assert!(shown.contains("\ndynamic + int8 embeddings: "), "{shown}");
    let flags = [&dry_run[..], &["--keep-embeddings"]].concat();
    let shown = workspace.succeed(&flags).stdout;
    let line = "embeddings.word_embeddings: the recipe keeps the embedding table in floats\n";
    assert!(shown.contains(line), "{shown}");
    // PyTorch's quantize_dynamic keeps it, too.
    let flags = [
        &dry_run[..],
        &["--activations", "per-tensor", "--backend", "x86"],
    ];
    let shown = workspace.succeed(&flags.concat()).stdout;
    assert!(shown.contains(line), "{shown}");
}

#[test]
fn an_output_that_is_there_is_replaced_only_with_force() {
    let workspace = Workspace::new();
    workspace.succeed(&["quantize", "model", "-o", "out", "--method", "fp16"]);
    let before = workspace.read("out/model.safetensors");
    insta::assert_snapshot!(workspace.fail(&["quantize", "model", "-o", "out", "--method", "dynamic"]), @"
    error: [here]/out: output exists: expected no such path or an empty directory, found a directory with files in it
      hint: name another output directory, or replace this one with --force
    ");
    assert_eq!(workspace.read("out/model.safetensors"), before);
    workspace.succeed(&[
        "quantize", "model", "-o", "out", "--method", "dynamic", "--force",
    ]);
    assert_ne!(workspace.read("out/model.safetensors"), before);
    assert_eq!(workspace.entries("."), ["model", "out"]);
}
