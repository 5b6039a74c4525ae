//! Versions that are loaded under a configuration and asked through the pipeline, and the page
//! that lists every key.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use prost_reflect::{DescriptorPool, MessageDescriptor};
use sluice_engine::OnnxRuntime;
use sluice_protocol::grpc::model_config::SchedulingChoice;
use sluice_protocol::grpc::{DESCRIPTORS, ModelConfig};
use sluice_protocol::{
    Code, InferRequest, ModelVersion, NamedTensor, Parameters, Tensor, TensorData,
};
use tokio::task::LocalSet;

use super::keys::{IGNORED, REFUSED};
use crate::caller::Caller;
use crate::deployment::Deployment;
use crate::error::{GatewayError, LoadError};
use crate::executor::Core;
use crate::load::{Candidate, DeploymentSettings, load};
use crate::pipeline;
use crate::shared::{Options, Shared};
use crate::trace::Trace;

/// A loaded version and what it is shared with.
struct Loaded {
    shared: Shared,
    deployment: Arc<Deployment>,
}

fn shared() -> Shared {
    let library = std::env::var_os("SLUICE_ONNXRUNTIME").map(PathBuf::from);
    let runtime = OnnxRuntime::load(library.as_deref()).unwrap();
    Shared::new(runtime, None, None, Options { cores: 2, ..Options::default() })
}

fn candidate(graph: &str, config: Option<&str>) -> Candidate {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let bytes = std::fs::read(models.join(format!("{graph}.onnx"))).unwrap();
    let config = config.map(|text| ModelConfig::parse_text(text).unwrap());
    let named = config.as_ref().map(|config| config.default_model_filename.clone());
    let file = named.filter(|name| !name.is_empty()).unwrap_or_else(|| "model.onnx".to_owned());
    Candidate {
        model: "m".parse().unwrap(),
        version: ModelVersion(1),
        files: BTreeMap::from([(file, bytes.into())]),
        settings: DeploymentSettings::default(),
        config,
        beside: BTreeMap::new(),
    }
}

fn load_candidate(candidate: &Candidate) -> Result<Loaded, LoadError> {
    let shared = shared();
    let deployment = load(&shared, || Ok(candidate))?;
    shared.catalog.update(&candidate.model, |model| {
        model.versions.insert(candidate.version, deployment.clone());
        model.set_default_version(Some(candidate.version));
    });
    Ok(Loaded { shared, deployment })
}

fn loaded(graph: &str, config: &str) -> Loaded {
    load_candidate(&candidate(graph, Some(config))).unwrap()
}

/// Triton's form of a graph in several files.
#[test]
fn a_graph_may_lie_in_a_folder_of_its_name() {
    for config in [None, Some("default_model_filename: 'own.onnx'")] {
        let mut candidate = candidate("scale", config);
        let (name, graph) = candidate.files.pop_first().unwrap();
        candidate.files.insert(format!("{name}/other.onnx"), graph.clone());
        let missing = load_candidate(&candidate).err().unwrap().to_string();
        assert!(missing.contains(&format!("{name} is missing")), "{missing}");
        candidate.files.insert(format!("{name}/model.onnx"), graph);
        assert!(load_candidate(&candidate).is_ok(), "{name}");
    }
}

fn floats(name: &str, shape: &[i64], values: &[f32]) -> NamedTensor {
    let tensor = Tensor::new(shape.to_vec(), TensorData::Fp32(values.to_vec())).unwrap();
    NamedTensor { name: name.to_owned(), tensor }
}

impl Loaded {
    /// The answer to one request, on a serving core of its own.
    fn infer(&self, inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, GatewayError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let request = |deployment: &Deployment| {
            Ok(InferRequest {
                model: deployment.model.clone(),
                version: None,
                id: String::new(),
                parameters: Parameters::new(),
                inputs,
                outputs: Vec::new(),
            })
        };
        let answered = LocalSet::new().block_on(&runtime, async {
            let _core = Core::start(0);
            pipeline::infer(&self.shared, "m", None, Caller::default(), &mut Trace::none(), request)
                .await
        });
        answered.map(|response| response.outputs)
    }

