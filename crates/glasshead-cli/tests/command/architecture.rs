//! The house keeps its shape: dependencies between our crates run one way, and the engine stays small.

use std::process::Command;

use serde_json::Value;

/// The direct, non-development dependencies of a package of this workspace.
fn dependencies(metadata: &Value, package: &str) -> Vec<String> {
    let packages = metadata["packages"].as_array().unwrap();
    let found = packages
        .iter()
        .find(|found| found["name"] == package)
        .unwrap_or_else(|| panic!("no package {package}"));
    let all = found["dependencies"].as_array().unwrap().iter();
    all.filter(|one| one["kind"].is_null()).map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn dependencies_run_one_way() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let done = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let metadata: Value = serde_json::from_slice(&done.stdout).unwrap();
    let ours = |package: &str| -> Vec<String> {
        let mut ours = dependencies(&metadata, package);
        ours.retain(|name| name.starts_with("glasshead"));
        ours
    };
    assert_eq!(ours("glasshead-attention"), [""; 0]);
    assert_eq!(ours("glasshead"), ["glasshead-attention"]);
    // The shells reach the engine through the library, and never each other.
    assert_eq!(ours("glasshead-cli"), ["glasshead"]);
    // Python's arrays are numbers already and go to the engine as they are; the library writes the page about them.
    assert_eq!(ours("glasshead-python"), ["glasshead", "glasshead-attention"]);
    let mut engine = dependencies(&metadata, "glasshead-attention");
    engine.sort();
    assert_eq!(engine, ["half", "rayon", "thiserror"], "the engine is a small crate");
}
