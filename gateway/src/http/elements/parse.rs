//! JSON arrays of elements, parsed straight into tensor memory.
//!
//! A generic JSON value costs an allocation and an enum an element; a float array was measured
//! at half of serde_json's typed cost with this scan and fast-float2. The text is a raw value
//! that serde_json has already validated, so only element types are checked here.
//!
//! JSON has no NaN. A null among floats is taken as one, a missing value, and a NaN in an answer
//! is written as null.

use bytes::Bytes;
use sluice_protocol::{Datatype, TensorData};

use crate::error::GatewayError;
use crate::http::base64::Base64;
use crate::room::Room;

/// How deep arrays may be nested, since every level is followed.
const MAX_NESTING: usize = 100;

/// How infinity is spelt among JSON's numbers, which have none, where a bare word stood for it.
pub(in crate::http) const INFINITY: &str = "9e999";

/// What a text may hold that is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) struct Bounds {
    /// Elements at most.
    pub(in crate::http) elements: usize,
    /// Whether [`INFINITY`] is infinity. In a caller's own text it is a number out of range.
    pub(in crate::http) infinity: bool,
}

/// Elements in row-major order and, when the arrays are regular, their nested shape.
#[derive(Debug, PartialEq)]
pub(in crate::http) struct Elements {
    pub(in crate::http) data: TensorData,
    /// None when nested arrays differ in length or depth.
    pub(in crate::http) shape: Option<Vec<usize>>,
}

/// How much there is in the JSON array (or single value) `text`. A caller's claims are not trusted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Extent {
    /// Elements at most.
    elements: usize,
    /// The length of the longest text, and of the longest that has escapes, as they are written.
    longest: usize,
    longest_escaped: usize,
}

impl Extent {
    fn of(text: &str) -> Self {
        let commas = |text: &[u8]| text.iter().filter(|&&byte| byte == b',').count();
        let mut rest = text.as_bytes();
        let mut extent = Self { elements: 1, ..Self::default() };
        while let Some(quote) = rest.iter().position(|&byte| byte == b'"') {
            extent.elements += commas(&rest[..quote]);
            let length = text_length(&rest[quote..]).unwrap_or(rest.len() - quote);
            let (string, behind) = rest[quote..].split_at(length);
            extent.longest = extent.longest.max(length);
            if string.contains(&b'\\') {
                extent.longest_escaped = extent.longest_escaped.max(length);
            }
            rest = behind;
        }
        extent.elements += commas(rest);
        extent
    }
}

/// Takes the room for what [`parse`] makes of `text`, and gives its bounds.
pub(in crate::http) fn take_room(
    room: &Room,
    datatype: Datatype,
    text: &str,
) -> Result<Bounds, GatewayError> {
    let extent = Extent::of(text);
    room.take_elements(datatype, extent.elements)?;
    if datatype == Datatype::Bytes {
        room.take(text.len())?;
        // Escapes are undone in a buffer that grows, and base64 without its white space in another.
        let buffers = extent.longest_escaped.saturating_mul(3).saturating_add(extent.longest);
        drop(room.lend(buffers)?);
    }
    Ok(Bounds { elements: extent.elements, infinity: room.holds_words() })
}

