//! Help, usage errors, and the small commands.

use crate::tiny_model::{Outcome, Workspace};

#[test]
fn every_command_explains_itself_on_standard_output() {
    let workspace = Workspace::new();
    let mut shown = String::new();
    for command in [
        vec!["--help"],
        vec!["inspect", "--help"],
        vec!["quantize", "--help"],
        vec!["convert", "--help"],
        vec!["embed", "--help"],
        vec!["predict", "--help"],
        vec!["compare", "--help"],
        vec!["bench", "--help"],
        vec!["calibrate", "--help"],
        vec!["sensitivity", "--help"],
        vec!["kernels", "--help"],
        vec!["completions", "--help"],
        vec!["man", "--help"],
    ] {
        let outcome = Outcome::of(workspace.command(&command).env("COLUMNS", "110"));
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
        assert!(
            outcome
                .stdout
                .lines()
                .all(|line| line.chars().count() <= 120),
            "{}",
            outcome.stdout
        );
        shown += &format!("$ fewbit {}\n{}\n", command.join(" "), outcome.stdout);
    }
    assert!(!shown.contains("measure-one-model"));
    let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    let defaults = fewbit::compare::default_recipes();
    let names: Vec<String> = defaults.iter().map(fewbit::compare::method_name).collect();
    assert!(words.contains(&format!("[default: {}]", names.join(", "))));
    insta::assert_snapshot!(shown);
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_what_was_expected() {
    let workspace = Workspace::new();
    let first_line = |arguments: &[&str]| {
        workspace
            .misuse(arguments)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    insta::assert_snapshot!(first_line(&["quantise", "model"]), @"error: unrecognized subcommand 'quantise'");
    insta::assert_snapshot!(first_line(&["quantize", "model", "-o", "out", "--method", "int3"]), @"error: invalid value 'int3' for '--method <METHOD>'");
    insta::assert_snapshot!(first_line(&["quantize", "model", "--method", "nf4"]), @"error: the following required arguments were not provided:");
    insta::assert_snapshot!(first_line(&["quantize", "model", "-o", "out"]), @"error: the following required arguments were not provided:");
    insta::assert_snapshot!(first_line(&["embed", "model", "--threads", "0"]), @"error: invalid value '0' for '--threads <N>': expected 1 to 1024");
    insta::assert_snapshot!(first_line(&["embed", "model", "--threads", "-1"]), @"error: invalid value '-1' for '--threads <N>': expected 1 to 1024");
    insta::assert_snapshot!(first_line(&["embed", "model", "--batch-size", "0"]), @"error: invalid value '0' for '--batch-size <N>': expected 1 to 65536");
    insta::assert_snapshot!(first_line(&["compare", "model", "--max-drop", "-1"]), @"error: --max-drop: expected a number of points, 0 or more, found -1");
    insta::assert_snapshot!(first_line(&["compare", "model", "--max-drop", "nan"]), @"error: --max-drop: expected a number of points, 0 or more, found NaN");
    insta::assert_snapshot!(first_line(&["compare", "model", "--methods", "dynamic,int3"]), @"error: --methods: unknown method `int3`: expected one of fp16, bf16, dynamic, dynamic+float-embeddings, static, static+float-embeddings, weight-only, weight-only+float-embeddings, nf4, nf4+double, fp4, fp4+double, int4 (the same as nf4), an integer method with +int4, any but fp16 and bf16 with +gptq, int8 weights with +gptq+saturation-proof, or any but fp16 and bf16 with +fp16 or +bf16, the dtype of what is not quantized");
    insta::assert_snapshot!(first_line(&["compare", "model", "--methods", "nf4+embeddings"]), @"error: --methods: unknown method `nf4+embeddings`: expected one of fp16, bf16, dynamic, dynamic+float-embeddings, static, static+float-embeddings, weight-only, weight-only+float-embeddings, nf4, nf4+double, fp4, fp4+double, int4 (the same as nf4), an integer method with +int4, any but fp16 and bf16 with +gptq, int8 weights with +gptq+saturation-proof, or any but fp16 and bf16 with +fp16 or +bf16, the dtype of what is not quantized");
    insta::assert_snapshot!(first_line(&["embed", "model", "--input-format", "lines", "--field", "body"]), @"error: --field body: lines have no fields");
}

#[test]
fn doctor_says_where_the_number_of_threads_comes_from() {
    let workspace = Workspace::new();
    let outcome = Outcome::of(
        workspace
            .command(&["doctor", "--json"])
            .env("OMP_NUM_THREADS", "3"),
    );
    let diagnosis = outcome.json();
    assert_eq!(
        diagnosis["threads"],
        serde_json::json!({"count": 3, "source": {"environment": "OMP_NUM_THREADS"}})
    );
    assert!(
        diagnosis["hub_cache"]
            .as_str()
            .unwrap()
            .starts_with(workspace.path("hugging-face-home").to_str().unwrap())
    );
    let text = workspace.succeed(&["doctor", "--threads", "2"]).stdout;
    assert!(
        text.contains("threads          2, from the threads argument\n"),
        "{text}"
    );
    let wrong = Outcome::of(
        workspace
            .command(&["doctor"])
            .env("RAYON_NUM_THREADS", "two"),
    );
    assert_eq!(wrong.code, Some(1));
    assert!(
        wrong
            .stdout
            .contains("threads          unknown, see the error\nHub cache        "),
        "{}",
        wrong.stdout
    );
    assert!(wrong.stderr.starts_with("error: RAYON_NUM_THREADS: expected a number of threads from 1 to 1024, found `two`\n  hint: "), "{}", wrong.stderr);
    let wrong = Outcome::of(
        workspace
            .command(&["doctor", "--json"])
            .env("RAYON_NUM_THREADS", "two"),
    );
    assert_eq!(wrong.code, Some(1));
    assert_eq!(wrong.json()["threads"], serde_json::Value::Null);
    assert_eq!(wrong.json()["problems"].as_array().unwrap().len(), 1);
}

#[test]
fn hidden_commands_are_not_named_where_one_is_missing() {
    let workspace = Workspace::new();
    let text = workspace.misuse(&["--json"]);
    assert!(
        text.contains(
            "[subcommands: inspect, quantize, convert, calibrate, sensitivity, embed, predict, compare, bench, kernels, doctor, completions, man, help]"
        ),
        "{text}"
    );
    assert!(!text.contains("measure-one-model"), "{text}");
}

#[test]
fn names_of_methods_that_other_tools_have_get_a_hint() {
    let workspace = Workspace::new();
    let tip = |method: &str| {
        let text = workspace.misuse(&["quantize", "model", "-o", "out", "--method", method]);
        text.lines()
            .find_map(|line| line.trim().strip_prefix("tip: ").map(str::to_owned))
            .unwrap_or_default()
    };
    insta::assert_snapshot!(tip("int8"), @"`dynamic` computes with int8 activations, `weight-only` with activations of 12 bits");
    insta::assert_snapshot!(tip("dynamc"), @"a similar value exists: 'dynamic'");
}

#[test]
fn an_empty_model_is_wrong_usage() {
    let workspace = Workspace::new();
    for model in ["", " "] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(workspace.misuse(&["inspect", model]), @"
            error: MODEL is empty
              hint: name a model directory or a Hub id
            ");
        }
    }
}

#[test]
fn a_log_filter_that_is_none_is_said() {
    let workspace = Workspace::new();
    let outcome = Outcome::of(
        workspace
            .command(&["inspect", "model", "-v"])
            .env("RUST_LOG", "a=b=c"),
    );
    assert_eq!(outcome.code, Some(0));
    assert!(
        outcome.stderr.starts_with("warning: RUST_LOG: expected a log filter such as `debug` or `fewbit=trace`, found `a=b=c`: "),
        "{}",
        outcome.stderr
    );
    assert!(outcome.stderr.contains("INFO"), "{}", outcome.stderr);
}

#[test]
fn verbose_says_something_in_every_command() {
    let workspace = Workspace::new();
    workspace.write("texts.txt", "a dog\n");
    let logged = |arguments: &[&str]| workspace.succeed(arguments).stderr;
    let inspected = logged(&["inspect", "model", "-v"]);
    assert!(
        inspected.contains(
            "headers read, sizes planned model_type=\"bert\" tensors=39 parameters=19384"
        ),
        "{inspected}"
    );
    let quantized = logged(&["quantize", "model", "-o", "out", "--method", "nf4", "-v"]);
    assert!(
        quantized.contains("tensors planned changed=12 as_they_are=27"),
        "{quantized}"
    );
    let embedded = logged(&["embed", "model", "-i", "texts.txt", "-v"]);
    assert!(
        embedded.contains("tensors of the checkpoint applied=37 missing=0 unused=2"),
        "{embedded}"
    );
    assert!(
        embedded.contains("not used name=pooler.dense.bias reason=pooler: not needed"),
        "{embedded}"
    );
    let compared = logged(&["compare", "model", "--methods", "fp16", "-v"]);
    assert!(
        compared.contains("texts encoded name=\"fp16\""),
        "{compared}"
    );
    let quick = [
        "--batch",
        "1",
        "--tokens",
        "4",
        "--rounds",
        "1",
        "--seconds",
        "0.001",
    ];
    let measured = logged(&[&["bench", "model", "-v"], quick.as_slice()].concat());
    assert!(
        measured.contains("started up directory=model first_embedding_seconds="),
        "{measured}"
    );
}

#[test]
fn kernels_lists_the_table_and_follows_the_variable() {
    let workspace = Workspace::new();
    let run =
        |arguments: &[&str]| Outcome::of(workspace.command(arguments).env("FEWBIT_ISA", "scalar"));
    let report = run(&["kernels", "--json"]).json();
    assert_eq!(
        report["instruction_sets"][0],
        serde_json::json!({"isa": "scalar", "supported": true, "used": true, "same_bits": true})
    );
    assert_eq!(
        report["routines"][0],
        serde_json::json!({
            "name": "scalar_linear_f32f32f32_6x16",
            "isa": "scalar",
            "operation": "linear",
            "types": "f32f32f32",
            "tile": "6x16",
            "same_bits": true,
        })
    );
    let sets = report["instruction_sets"].as_array().expect("a list");
    let rounding: Vec<_> = sets
        .iter()
        .filter(|set| set["same_bits"] == false)
        .collect();
    assert_eq!(rounding.len(), 1);
    assert_eq!(
        (&rounding[0]["isa"], &rounding[0]["used"]),
        (&"avx512bf16".into(), &false.into())
    );
    let summary = run(&["kernels"]).stdout;
    assert!(summary.lines().count() < 20, "{summary}");
    for set in sets {
        let isa = set["isa"].as_str().expect("a name");
        let routines = report["routines"].as_array().expect("a list").iter();
        let count = routines.filter(|routine| routine["isa"] == isa).count();
        let line = summary
            .lines()
            .find(|line| line.split_whitespace().next() == Some(isa));
        let cells: Vec<&str> = line.expect("a line").split_whitespace().collect();
        assert_eq!(cells[3], count.to_string(), "{summary}");
    }
    for routine in report["routines"].as_array().expect("a list") {
        let name = routine["name"].as_str().expect("a name");
        assert_eq!(
            summary.contains(name),
            routine["same_bits"] == false,
            "{name}"
        );
    }
    let text = run(&["kernels", "--all"]).stdout;
    assert!(text.starts_with(summary.trim_end_matches("--all lists every routine.\n")));
    for routine in report["routines"].as_array().expect("a list") {
        let name = routine["name"].as_str().expect("a name");
        let line = text.lines().find(|line| line.starts_with(name));
        let cells: Vec<&str> = line.expect("a line").split_whitespace().collect();
        let same_bits = if routine["same_bits"] == true {
            "yes"
        } else {
            "no"
        };
        let words = ["name", "isa", "operation", "types", "tile"];
        let mut expected = words
            .map(|key| routine[key].as_str().expect("text"))
            .to_vec();
        expected.push(same_bits);
        assert_eq!(cells, expected);
    }
    let unknown = Outcome::of(workspace.command(&["kernels"]).env("FEWBIT_ISA", "mmx"));
    assert_eq!(unknown.code, Some(1));
    assert!(
        unknown.stderr.starts_with("error: ")
            && unknown.stderr.contains("FEWBIT_ISA")
            && unknown.stderr.contains("mmx"),
        "{}",
        unknown.stderr
    );
}

#[test]
fn calibrate_does_not_say_that_its_flags_are_for_static() {
    let workspace = Workspace::new();
    let help = |command| workspace.succeed(&[command, "--help"]).stdout;
    assert!(
        !help("calibrate").contains("static:"),
        "{}",
        help("calibrate")
    );
    for command in ["quantize", "compare"] {
        assert!(
            help(command)
                .contains("\nCalibration (for the method static, GPTQ and weighted scales):\n")
        );
    }
    assert!(help("quantize").contains(
        "How the word embedding table is stored [default: int8 for dynamic, static and weight-only"
    ));
    for format in ["*.jsonl", "*.csv", "*.tsv", "*.parquet"] {
        for command in ["compare", "bench"] {
            let help = help(command);
            let texts = help.split("--texts").nth(1).unwrap();
            assert!(
                texts.split("\n      --").next().unwrap().contains(format),
                "{command}: {format}"
            );
        }
    }
}

#[test]
fn quiet_leaves_out_notes_and_progress_but_no_warning_and_no_error() {
    let workspace = Workspace::new();
    let compare = ["compare", "model", "--methods", "fp16"];
    assert!(!workspace.succeed(&compare).stderr.is_empty());
    assert_eq!(
        workspace
            .succeed(&[&compare[..], &["--quiet"]].concat())
            .stderr,
        ""
    );
    let quantize = ["quantize", "model", "--method", "int4", "--quiet", "-o"];
    assert_eq!(
        workspace
            .succeed(&[&quantize[..], &["out"]].concat())
            .stderr,
        ""
    );
    assert!(
        workspace
            .fail(&["-q", "inspect", "./absent"])
            .starts_with("error: ./absent: ")
    );
    workspace.edit_config(|config| config["num_hidden_layers"] = serde_json::json!(1));
    assert!(
        workspace
            .succeed(&["inspect", "model", "-q"])
            .stderr
            .starts_with("warning: ")
    );
    for both in [
        ["inspect", "model", "-q", "-v"],
        ["-q", "inspect", "model", "-v"],
    ] {
        let text = workspace.misuse(&both);
        assert!(
            text.starts_with("error: the argument '--quiet' cannot be used with '--verbose"),
            "{text}"
        );
    }
}

#[test]
fn completions_of_every_shell_know_commands_and_flags() {
    let workspace = Workspace::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = workspace.succeed(&["completions", shell]).stdout;
        for word in ["quantize", "calibrate", "min-sqnr"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        assert!(!script.contains("measure-one-model"), "{shell}");
    }
    assert!(workspace.misuse(&["completions", "csh"]).contains("'csh'"));
}

#[test]
fn manual_pages_go_to_a_directory_or_to_standard_output() {
    let workspace = Workspace::new();
    let page = workspace.succeed(&["man"]).stdout;
    assert!(page.contains(".TH fewbit 1"), "{page}");
    for words in ["fewbit\\-quantize(1)", "Exit codes:"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    workspace.succeed(&["man", "-o", "man/man1"]);
    let names = [
        "-bench",
        "-calibrate",
        "-compare",
        "-completions",
        "-convert",
        "-doctor",
        "-embed",
        "-inspect",
        "-kernels",
        "-man",
        "-predict",
        "-quantize",
        "-sensitivity",
        "",
    ];
    assert_eq!(
        workspace.entries("man/man1"),
        names.map(|name| format!("fewbit{name}.1"))
    );
    for name in names {
        let page = String::from_utf8(workspace.read(&format!("man/man1/fewbit{name}.1"))).unwrap();
        assert!(!page.contains("one\\-model"), "{name}");
    }
    let page = String::from_utf8(workspace.read("man/man1/fewbit-quantize.1")).unwrap();
    for words in ["fewbit\\-quantize", "\\-\\-min\\-sqnr", "\\-\\-json"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    workspace.write("file", "");
    let error = workspace.fail(&["man", "-o", "file"]);
    assert!(
        error.starts_with("error: file: cannot create the directory"),
        "{error}"
    );
}