    /// What a request that does not fit is told.
    fn refuses(&self, inputs: Vec<NamedTensor>, says: &str) {
        let error = self.infer(inputs).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }

    /// The shapes of inputs and outputs, as metadata lists them.
    fn shapes(&self) -> (Vec<Vec<i64>>, Vec<Vec<i64>>) {
        let inputs = self.deployment.listed_inputs().into_iter().map(|input| input.shape);
        let outputs = self.deployment.outputs.iter().map(|output| output.shape.clone());
        (inputs.collect(), outputs.collect())
    }
}

fn assert_refused(graph: &str, config: &str, says: &[&str]) {
    let error = load_candidate(&candidate(graph, Some(config))).map(|_| ()).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("model configuration: "), "{config}: {text}");
    for says in says {
        assert!(text.contains(says), "{config}: {text}");
    }
}

// === Completion ===

#[test]
fn a_configuration_is_completed_from_the_graph() {
    let loaded = load_candidate(&candidate("scale", None)).unwrap();
    let json = loaded.deployment.config.to_json();
    for (key, expected) in [
        ("name", "\"m\""),
        ("platform", "\"onnxruntime_onnx\""),
        ("backend", "\"onnxruntime\""),
        ("max_batch_size", "2147483647"),
        ("default_model_filename", "\"model.onnx\""),
        ("version_policy", "{\"all\":{}}"),
    ] {
        assert_eq!(json[key].to_string(), expected, "{key}");
    }
    let input = &json["input"][0];
    assert_eq!(
        (input["name"].as_str(), input["data_type"].as_str()),
        (Some("x"), Some("TYPE_FP32"))
    );
    assert_eq!(input["dims"], serde_json::json!([2]));
    assert_eq!(json["output"][0]["dims"], serde_json::json!([2]));
    assert!(json["dynamic_batching"].is_object(), "{json}");
    let group = &json["instance_group"][0];
    assert_eq!((group["kind"].as_str(), group["count"].as_i64()), (Some("KIND_CPU"), Some(2)));
    assert_eq!(group["name"], "m_0");
    assert_eq!(loaded.shapes(), (vec![vec![-1, 2]], vec![vec![-1, 2]]));
}

#[test]
fn a_graph_that_does_not_batch_has_no_batch_size() {
    // One that has no free first dimension, and one whose rows touch each other.
    for (graph, dims) in [("fixed", [1, 2]), ("center", [-1, 2])] {
        let loaded = load_candidate(&candidate(graph, None)).unwrap();
        let config = &loaded.deployment.config;
        assert_eq!((config.max_batch_size, &config.input[0].dims[..]), (0, &dims[..]), "{graph}");
        assert!(config.scheduling_choice.is_none(), "{graph}");
        assert_eq!(loaded.shapes(), (vec![dims.to_vec()], vec![dims.to_vec()]), "{graph}");
    }
}