/// Parses the JSON array (or single value) `text` as elements of `datatype`.
pub(in crate::http) fn parse(
    text: &str,
    datatype: Datatype,
    bounds: Bounds,
) -> Result<Elements, String> {
    let capacity = bounds.elements.min(text.len());
    macro_rules! floats {
        ($variant:ident, $float:ty) => {{
            let mut values = Vec::with_capacity(capacity);
            let shape = scan(text, |rest| float::<$float>(rest, datatype), &mut values)?;
            check_range(text, datatype, bounds, &values)?;
            Elements { data: TensorData::$variant(values), shape }
        }};
    }
    macro_rules! scan {
        ($variant:ident, $element:expr) => {{
            let mut values = Vec::with_capacity(capacity);
            let shape = scan(text, |rest| $element(rest, datatype), &mut values)?;
            Elements { data: TensorData::$variant(values), shape }
        }};
    }
    Ok(match datatype {
        Datatype::Fp32 => floats!(Fp32, f32),
        Datatype::Fp64 => floats!(Fp64, f64),
        Datatype::Int8 => scan!(Int8, whole::<i8>),
        Datatype::Int16 => scan!(Int16, whole::<i16>),
        Datatype::Int32 => scan!(Int32, whole::<i32>),
        Datatype::Int64 => scan!(Int64, whole::<i64>),
        Datatype::Uint8 => scan!(Uint8, whole::<u8>),
        Datatype::Uint16 => scan!(Uint16, whole::<u16>),
        Datatype::Uint32 => scan!(Uint32, whole::<u32>),
        Datatype::Uint64 => scan!(Uint64, whole::<u64>),
        Datatype::Bool => scan!(Bool, truth),
        Datatype::Bytes => scan!(Bytes, string),
        Datatype::Fp16 | Datatype::Bf16 => {
            return Err(format!("{datatype} has no JSON form; send it as binary data"));
        }
    })
}

/// As [`parse`], where an element of BYTES may also be an object that holds it in base64, as V1
/// has it.
pub(in crate::http) fn parse_or_base64(
    text: &str,
    datatype: Datatype,
    bounds: Bounds,
) -> Result<Elements, String> {
    if datatype != Datatype::Bytes {
        return parse(text, datatype, bounds);
    }
    let mut values = Vec::with_capacity(bounds.elements.min(text.len()));
    let shape = scan(
        text,
        |rest| if rest.starts_with('{') { from_base64(rest) } else { string(rest, datatype) },
        &mut values,
    )?;
    Ok(Elements { data: TensorData::Bytes(values), shape })
}

/// Walks the arrays in `text`, appends every element, and finds the shape.
fn scan<T>(
    text: &str,
    element: impl Fn(&str) -> Result<(T, usize), String>,
    values: &mut Vec<T>,
) -> Result<Option<Vec<usize>>, String> {
    let bytes = text.as_bytes();
    let mut shape = ShapeFinder::default();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' | b',' => at += 1,
            b'[' => {
                shape.open()?;
                at += 1;
            }
            b']' => {
                shape.close();
                at += 1;
            }
            _ => {
                let (value, length) = element(&text[at..])?;
                values.push(value);
                shape.element();
                at += length;
            }
        }
    }
    Ok(shape.found())
}

/// Follows brackets and elements, and notes whether the arrays are regular.
#[derive(Debug, Default)]
struct ShapeFinder {
    /// Items so far of each open array.
    open: Vec<usize>,
    /// The length of the arrays at each depth, once one of them has closed.
    lengths: Vec<Option<usize>>,
    /// The depth at which elements are.
    depth: Option<usize>,
    ragged: bool,
}

impl ShapeFinder {
    fn open(&mut self) -> Result<(), String> {
        if self.open.len() == MAX_NESTING {
            return Err(format!("has lists nested more than {MAX_NESTING} deep"));
        }
        if let Some(parent) = self.open.last_mut() {
            *parent += 1;
        }
        self.open.push(0);
        if self.lengths.len() < self.open.len() {
            self.lengths.push(None);
        }
        Ok(())
    }

    fn close(&mut self) {
        let Some(length) = self.open.pop() else { return };
        let known = &mut self.lengths[self.open.len()];
        self.ragged |= *known.get_or_insert(length) != length;
    }

    fn element(&mut self) {
        if let Some(parent) = self.open.last_mut() {
            *parent += 1;
        }
        self.ragged |= *self.depth.get_or_insert(self.open.len()) != self.open.len();
    }

    fn found(self) -> Option<Vec<usize>> {
        let deep_enough = self.depth.is_none_or(|depth| depth == self.lengths.len());
        (!self.ragged && deep_enough).then(|| self.lengths.into_iter().flatten().collect())
    }
}

