//! Hub ids, against a server on this machine.

use crate::local_hub::LocalHub;
use fewbit_checkpoint::hub::{HubSettings, resolve_with};
use fewbit_checkpoint::{CheckpointError, CheckpointErrorKind};
use insta::assert_snapshot;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const MODULES: &[u8] = br#"[{"path": ""}, {"path": "1_Pooling"}]"#;
const FILES: &[(&str, &[u8])] = &[
    ("config.json", b"{}"),
    ("model.safetensors", b"weights"),
    ("pytorch_model.bin", b"pickle"),
    ("tokenizer.json", b"{\"t\": 1}"),
    ("modules.json", MODULES),
    ("1_Pooling/config.json", b"{\"p\": 1}"),
    ("onnx/model.onnx", b"onnx"),
];

fn settings(endpoint: &str, cache: &TempDir) -> HubSettings {
    HubSettings {
        endpoint: endpoint.to_owned(),
        cache_directory: Some(cache.path().to_owned()),
        token: None,
        offline: false,
        progress: false,
    }
}

/// The text of an error with what changes between runs named.
fn text(error: &CheckpointError, settings: &HubSettings) -> String {
    let text = error.to_string().replace(&settings.endpoint, "HUB");
    let cache = settings.cache_directory.as_ref().unwrap();
    text.replace(&cache.display().to_string(), "CACHE")
}

fn refusal(settings: &HubSettings, model: &str, kind: CheckpointErrorKind) -> String {
    let error = resolve_with(model, settings).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    text(&error, settings)
}

/// A port on which nothing listens.
fn dead_endpoint() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn download_then_cache() {
    let (hub, cache) = (LocalHub::new(FILES), TempDir::new().unwrap());
    let settings = settings(&hub.endpoint, &cache);
    let directory = resolve_with("owner/model", &settings).unwrap();
    assert_eq!(
        directory,
        cache.path().join("models--owner--model/snapshots/c0ffee")
    );
    let read = |name: &str| fs::read(directory.join(name)).ok();
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "modules.json",
        "1_Pooling/config.json",
    ] {
        let content = FILES.iter().find(|file| file.0 == name).unwrap().1;
        assert_eq!(read(name).as_deref(), Some(content), "{name}");
    }
    // What is not needed is not downloaded.
    assert_eq!(
        (read("pytorch_model.bin"), read("onnx/model.onnx")),
        (None, None)
    );
    assert_eq!(
        fs::read_to_string(cache.path().join("models--owner--model/refs/main")).unwrap(),
        "c0ffee"
    );
    hub.take_requests();

    // Again: only whether there is a newer commit.
    assert_eq!(resolve_with("owner/model", &settings).unwrap(), directory);
    assert_eq!(
        hub.take_requests(),
        ["/api/models/owner/model/revision/main"]
    );
    // By its commit.
    assert_eq!(
        resolve_with("owner/model@c0ffee", &settings).unwrap(),
        directory
    );
    hub.take_requests();

    // Offline, and with the Hub gone: from the cache.
    let offline = HubSettings {
        offline: true,
        ..settings.clone()
    };
    for model in ["owner/model", "owner/model@c0ffee"] {
        assert_eq!(resolve_with(model, &offline).unwrap(), directory);
    }
    assert!(hub.take_requests().is_empty());
    let gone = HubSettings {
        endpoint: dead_endpoint(),
        ..settings.clone()
    };
    assert_eq!(resolve_with("owner/model", &gone).unwrap(), directory);
    hub.fail_with(503);
    assert_eq!(resolve_with("owner/model", &settings).unwrap(), directory);
}

#[test]
fn new_commit_is_a_new_snapshot() {
    let (hub, cache) = (LocalHub::new(FILES), TempDir::new().unwrap());
    let settings = settings(&hub.endpoint, &cache);
    resolve_with("owner/model", &settings).unwrap();
    hub.publish(
        "beef",
        &[
            ("config.json", b"{\"new\": 1}"),
            ("model.safetensors", b"weights"),
        ],
    );
    let directory = resolve_with("owner/model", &settings).unwrap();
    assert_eq!(
        directory,
        cache.path().join("models--owner--model/snapshots/beef")
    );
    assert_eq!(
        fs::read(directory.join("config.json")).unwrap(),
        b"{\"new\": 1}"
    );
    assert_eq!(
        fs::read(directory.join("model.safetensors")).unwrap(),
        b"weights"
    );
    let offline = HubSettings {
        offline: true,
        ..settings
    };
    assert_eq!(resolve_with("owner/model", &offline).unwrap(), directory);
}

