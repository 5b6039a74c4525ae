//! Files in a model's folder that its configuration names: labels beside it, data for warm-up
//! runs in the folder `warmup`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use sluice_protocol::grpc::ModelConfig;
use sluice_protocol::grpc::model_warmup::input::InputDataType;

use crate::deployment::Output;
use crate::error::LoadError;

/// Where data for warm-up runs is, inside the model's folder.
const WARMUP_FOLDER: &str = "warmup";

/// What the elements of an output's row are called, by their place in it.
pub(crate) type Labels = Arc<[String]>;

/// Where a file for a warm-up run is, by path in the model's folder.
pub(super) fn warmup_path(file: &str) -> String {
    format!("{WARMUP_FOLDER}/{file}")
}

/// The files that a configuration names, by path in the model's folder: all that is to be read of
/// what lies there. Paths that lead out of it are left out.
pub(crate) fn named_paths(config: &ModelConfig) -> BTreeSet<String> {
    let labels = config.output.iter().map(|output| output.label_filename.clone());
    let inputs = config.model_warmup.iter().flat_map(|sample| sample.inputs.values());
    let data = inputs.filter_map(|input| match &input.input_data_type {
        Some(InputDataType::InputDataFile(file)) => Some(warmup_path(file)),
        _ => None,
    });
    labels.chain(data).filter_map(|path| inside(&path)).collect()
}

/// A path in the model's folder without the parts that lead nowhere (`./a`, `b/../a`). None for
/// one that leads out of it, or that is the folder itself.
fn inside(path: &str) -> Option<String> {
    if path.starts_with('/') || path.contains('\0') {
        return None;
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/")).filter(|path| !path.is_empty())
}

/// One of the files that a configuration names. Only what was read out of the folder can be named,
/// whatever the path says.
pub(super) fn named_file<'f>(
    files: &'f BTreeMap<String, Bytes>,
    path: &str,
) -> Result<&'f Bytes, String> {
    let found = inside(path).and_then(|inside| files.get(&inside));
    found.ok_or_else(|| format!("file {path:?} is not in the model's folder"))
}

/// Gives the outputs the labels that the configuration has files of: a label a line.
pub(crate) fn attach_labels(
    config: &ModelConfig,
    files: &BTreeMap<String, Bytes>,
    outputs: &mut [Output],
) -> Result<(), LoadError> {
    for own in config.output.iter().filter(|own| !own.label_filename.is_empty()) {
        let path = &own.label_filename;
        let text = named_file(files, path).and_then(|bytes| {
            std::str::from_utf8(bytes).map_err(|_| format!("file {path:?} is not UTF-8"))
        });
        let text = text.map_err(|reason| {
            LoadError::Configuration(format!("output {:?}: label_filename: {reason}", own.name))
        })?;
        if let Some(output) = outputs.iter_mut().find(|output| output.name == own.name) {
            output.labels = Some(text.lines().map(str::to_owned).collect());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use sluice_protocol::Datatype;
    use sluice_protocol::grpc::ModelConfig;

    use super::{attach_labels, named_paths};
    use crate::deployment::Output;

    const TEXT: &str = "output [ { name: \"y\" label_filename: \"labels.txt\" }, { name: \"z\" } ]";

    #[test]
    fn what_is_named_lies_in_the_models_folder() {
        let config = ModelConfig::parse_text(
            "output [ { name: 'a' label_filename: './labels.txt' }, { name: 'b' },
               { name: 'c' label_filename: 'sub//labels.txt' }, { label_filename: '1/labels.txt' },
               { label_filename: '/etc/passwd' }, { label_filename: '../other/labels.txt' },
               { label_filename: 'sub/../..' }, { label_filename: '.' } ]
             model_warmup { inputs { key: 'x' value { input_data_file: 'three' } }
               inputs { key: 'y' value { input_data_file: '../a' } }
               inputs { key: 'z' value { input_data_file: '../../a' } }
               inputs { key: 'u' value { zero_data: true } } }",
        );
        let named = named_paths(&config.unwrap());
        let expected = ["1/labels.txt", "a", "labels.txt", "sub/labels.txt", "warmup/three"];
        assert_eq!(named.iter().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
    }

    #[test]
    fn an_output_gets_its_labels_or_the_load_says_why_not() {
        let config = ModelConfig::parse_text(TEXT).unwrap();
        let (datatype, shape) = (Datatype::Fp32, vec![-1, 3]);
        let output = |name: &str| Output {
            name: name.to_owned(),
            datatype,
            shape: shape.clone(),
            reshape: None,
            index: 0,
            labels: None,
        };
        let mut outputs = [output("z"), output("y")];
        let file = |bytes: &'static [u8]| {
            BTreeMap::from([("labels.txt".to_owned(), Bytes::from_static(bytes))])
        };
        attach_labels(&config, &file(b"cat\ndog\r\n\nbird"), &mut outputs).unwrap();
        assert!(outputs[0].labels.is_none());
        let labels = ["cat", "dog", "", "bird"].map(str::to_owned);
        assert_eq!(outputs[1].labels.as_deref(), Some(labels.as_slice()));
        for (files, says) in [
            (BTreeMap::new(), "file \"labels.txt\" is not in the model's folder"),
            (file(b"\xff"), "is not UTF-8"),
        ] {
            let error = attach_labels(&config, &files, &mut outputs).unwrap_err().to_string();
            assert!(error.contains("output \"y\": label_filename: file"), "{error}");
            assert!(error.contains(says), "{error}");
        }
    }
}