fn float<T: fast_float2::FastFloat + From<f32>>(
    rest: &str,
    datatype: Datatype,
) -> Result<(T, usize), String> {
    // In validated JSON nothing but null begins like it.
    if rest.starts_with('n') {
        return Ok((T::from(f32::NAN), "null".len()));
    }
    let is_number = rest.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    is_number
        .then(|| fast_float2::parse_partial(rest).ok())
        .flatten()
        .ok_or_else(|| wrong_type(rest, datatype))
}

/// Refuses numbers past the range of `datatype`, which were read as infinities: others than were
/// sent. They are looked for when all are there, which costs next to nothing while there are none.
fn check_range<T: fast_float2::FastFloat + From<f32> + PartialEq>(
    text: &str,
    datatype: Datatype,
    bounds: Bounds,
    values: &[T],
) -> Result<(), String> {
    let infinities = [T::from(f32::INFINITY), T::from(f32::NEG_INFINITY)];
    let is_infinite = |value: &T| infinities.iter().any(|infinity| infinity == value);
    // Without a way out early, so that it is done for several at once.
    if !values.iter().fold(false, |found, value| found | is_infinite(value)) {
        return Ok(());
    }
    let element = |rest: &str| {
        let (value, length) = float::<T>(rest, datatype)?;
        let number = &rest[..length];
        let is_word = bounds.infinity && number.trim_start_matches('-') == INFINITY;
        if is_infinite(&value) && !is_word {
            let number: String = number.chars().take(40).collect();
            return Err(format!("element {number} is out of the range of {datatype}"));
        }
        Ok(((), length))
    };
    scan(text, element, &mut Vec::new()).map(drop)
}

fn whole<T: TryFrom<i128>>(rest: &str, datatype: Datatype) -> Result<(T, usize), String> {
    let length = rest.find(|c: char| c != '-' && !c.is_ascii_digit()).unwrap_or(rest.len());
    let followed_by_fraction = rest[length..].starts_with(['.', 'e', 'E']);
    let number = rest[..length].parse::<i128>().ok().filter(|_| !followed_by_fraction);
    let number = number.ok_or_else(|| wrong_type(rest, datatype))?;
    let value = T::try_from(number)
        .map_err(|_| format!("element {number} is out of the range of {datatype}"))?;
    Ok((value, length))
}

fn truth(rest: &str, datatype: Datatype) -> Result<(bool, usize), String> {
    if rest.starts_with("true") {
        Ok((true, 4))
    } else if rest.starts_with("false") {
        Ok((false, 5))
    } else {
        Err(wrong_type(rest, datatype))
    }
}

fn string(rest: &str, datatype: Datatype) -> Result<(Bytes, usize), String> {
    let length = text_length(rest.as_bytes()).ok_or_else(|| wrong_type(rest, datatype))?;
    let text: String = serde_json::from_str(&rest[..length]).map_err(|error| error.to_string())?;
    Ok((text.into(), length))
}

/// How long the text is that `rest` begins with, quotes included.
pub(in crate::http) fn text_length(rest: &[u8]) -> Option<usize> {
    let inner = rest.strip_prefix(b"\"")?;
    let mut escaped = false;
    let end = inner.iter().position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map(|end| end + 2)
}

fn from_base64(rest: &str) -> Result<(Bytes, usize), String> {
    let mut objects = serde_json::Deserializer::from_str(rest).into_iter::<Base64<'_>>();
    let Some(Ok(object)) = objects.next() else {
        return Err("has an object that is not of the one key \"b64\" and a text".to_owned());
    };
    Ok((object.decode()?, objects.byte_offset()))
}

