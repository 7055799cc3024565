//! The modules that may follow an encoder, each setting by itself, against sentence-transformers.

use crate::golden_files::{Expected, cases, golden, largest_difference};
use fewbit_model::pooling::PoolingMode;
use fewbit_model::{EncodeOptions, Encoder, EncoderSettings, Prompt};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// What the project promises of embeddings.
const TOLERANCE: f32 = 1e-5;

/// What sentence-transformers runs and fewbit does not: queries that are filled up with tokens, SPLADE's pooling of hidden states.
const REFUSED: [&str; 2] = ["expanded queries", "hidden states"];

const ENCODER_FILES: [&str; 4] = [
    "config.json",
    "model.safetensors",
    "tokenizer_config.json",
    "vocab.txt",
];

fn read_json(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).expect("golden file")).expect("JSON")
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("created");
    for entry in fs::read_dir(from).expect("golden folder") {
        let entry = entry.expect("readable");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            fs::copy(from, to).expect("copied");
        }
    }
}

/// The model of a case, with its encoders.
fn model(case: &str) -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let source = golden("sentence_modules").join(case);
    copy_folder(&source, directory.path());
    let calls = read_json(&source.join("calls.json"));
    for (folder, encoder) in calls["encoders"].as_object().expect("encoders") {
        let encoder = golden("pooling").join(encoder.as_str().expect("a name"));
        for file in ENCODER_FILES {
            let to = directory.path().join(folder).join(file);
            fs::copy(encoder.join(file), to).expect("copied");
        }
    }
    directory
}

/// Changes fields (with dots for those inside others; null takes one away) of JSON files.
fn change(directory: &Path, changes: &Value) {
    for (name, fields) in changes.as_object().expect("an object") {
        let file = directory.join(name);
        let mut content = read_json(&file);
        for (field, value) in fields.as_object().expect("an object") {
            let (path, last) = field.rsplit_once('.').unwrap_or(("", field));
            let parts = path.split('.').filter(|part| !part.is_empty());
            let inner = parts.fold(&mut content, |inner, part| &mut inner[part]);
            let object = inner.as_object_mut().expect("an object");
            if value.is_null() {
                object.shift_remove(last);
            } else {
                object.insert(last.to_owned(), value.clone());
            }
        }
        fs::write(file, content.to_string()).expect("written");
    }
}

fn settings(call: &Value) -> EncoderSettings {
    let named = |key: &str| call[key].as_str().map(str::to_owned);
    EncoderSettings {
        prompt: named("prompt_name")
            .map(Prompt::Named)
            .or(named("prompt").map(Prompt::Text)),
        task: named("task"),
        ..EncoderSettings::default()
    }
}

/// The embeddings of `texts`, or the error.
fn embed(directory: &Path, settings: &EncoderSettings, texts: &[&str]) -> Result<Vec<f32>, String> {
    let text_of = |error: fewbit_model::ModelError| {
        error
            .to_string()
            .replace(&directory.display().to_string(), "DIR")
    };
    let encoder = Encoder::open_with_settings(directory, settings).map_err(text_of)?;
    let options = |batch_size| EncodeOptions {
        threads: 1,
        batch_size,
    };
    let found = encoder.encode(texts, &options(3)).map_err(text_of)?;
    let again = encoder.encode(texts, &options(1)).expect("encodes again");
    assert_eq!(found, again, "another batch, other bits");
    Ok(found.values)
}

