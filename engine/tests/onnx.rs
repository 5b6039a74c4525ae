//! Real graphs in the real library: what they answer, and what is refused.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use sluice_engine::{Engine, EngineError, OnnxEngine, OnnxRuntime};
use sluice_protocol::{Code, Datatype, NamedTensor, Tensor, TensorData, TensorSpec};

fn graph(name: &str) -> Vec<u8> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/tests/models");
    std::fs::read(models.join(format!("{name}.onnx"))).unwrap()
}

fn open_bytes(graph: &[u8]) -> Result<OnnxEngine, EngineError> {
    let library = std::env::var_os("SLUICE_ONNXRUNTIME").map(PathBuf::from);
    OnnxRuntime::load(library.as_deref()).unwrap().open(graph, 1)
}

fn open(name: &str) -> OnnxEngine {
    open_bytes(&graph(name)).unwrap()
}

fn tensor(shape: &[i64], data: TensorData) -> Tensor {
    Tensor::new(shape.to_vec(), data).unwrap()
}

#[test]
fn a_graph_tells_its_signature_and_answers() {
    let mut engine = open("scale");
    let spec = |name: &str| TensorSpec {
        name: name.to_owned(),
        datatype: Datatype::Fp32,
        shape: vec![-1, 2],
    };
    assert_eq!((engine.inputs(), engine.outputs()), (&[spec("x")][..], &[spec("y")][..]));
    // Any number of rows, again and again.
    for (shape, values, expected) in [
        ([1, 2], vec![1.0, 2.5], vec![3.0, 6.0]),
        ([2, 2], vec![0.0, -1.0, 2.0, 3.0], vec![1.0, -1.0, 5.0, 7.0]),
    ] {
        let answers = engine.run(&[tensor(&shape, TensorData::Fp32(values))]).unwrap();
        assert_eq!(answers, [tensor(&shape, TensorData::Fp32(expected))]);
    }
}

#[test]
fn datatypes_cross_unchanged() {
    let texts = TensorData::Bytes(vec!["é".into(), Bytes::new()]);
    let rows = [
        tensor(&[2], TensorData::Int64(vec![i64::MIN, i64::MAX])),
        tensor(&[2], texts),
        tensor(&[2], TensorData::Bool(vec![true, false])),
    ];
    assert_eq!(open("mixed").run(&rows).unwrap(), rows);
    // One, the largest and the smallest number, and minus zero, by their bits.
    let halves = [
        tensor(&[2, 2], TensorData::Fp16(vec![0x3C00, 0x7BFF, 0x0001, 0x8000])),
        tensor(&[2, 2], TensorData::Bf16(vec![0x3F80, 0x7F7F, 0x0001, 0x8000])),
    ];
    let mut engine = open("half");
    assert_eq!(engine.inputs()[0].datatype, Datatype::Fp16);
    assert_eq!(engine.inputs()[1].datatype, Datatype::Bf16);
    assert_eq!(engine.run(&halves).unwrap(), halves);
}

#[test]
fn bytes_that_are_no_graph_are_refused() {
    let mut cut = graph("scale");
    cut.truncate(60);
    for bytes in [&b""[..], b"not a graph", &cut] {
        let error = open_bytes(bytes).unwrap_err();
        assert!(matches!(error, EngineError::Graph(_)), "{error}");
        assert_eq!(error.code(), Code::InvalidArgument);
        let text = error.to_string();
        assert!(text.starts_with("graph cannot be opened: ") && !text.contains('\n'), "{text}");
    }
}

/// What a run says of inputs, with whose fault it is.
fn check(model: &str, inputs: &[Tensor], says: &str, code: Code) {
    let error = open(model).run(inputs).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(says) && !text.contains('\n'), "{model}: {text}");
    assert_eq!(error.code(), code, "{model}: {text}");
}

#[test]
fn another_number_of_inputs_than_the_graph_takes_is_a_fault_of_ours() {
    let x = || tensor(&[1, 2], TensorData::Fp32(vec![1.0, 2.0]));
    check("scale", &[], "1 inputs expected, got 0", Code::Internal);
    check("scale", &[x(), x()], "1 inputs expected, got 2", Code::Internal);
}

