//! `fewbit quantize --gptq`, and what compares and inspects its models.

use crate::tiny_model::Workspace;

const CALIBRATION: [&str; 4] = ["--calibration", "texts.txt", "--samples", "4"];

fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a small dog\nthe sea\nred\na red dog\n");
    workspace
}

/// `fewbit quantize model -o OUT` with these flags.
fn quantize<'a>(out: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
    [&["quantize", "model", "-o", out][..], flags].concat()
}

#[test]
fn every_int8_method_is_rounded_and_again_from_its_recipe() {
    let workspace = workspace();
    for method in ["dynamic", "static", "weight-only"] {
        let plain = format!("plain-{method}");
        let calibration: &[&str] = match method {
            "static" => &CALIBRATION,
            _ => &[],
        };
        workspace.succeed(&quantize(
            &plain,
            &[&["--method", method], calibration].concat(),
        ));
        let flags = [&["--method", method, "--gptq"], &CALIBRATION[..]].concat();
        let outcome = workspace.succeed(&quantize(method, &flags));
        assert!(
            outcome.stdout.contains(&format!("{method} + GPTQ")),
            "{}",
            outcome.stdout
        );
        let weights = |directory: &str| workspace.read(&format!("{directory}/model.safetensors"));
        assert_ne!(weights(method), weights(&plain));
        assert_eq!(weights(method).len(), weights(&plain).len());
        // What loaders read is the same.
        assert_eq!(
            workspace.json(&format!("{method}/config.json")),
            workspace.json(&format!("{plain}/config.json"))
        );
        workspace.succeed(&["embed", method, "-i", "texts.txt"]);

        let recipe = format!("{method}/recipe.toml");
        let again = format!("again-{method}");
        let replay = [&["--recipe", &recipe, "--threads", "1"], &CALIBRATION[..]].concat();
        workspace.succeed(&quantize(&again, &replay));
        assert_eq!(weights(method), weights(&again));
        assert_eq!(
            workspace.read(&recipe),
            workspace.read(&format!("{again}/recipe.toml"))
        );
        let message = workspace.misuse(&quantize("x", &["--recipe", &recipe]));
        assert!(
            message.starts_with(&format!(
                "error: {recipe}: `gptq`: expected --calibration FILE"
            )),
            "{message}"
        );
    }
}

/// A projection after the embeddings, and names that are not BERT's.
#[test]
fn other_architectures_are_rounded_in_every_layer() {
    for architecture in ["electra-embedding-size-16", "distilbert"] {
        let workspace = Workspace::with(architecture);
        workspace.write("texts.txt", "a small dog\nthe sea\nred\na red dog\n");
        let flags = [
            &[
                "--method",
                "weight-only",
                "--gptq",
                "--saturation-proof",
                "--keep-embeddings",
                "--json",
            ],
            &CALIBRATION[..],
        ];
        let report = workspace.succeed(&quantize("out", &flags.concat())).json();
        let modules = report["modules"].as_array().unwrap();
        let projections = usize::from(architecture.starts_with("electra"));
        assert_eq!(modules.len(), 2 * 6 + projections, "{architecture}");
        for module in modules {
            let action = module["action"].as_str().unwrap();
            assert!(action.contains("GPTQ, saturation-proof"), "{module}");
        }
        let inspection = workspace.succeed(&["inspect", "out", "--json"]).json();
        assert_eq!(inspection["saturation"]["saturation_proof"], true);
        workspace.succeed(&["embed", "out", "-i", "texts.txt"]);
    }
}