/// What is checked of each call of a case: its embeddings, or that it is refused. Returns what is wrong, and the errors.
fn check(case: &str) -> (Vec<String>, Vec<String>) {
    let source = golden("sentence_modules").join(case);
    let calls = read_json(&source.join("calls.json"));
    let expected = Expected::read(&source.join("expected.safetensors"));
    let texts: Vec<&str> = calls["texts"]
        .as_array()
        .expect("texts")
        .iter()
        .map(|text| text.as_str().expect("a text"))
        .collect();
    let (mut wrong, mut errors) = (Vec::new(), Vec::new());
    for (index, call) in calls["calls"].as_array().expect("calls").iter().enumerate() {
        let name = call["name"].as_str().expect("a name");
        let directory = model(case);
        change(directory.path(), &call["change"]);
        let refused = REFUSED.contains(&name) || call.get("error").is_some();
        match embed(directory.path(), &settings(call), &texts) {
            Ok(_) if refused => wrong.push(format!("{case}, {name}: expected an error")),
            Ok(found) => {
                let expected = expected.f32(&format!("call.{index}")).expect("golden");
                let difference = largest_difference(&found, &expected);
                if difference > TOLERANCE {
                    wrong.push(format!("{case}, {name}: differs by {difference}"));
                }
            }
            Err(error) if refused => errors.push(format!("{case}, {name}:\n{error}")),
            Err(error) => wrong.push(format!("{case}, {name}: {error}")),
        }
    }
    (wrong, errors)
}

