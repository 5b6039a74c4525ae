//! Execution providers: what runs a graph's nodes. ONNX Runtime gives each node to the first of them
//! that can run it, and the CPU runs what none of them can.

use std::collections::BTreeMap;

use ort::ep::{
    ArbitrarilyConfigurableExecutionProvider as Configurable, CUDA, ExecutionProviderDispatch,
    OpenVINO, QNN, ROCm, TensorRT, XNNPACK,
};

use crate::EngineError;

/// The one that is always there.
pub const CPU: &str = "cpu";

/// Those that can be named.
const NAMES: [&str; 7] = [CPU, "cuda", "tensorrt", "openvino", "rocm", "qnn", "xnnpack"];

/// An execution provider as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    name: String,
    options: BTreeMap<String, String>,
}

impl Provider {
    /// The provider of this name, `cuda` for one, with options by the names that ONNX Runtime has for
    /// them. They are checked when a graph is opened.
    pub fn new(name: &str, options: BTreeMap<String, String>) -> Result<Self, EngineError> {
        let refuse = |reason: String| EngineError::Provider { name: name.to_owned(), reason };
        if !NAMES.contains(&name) {
            return Err(refuse(format!("is not known; known are {}", NAMES.join(", "))));
        }
        if name == CPU && !options.is_empty() {
            return Err(refuse("has no options".to_owned()));
        }
        Ok(Self { name: name.to_owned(), options })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What registers it with a session. None for the CPU, which needs no registration.
    pub(crate) fn dispatch(&self) -> Option<ExecutionProviderDispatch> {
        let dispatch: ExecutionProviderDispatch = match self.name.as_str() {
            "cuda" => self.configure(CUDA::default()).into(),
            "tensorrt" => self.configure(TensorRT::default()).into(),
            "openvino" => self.configure(OpenVINO::default()).into(),
            "rocm" => self.configure(ROCm::default()).into(),
            "qnn" => self.configure(QNN::default()).into(),
            "xnnpack" => self.configure(XNNPACK::default()).into(),
            _ => return None,
        };
        // Else ONNX Runtime would go on without it and say nothing.
        Some(dispatch.error_on_failure())
    }

    fn configure<P: Configurable>(&self, provider: P) -> P {
        let options = self.options.iter();
        options.fold(provider, |provider, (key, value)| provider.with_arbitrary_config(key, value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{NAMES, Provider};

    #[test]
    fn every_name_but_the_cpu_s_is_registered_by_it() {
        for name in NAMES {
            let provider = Provider::new(name, BTreeMap::new()).unwrap();
            let own = provider.dispatch().map(|dispatch| dispatch.name().to_lowercase());
            match own {
                Some(own) => assert!(own.contains(name), "{name}: {own}"),
                None => assert_eq!(name, "cpu"),
            }
        }
    }

    #[test]
    fn a_name_that_is_none_is_refused_with_those_that_are() {
        let error = Provider::new("gpu", BTreeMap::new()).unwrap_err().to_string();
        assert!(error.contains("\"gpu\"") && error.contains("cuda"), "{error}");
        let options = BTreeMap::from([("threads".to_owned(), "2".to_owned())]);
        let error = Provider::new("cpu", options).unwrap_err().to_string();
        assert!(error.contains("has no options"), "{error}");
    }
}
