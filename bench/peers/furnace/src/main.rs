//! Furnace with two ONNX Runtime sessions behind its model trait, each with one thread, and
//! batches of up to 64: `peer-furnace MODEL.onnx NAME HTTP_PORT GRPC_PORT`.

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use furnace::tensor::DataType;
use furnace::{FurnaceError, HostTensor, IoSpec, Model, ModelError, Server, TensorModel, Values};
use sluice_engine::{Engine, OnnxEngine, OnnxRuntime};
use sluice_protocol::{Datatype, Tensor, TensorData, TensorSpec};

/// Runs that may happen at once.
const SESSIONS: usize = 2;
const MAX_BATCH: usize = 64;

#[derive(Debug)]
struct Graph {
    name: String,
    inputs: Vec<IoSpec>,
    outputs: Vec<IoSpec>,
    sessions: Vec<Mutex<OnnxEngine>>,
}

impl Graph {
    fn open(path: &str, name: String) -> Result<Self, Box<dyn Error>> {
        let (runtime, graph) = (OnnxRuntime::load(None)?, std::fs::read(path)?);
        let open = |_| runtime.open(&graph, 1).map(Mutex::new);
        let sessions = (0..SESSIONS).map(open).collect::<Result<Vec<_>, _>>()?;
        let first = sessions[0].lock().unwrap_or_else(PoisonError::into_inner);
        let specs = |specs: &[TensorSpec]| specs.iter().map(spec).collect::<Result<Vec<_>, _>>();
        let (inputs, outputs) = (specs(first.inputs())?, specs(first.outputs())?);
        drop(first);
        Ok(Self { name, inputs, outputs, sessions })
    }

    /// A session that is free, or else the one that this thread waits for.
    fn session(&self) -> MutexGuard<'_, OnnxEngine> {
        for session in &self.sessions {
            match session.try_lock() {
                Ok(session) => return session,
                Err(TryLockError::Poisoned(session)) => return session.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        self.sessions[0].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TensorModel for Graph {
    fn name(&self) -> &str {
        &self.name
    }

    fn backend(&self) -> &str {
        "cpu"
    }

    fn inputs(&self) -> Vec<IoSpec> {
        self.inputs.clone()
    }

    fn outputs(&self) -> Vec<IoSpec> {
        self.outputs.clone()
    }

    fn run(&self, inputs: Vec<HostTensor>) -> furnace::Result<Vec<HostTensor>> {
        let failed = |error| FurnaceError::Model(ModelError::InferenceFailed(error));
        let tensor = |host: HostTensor| {
            let shape =
                host.shape.iter().map(|&size| i64::try_from(size)).collect::<Result<_, _>>();
            let data = match host.values {
                Values::F32(values) => TensorData::Fp32(values),
                Values::I64(values) => TensorData::Int64(values),
            };
            Tensor::new(shape.map_err(|error| failed(error.to_string()))?, data)
                .map_err(|error| failed(error.to_string()))
        };
        let inputs = inputs.into_iter().map(tensor).collect::<Result<Vec<_>, _>>()?;
        let outputs = self.session().run(&inputs).map_err(|error| failed(error.to_string()))?;
        let host = |tensor: Tensor| {
            let (shape, data) = tensor.into_parts();
            let shape = shape.iter().filter_map(|&size| usize::try_from(size).ok()).collect();
            let values = match data {
                TensorData::Fp32(values) => Values::F32(values),
                TensorData::Int64(values) => Values::I64(values),
                other => return Err(failed(format!("an output of {other:?}"))),
            };
            Ok(HostTensor { shape, values })
        };
        outputs.into_iter().map(host).collect()
    }
}

/// An input or output without its first size, which is the batch's.
fn spec(spec: &TensorSpec) -> Result<IoSpec, String> {
    let datatype = match spec.datatype {
        Datatype::Fp32 => DataType::Fp32,
        Datatype::Int64 => DataType::Int64,
        other => return Err(format!("{} is {}, which Furnace lacks", spec.name, other.as_str())),
    };
    let rest = spec.shape.iter().skip(1);
    let shape: Vec<Option<usize>> = rest.map(|&size| usize::try_from(size).ok()).collect();
    Ok(IoSpec::new(&spec.name, datatype, &shape))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, name, http, grpc] = arguments.as_slice() else {
        return Err("usage: peer-furnace MODEL.onnx NAME HTTP_PORT GRPC_PORT".into());
    };
    let (http, grpc) = (http.parse()?, grpc.parse()?);
    let graph = Graph::open(path, name.clone())?;
    let server = Server::new().host("127.0.0.1").port(http).configure(|config| {
        config.grpc_port = Some(grpc);
        config.batching.max_batch_size = MAX_BATCH;
        config.batching.workers = SESSIONS;
        // Its default of 100 would refuse where others queue.
        config.max_concurrent_requests = 4096;
    });
    server.model(Model::custom(graph)).serve().await?;
    Ok(())
}
