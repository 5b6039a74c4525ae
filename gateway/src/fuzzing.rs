//! What the targets in `fuzz/` call: the readers of what comes from outside, on models that run
//! nothing. Compiled for fuzzing and for the test that sends the corpora through, and for nothing
//! else.

use std::sync::OnceLock;

use bytes::Bytes;
use sluice_protocol::Datatype;

use crate::deployment::{Deployment, Input, Output, idle};

/// A reader of bytes, which takes or refuses them and never panics.
pub type Target = fn(&Bytes);

/// The longest input in bytes: what a request's body may have while it is fuzzed.
pub const BODY_LIMIT: usize = 64 << 10;

/// The targets by name. A corpus is called like its target.
pub const TARGETS: [(&str, Target); 5] = [
    ("v1_body", crate::http::fuzzing::v1_body),
    ("v2_json", crate::http::fuzzing::v2_json),
    ("v2_binary", crate::http::fuzzing::v2_binary),
    ("grpc_request", crate::grpc::fuzzing::grpc_request),
    ("config_pbtxt", crate::model_config::fuzzing::config_pbtxt),
];

/// The models that requests are read for: one input and several, of texts and of numbers, with a
/// batch and without, one that need not be brought, an output that JSON has no form for.
pub(crate) fn deployments() -> &'static [Deployment] {
    static DEPLOYMENTS: OnceLock<[Deployment; 3]> = OnceLock::new();
    DEPLOYMENTS.get_or_init(|| {
        let idle = |inputs: &[(&str, Datatype, &[i64])]| {
            idle::deployment(&"m".parse().expect("a model's name"), inputs)
        };
        let mut texts = idle(&[("x", Datatype::Bytes, &[-1, -1])]);
        texts.outputs = vec![output("y", Datatype::Bytes, 0)];
        let mut numbers = idle(&[("a", Datatype::Fp32, &[-1, 2]), ("b", Datatype::Int8, &[-1])]);
        numbers.max_batch_size = Some(64);
        numbers.outputs = vec![output("y", Datatype::Fp32, 0), output("z", Datatype::Int64, 1)];
        let mut halves = idle(&[("x", Datatype::Fp64, &[-1]), ("h", Datatype::Fp16, &[2, 2])]);
        let (name, datatype, shape) = ("scale".to_owned(), Datatype::Int64, Vec::new());
        halves.inputs.push(Input { name, datatype, shape, reshape: None, optional: true });
        halves.outputs = vec![output("h", Datatype::Fp16, 0)];
        [texts, numbers, halves]
    })
}

fn output(name: &str, datatype: Datatype, index: usize) -> Output {
    let (name, shape) = (name.to_owned(), vec![-1, -1]);
    Output { name, datatype, shape, reshape: None, index, labels: None }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::TARGETS;

    /// Every file that fuzzing has left behind is taken or refused, as it was then.
    #[test]
    fn the_corpora_pass_through_their_targets() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for (name, target) in TARGETS {
            let files = std::fs::read_dir(corpora.join(name)).unwrap();
            let mut count = 0;
            for file in files {
                let file = file.unwrap().path();
                let input = std::fs::read(&file).unwrap();
                println!("{}", file.display());
                target(&input.into());
                count += 1;
            }
            assert!(count >= 10, "{name} has {count} files");
        }
    }
}
