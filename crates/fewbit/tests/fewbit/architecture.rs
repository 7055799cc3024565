//! The crate table in ARCHITECTURE.md is compared with what Cargo knows, so that it cannot rot.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folder and allowed dependencies (crates of this workspace) of each crate.
type CrateTable = BTreeMap<String, (String, BTreeSet<String>)>;

fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace root exists")
}

/// Rows `| fewbit-x | crates/x | what it is | numerics, kernels |` of the document.
fn table_in_document(text: &str) -> CrateTable {
    let mut table = CrateTable::new();
    for line in text.lines() {
        let cells: Vec<&str> = line
            .trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect();
        let [name, folder, _, dependencies] = cells.as_slice() else {
            continue;
        };
        if !["crates/", "bench/", "bindings/"]
            .iter()
            .any(|parent| folder.starts_with(parent))
        {
            continue;
        }
        let dependencies = dependencies
            .split(',')
            .map(|dependency| dependency.trim().trim_matches('`').to_owned())
            .filter(|dependency| dependency != "nothing of ours")
            .collect();
        table.insert((*name).to_owned(), ((*folder).to_owned(), dependencies));
    }
    table
}

/// The same table from `cargo metadata`; development dependencies do not count as arrows.
fn table_in_cargo(root: &Path) -> CrateTable {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let ours: BTreeSet<&str> = packages
        .iter()
        .map(|package| package["name"].as_str().expect("name"))
        .collect();
    let mut table = CrateTable::new();
    for package in packages {
        let manifest = Path::new(package["manifest_path"].as_str().expect("manifest_path"));
        let folder = manifest
            .parent()
            .and_then(|folder| folder.strip_prefix(root).ok())
            .expect("members lie below the root")
            .to_string_lossy()
            .into_owned();
        let dependencies = package["dependencies"]
            .as_array()
            .expect("dependencies")
            .iter()
            .filter(|dependency| dependency["kind"].is_null())
            .map(|dependency| dependency["name"].as_str().expect("name"))
            .filter(|name| ours.contains(name))
            .map(str::to_owned)
            .collect();
        let name = package["name"].as_str().expect("name").to_owned();
        table.insert(name, (folder, dependencies));
    }
    table
}

#[test]
fn crate_table_in_architecture_document_matches_cargo_metadata() {
    let root = workspace_root();
    let document = std::fs::read_to_string(root.join("ARCHITECTURE.md"))
        .expect("ARCHITECTURE.md is at the workspace root");
    let documented = table_in_document(&document);
    let actual = table_in_cargo(&root);
    assert_eq!(
        documented, actual,
        "left: ARCHITECTURE.md, right: cargo metadata"
    );
}