#[test]
fn shards_are_those_of_the_index() {
    let index = br#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    let files: &[(&str, &[u8])] = &[
        ("config.json", b"{}"),
        ("model.safetensors.index.json", index),
        ("model-00001-of-00002.safetensors", b"one"),
        ("model-00002-of-00002.safetensors", b"two"),
        ("extra.safetensors", b"three"),
    ];
    let (hub, cache) = (LocalHub::new(files), TempDir::new().unwrap());
    let online = settings(&hub.endpoint, &cache);
    let directory = resolve_with("owner/model", &online).unwrap();
    assert_eq!(
        fs::read(directory.join("model-00002-of-00002.safetensors")).unwrap(),
        b"two"
    );
    assert!(!directory.join("extra.safetensors").exists());
    // Without one of the shards the snapshot is not complete.
    fs::remove_file(directory.join("model-00002-of-00002.safetensors")).unwrap();
    let offline = HubSettings {
        offline: true,
        ..online.clone()
    };
    refusal(&offline, "owner/model", CheckpointErrorKind::NotFound);
    resolve_with("owner/model", &online).unwrap();
    assert_eq!(resolve_with("owner/model", &offline).unwrap(), directory);

    let (hub, cache) = (LocalHub::new(&files[..3]), TempDir::new().unwrap());
    assert_snapshot!(
        refusal(&settings(&hub.endpoint, &cache), "owner/model", CheckpointErrorKind::Hub),
        @"owner/model: model.safetensors.index.json names the shard `model-00002-of-00002.safetensors`, which the repository lacks"
    );
}

