//! A request's JSON around its tensors: what the keys are, and how much of anything is taken.
//!
//! Tensor data stays text here and is parsed straight into its datatype afterwards.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde_json::value::RawValue;
use sluice_protocol::{MAX_RANK, ShapeError};

use super::parameters::WireParameters;
use crate::dialect::NanForm;
use crate::error::GatewayError;
use crate::http::brief::text_instead;
use crate::http::words;
use crate::room::Room;

/// The most inputs or outputs that a request may list, so that a short text cannot ask for much
/// memory. It is far more than any model has.
const MOST_TENSORS: usize = 16_384;

/// The JSON of an infer request. Other keys, `model_name` and `model_version` among them, are
/// ignored.
#[derive(Debug)]
pub(super) struct WireRequest<'j> {
    pub(super) id: Option<String>,
    pub(super) parameters: Option<WireParameters>,
    pub(super) inputs: Vec<WireInput<'j>>,
    pub(super) outputs: Vec<WireOutput<'j>>,
}

/// One input. Its data is here, in the binary part, or elsewhere, as its parameters say.
#[derive(Debug, Deserialize)]
pub(super) struct WireInput<'j> {
    pub(super) name: String,
    #[serde(borrow)]
    pub(super) datatype: Cow<'j, str>,
    #[serde(deserialize_with = "shape")]
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
    room: &Room,
    then: impl FnOnce(WireRequest<'_>) -> Result<T, GatewayError>,
) -> Result<T, GatewayError> {
    let error = match room.trying(|| parse(json, room)) {
        Ok(wire) => return then(wire),
        Err(error) => error,
    };
    let replaced = match nan {
        NanForm::Null => None,
        NanForm::Words => words::replaced(json, room)?,
    };
    match replaced.as_deref().map(|json| parse(json, room)) {
        Some(Ok(wire)) => then(wire),
        Some(Err(error)) => Err(error),
        None => Err(error),
    }
}

fn parse<'j>(json: &'j [u8], room: &Room) -> Result<WireRequest<'j>, GatewayError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let wire = RequestSeed(room).deserialize(&mut reader);
    let wire = wire.and_then(|wire| reader.end().map(|()| wire));
    wire.map_err(|error| {
        room.reason(GatewayError::Invalid(format!("request body is no infer request: {error}")))
    })
}

/// Reads a request, whose lists take of the room.
struct RequestSeed<'r>(&'r Room);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Key {
    Id,
    Parameters,
    Inputs,
    Outputs,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for RequestSeed<'_> {
    type Value = WireRequest<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RequestSeed<'_> {
    type Value = WireRequest<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<WireRequest<'de>, E> {
        Err(text_instead(&self))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WireRequest<'de>, A::Error> {
        let (mut id, mut parameters, mut inputs, mut outputs) = (None, None, None, None);
        let twice = A::Error::duplicate_field;
        while let Some(key) = map.next_key()? {
            match key {
                Key::Id if id.is_some() => return Err(twice("id")),
                Key::Parameters if parameters.is_some() => return Err(twice("parameters")),
                Key::Inputs if inputs.is_some() => return Err(twice("inputs")),
                Key::Outputs if outputs.is_some() => return Err(twice("outputs")),
                Key::Id => id = Some(map.next_value::<Option<String>>()?),
                Key::Parameters => parameters = Some(map.next_value::<Option<_>>()?),
                Key::Inputs => inputs = Some(map.next_value_seed(Objects::new(self.0, false))?),
                Key::Outputs => outputs = Some(map.next_value_seed(Objects::new(self.0, true))?),
                Key::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(WireRequest {
            id: id.flatten(),
            parameters: parameters.flatten(),
            inputs: inputs.ok_or_else(|| A::Error::missing_field("inputs"))?,
            outputs: outputs.unwrap_or_default(),
        })
    }
}

/// A JSON object, and never the list of its values that serde takes for one, too.
#[derive(Debug)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Object<T>, E> {
        Err(text_instead(&self))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// Something that takes memory beside its own.
trait Weighed {
    /// How much, in bytes.
    fn weight(&self) -> usize;
}

impl Weighed for WireInput<'_> {
    fn weight(&self) -> usize {
        let parameters = self.parameters.as_ref().map_or(0, WireParameters::weight);
        self.name.len() + self.datatype.len() + size_of_val(&*self.shape) + parameters
    }
}

impl Weighed for WireOutput<'_> {
    fn weight(&self) -> usize {
        // The name is taken over by what is made of it.
        self.name.len() + self.parameters.as_ref().map_or(0, WireParameters::weight)
    }
}

/// Reads a list of objects, of bounded length and as far as there is room.
struct Objects<'r, T> {
    room: &'r Room,
    /// Whether a null is an empty list.
    optional: bool,
    objects: PhantomData<T>,
}

impl<'r, T> Objects<'r, T> {
    const fn new(room: &'r Room, optional: bool) -> Self {
        Self { room, optional, objects: PhantomData }
    }
}

impl<'de, T: Deserialize<'de> + Weighed> DeserializeSeed<'de> for Objects<'_, T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Deserialize<'de> + Weighed> Visitor<'de> for Objects<'_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_unit<E: Error>(self) -> Result<Vec<T>, E> {
        if self.optional { Ok(Vec::new()) } else { Err(E::invalid_type(Unexpected::Unit, &self)) }
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Vec<T>, E> {
        Err(text_instead(&self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut objects = Vec::new();
        while let Some(Object(object)) = list.next_element()? {
            if objects.len() == MOST_TENSORS {
                return Err(A::Error::custom(format!(
                    "more than {MOST_TENSORS} tensors in a list"
                )));
            }
            // A list that grows is twice as long as it was, and the old one is still there.
            let own = 3 * size_of::<T>() + T::weight(&object);
            self.room.take(own).map_err(A::Error::custom)?;
            objects.push(object);
        }
        Ok(objects)
    }
}

/// A shape of no more dimensions than a tensor can have.
fn shape<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i64>, D::Error> {
    struct Dimensions;

    impl<'de> Visitor<'de> for Dimensions {
        type Value = Vec<i64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of dimensions")
        }

        fn visit_str<E: Error>(self, _: &str) -> Result<Vec<i64>, E> {
            Err(text_instead(&self))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<i64>, A::Error> {
            let (mut shape, mut rank) = (Vec::new(), 0);
            while let Some(Dimension(dimension)) = list.next_element()? {
                rank += 1;
                if rank <= MAX_RANK {
                    shape.push(dimension);
                }
            }
            if rank > MAX_RANK { Err(A::Error::custom(ShapeError::Rank(rank))) } else { Ok(shape) }
        }
    }

    deserializer.deserialize_any(Dimensions)
}

/// A dimension of a shape.
struct Dimension(i64);

impl<'de> Deserialize<'de> for Dimension {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;

        impl Visitor<'_> for Whole {
            type Value = i64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E: Error>(self, dimension: i64) -> Result<i64, E> {
                Ok(dimension)
            }

            fn visit_u64<E: Error>(self, dimension: u64) -> Result<i64, E> {
                i64::try_from(dimension)
                    .map_err(|_| E::invalid_value(Unexpected::Unsigned(dimension), &self))
            }

            fn visit_str<E: Error>(self, _: &str) -> Result<i64, E> {
                Err(text_instead(&self))
            }
        }

        deserializer.deserialize_any(Whole).map(Self)
    }
}