#[test]
fn modules_do_what_they_do_in_sentence_transformers() {
    let (mut wrong, mut errors) = (Vec::new(), Vec::new());
    for case in cases("sentence_modules") {
        let (w, e) = check(&case);
        wrong.extend(w);
        errors.extend(e);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    insta::assert_snapshot!(errors.join("\n\n"), @r#"
    asym, task document:
    DIR/2_Asym/config.json: `structure`: expected a route for the task `document`, found routes for `doc`, `query`
      hint: choose a route with --task NAME

    dense, a function:
    DIR/2_Dense/config.json: `activation_function`: supported is a class of torch.nn, one of Tanh, Identity, ReLU, GELU, SiLU, Sigmoid, LeakyReLU, ELU, found "torch.tanh"
      hint: another function would give other embeddings

    dense, no class of torch:
    DIR/2_Dense/config.json: `activation_function`: supported is a class of torch.nn, one of Tanh, Identity, ReLU, GELU, SiLU, Sigmoid, LeakyReLU, ELU, found "torch.nn.modules.activation.Swish"
      hint: another function would give other embeddings

    dense, in_features of another width:
    DIR/2_Dense/config.json: `in_features`: expected 16, the width of the text's vector as the modules before give it, found 12
      hint: the modules belong to different models, or another pooling was asked for than they are made for

    dense, out_features of another width:
    DIR/2_Dense/model.safetensors: tensor `linear.weight`: shape: expected [7, 16], found [6, 16]
      hint: the expected shape follows from the sizes in the module's config.json; the two files may belong to different models

    dense, no bias, but one in the file:
    DIR/2_Dense/model.safetensors: tensor `linear.bias`: expected linear.weight only, found another tensor
      hint: the module's config.json and its weights may belong to different models

    dense, in_features missing:
    DIR/2_Dense/config.json: `in_features`: expected a whole number from 1 to 16777216, found null
      hint: correct the value or fetch the file again

    dense, use_residual without its weights:
    DIR/2_Dense/model.safetensors: tensor `residual.weight`: missing: expected this tensor, found 2 others

    dense, an input that is not there:
    DIR/2_Dense/config.json: `module_input_name`: supported is "token_embeddings" or "sentence_embedding", found "all_layer_embeddings"
      hint: fewbit keeps one vector for each token and one for each text

    dense, concatenated modes that do not fit:
    DIR/2_Dense/config.json: `in_features`: expected 32, the width of the text's vector as the modules before give it, found 16
      hint: the modules belong to different models, or another pooling was asked for than they are made for

    embedding-gemma, no such prompt:
    DIR/config_sentence_transformers.json: `prompts`: expected a prompt named `passage`, found `query`, `document`, `web`
      hint: name one of these with --prompt-name, or give the text with --prompt

    embedding-gemma, expanded queries:
    DIR/sentence_bert_config.json: `query_expansion`: supported is null for the task `query`, found {"strategy":"fixed","length":8,"token":"[MASK]"}
      hint: fewbit does not fill queries up with tokens; without --task they are embedded as they are

    include-prompt, maximum of no token:
    pooling: expected tokens beside those of the prompt, which pooling leaves out (`include_prompt` is false), found 3 in all, of which the prompt has 5
      hint: a maximum over no token is not a number; use a shorter prompt or a longer limit

    layer-norm, another dimension:
    DIR/2_LayerNorm/config.json: `dimension`: expected 32, the width of the text's vector as the modules before give it, found 16
      hint: the modules belong to different models, or another pooling was asked for than they are made for

    layer-norm, an unknown field:
    DIR/2_LayerNorm/config.json: `eps`: supported is no such field, found 0.001
      hint: sentence-transformers 6.2 has no such setting and does not load the file; if the field does nothing, take it out

    layer-norm, a dropout beyond 1:
    DIR/3_Dropout/config.json: `dropout`: expected a number from 0 to 1, found 1.5
      hint: correct the value or fetch the file again

    router, no such task:
    DIR/2_Router/router_config.json: `structure`: expected a route for the task `passage`, found routes for `document`, `query`
      hint: choose a route with --task NAME

    router, no such default:
    DIR/2_Router/router_config.json: `parameters.default_route`: expected one of the routes `query`, `document`, found "passage"
      hint: correct the value or fetch the file again

    router, no default:
    DIR/2_Router/router_config.json: `parameters.default_route`: expected a route where no task is given, found none beside the routes for `document`, `query`
      hint: choose a route with --task NAME

    router, an unknown parameter:
    DIR/2_Router/router_config.json: `parameters.default`: supported is no such field, found "query"
      hint: sentence-transformers 6.2 has no such setting and does not load the file

    router, mapped to no route:
    DIR/2_Router/router_config.json: `parameters.route_mappings.('query', 'text')`: expected one of the routes `query`, `document`, found "passage"
      hint: correct the value or fetch the file again

    router, a module that is not there:
    DIR/2_Router/router_config.json: `structure.query.0`: expected the name of one of `types`, found "query_1_Dense"
      hint: fewbit runs Transformer, Pooling, SpladePooling, Dense, LayerNorm, Normalize and Router; leaving a module out would give other embeddings

    router-of-encoders, no such task:
    DIR/router_config.json: `structure`: expected a route for the task `passage`, found routes for `document`, `query`
      hint: choose a route with --task NAME

    router-of-encoders, no such default:
    DIR/router_config.json: `parameters.default_route`: expected one of the routes `query`, `document`, found "passage"
      hint: correct the value or fetch the file again

    router-of-encoders, no default:
    DIR/router_config.json: `parameters.default_route`: expected a route where no task is given, found none beside the routes for `document`, `query`
      hint: choose a route with --task NAME

    router-of-encoders, an unknown parameter:
    DIR/router_config.json: `parameters.default`: supported is no such field, found "query"
      hint: sentence-transformers 6.2 has no such setting and does not load the file

    splade, another strategy:
    DIR/1_SpladePooling/config.json: `pooling_strategy`: supported is "max" or "sum", found "mean"
      hint: sentence-transformers 6.2 has no other

    splade, another activation:
    DIR/1_SpladePooling/config.json: `activation_function`: supported is "relu" or "log1p_relu", found "gelu"
      hint: sentence-transformers 6.2 has no other

    splade, an unknown field:
    DIR/1_SpladePooling/config.json: `top_k`: supported is no such field, found 7
      hint: sentence-transformers 6.2 has no such setting and does not load the file; if the field does nothing, take it out

    splade, hidden states:
    DIR/sentence_bert_config.json: `transformer_task`: supported is "fill-mask", found "feature-extraction"
      hint: fewbit gives the last hidden states of texts only, or logits of words to SpladePooling
    "#);
}

/// As versions before 5.4 wrote a SPLADE model; and what does not go together.
#[test]
fn splade_by_its_older_names() {
    let directory = model("splade");
    let settings = EncoderSettings::default();
    let text = ["the cat sat"];
    let expected = embed(directory.path(), &settings, &text).expect("embeds");
    let write = |name: &str, value: Value| {
        fs::write(directory.path().join(name), value.to_string()).expect("written");
    };
    let module = |kind: &str, path: &str| json!({"path": path, "type": format!("sentence_transformers.{kind}")});
    let splade = || module("sparse_encoder.models.SpladePooling", "1_SpladePooling");
    let of_words = || module("sparse_encoder.models.MLMTransformer", "");
    let plain = || module("models.Transformer", "");
    write(
        "sentence_bert_config.json",
        json!({"max_seq_length": 32, "do_lower_case": false}),
    );
    write("modules.json", json!([of_words(), splade()]));
    assert_eq!(
        embed(directory.path(), &settings, &text).as_ref(),
        Ok(&expected)
    );
    let error = |list: Value| {
        write("modules.json", list);
        embed(directory.path(), &settings, &text).expect_err("refused")
    };
    let normalize = || module("models.Normalize", "2_Normalize");
    let mut texts = vec![
        error(json!([plain(), splade()])),
        error(json!([of_words(), normalize(), splade()])),
        error(json!([of_words(), normalize()])),
    ];
    write("modules.json", json!([of_words(), splade()]));
    let pooling = EncoderSettings {
        pooling: Some(PoolingMode::Mean),
        ..EncoderSettings::default()
    };
    texts.push(embed(directory.path(), &pooling, &text).expect_err("refused"));
    change(
        directory.path(),
        &json!({"config.json": {"architectures": ["BertModel"]}}),
    );
    texts.push(embed(directory.path(), &settings, &text).expect_err("refused"));
    insta::assert_snapshot!(texts.join("\n\n"), @r#"
    DIR/sentence_bert_config.json: `transformer_task`: supported is "fill-mask", found null
      hint: fewbit gives the last hidden states of texts only, or logits of words to SpladePooling

    DIR/modules.json: `0.type`: expected SpladePooling after a model with logits of words, found MLMTransformer
      hint: fewbit runs Transformer, Pooling, SpladePooling, Dense, LayerNorm, Normalize and Router; leaving a module out would give other embeddings

    DIR/modules.json: `0.type`: expected SpladePooling after a model with logits of words, found MLMTransformer
      hint: fewbit runs Transformer, Pooling, SpladePooling, Dense, LayerNorm, Normalize and Router; leaving a module out would give other embeddings

    pooling: expected none, because the model pools logits of words (SpladePooling), found mean
      hint: leave it out

    DIR/config.json: `architectures`: expected the name of a model class with a task head (…ForSequenceClassification, …ForTokenClassification, …ForQuestionAnswering, …ForMaskedLM), found "BertModel"
      hint: this is a model without a task head: `fewbit embed` gives its embeddings
    "#);
}

/// Weights of modules that are missing, damaged, or not those of the module.
#[test]
fn weights_of_modules_that_are_refused() {
    let weights = "2_Dense/model.safetensors";
    let error = |change: &dyn Fn(&Path)| {
        let directory = model("dense");
        change(directory.path());
        embed(directory.path(), &EncoderSettings::default(), &["a"]).expect_err("refused")
    };
    let bytes = fs::read(golden("sentence_modules/dense").join(weights)).expect("golden file");
    let with_bytes = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        error(&|directory| fs::write(directory.join(weights), &bytes).expect("written"))
    };
    let last = bytes.len() - 4;
    let texts = [
        error(&|directory| fs::remove_file(directory.join(weights)).expect("removed")),
        error(&|directory| {
            fs::remove_file(directory.join("2_Dense/config.json")).expect("removed");
        }),
        error(&|directory| fs::write(directory.join("2_Dense/config.json"), "{").expect("written")),
        with_bytes(&|bytes| bytes.truncate(last)),
        with_bytes(&|bytes| bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes())),
        error(&|directory| {
            let norm = golden("pooling/mean-normalize/model.safetensors");
            fs::copy(norm, directory.join(weights)).expect("copied");
        }),
    ];
    insta::assert_snapshot!(texts.join("\n\n"), @r"
    DIR/2_Dense: no weights: expected model.safetensors, pytorch_model.bin or an index of shards, found none of them

    DIR/modules.json: `2.path`: expected a file DIR/2_Dense/config.json, found none
      hint: fewbit runs Transformer, Pooling, SpladePooling, Dense, LayerNorm, Normalize and Router; leaving a module out would give other embeddings

    DIR/2_Dense/config.json: expected JSON: EOF while parsing an object at line 1 column 1
      hint: fetch the file again

    DIR/2_Dense/model.safetensors: truncated safetensors file: expected 552 bytes, found 548
      hint: the file is incomplete or damaged: download or write it again

    DIR/2_Dense/model.safetensors: tensor `linear.weight`: expected finite values, found NaN at [5, 15]
      hint: the checkpoint is damaged or its training diverged

    DIR/2_Dense/model.safetensors: tensor `linear.weight`: missing: expected this tensor, found 21 others
    ");
}

/// A route with a module that fewbit does not run is refused by that module's name, and the others run.
#[test]
fn a_route_with_static_embeddings_is_refused_and_the_other_runs() {
    let directory = model("router-of-encoders");
    let file = directory.path().join("router_config.json");
    let mut router = read_json(&file);
    let kind =
        "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding";
    router["types"]["query_0_Transformer"] = Value::from(kind);
    fs::write(&file, router.to_string()).expect("written");
    let of_task = |task: &str| {
        let settings = EncoderSettings {
            task: Some(task.to_owned()),
            ..EncoderSettings::default()
        };
        embed(directory.path(), &settings, &["a"])
    };
    assert!(of_task("document").is_ok());
    insta::assert_snapshot!(of_task("query").expect_err("refused"), @r"
    DIR/router_config.json: `types.query_0_Transformer`: expected a module of sentence-transformers, Transformer, Pooling, Dense, LayerNorm, Normalize or Dropout, found `sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding`
      hint: fewbit runs Transformer, Pooling, SpladePooling, Dense, LayerNorm, Normalize and Router; leaving a module out would give other embeddings
    ");
}

/// A value that overflows in a module after the encoder names that module and the text.
#[test]
fn overflow_in_a_module_names_it_and_the_text() {
    let error = |case: &str, weights: &str| {
        let directory = model(case);
        let file = directory.path().join(weights);
        let mut bytes = fs::read(&file).expect("golden file");
        let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        let data = 8 + usize::try_from(header).expect("a length");
        for value in bytes[data..].chunks_exact_mut(4) {
            value.copy_from_slice(&3e38f32.to_le_bytes());
        }
        fs::write(&file, bytes).expect("written");
        let texts = ["the cat sat on the mat", "a"];
        embed(directory.path(), &EncoderSettings::default(), &texts).expect_err("overflows")
    };
    let texts = [
        error("layer-norm", "2_LayerNorm/model.safetensors"),
        error("token-embeddings", "2_Dense/model.safetensors"),
    ];
    insta::assert_snapshot!(texts.join("\n\n"), @r"
    `2_LayerNorm.norm.output`: value inf at row 1, column 0: expected finite numbers
      hint: a weight of this layer or of one before it is damaged or overflows; `fewbit inspect` shows the dtypes, and a checkpoint in float32 tells an overflow from damage

    `2_Dense.linear.output`: value inf at row 1, column 0: expected finite numbers
      hint: a weight of this layer or of one before it is damaged or overflows; `fewbit inspect` shows the dtypes, and a checkpoint in float32 tells an overflow from damage
    ");
}