#[test]
fn token() {
    let (hub, cache) = (LocalHub::new(FILES), TempDir::new().unwrap());
    hub.require_token("hf_secret");
    let anonymous = settings(&hub.endpoint, &cache);
    assert_snapshot!(refusal(&anonymous, "owner/model", CheckpointErrorKind::Hub), @r"
    owner/model: no such directory, and HUB refuses access to model `owner/model` (HTTP 401)
      hint: check the name; if the model is private or gated, set HF_TOKEN to an access token
    ");
    let wrong = HubSettings {
        token: Some("hf_wrong".to_owned()),
        ..anonymous.clone()
    };
    let error = refusal(&wrong, "owner/model", CheckpointErrorKind::Hub);
    assert!(!error.contains("hf_wrong"), "{error}");
    assert_snapshot!(error, @r"
    owner/model: no such directory, and HUB refuses access to model `owner/model` (HTTP 401)
      hint: check the name; if the model is private or gated, the token must belong to an account with access to it
    ");
    let right = HubSettings {
        token: Some("hf_secret".to_owned()),
        ..anonymous
    };
    assert!(
        resolve_with("owner/model", &right)
            .unwrap()
            .join("model.safetensors")
            .exists()
    );
}

#[test]
fn refusals() {
    let (hub, cache) = (LocalHub::new(FILES), TempDir::new().unwrap());
    let online = settings(&hub.endpoint, &cache);
    for model in ["owner/other", "owner/model@v2"] {
        let error = refusal(&online, model, CheckpointErrorKind::Hub);
        assert_eq!(
            error,
            format!(
                "{model}: no such directory, and HUB has no model `{model}` (HTTP 404)\n  hint: check the name and the revision"
            )
        );
    }
    let offline = HubSettings {
        offline: true,
        ..online.clone()
    };
    assert_snapshot!(refusal(&offline, "owner/model", CheckpointErrorKind::NotFound), @r"
    no such directory, and `owner/model` is not in the Hugging Face cache CACHE
      hint: offline mode (HF_HUB_OFFLINE) reads the cache only: unset it to download, or name a local directory
    ");
    let gone = HubSettings {
        endpoint: dead_endpoint(),
        ..online.clone()
    };
    let error = refusal(&gone, "owner/model", CheckpointErrorKind::Hub);
    assert!(
        error.starts_with(
            "owner/model: no such directory, and HUB cannot be asked for model `owner/model`: "
        ),
        "{error}"
    );
    assert!(error.ends_with("\n  hint: check the network; HF_ENDPOINT names a mirror, HF_HUB_OFFLINE=1 uses the cache only"), "{error}");
    hub.fail_with(410);
    assert_snapshot!(refusal(&online, "owner/model", CheckpointErrorKind::Hub), @"owner/model: HUB does not give model `owner/model`: HTTP 410");
}

#[test]
fn files_of_pytorch_where_there_are_no_safetensors() {
    let whole: &[(&str, &[u8])] = &[
        ("config.json", b"{}"),
        ("pytorch_model.bin", b"pickle"),
        ("training_args.bin", b"arguments"),
    ];
    let index = br#"{"weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}"#;
    let sharded: &[(&str, &[u8])] = &[
        ("config.json", b"{}"),
        ("pytorch_model.bin.index.json", index),
        ("pytorch_model-00001-of-00001.bin", b"pickle"),
        ("training_args.bin", b"arguments"),
    ];
    for (files, weights) in [
        (whole, "pytorch_model.bin"),
        (sharded, "pytorch_model-00001-of-00001.bin"),
    ] {
        let (hub, cache) = (LocalHub::new(files), TempDir::new().unwrap());
        let online = settings(&hub.endpoint, &cache);
        let directory = resolve_with("owner/model", &online).unwrap();
        assert_eq!(fs::read(directory.join(weights)).unwrap(), b"pickle");
        assert!(!directory.join("training_args.bin").exists());
        let offline = HubSettings {
            offline: true,
            ..online
        };
        assert_eq!(resolve_with("owner/model", &offline).unwrap(), directory);
        fs::remove_file(directory.join(weights)).unwrap();
        refusal(&offline, "owner/model", CheckpointErrorKind::NotFound);
    }
}

#[test]
fn repositories_without_weights() {
    let refused = |files: &[(&str, &[u8])]| {
        let (hub, cache) = (LocalHub::new(files), TempDir::new().unwrap());
        refusal(
            &settings(&hub.endpoint, &cache),
            "owner/model",
            CheckpointErrorKind::Hub,
        )
    };
    assert_snapshot!(
        refused(&[("config.json", b"{}"), ("training_args.bin", b"")]),
        @"owner/model: the repository has no weights that fewbit reads: expected model.safetensors or pytorch_model.bin, found only the pickle file `training_args.bin`"
    );
    assert_snapshot!(
        refused(&[("config.json", b"{}"), ("model-q4.gguf", b"")]),
        @"owner/model: the repository has no weights that fewbit reads: expected model.safetensors or pytorch_model.bin, found only the GGUF file `model-q4.gguf`"
    );
    assert_snapshot!(
        refused(&[("config.json", b"{}")]),
        @"owner/model: the repository has no weights that fewbit reads: expected model.safetensors or pytorch_model.bin, found none"
    );
    assert_snapshot!(
        refused(&[("model.safetensors", b"")]),
        @"owner/model: not a model: expected config.json in the repository, found none of that name"
    );
}

#[test]
fn local_paths_come_first() {
    let (hub, cache) = (LocalHub::new(FILES), TempDir::new().unwrap());
    let settings = settings(&hub.endpoint, &cache);
    let local = cache.path().join("model");
    fs::create_dir(&local).unwrap();
    assert_eq!(
        resolve_with(local.to_str().unwrap(), &settings).unwrap(),
        local
    );
    assert!(Path::new("tests").exists());
    assert_eq!(
        resolve_with("tests", &settings).unwrap(),
        Path::new("tests")
    );
    assert_snapshot!(refusal(&settings, "./models/absent", CheckpointErrorKind::NotFound), @r"
    ./models/absent: no such directory, and not a Hub id
      hint: a Hub id has the form `owner/name` or `owner/name@revision`
    ");
    assert!(hub.take_requests().is_empty());
}
