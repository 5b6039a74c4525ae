//! What the tests of several modules share: definitions about one entity, files in a folder,
//! and model inputs as text.

use std::path::Path;

use tempfile::TempDir;

use super::Definitions;

/// How definitions begin: the format, and an entity `store` with keys of this type in `store_id`.
pub(crate) fn store(key_type: &str) -> String {
    format!(
        r#"
format = 1
[[entity]]
name = "store"
join_key = "store_id"
value_type = "{key_type}"
"#
    )
}

/// A source in a CSV file of its name. More keys may follow it.
pub(crate) fn source(name: &str, timestamp_field: &str, schema: &str) -> String {
    format!(
        r#"
[[source]]
name = "{name}"
path = "{name}.csv"
timestamp_field = "{timestamp_field}"
schema = {{ {schema} }}
"#
    )
}

/// Version 1 of a view of `store`, fresh for ten days. More keys may follow it.
pub(crate) fn view(name: &str, source: &str, features: &str) -> String {
    format!(
        r#"
[[feature_view]]
name = "{name}"
version = 1
entity = "store"
source = "{source}"
freshness = "10d"
features = [{features}]
"#
    )
}

/// Writes files by name.
pub(crate) fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

/// A new folder with these files.
pub(crate) fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), files);
    folder
}

/// The definitions in a folder's `features.toml`.
pub(crate) fn load(folder: &Path) -> Definitions {
    Definitions::load(&folder.join("features.toml")).unwrap()
}

/// A new folder with these files, and the definitions in its `features.toml`.
pub(crate) fn definitions(files: &[(&str, &str)]) -> (TempDir, Definitions) {
    let folder = folder(files);
    let definitions = load(folder.path());
    (folder, definitions)
}

/// Model inputs as text; `-` is NaN.
pub(crate) fn shown(values: &[f32]) -> String {
    let one = |value: &f32| if value.is_nan() { "-".into() } else { value.to_string() };
    values.iter().map(one).collect::<Vec<_>>().join(" ")
}
