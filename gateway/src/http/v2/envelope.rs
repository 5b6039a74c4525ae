//! A request's JSON around its tensors: what the keys are, and how much of anything is taken.
//!
//! Tensor data stays text here and is parsed straight into its datatype afterwards.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::parameters::WireParameters;
use crate::dialect::NanForm;
use crate::error::GatewayError;
use crate::http::words;

/// The most inputs or outputs that a request may list, so that a short text cannot ask for much
/// memory. It is far more than any model has.
const MOST_TENSORS: usize = 16_384;

/// The JSON of an infer request. Other keys, `model_name` and `model_version` among them, are
/// ignored.
#[derive(Debug, Deserialize)]
pub(super) struct WireRequest<'j> {
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) parameters: Option<WireParameters>,
    #[serde(borrow)]
    pub(super) inputs: Objects<WireInput<'j>>,
    #[serde(borrow, default)]
    pub(super) outputs: Option<Objects<WireOutput<'j>>>,
}

/// One input. Its data is here, in the binary part, or elsewhere, as its parameters say.
#[derive(Debug, Deserialize)]
pub(super) struct WireInput<'j> {
    pub(super) name: String,
    #[serde(borrow)]
    pub(super) datatype: Cow<'j, str>,
    pub(super) shape: Vec<i64>,
    #[serde(default)]
    pub(super) parameters: Option<WireParameters>,
    #[serde(borrow, default)]
    pub(super) data: Option<&'j RawValue>,
}

/// An output that is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct WireOutput<'j> {
    #[serde(borrow)]
    pub(super) name: Cow<'j, str>,
    #[serde(default)]
    pub(super) parameters: Option<WireParameters>,
}

/// Reads the envelope and hands it to `then`. Bare words for NaN and the infinities are put into
/// JSON first where the text has them and `nan` lets it.
pub(super) fn read<T>(
    json: &[u8],
    nan: NanForm,
    then: impl FnOnce(WireRequest<'_>) -> Result<T, GatewayError>,
) -> Result<T, GatewayError> {
    let error = match serde_json::from_slice::<Object<WireRequest<'_>>>(json) {
        Ok(Object(wire)) => return then(wire),
        Err(error) => error,
    };
    let replaced = match nan {
        NanForm::Null => None,
        NanForm::Words => words::replaced(json),
    };
    match replaced.as_deref().map(serde_json::from_slice::<Object<WireRequest<'_>>>) {
        Some(Ok(Object(wire))) => then(wire),
        Some(Err(error)) => Err(refuse(&error)),
        None => Err(refuse(&error)),
    }
}

fn refuse(error: &serde_json::Error) -> GatewayError {
    GatewayError::Invalid(format!("request body is no infer request: {error}"))
}

/// A JSON object, and never the list of its values that serde takes for one, too.
#[derive(Debug)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// A list of objects, of bounded length.
#[derive(Debug)]
pub(super) struct Objects<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Objects<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ObjectsVisitor(PhantomData))
    }
}

struct ObjectsVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectsVisitor<T> {
    type Value = Objects<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Objects<T>, A::Error> {
        let mut objects = Vec::new();
        while let Some(Object(object)) = list.next_element()? {
            if objects.len() == MOST_TENSORS {
                return Err(A::Error::custom(format!(
                    "more than {MOST_TENSORS} tensors in a list"
                )));
            }
            objects.push(object);
        }
        Ok(Objects(objects))
    }
}