fn wrong_type(rest: &str, datatype: Datatype) -> String {
    let element: String = rest.chars().take_while(|c| !matches!(c, ',' | ']')).take(40).collect();
    format!("element {element} is no {datatype}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluice_protocol::{Datatype, TensorData};

    use super::{Bounds, Elements, parse_or_base64, take_room};
    use crate::error::GatewayError;
    use crate::room::Room;

    const ANY: Bounds = Bounds { elements: 4, infinity: false };

    fn parse(text: &str, datatype: Datatype) -> Result<Elements, String> {
        super::parse(text, datatype, ANY)
    }

    #[test]
    fn bytes_may_come_in_base64_where_they_may() {
        let text = r#"[["a", {"b64": "/w=="}], [{ "b64" : "" }, "{\"b64\"}"]]"#;
        let elements = parse_or_base64(text, Datatype::Bytes, ANY).unwrap();
        let values: [&'static [u8]; 4] = [b"a", b"\xff", b"", b"{\"b64\"}"];
        let values = values.into_iter().map(bytes::Bytes::from_static).collect();
        assert_eq!(elements.data, TensorData::Bytes(values));
        assert_eq!(elements.shape, Some(vec![2, 2]));
        assert!(parse(text, Datatype::Bytes).unwrap_err().contains("is no BYTES"));
        for (text, datatype, says) in [
            (r#"[{"b64": "*"}]"#, Datatype::Bytes, "Unable to base64 decode"),
            (r#"[{"b64": "", "a": 1}]"#, Datatype::Bytes, "not of the one key \"b64\""),
            (r#"[{"b64": ""}]"#, Datatype::Fp32, "is no FP32"),
        ] {
            let error = parse_or_base64(text, datatype, ANY).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    fn check(text: &str, datatype: Datatype, data: TensorData, shape: Option<&[usize]>) {
        let elements = parse(text, datatype).unwrap();
        assert_eq!(elements.data, data, "{text}");
        assert_eq!(elements.shape.as_deref(), shape, "{text}");
    }

    #[test]
    fn nested_and_flat_arrays() {
        let four = || TensorData::Fp32(vec![1.0, -2.5, 3e2, 4.0]);
        check("[1, -2.5, 3e2, 4]", Datatype::Fp32, four(), Some(&[4]));
        check("[[1,-2.5],[3e2,4]]", Datatype::Fp32, four(), Some(&[2, 2]));
        check("[[1,-2.5],[3e2],[4]]", Datatype::Fp32, four(), None);
        check("[1,[-2.5],3e2,4]", Datatype::Fp32, four(), None);
        check("[]", Datatype::Int64, TensorData::Int64(vec![]), Some(&[0]));
        check("7", Datatype::Int64, TensorData::Int64(vec![7]), Some(&[]));
        check("[true,false]", Datatype::Bool, TensorData::Bool(vec![true, false]), Some(&[2]));
        let texts = vec!["a,]".into(), "\"\\".into(), "é".into()];
        check(
            r#"["a,]", "\"\\", "\u00e9"]"#,
            Datatype::Bytes,
            TensorData::Bytes(texts),
            Some(&[3]),
        );
    }

    #[test]
    fn wrong_elements_are_named() {
        for (text, datatype, says) in [
            ("[1, \"x\"]", Datatype::Fp32, "element \"x\" is no FP32"),
            ("[null]", Datatype::Int64, "element null is no INT64"),
            ("[null]", Datatype::Bool, "element null is no BOOL"),
            ("[1.5]", Datatype::Int64, "element 1.5 is no INT64"),
            ("[300]", Datatype::Uint8, "element 300 is out of the range of UINT8"),
            ("[-1]", Datatype::Uint64, "element -1 is out of the range of UINT64"),
            ("[99999999999999999999]", Datatype::Int64, "out of the range of INT64"),
            ("[1e39]", Datatype::Fp32, "element 1e39 is out of the range of FP32"),
            ("[0,-3.5E38]", Datatype::Fp32, "element -3.5E38 is out of the range of FP32"),
            ("[1e309]", Datatype::Fp64, "element 1e309 is out of the range of FP64"),
            ("[9e999]", Datatype::Fp64, "element 9e999 is out of the range of FP64"),
            ("[1e999]", Datatype::Fp64, "element 1e999 is out of the range of FP64"),
            ("[1]", Datatype::Bool, "element 1 is no BOOL"),
            ("[{\"a\": 1}]", Datatype::Fp64, "is no FP64"),
            ("[1]", Datatype::Fp16, "no JSON form"),
        ] {
            let error = parse(text, datatype).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn the_largest_numbers_are_in_range() {
        // The last is nearer to the largest than to what would come behind it.
        let text = "[3.4028234663852886e38,-3.4028235e38,3.40282356e38,1e-400]";
        let most = f32::MAX;
        check(text, Datatype::Fp32, TensorData::Fp32(vec![most, -most, most, 0.0]), Some(&[4]));
        let text = "[1.7976931348623157e308,-1.7976931348623157e308]";
        check(text, Datatype::Fp64, TensorData::Fp64(vec![f64::MAX, f64::MIN]), Some(&[2]));
        let long = format!("[{}]", "9".repeat(400));
        let error = parse(&long, Datatype::Fp64).unwrap_err();
        assert_eq!(error, format!("element {} is out of the range of FP64", "9".repeat(40)));
    }

    #[test]
    fn null_is_a_missing_float() {
        let elements = parse("[[1, null], [null,2]]", Datatype::Fp64).unwrap();
        let TensorData::Fp64(values) = elements.data else { panic!("FP64 was asked for") };
        assert_eq!(
            values.iter().map(|value| value.is_nan()).collect::<Vec<_>>(),
            [false, true, true, false]
        );
        assert_eq!((values[3], elements.shape), (2.0, Some(vec![2, 2])));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(parse(&nested(100), Datatype::Fp32).is_ok());
        let error = parse(&nested(1_000_000), Datatype::Fp32).unwrap_err();
        assert_eq!(error, "has lists nested more than 100 deep");
    }

    #[test]
    fn room_is_taken_for_what_a_text_holds() {
        let long = format!("[\"{}\"]", ",".repeat(1000));
        let escaped = format!("[\"{}\"]", "\\n".repeat(500));
        for (text, datatype, elements, bytes) in [
            ("[0,0,0,0]", Datatype::Fp64, 4, 32),
            ("[[0,0],[0,0]]", Datatype::Int8, 4, 4),
            ("0", Datatype::Fp32, 1, 4),
            (r#"["","a,\",b",""]"#, Datatype::Bytes, 3, 3 * 32 + 16 + 8 + 3 * 8),
            (&long, Datatype::Bytes, 1, 32 + 1004 + 1002),
            (&escaped, Datatype::Bytes, 1, 32 + 1004 + 1002 + 3 * 1002),
        ] {
            let taken = take_room(&Room::of_bytes(bytes), datatype, text);
            assert_eq!(taken.unwrap(), Bounds { elements, infinity: false }, "{text}");
            let error = take_room(&Room::of_bytes(bytes - 1), datatype, text).unwrap_err();
            assert!(matches!(error, GatewayError::NoRoom { .. }), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn there_are_no_more_elements_than_room_was_taken_for(text in "[\\[\\],1\\\\\"a ]{0,20}") {
            if serde_json::from_str::<serde_json::Value>(&text).is_ok() {
                let most = take_room(&Room::new(10_000), Datatype::Bytes, &text).unwrap();
                for datatype in [Datatype::Fp32, Datatype::Bytes] {
                    if let Ok(elements) = parse(&text, datatype) {
                        prop_assert!(elements.data.len() <= most.elements);
                    }
                }
            }
        }

        #[test]
        fn floats_round_trip(values in prop::collection::vec(any::<f32>().prop_filter("finite", |x| x.is_finite()), 0..40)) {
            let text = serde_json::to_string(&values).unwrap();
            prop_assert_eq!(parse(&text, Datatype::Fp32).unwrap().data, TensorData::Fp32(values));
        }

        #[test]
        fn any_json_is_parsed_or_refused(text in "\\PC{0,40}") {
            if serde_json::from_str::<serde_json::Value>(&text).is_ok() {
                for datatype in [Datatype::Fp32, Datatype::Int8, Datatype::Bool, Datatype::Bytes] {
                    let _either = parse(&text, datatype);
                }
            }
        }
    }
}
