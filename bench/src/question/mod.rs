//! Questions for models, made from what their server says of their inputs.

mod bodies;
mod metadata;
mod once;
mod runs;

use std::str::FromStr;

use http::Uri;

use crate::check::Check;
use crate::error::BenchError;
use crate::options::{LoadOptions, Question, Transport};
use crate::values::{Choice, Values};
#[cfg(test)]
pub(crate) use bodies::framed;
use bodies::questions;
pub(crate) use bodies::unframed;
use metadata::inputs;
pub(crate) use once::once;
pub use runs::{ModelRuns, model_runs};

/// Different bodies, so that no server knows an answer by heart.
const BODIES: u64 = 64;
/// The same where values are chosen, so that the rarer ones come too.
const BODIES_OF_CHOICES: u64 = 4096;

/// How a model is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// `/v1/models/NAME:predict`.
    V1,
    /// `/v2/models/NAME/infer`, all of it JSON.
    V2,
    /// The same with tensors as bytes behind the JSON, there and back.
    V2Binary,
    /// V2's `ModelInfer` over gRPC, tensors as bytes.
    Grpc,
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "v1" => Ok(Self::V1),
            "v2" => Ok(Self::V2),
            "v2-binary" => Ok(Self::V2Binary),
            "grpc" => Ok(Self::Grpc),
            _ => Err("a protocol is v1, v2, v2-binary or grpc".to_owned()),
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::V2Binary => "v2-binary",
            Self::Grpc => "grpc",
        })
    }
}

impl Protocol {
    const fn transport(self) -> Transport {
        match self {
            Self::V1 | Self::V2 | Self::V2Binary => Transport::Http1,
            Self::Grpc => Transport::Http2,
        }
    }

    const fn check(self) -> Check {
        match self {
            Self::V1 | Self::V2 => Check::Json,
            Self::V2Binary => Check::Status,
            Self::Grpc => Check::Grpc,
        }
    }

    /// Where `model` is asked.
    fn path(self, model: &str) -> String {
        match self {
            Self::V1 => format!("/v1/models/{model}:predict"),
            Self::V2 | Self::V2Binary => format!("/v2/models/{model}/infer"),
            Self::Grpc => "/inference.GRPCInferenceService/ModelInfer".to_owned(),
        }
    }
}

/// What is asked of models, and how.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The models, asked in turn.
    pub models: Vec<String>,
    /// How.
    pub protocol: Protocol,
    /// Rows of each question.
    pub rows: usize,
    /// Inputs whose values are not any, but chosen.
    pub choices: Vec<Choice>,
}

/// A load that asks the server at `url` what `asked` says, with made-up rows that are the same in
/// every load. The server is asked for its models' inputs, which blocks for some seconds at most.
///
/// # Errors
/// A server that does not answer or does not have a model, inputs that the protocol has no form
/// for, and a target on another machine without leave.
pub fn ask_models(url: &Uri, asked: &Asked, allow_remote: bool) -> Result<LoadOptions, BenchError> {
    let base = url.to_string();
    let at = |path: String| {
        let whole = format!("{}{path}", base.trim_end_matches('/'));
        whole.parse::<Uri>().map_err(|error| BenchError::Options(format!("{whole}: {error}")))
    };
    let Asked { models, protocol, rows, choices } = asked;
    let ask = |model: &String| {
        let inputs = inputs(at, model, *protocol, allow_remote)?;
        for choice in choices {
            let wrong = |reason| BenchError::Model { model: model.clone(), reason };
            choice.fits(&inputs).map_err(wrong)?;
        }
        let seeds = 0..if choices.is_empty() { BODIES } else { BODIES_OF_CHOICES };
        let values = seeds.map(|seed| Values::new(seed, choices));
        let (headers, bodies) = questions(model, &inputs, *protocol, *rows, values)?;
        let url = at(protocol.path(model))?;
        Ok(Question { name: model.clone(), url, headers, bodies })
    };
    let questions = models.iter().map(ask).collect::<Result<_, BenchError>>()?;
    let (transport, check) = (protocol.transport(), protocol.check());
    let options = LoadOptions::new(url.clone());
    Ok(LoadOptions { questions, transport, check, allow_remote, ..options })
}
