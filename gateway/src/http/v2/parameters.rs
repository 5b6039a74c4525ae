//! Parameters of requests, inputs and outputs: strings, numbers and truth values by name.

use std::collections::btree_map::Entry;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value, json};
use sluice_protocol::{Parameter, Parameters, RegionSlice};

use crate::error::{GatewayError, clip};
use crate::http::brief::text_instead;
use crate::tensor_parameters::{check, classes, region, truth, whole};

/// The most parameters that one thing may have.
const MOST: usize = 256;

/// Parameters as they came, none of them a server's own.
#[derive(Debug, Default)]
pub(in crate::http) struct WireParameters(Parameters);

impl WireParameters {
    /// The parameters of a request. Those with a meaning over gRPC too are checked by the pipeline.
    pub(in crate::http) fn of_request(wire: Option<Self>) -> Result<Parameters, GatewayError> {
        let Self(parameters) = wire.unwrap_or_default();
        truth(&parameters, "binary_data_output")?;
        Ok(parameters)
    }

    /// Reads the value behind `name` out of `map`, and adds it.
    pub(in crate::http) fn add<'de, A: MapAccess<'de>>(
        &mut self,
        name: String,
        map: &mut A,
    ) -> Result<(), A::Error> {
        if self.0.len() == MOST {
            return Err(A::Error::custom(format!("more than {MOST} parameters")));
        }
        check(std::iter::once(&name)).map_err(A::Error::custom)?;
        match self.0.entry(name) {
            Entry::Occupied(taken) => {
                let name = clip(taken.key());
                Err(A::Error::custom(format!("parameter {name:?} is given twice")))
            }
            Entry::Vacant(free) => {
                let Scalar(value) = map.next_value().map_err(|error| {
                    A::Error::custom(format!("parameter {:?}: {error}", clip(free.key())))
                })?;
                free.insert(value);
                Ok(())
            }
        }
    }

    /// About how much memory they take, in bytes.
    pub(super) fn weight(&self) -> usize {
        // A node of a tree is half empty at worst.
        let entry = 2 * size_of::<(String, Parameter)>() + 32;
        let texts = self.0.iter().map(|(name, value)| match value {
            Parameter::String(text) => name.len() + text.len(),
            _ => name.len(),
        });
        self.0.len() * entry + texts.sum::<usize>()
    }

    /// How many bytes of the binary part an input has, if it is there.
    pub(super) fn binary_data_size(&self) -> Result<Option<u64>, GatewayError> {
        whole(&self.0, "binary_data_size")
    }

    /// The shared memory that an input is in, or an output is to be put into.
    pub(super) fn region(&self) -> Result<Option<RegionSlice>, GatewayError> {
        region(&self.0)
    }

    /// How many classes of an output are wanted in its place.
    pub(super) fn classes(&self) -> Result<Option<usize>, GatewayError> {
        classes(&self.0)
    }

    /// Whether an output is wanted in binary form.
    pub(super) fn binary_data(&self) -> Result<bool, GatewayError> {
        Ok(truth(&self.0, "binary_data")?.unwrap_or(false))
    }
}

impl<'de> Deserialize<'de> for WireParameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ParametersVisitor)
    }
}

struct ParametersVisitor;

impl<'de> Visitor<'de> for ParametersVisitor {
    type Value = WireParameters;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of parameters")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<WireParameters, E> {
        Err(text_instead(&self))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WireParameters, A::Error> {
        let mut parameters = WireParameters::default();
        while let Some(name) = map.next_key::<String>()? {
            parameters.add(name, &mut map)?;
        }
        Ok(parameters)
    }
}

/// A parameter's value.
struct Scalar(Parameter);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor).map(Self)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Parameter;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, number or truth value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Parameter, E> {
        Ok(Parameter::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Parameter, E> {
        Ok(Parameter::Int64(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Parameter, E> {
        Ok(i64::try_from(value).map_or(Parameter::Uint64(value), Parameter::Int64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Parameter, E> {
        Ok(Parameter::Double(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Parameter, E> {
        Ok(Parameter::String(value.to_owned()))
    }
}

/// Parameters of an answer.
pub(in crate::http) fn wire_parameters(parameters: &Parameters) -> Map<String, Value> {
    let wire = parameters.iter().map(|(name, parameter)| {
        let value = match parameter {
            Parameter::Bool(value) => json!(value),
            Parameter::Int64(value) => json!(value),
            Parameter::Uint64(value) => json!(value),
            Parameter::Double(value) => json!(value),
            Parameter::String(value) => json!(value),
        };
        (name.clone(), value)
    });
    wire.collect()
}

#[cfg(test)]
mod tests {
    use sluice_protocol::Parameter;

    use super::WireParameters;

    #[test]
    fn values_keep_their_types() {
        let text = r#"{"a": true, "b": -1, "c": 18446744073709551615, "d": 0.5, "e": "x\n"}"#;
        let wire: WireParameters = serde_json::from_str(text).unwrap();
        let parameters = WireParameters::of_request(Some(wire)).unwrap();
        let expected = [
            ("a", Parameter::Bool(true)),
            ("b", Parameter::Int64(-1)),
            ("c", Parameter::Uint64(u64::MAX)),
            ("d", Parameter::Double(0.5)),
            ("e", Parameter::String("x\n".to_owned())),
        ];
        assert!(parameters.into_iter().eq(expected.map(|(name, value)| (name.to_owned(), value))));
    }

    #[test]
    fn other_values_are_refused_by_name() {
        for (text, says) in [
            (r#"{"p": null}"#, "parameter \"p\""),
            (r#"{"p": [1]}"#, "parameter \"p\""),
            (r#"{"p": {}}"#, "expected a string, number or truth value"),
            (r#"{"p": 1, "p": 2}"#, "parameter \"p\" is given twice"),
            (r#"[1]"#, "expected an object of parameters"),
            (r#""p""#, "string, expected an object of parameters"),
            (r#"{"triton_p": 1}"#, "\"triton_p\": 'headers' and parameter keys"),
        ] {
            let error = serde_json::from_str::<WireParameters>(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        let many: Vec<_> = (0..257).map(|number| format!("\"p{number}\": 1")).collect();
        let error = serde_json::from_str::<WireParameters>(&format!("{{{}}}", many.join(",")));
        assert!(error.unwrap_err().to_string().contains("more than 256 parameters"));
    }
}
