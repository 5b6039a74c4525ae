//! What a graph's nodes say of its cost: whether the values that a request brings decide how long
//! a run takes, which no measurement can tell then.

use std::collections::HashSet;

use bytes::Bytes;
use prost::Message;

/// Operators and which of their inputs say how large the output becomes.
const SIZED: [(&str, &[usize]); 17] = [
    ("AffineGrid", &[1]),
    ("BlackmanWindow", &[0]),
    ("CenterCropPad", &[1]),
    ("Col2Im", &[1, 2]),
    ("ConstantOfShape", &[0]),
    ("DFT", &[1]),
    ("Expand", &[1]),
    ("HammingWindow", &[0]),
    ("HannWindow", &[0]),
    ("MaxUnpool", &[2]),
    ("MelWeightMatrix", &[0, 1]),
    ("OneHot", &[1]),
    ("Pad", &[1]),
    ("Range", &[0, 1, 2]),
    ("Resize", &[1, 2, 3]),
    ("Tile", &[1, 2]),
    ("Upsample", &[1]),
];
/// Operators whose output follows from their input's shape, whatever its values are.
const SHAPES: [&str; 2] = ["Shape", "Size"];

/// Whether the values of inputs can make a run of `graph` take as long as they like: it has a
/// graph inside, which is a loop's body or runs in some cases only, or computes how large a tensor
/// becomes. What cannot be read counts as such a graph.
pub(super) fn varies_by_values(graph: &Bytes) -> bool {
    let Ok(Model { graph, functions }) = Model::decode(graph.clone()) else { return true };
    let Graph { nodes, initializers, inputs } = graph.unwrap_or_default();
    let mut fixed: HashSet<_> = initializers.into_iter().map(|tensor| tensor.name).collect();
    // Whoever asks may bring these in the place of the graph's own.
    fixed.retain(|name| inputs.iter().all(|input| input.name != *name));
    vary(nodes, fixed) || functions.into_iter().any(|function| vary(function.nodes, HashSet::new()))
}

/// Whether the cost of `nodes`, each of which comes behind those that it needs, follows from more
/// than shapes and values that are `fixed`.
fn vary(nodes: Vec<Node>, mut fixed: HashSet<String>) -> bool {
    // An input that is left out has no name.
    fixed.insert(String::new());
    for Node { inputs, outputs, operator, attributes } in nodes {
        if attributes.iter().any(|attribute| attribute.graph.is_some() || attribute.has_graphs()) {
            return true;
        }
        let sized = SIZED.iter().find(|(name, _)| *name == operator);
        let mut sizes = sized.into_iter().flat_map(|(_, sizes)| *sizes);
        if sizes.any(|&size| inputs.get(size).is_some_and(|name| !fixed.contains(name))) {
            return true;
        }
        if SHAPES.contains(&&*operator) || inputs.iter().all(|name| fixed.contains(name)) {
            fixed.extend(outputs);
        }
    }
    false
}

// The parts of ONNX's messages (onnx.proto) that tell that.

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "25")]
    functions: Vec<Function>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    initializers: Vec<Initializer>,
    #[prost(message, repeated, tag = "11")]
    inputs: Vec<Input>,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(message, repeated, tag = "7")]
    nodes: Vec<Node>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    outputs: Vec<String>,
    #[prost(string, tag = "4")]
    operator: String,
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<Attribute>,
}

/// The graphs are not read: that there is one is enough.
#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(bytes = "bytes", optional, tag = "6")]
    graph: Option<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "11")]
    graphs: Vec<Bytes>,
}

impl Attribute {
    const fn has_graphs(&self) -> bool {
        !self.graphs.is_empty()
    }
}

#[derive(Clone, PartialEq, Message)]
struct Initializer {
    #[prost(string, tag = "8")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Input {
    #[prost(string, tag = "1")]
    name: String,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use prost::Message;

    use super::{Function, Graph, Initializer, Input, Model, Node, varies_by_values};

    #[test]
    fn graphs_with_bodies_and_computed_sizes_vary_and_others_do_not() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
        for (name, varies) in [
            ("rounds", true),
            ("fill", true),
            ("scale", false),
            ("slow", false),
            ("pick", false),
            ("fold", false),
            ("shift", false),
            ("identity/BYTES", false),
        ] {
            let graph = std::fs::read(models.join(format!("{name}.onnx"))).unwrap();
            assert_eq!(varies_by_values(&graph.into()), varies, "{name}");
        }
        assert!(varies_by_values(&Bytes::from_static(b"no graph")));
    }

    fn node(text: &str) -> Node {
        let words =
            |text: &str| text.split_whitespace().map(|name| name.replace('-', "")).collect();
        let (outputs, call) = text.split_once('=').unwrap();
        let (operator, inputs) = call.split_once(':').unwrap();
        let operator = operator.trim().to_owned();
        Node { inputs: words(inputs), outputs: words(outputs), operator, attributes: Vec::new() }
    }

    /// Nodes as `output = Operator: inputs`, of which `-` is left out. The graph takes x and own,
    /// for which it has a value too, and has a constant k.
    #[test]
    fn a_size_varies_that_follows_from_the_values_of_an_input() {
        for (nodes, varies) in [
            (&["y = Expand: x k"][..], false),
            (&["y = Expand: x own"], true),
            (&["y = Expand: x x"], true),
            (&["s = Shape: x", "t = Concat: s k", "y = Expand: k t"], false),
            (&["t = Add: x k", "y = Expand: k t"], true),
            (&["c = Constant:", "y = Tile: x c"], false),
            (&["y = Resize: x - k"], false),
            (&["y = Resize: x - - own"], true),
            (&["y = Range: k x k"], true),
            // Whoever says so in another order is not believed.
            (&["y = Tile: x c", "c = Constant:"], true),
        ] {
            let name = |name: &str| name.to_owned();
            let graph = Graph {
                nodes: nodes.iter().map(|text| node(text)).collect(),
                initializers: ["k", "own"].map(|text| Initializer { name: name(text) }).into(),
                inputs: ["x", "own"].map(|text| Input { name: name(text) }).into(),
            };
            let model = Model { graph: Some(graph), functions: Vec::new() };
            assert_eq!(varies_by_values(&model.encode_to_vec().into()), varies, "{nodes:?}");
        }
        let function = Function { nodes: vec![node("y = Expand: x n")] };
        let model = Model { graph: None, functions: vec![function] };
        assert!(varies_by_values(&model.encode_to_vec().into()));
    }
}