#[test]
fn token_ids_do_as_well_as_texts() {
    let workspace = workspace();
    // [CLS] and [SEP] around what the tokenizer makes of the texts does not matter here: any ids will do.
    workspace.write(
        "ids.jsonl",
        "{\"input_ids\": [2, 7, 8, 3]}\n{\"input_ids\": [2, 9, 3]}\n",
    );
    let flags = [
        "--method",
        "weight-only",
        "--gptq",
        "--calibration",
        "ids.jsonl",
    ];
    let outcome = workspace.succeed(&quantize("out", &flags));
    assert!(
        outcome
            .stderr
            .contains("ids.jsonl: no column `text`: calibrating with the token ids of `input_ids`"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn inspect_says_whether_pairs_of_weights_can_saturate() {
    let workspace = workspace();
    let flags = [&["--method", "dynamic", "--gptq"], &CALIBRATION[..]].concat();
    workspace.succeed(&quantize("ordinary", &flags));
    let flags = [&flags[..], &["--saturation-proof"]].concat();
    workspace.succeed(&quantize("proof", &flags));
    let line = |model: &str| {
        let shown = workspace.succeed(&["inspect", model]).stdout;
        let mut lines = shown.lines();
        lines
            .find(|line| line.contains("saturation-proof"))
            .map(str::to_owned)
    };
    // 2 layers of 4 x 32 x 32 and 2 x 32 x 44 weights.
    let pairs = 2 * (4 * 32 * 32 + 2 * 32 * 44) / 2;
    assert_eq!(pairs, 6912);
    assert_eq!(
        line("proof").as_deref(),
        Some("  saturation-proof: none of 6,912 pairs of int8 weights can saturate 16 bits")
    );
    let ordinary = line("ordinary").unwrap();
    assert!(
        ordinary.starts_with("  not saturation-proof: ")
            && ordinary.contains(" of 6,912 pairs of int8 weights ("),
        "{ordinary}"
    );
    assert_eq!(line("model"), None);
    let json = |model: &str| workspace.succeed(&["inspect", model, "--json"]).json();
    assert_eq!(json("proof")["saturation"]["saturation_proof"], true);
    assert_eq!(json("proof")["saturation"]["pairs"], 6912);
    assert_eq!(json("ordinary")["saturation"]["saturation_proof"], false);
    assert!(json("model")["saturation"].is_null());
    let recipe = String::from_utf8(workspace.read("proof/recipe.toml")).unwrap();
    assert_eq!(
        recipe,
        "version = 1\nmethod = \"dynamic\"\nembeddings = \"int8\"\ngptq = true\nsaturation_proof = true\n"
    );
}

#[test]
fn compare_takes_it_as_a_part_of_a_methods_name() {
    let workspace = workspace();
    let methods = "dynamic,dynamic+gptq,dynamic+gptq+saturation-proof,weight-only+gptq,static+gptq";
    let compare =
        |more: &[&'static str]| [&["compare", "model", "--methods", methods], more].concat();
    let json = workspace
        .succeed(&compare(
            &[&CALIBRATION[..], &["--keep", "kept", "--json"]].concat(),
        ))
        .json();
    let names: Vec<&str> = json["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "original",
            "dynamic",
            "dynamic + GPTQ",
            "dynamic + GPTQ + saturation-proof",
            "weight-only + GPTQ",
            "static + GPTQ",
        ]
    );
    let flags = [&["--method", "static", "--gptq"], &CALIBRATION[..]].concat();
    workspace.succeed(&quantize("out", &flags));
    assert_eq!(
        workspace.read("kept/static-GPTQ/model.safetensors"),
        workspace.read("out/model.safetensors")
    );
    insta::assert_snapshot!(workspace.misuse(&["compare", "model", "--methods", "dynamic+gptq"]), @"
    error: --methods: dynamic+gptq: expected --calibration FILE
      hint: a few hundred texts like those that the model will see, one a line; statistics (--stats) hold ranges, and nothing else will do
    ");
    let observer = [
        &[
            "compare",
            "model",
            "--methods",
            "dynamic+gptq",
            "--observer",
            "mse",
        ],
        &CALIBRATION[..],
    ]
    .concat();
    insta::assert_snapshot!(workspace.misuse(&observer), @"
    error: --observer: expected the method `static`, without a recipe file: it is about ranges of inputs, of which none is chosen here
      hint: leave it out: GPTQ and weighted scales need nothing but texts
    ");
}

#[test]
fn what_does_not_go_together_is_refused_and_leaves_nothing() {
    let workspace = workspace();
    let refused = |flags: &[&str]| workspace.misuse(&quantize("out", flags));
    insta::assert_snapshot!(refused(&["--method", "dynamic", "--gptq"]), @"
    error: --gptq: expected --calibration FILE
      hint: a few hundred texts like those that the model will see, one a line; statistics (--stats) hold ranges, and nothing else will do
    ");
    workspace.succeed(&[
        "calibrate",
        "model",
        "--calibration",
        "texts.txt",
        "--stats",
        "s.json",
    ]);
    insta::assert_snapshot!(refused(&["--method", "static", "--gptq", "--stats", "s.json"]), @"
    error: --gptq: expected --calibration FILE
      hint: a few hundred texts like those that the model will see, one a line; statistics (--stats) hold ranges, and nothing else will do
    ");
    insta::assert_snapshot!(refused(&["--method", "dynamic", "--saturation-proof"]), @"
    error: --saturation-proof: expected --gptq beside it
      hint: the steps of such weights are half as wide again, which only GPTQ makes up for: set `gptq`, too
    ");
    insta::assert_snapshot!(refused(&["--method", "nf4", "--scales", "activation-weighted"]), @"
    error: --scales activation-weighted: expected --calibration FILE
      hint: a few hundred texts like those that the model will see, one a line; statistics (--stats) hold ranges, and nothing else will do
    ");
    insta::assert_snapshot!(refused(&["--method", "nf4", "--gptq", "--saturation-proof", "--calibration", "texts.txt"]), @"
    error: --saturation-proof: does not go with the method `nf4`
      hint: pairs of int8 weights can saturate: use `dynamic`, `static` or `weight-only`
    ");
    insta::assert_snapshot!(refused(&["--method", "fp16", "--gptq", "--calibration", "texts.txt"]), @"
    error: --gptq: does not go with the method `fp16`
      hint: GPTQ rounds codes of 8 and of 4 bits: use any method but `fp16` and `bf16`
    ");
    insta::assert_snapshot!(refused(&["--method", "static", "--gptq", "--backend", "qnnpack", "--calibration", "texts.txt"]), @"
    error: --backend qnnpack: expected a backend with a scale for each channel of a weight with GPTQ
      hint: use another backend, or leave GPTQ out
    ");
    insta::assert_snapshot!(refused(&["--method", "dynamic", "--gptq", "--calibration", "texts.txt", "--min-sqnr", "20"]), @"
    error: --min-sqnr: expected the method `static`, without a recipe file: it is about ranges of inputs, of which none is chosen here
      hint: leave it out: GPTQ and weighted scales need nothing but texts
    ");
    workspace.write("recipe.toml", "version = 1\nmethod = \"dynamic\"\n");
    insta::assert_snapshot!(refused(&["--recipe", "recipe.toml", "--gptq", "--calibration", "texts.txt"]), @"
    error: --gptq contradicts the recipe file: the flag says true, the file false
      hint: leave out the flag, or change the file
    ");
    let few = workspace.fail(&quantize(
        "out",
        &[
            "--method",
            "dynamic",
            "--gptq",
            "--calibration",
            "texts.txt",
            "--samples",
            "5",
        ],
    ));
    insta::assert_snapshot!(few, @"
    error: texts.txt: expected at least 5 texts, found 4
      hint: give a file of more texts, or ask for fewer samples
    ");
    assert_eq!(
        workspace.entries("."),
        ["model", "recipe.toml", "s.json", "texts.txt"]
    );
}

#[test]
fn finished_layers_of_an_interrupted_run_are_not_passed_over() {
    let workspace = workspace();
    let flags = [&["--method", "dynamic", "--gptq"], &CALIBRATION[..]].concat();
    let outcome = workspace.succeed(&quantize("first", &[&flags[..], &["--resume"]].concat()));
    assert!(
        outcome
            .stderr
            .contains("first.partial is not there: nothing to resume, starting anew\n"),
        "{}",
        outcome.stderr
    );
    std::fs::create_dir(workspace.path("out.partial")).unwrap();
    insta::assert_snapshot!(workspace.fail(&quantize("out", &flags)), @"
    error: out.partial: expected nothing, found the finished layers of a run that was interrupted
      hint: go on with --resume, or remove the directory to start again
    ");
    // Nothing was finished yet.
    let outcome = workspace.succeed(&quantize("out", &[&flags[..], &["--resume"]].concat()));
    assert_eq!(outcome.stderr, "");
    let weights = |directory: &str| workspace.read(&format!("{directory}/model.safetensors"));
    assert_eq!(weights("out"), weights("first"));
    assert_eq!(
        workspace.entries("."),
        ["first", "model", "out", "texts.txt"]
    );
}

#[test]
fn a_dry_run_shows_what_would_be_done() {
    let workspace = workspace();
    let arguments = [
        &[
            "quantize",
            "model",
            "--dry-run",
            "--method",
            "dynamic",
            "--gptq",
            "--saturation-proof",
        ],
        &CALIBRATION[..],
    ];
    let shown = workspace.succeed(&arguments.concat()).stdout;
    assert!(
        shown.contains(
            "quantize to int8 per channel by GPTQ, saturation-proof, activations per token"
        ),
        "{shown}"
    );
}