#[test]
fn inputs_that_the_graph_cannot_take_are_refused() {
    let floats = |shape: &[i64], count: usize| tensor(shape, TensorData::Fp32(vec![1.0; count]));
    let one_text = |text: &[u8]| {
        let id = tensor(&[1], TensorData::Int64(vec![1]));
        let on = tensor(&[1], TensorData::Bool(vec![true]));
        [id, tensor(&[1], TensorData::Bytes(vec![Bytes::copy_from_slice(text)])), on]
    };
    let whole = |value| tensor(&[1], TensorData::Int64(vec![value]));
    for (model, inputs, says) in [
        ("scale", &[floats(&[1, 3], 3)][..], "graph refuses its inputs"),
        ("scale", &[tensor(&[1, 2], TensorData::Fp64(vec![1.0; 2]))], "graph refuses its inputs"),
        ("mixed", &one_text(b"a\0b"), "input \"name\": string element contains a NUL"),
        ("mixed", &one_text(b"\xff"), "input \"name\": string element is not UTF-8"),
        ("pair", &[floats(&[1, 2], 2), floats(&[1, 3], 3)], "graph refuses its inputs"),
        ("fold", &[floats(&[1, 3], 3)], "graph refuses its inputs"),
        (
            "parse",
            &[tensor(&[1], TensorData::Bytes(vec!["abc".into()]))],
            "graph refuses its inputs",
        ),
        ("pick", &[whole(4)], "graph refuses its inputs"),
    ] {
        check(model, inputs, says, Code::InvalidArgument);
    }
}

#[test]
fn no_memory_for_a_run_is_no_fault_of_the_inputs() {
    // 4 PiB, more than a process can address.
    let shape = tensor(&[2], TensorData::Int64(vec![1 << 25, 1 << 25]));
    check("fill", &[shape], "run failed: ", Code::Internal);
    let mut engine = open("fill");
    let shape = tensor(&[2], TensorData::Int64(vec![1, 2]));
    let zeros = tensor(&[1, 2], TensorData::Fp32(vec![0.0; 2]));
    assert_eq!(engine.run(&[shape]).unwrap(), [zeros]);
}

#[test]
fn an_engine_goes_on_after_a_run_that_failed() {
    let mut engine = open("parse");
    let text = |text: &'static str| [tensor(&[1], TensorData::Bytes(vec![text.into()]))];
    assert!(engine.run(&text("abc")).is_err());
    assert_eq!(engine.run(&text("1.5")).unwrap(), [tensor(&[1], TensorData::Fp32(vec![1.5]))]);
}

#[test]
fn values_of_the_graphs_own_may_be_replaced() {
    let mut engine = open("shift");
    let spec = |name: &str, shape: &[i64]| TensorSpec {
        name: name.to_owned(),
        datatype: Datatype::Fp32,
        shape: shape.to_vec(),
    };
    assert_eq!(engine.inputs(), [spec("x", &[-1, 2])]);
    assert_eq!(engine.optional_inputs(), [spec("factor", &[2]), spec("offset", &[-1, 2])]);
    let floats = |shape: &[i64], values: &[f32]| tensor(shape, TensorData::Fp32(values.to_vec()));
    let named = |name: &str, tensor| NamedTensor { name: name.to_owned(), tensor };
    let x = [floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0])];
    let factor = named("factor", floats(&[2], &[1.0, 10.0]));
    let offset = named("offset", floats(&[2, 2], &[0.5, 0.5, 0.25, 0.25]));
    for (optional, expected) in [
        (vec![], [2.0, 4.0, 6.0, 8.0]),
        (vec![factor.clone()], [1.0, 20.0, 3.0, 40.0]),
        (vec![offset.clone()], [2.5, 4.5, 6.25, 8.25]),
        (vec![offset, factor], [1.5, 20.5, 3.25, 40.25]),
    ] {
        assert_eq!(engine.run_with(&x, &optional).unwrap(), [floats(&[2, 2], &expected)]);
    }
    // What is replaced for one run is back for the next.
    assert_eq!(engine.run(&x).unwrap(), [floats(&[2, 2], &[2.0, 4.0, 6.0, 8.0])]);
    let unknown = [named("z", floats(&[1], &[1.0]))];
    assert!(engine.run_with(&x, &unknown).is_err());
}

/// The program runs in this crate's folder, where there is a Cargo.toml.
#[test]
fn a_graph_reads_no_file() {
    for name in ["outside/here", "outside/above", "outside/anywhere"] {
        let refused = open_bytes(&graph(name)).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{name}: {refused}");
        let says =
            "graph cannot be opened: it keeps weights in files beside it, which are not read";
        assert!(refused.to_string().starts_with(says), "{name}: {refused}");
    }
}