#[test]
fn a_partial_configuration_keeps_what_it_says() {
    let loaded = loaded(
        "mixed",
        "name: \"m\" max_batch_size: 4 default_model_filename: \"other.onnx\"
         version_policy { latest { num_versions: 2 } } parameters { key: \"a\" value { string_value: \"b\" } }
         metric_tags { key: \"team\" value: \"red\" } response_cache { enable: true }
         input [ { name: \"on\" format: FORMAT_NONE }, { name: \"name\" }, { name: \"id\" } ]
         dynamic_batching { max_queue_delay_microseconds: 50 preferred_batch_size: 2 }
         instance_group [ { name: \"g\" kind: KIND_AUTO }, { count: 2 } ]",
    );
    let config = &loaded.deployment.config;
    let named = |inputs: &[sluice_protocol::grpc::ModelInput]| -> Vec<String> {
        inputs.iter().map(|input| input.name.clone()).collect()
    };
    assert_eq!(named(&config.input), ["id", "name", "on"], "in the graph's order");
    assert_eq!(config.max_batch_size, 4);
    assert_eq!(config.default_model_filename, "other.onnx");
    assert_eq!(config.parameters["a"].string_value, "b");
    assert_eq!(
        config.to_json()["version_policy"],
        serde_json::json!({"latest": {"num_versions": 2}})
    );
    assert!(loaded.deployment.cached);
    let Some(SchedulingChoice::DynamicBatching(batching)) = &config.scheduling_choice else {
        panic!("{config:?}");
    };
    assert_eq!(
        (batching.max_queue_delay_microseconds, &batching.preferred_batch_size[..]),
        (50, &[2][..])
    );
    // A delay asks for workers, and there are as many as asked for.
    assert_eq!(loaded.deployment.executor.name(), "workers");
    let counts: Vec<_> = config.instance_group.iter().map(|group| group.count).collect();
    let names: Vec<_> = config.instance_group.iter().map(|group| group.name.as_str()).collect();
    assert_eq!((counts, names), (vec![1, 2], vec!["g", "m_1"]));
    assert!(loaded.shared.metrics.render().contains("team=\"red\""));
}

#[test]
fn settings_win_over_the_configuration() {
    let mut candidate = candidate(
        "scale",
        Some("dynamic_batching { max_queue_delay_microseconds: 50 } instance_group { count: 3 }"),
    );
    candidate.settings = DeploymentSettings::parse(
        "format = 1\nexecutor = \"workers\"\ninstances = 1\nmax_queue_delay = \"0us\"",
    )
    .unwrap();
    let loaded = load_candidate(&candidate).unwrap();
    assert_eq!(loaded.deployment.config.instance_group[0].count, 1);
    candidate.settings = DeploymentSettings::parse("format = 1\nexecutor = \"tick\"").unwrap();
    let loaded = load_candidate(&candidate).unwrap();
    assert_eq!(loaded.deployment.executor.name(), "tick");
    assert_eq!(loaded.deployment.config.instance_group[0].count, 2, "an instance a core");
}

// === Against the graph ===

/// Asserts that configurations are refused for their graphs in such words. `$x` is the name and
/// the datatype of the graph "scale"'s input.
fn assert_all_refused(refusals: &[(&str, &str, &[&str])]) {
    for (graph, config, says) in refusals {
        let config = config.replace("$x", "name: \"x\" data_type: TYPE_FP32");
        assert_refused(graph, &config, says);
    }
}

#[test]
fn names_and_datatypes_that_are_not_the_graphs_are_refused() {
    assert_all_refused(&[
        ("scale", "input { name: \"z\" }", &["input \"z\"", "the graph has only x"]),
        ("scale", "output { name: \"z\" }", &["output \"z\"", "the graph has only y"]),
        ("scale", "input [ { $x }, { $x } ]", &["input \"x\": the configuration has it twice"]),
        ("pair", "input { name: \"a\" }", &["input \"b\"", "the configuration has only a"]),
        (
            "scale",
            "input { name: \"x\" data_type: TYPE_INT32 }",
            &["input \"x\"", "says TYPE_INT32, the graph has TYPE_FP32"],
        ),
        (
            "mixed",
            "output { name: \"name_out\" data_type: TYPE_BOOL }",
            &["output \"name_out\"", "says TYPE_BOOL, the graph has TYPE_STRING"],
        ),
    ]);
}

#[test]
fn dims_that_are_not_the_graphs_are_refused() {
    assert_all_refused(&[
        (
            "scale",
            "max_batch_size: 8 input { $x dims: 3 }",
            &["input \"x\"", "says dims [3], the graph has shape [-1, 2]", "max_batch_size"],
        ),
        (
            "scale",
            "max_batch_size: 8 input { $x dims: [ -1, 2 ] }",
            &["says dims [-1, 2], the graph has shape [-1, 2], of which the first is the batch"],
        ),
        (
            "scale",
            "input { $x dims: 2 } output { name: \"y\" dims: 2 }",
            &["says dims [2], the graph has shape [-1, 2]", "max_batch_size must be above 0"],
        ),
        ("scale", "max_batch_size: 8 output { name: \"y\" dims: 3 }", &["output \"y\"", "[3]"]),
        ("scale", "max_batch_size: 8 input { $x dims: -2 }", &["dims are -1 where"]),
        ("scale", "max_batch_size: -1", &["max_batch_size is -1"]),
        (
            "fixed",
            "max_batch_size: 4",
            &["\"x\"", "model does not support batching", "[1, 2]", "first dimension is not free"],
        ),
        (
            "scale",
            "max_batch_size: 8 input { $x dims: [ 3, 1 ] reshape { shape: 2 } }",
            &["input \"x\": reshape: ", "different size"],
        ),
        (
            "scale",
            "max_batch_size: 8 input { $x dims: 3 reshape { shape: 3 } }",
            &["says dims [3] after its reshape, the graph has shape [-1, 2]"],
        ),
        ("scale", "max_batch_size: 8 input { $x reshape { shape: 2 } }", &["but no dims"]),
        (
            "scale",
            "max_batch_size: 8 input { $x dims: 2 format: FORMAT_NCHW }",
            &["FORMAT_NCHW has three dims beside the batch, the shape is [-1, 2]"],
        ),
        ("scale", "input { $x format: FORMAT_NCHW }", &["the shape is [-1, 2]"]),
        ("scale", "max_batch_size: 8 input { $x format: FORMAT_NHWC }", &["the shape is [-1, 2]"]),
    ]);
}

#[test]
fn what_cannot_be_served_so_is_refused() {
    assert_all_refused(&[
        ("scale", "input { $x optional: true }", &["\"x\"", "the graph has no value of its own"]),
        ("shift", "input [ { $x }, { name: \"factor\" } ]", &["\"factor\"", "say optional: true"]),
        (
            "shift",
            "max_batch_size: 2 input [ { $x }, { name: \"factor\" optional: true } ]",
            &["\"factor\"", "first dimension is not free"],
        ),
        ("scale", "backend: \"python\"", &["only \"onnxruntime\" is served here"]),
        ("scale", "sequence_batching { }", &["sequence_batching cannot be served"]),
        ("scale", "dynamic_batching { preferred_batch_size: -1 }", &["must be positive"]),
        ("scale", "output { name: \"y\" label_filename: \"l\" }", &["\"y\"", "file \"l\""]),
    ]);
}

#[test]
fn a_file_of_another_name_is_missing() {
    let mut misnamed = candidate("scale", Some("default_model_filename: \"a.onnx\""));
    misnamed.files = candidate("scale", None).files;
    let error = load_candidate(&misnamed).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, "a.onnx is missing");
}

#[test]
fn dims_say_whether_there_is_a_batch_where_its_size_does_not() {
    for (config, max_batch_size, shape) in [
        ("input { name: \"x\" dims: 2 }", i32::MAX, [-1, 2]),
        ("input { name: \"x\" dims: [ -1, 2 ] }", 0, [-1, 2]),
        ("input { name: \"x\" dims: [ 3, -1 ] }", 0, [3, 2]),
        ("output { name: \"y\" dims: -1 }", i32::MAX, [-1, 2]),
        ("input { name: \"x\" } output { name: \"y\" }", i32::MAX, [-1, 2]),
    ] {
        let loaded = loaded("scale", config);
        assert_eq!(loaded.deployment.config.max_batch_size, max_batch_size, "{config}");
        assert_eq!(loaded.shapes().0, [shape.to_vec()], "{config}");
        assert_eq!(loaded.deployment.batches, max_batch_size > 0, "{config}");
    }
}

// === What is honoured ===

#[test]
fn a_request_has_at_most_the_batch_size() {
    let loaded = loaded("scale", "max_batch_size: 2");
    let x = |rows: usize| floats("x", &[i64::try_from(rows).unwrap(), 2], &vec![1.0; rows * 2]);
    assert_eq!(loaded.infer(vec![x(2)]).unwrap(), [floats("y", &[2, 2], &[3.0; 4])]);
    loaded.refuses(vec![x(3)], "inference request batch-size must be <= 2 for 'm'");
    // A graph whose rows touch takes batches too; each runs alone.
    let loaded = self::loaded("center", "max_batch_size: 2");
    assert!(!loaded.deployment.batches);
    let rows = loaded.infer(vec![floats("x", &[2, 2], &[1.0, 2.0, 3.0, 6.0])]).unwrap();
    assert_eq!(rows, [floats("y", &[2, 2], &[-1.0, -2.0, 1.0, 2.0])]);
    loaded.refuses(vec![x(3)], "batch-size must be <= 2");
}

#[test]
fn inputs_that_do_not_fit_are_refused_in_the_words_that_clients_know() {
    let scale = loaded("scale", "max_batch_size: 8");
    let int = NamedTensor {
        name: "x".to_owned(),
        tensor: Tensor::new(vec![1, 2], TensorData::Int32(vec![1, 2])).unwrap(),
    };
    for (inputs, says) in [
        (
            vec![],
            "input \"x\": is missing: expected 1 inputs but got 0 inputs for model 'm', missing required input(s) ['x']",
        ),
        (vec![floats("z", &[1, 2], &[1.0; 2])], "unexpected inference input 'z' for model 'm'"),
        (
            vec![floats("x", &[1, 2], &[1.0; 2]), floats("z", &[1, 2], &[1.0; 2])],
            "expected 1 inputs but got 2 inputs for model 'm'",
        ),
        (vec![int], "inference input 'x' data-type is 'INT32', but model 'm' expects 'FP32'"),
        (
            vec![floats("x", &[1, 3], &[1.0; 3])],
            "unexpected shape for input 'x' for model 'm'. Expected [-1,2], got [1,3]",
        ),
        (
            vec![floats("x", &[2], &[1.0; 2])],
            "Expected [-1,2], got [2]. NOTE: Setting a non-zero max_batch_size in the model config \
             requires a batch dimension",
        ),
        (
            vec![floats("x", &[], &[1.0])],
            "input 'x' has no shape but model requires batch dimension for 'm'",
        ),
        (vec![floats("x", &[0, 2], &[])], "has no rows"),
    ] {
        scale.refuses(inputs, says);
    }
    let pair = loaded("pair", "max_batch_size: 8");
    let [two, one] = [("a", 2), ("b", 1)].map(|(name, rows): (&str, i64)| {
        floats(name, &[rows, 1], &vec![1.0; usize::try_from(rows).unwrap()])
    });
    pair.refuses(vec![two, one], "input 'b' batch size does not match other inputs for 'm'");
}

#[test]
fn requests_may_have_other_dims_than_the_graph() {
    let loaded = loaded(
        "mixed",
        "max_batch_size: 8
         input [
             { name: \"id\" dims: 1 reshape { } },
             { name: \"name\" dims: [ 1, 1 ] reshape { shape: [ ] } },
             { name: \"on\" }
         ]
         output [ { name: \"on_out\" dims: [ 1, 1 ] reshape { } }, { name: \"id_out\" } ]",
    );
    let inputs = vec![vec![-1, 1], vec![-1, 1, 1], vec![-1]];
    // What the configuration leaves out is not answered.
    assert_eq!(loaded.shapes(), (inputs, vec![vec![-1], vec![-1, 1, 1]]));
    assert_eq!(loaded.deployment.config.input[0].dims, [1]);
    let named = |name: &str, shape: &[i64], data: TensorData| NamedTensor {
        name: name.to_owned(),
        tensor: Tensor::new(shape.to_vec(), data).unwrap(),
    };
    let id = || TensorData::Int64(vec![7, 8]);
    let text = || TensorData::Bytes(vec!["a".into(), "b".into()]);
    let on = || TensorData::Bool(vec![true, false]);
    let inputs = vec![
        named("on", &[2], on()),
        named("name", &[2, 1, 1], text()),
        named("id", &[2, 1], id()),
    ];
    let expected = [named("id_out", &[2], id()), named("on_out", &[2, 1, 1], on())];
    assert_eq!(loaded.infer(inputs).unwrap(), expected);
    let inputs =
        vec![named("on", &[2], on()), named("name", &[2], text()), named("id", &[2, 1], id())];
    loaded.refuses(inputs, "Expected [-1,1,1], got [2]");
}

#[test]
fn a_configuration_may_fix_what_the_graph_leaves_free() {
    let loaded = loaded("fold", "input { name: \"x\" dims: [ 2, 3 ] }");
    assert_eq!(loaded.shapes().0, [vec![2, 3]]);
    let y = loaded.infer(vec![floats("x", &[2, 3], &[1.0; 6])]).unwrap();
    assert_eq!(y, [floats("y", &[3, 2], &[1.0; 6])]);
    loaded.refuses(vec![floats("x", &[2, 4], &[1.0; 8])], "Expected [2,3], got [2,4]");
}

#[test]
fn a_dimension_may_be_empty_where_it_is_free() {
    let loaded = loaded("pair", "max_batch_size: 8 input [ { name: \"a\" }, { name: \"b\" } ]");
    let inputs = vec![floats("a", &[3, 0], &[]), floats("b", &[3, 0], &[])];
    assert_eq!(loaded.infer(inputs).unwrap(), [floats("y", &[3, 0], &[])]);
    let inputs = vec![floats("a", &[0, 2], &[]), floats("b", &[0, 2], &[])];
    loaded.refuses(inputs, "has no rows");
    // Where there is no batch, the first dimension is like any other.
    let whole = self::loaded("pair", "input [ { name: \"a\" dims: [ -1, 2 ] }, { name: \"b\" } ]");
    let inputs = vec![floats("a", &[0, 2], &[]), floats("b", &[0, 2], &[])];
    assert_eq!(whole.infer(inputs).unwrap(), [floats("y", &[0, 2], &[])]);
    let scale = self::loaded("scale", "max_batch_size: 8");
    scale.refuses(vec![floats("x", &[3, 0], &[])], "Expected [-1,2], got [3,0]");
}

#[test]
fn an_optional_input_stands_for_what_the_graph_has_itself() {
    let all = "input [ { name: \"x\" }, { name: \"offset\" optional: true },
        { name: \"factor\" optional: true dims: [ 1, 2 ] reshape { shape: 2 } } ]";
    let loaded = loaded("shift", all);
    let listed: Vec<_> = loaded.deployment.listed_inputs();
    let listed: Vec<_> = listed.iter().map(|i| (i.name.as_str(), i.optional)).collect();
    assert_eq!(listed, [("x", false), ("factor", true), ("offset", true)]);
    assert!(loaded.deployment.config.input[1].optional);
    let x = || floats("x", &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let factor = floats("factor", &[1, 2], &[1.0, 10.0]);
    let offset = || floats("offset", &[2, 2], &[0.5, 0.5, 0.25, 0.25]);
    for (inputs, expected) in [
        (vec![x()], [2.0, 4.0, 6.0, 8.0]),
        (vec![factor.clone(), x()], [1.0, 20.0, 3.0, 40.0]),
        (vec![x(), offset(), factor], [1.5, 20.5, 3.25, 40.25]),
    ] {
        assert_eq!(loaded.infer(inputs).unwrap(), [floats("y", &[2, 2], &expected)]);
    }
    loaded.refuses(vec![offset()], "expected number of inputs between 1 and 3 but got 1 inputs");
    loaded.refuses(vec![x(), floats("factor", &[2], &[1.0; 2])], "Expected [1,2], got [2]");

    // With a batch, optional inputs are rows like the others.
    let batch = self::loaded(
        "shift",
        "max_batch_size: 4 input [ { name: \"x\" }, { name: \"offset\" optional: true } ]",
    );
    assert!(batch.deployment.batches);
    let y = batch.infer(vec![x(), offset()]).unwrap();
    assert_eq!(y, [floats("y", &[2, 2], &[2.5, 4.5, 6.25, 8.25])]);
    let one = floats("offset", &[1, 2], &[1.0; 2]);
    batch.refuses(vec![x(), one], "input 'offset' batch size does not match other inputs");
    // Nobody may send what no configuration lists.
    let bare = load_candidate(&candidate("shift", None)).unwrap();
    assert_eq!(bare.deployment.listed_inputs().len(), 1);
    bare.refuses(vec![x(), offset()], "unexpected inference input");
}

/// Requests that bring an optional input and requests that do not, all at once.
#[test]
fn an_optional_input_holds_for_its_own_request_alone() {
    let mut candidate = candidate(
        "shift",
        Some(
            "max_batch_size: 4 dynamic_batching { max_queue_delay_microseconds: 20000 }
             input [ { name: \"x\" }, { name: \"offset\" optional: true } ]",
        ),
    );
    for executor in ["tick", "workers"] {
        candidate.settings =
            DeploymentSettings::parse(&format!("format = 1\nexecutor = {executor:?}")).unwrap();
        let loaded = load_candidate(&candidate).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let _core = Core::start(0);
            let requests = (0..12_u8).map(|number| {
                let value = f32::from(number);
                let mut inputs = vec![floats("x", &[1, 2], &[value; 2])];
                if number % 3 == 0 {
                    inputs.push(floats("offset", &[1, 2], &[100.0; 2]));
                }
                let request = move |deployment: &Deployment| {
                    Ok(InferRequest {
                        model: deployment.model.clone(),
                        version: None,
                        id: String::new(),
                        parameters: Parameters::new(),
                        inputs,
                        outputs: Vec::new(),
                    })
                };
                let expected = 2.0 * value + if number % 3 == 0 { 100.0 } else { 0.0 };
                let shared = &loaded.shared;
                async move {
                    let answer = pipeline::infer(
                        shared,
                        "m",
                        None,
                        Caller::default(),
                        &mut Trace::none(),
                        request,
                    )
                    .await
                    .unwrap();
                    assert_eq!(answer.outputs, [floats("y", &[1, 2], &[expected; 2])]);
                }
            });
            futures::future::join_all(requests).await;
        });
    }
}

#[test]
fn labels_go_to_their_outputs() {
    let mut candidate =
        candidate("scale", Some("output { name: \"y\" label_filename: \"l.txt\" }"));
    candidate.beside.insert("l.txt".to_owned(), Bytes::from_static(b"no\nyes\n"));
    let loaded = load_candidate(&candidate).unwrap();
    let labels = loaded.deployment.outputs[0].labels.as_deref();
    assert_eq!(labels, Some(["no".to_owned(), "yes".to_owned()].as_slice()));
    assert_eq!(loaded.deployment.config.output[0].label_filename, "l.txt");
}

#[test]
fn warm_up_runs_are_made_and_one_that_fails_refuses_the_model() {
    let with = |graph: &str, sample: &str| {
        let text = format!("max_batch_size: 4 model_warmup {{ name: \"w\" {sample} }}");
        let mut candidate = candidate(graph, Some(&text));
        let file = |index: i64| Bytes::copy_from_slice(&index.to_le_bytes());
        candidate.beside.insert("warmup/three".to_owned(), file(3));
        candidate.beside.insert("warmup/nine".to_owned(), file(9));
        load_candidate(&candidate).map(|_| ()).map_err(|error| error.to_string())
    };
    let index = |source: &str| format!("inputs {{ key: \"index\" value {{ {source} }} }}");
    for (graph, sample) in [
        ("scale", "batch_size: 3 count: 2 inputs { key: \"x\" value { dims: 2 zero_data: true } }"),
        ("scale", "batch_size: 1 inputs { key: \"x\" value { dims: 2 random_data: true } }"),
        ("pick", &format!("batch_size: 2 {}", index("input_data_file: \"three\""))),
        ("parse", "batch_size: 1 inputs { key: \"text\" value { random_data: true } }"),
        // A batch of nothing is no run.
        ("pick", &index("input_data_file: \"nine\"")),
    ] {
        with(graph, sample).unwrap();
    }
    for (graph, sample, says) in [
        ("pick", format!("batch_size: 2 {}", index("input_data_file: \"nine\"")), "the run failed"),
        ("pick", format!("batch_size: 5 {}", index("zero_data: true")), "may have 4"),
        ("pick", "batch_size: 1".to_owned(), "input \"index\" is missing"),
        ("pick", format!("batch_size: 1 {}", index("dims: 2 zero_data: true")), "shape is [1, 2]"),
        ("pick", format!("batch_size: 1 {}", index("dims: -1 zero_data: true")), "negative"),
        ("pick", format!("batch_size: 1 {}", index("")), "neither zero_data"),
        ("pick", format!("batch_size: 1 {}", index("data_type: TYPE_BOOL")), "TYPE_BOOL"),
        (
            "pick",
            format!("batch_size: 1 {}", index("input_data_file: \"four\"")),
            "file \"warmup/four\" is not in the model's folder",
        ),
        (
            "pick",
            format!("batch_size: 1 {}", index("input_data_file: \"../three\"")),
            "is not in the model's folder",
        ),
        (
            "scale",
            format!("batch_size: 1 {}", index("zero_data: true")),
            "input \"index\" is no input of the model",
        ),
        (
            "scale",
            "batch_size: 4 inputs { key: \"x\" value { dims: 99999999 zero_data: true } }"
                .to_owned(),
            "elements",
        ),
    ] {
        let error = with(graph, &sample).unwrap_err();
        assert!(error.contains("model_warmup \"w\": "), "{sample}: {error}");
        assert!(error.contains(says), "{sample}: {error}");
    }
}

#[test]
fn warm_up_runs_are_bounded_and_end_with_the_gateway() {
    let sample = |count: u32| {
        format!(
            "model_warmup {{ name: \"w\" batch_size: 1 count: {count}
               inputs {{ key: \"x\" value {{ dims: [ 1, 2 ] zero_data: true }} }} }}"
        )
    };
    let fixed = |count: u32| candidate("fixed", Some(&sample(count)));
    let says = "count is 4294967295 in all, at most 10000 are made";
    assert_refused("fixed", &sample(u32::MAX), &[says]);
    assert_refused("fixed", &format!("{} {}", sample(9_999), sample(2)), &["10001 in all"]);
    load_candidate(&fixed(10)).unwrap();
    let shared = shared();
    shared.set_draining();
    let error = load(&shared, || Ok(fixed(10))).unwrap_err().to_string();
    assert!(error.contains("model_warmup \"w\": the gateway is shutting down"), "{error}");
}

// === The page ===

/// The page's rows: a key, and what becomes of it.
fn page() -> BTreeMap<String, String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/model-configuration.md");
    let text = std::fs::read_to_string(page).unwrap();
    let (_, table) = text.split_once("## Every key").unwrap();
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let key = cells.next()?.trim_end_matches('`').to_owned();
        Some((key, cells.next()?.to_owned()))
    });
    rows.collect()
}

/// Every field, with the ones of its own message behind it unless a row of `page` ends in `.*`
/// and has them all.
fn fields(message: &MessageDescriptor, path: &str, page: &BTreeMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    for field in message.fields() {
        let path = if path.is_empty() {
            field.name().to_owned()
        } else {
            format!("{path}.{}", field.name())
        };
        let all = format!("{path}.*");
        if page.contains_key(&all) {
            found.push(all);
            continue;
        }
        let kind = field.kind();
        let value = kind.as_message().and_then(|message| match message.is_map_entry() {
            true => message.map_entry_value_field().kind().as_message().cloned(),
            false => Some(message.clone()),
        });
        match value {
            Some(message) if message.fields().len() > 0 => {
                found.extend(fields(&message, &path, page));
            }
            _ => found.push(path),
        }
    }
    found
}

#[test]
fn the_page_has_every_key() {
    let page = page();
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let message = pool.get_message_by_name("inference.ModelConfig").unwrap();
    let fields: BTreeSet<_> = fields(&message, "", &page).into_iter().collect();
    let listed: BTreeSet<_> = page.keys().filter(|key| !key.contains(": ")).cloned().collect();
    let missing: Vec<_> = fields.difference(&listed).collect();
    let unknown: Vec<_> = listed.difference(&fields).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing {missing:?}, unknown {unknown:?}");
    assert!(fields.len() > 60, "{fields:?}");
}

#[test]
fn the_page_says_what_is_refused_and_ignored() {
    let page = page();
    let said = |what: &str| -> BTreeSet<String> {
        let rows = page.iter().filter(|(_, cell)| cell.starts_with(what));
        rows.map(|(key, _)| key.trim_end_matches(".*").to_owned()).collect()
    };
    let refused: BTreeSet<_> = REFUSED.iter().map(|(key, ..)| (*key).to_owned()).collect();
    let ignored: BTreeSet<_> = IGNORED.iter().map(|(key, _)| (*key).to_owned()).collect();
    assert_eq!(said("refused"), refused);
    assert_eq!(said("ignored"), ignored);
}
