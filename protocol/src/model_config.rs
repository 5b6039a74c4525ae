//! A model's configuration in its three forms: text (`config.pbtxt`), JSON (what clients ask for
//! and send) and messages (gRPC).

use std::sync::LazyLock;

use miette::Diagnostic;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};

use crate::grpc::{DESCRIPTORS, ModelConfig};

static DESCRIPTOR: LazyLock<MessageDescriptor> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(DESCRIPTORS).expect("compiled with this crate");
    pool.get_message_by_name("inference.ModelConfig").expect("a message of the protocol")
});

/// How deep messages may stand in each other, since every level is followed.
const MAX_NESTING: usize = 64;
/// The longest text that is read, in bytes: every two or three of them can be a message of their
/// own, which takes some hundreds.
const MAX_LENGTH: usize = 1 << 20;

/// A text that is no model configuration. It says where, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ModelConfigError(String);

impl ModelConfig {
    /// Reads the text form, as `config.pbtxt` has it.
    pub fn parse_text(text: &str) -> Result<Self, ModelConfigError> {
        check_length(text)?;
        let text = with_colons(text)?;
        let message = DynamicMessage::parse_text_format(DESCRIPTOR.clone(), &text);
        let message = message.map_err(|error| {
            let place = error.labels().and_then(|mut labels| labels.next());
            let line = place.map(|label| line_of(&text, label.offset()));
            ModelConfigError(
                line.map_or_else(|| error.to_string(), |line| format!("line {line}: {error}")),
            )
        })?;
        Ok(message.transcode_to().expect("the same message"))
    }

    /// Reads the JSON form, whose keys may be spelled as in the text form or in camel case.
    pub fn parse_json(text: &str) -> Result<Self, ModelConfigError> {
        check_length(text)?;
        let fault = |error: serde_json::Error| ModelConfigError(error.to_string());
        let options = DeserializeOptions::new();
        let mut reader = serde_json::Deserializer::from_str(text);
        let descriptor = DESCRIPTOR.clone();
        let message = DynamicMessage::deserialize_with_options(descriptor, &mut reader, &options);
        let message = message.map_err(fault)?;
        reader.end().map_err(fault)?;
        Ok(message.transcode_to().expect("the same message"))
    }

    /// The JSON form as Triton answers it: keys as in the text form, every key that is not of a
    /// choice present, whole numbers as numbers.
    pub fn to_json(&self) -> serde_json::Value {
        let mut message = DynamicMessage::new(DESCRIPTOR.clone());
        message.transcode_from(self).expect("the same message");
        let options = SerializeOptions::new()
            .use_proto_field_name(true)
            .stringify_64_bit_integers(false)
            .skip_default_fields(false);
        message
            .serialize_with_options(serde_json::value::Serializer, &options)
            .expect("a configuration has a JSON form")
    }
}

fn check_length(text: &str) -> Result<(), ModelConfigError> {
    if text.len() <= MAX_LENGTH {
        return Ok(());
    }
    let length = text.len();
    Err(ModelConfigError(format!("it has {length} bytes, at most {MAX_LENGTH} are read")))
}

/// Puts the colon before every list that goes without one (`input [ { ... } ]`), which protobuf
/// allows before a list of messages and the parser does not take. Lines stay as they are.
fn with_colons(text: &str) -> Result<String, ModelConfigError> {
    let mut out = String::with_capacity(text.len() + 16);
    let (mut quote, mut comment, mut escaped) = (None, false, false);
    let (mut last, mut depth) = (' ', 0_usize);
    for (at, c) in text.char_indices() {
        if comment {
            comment = c != '\n';
        } else if let Some(end) = quote {
            if !escaped && c == end {
                quote = None;
                last = c;
            }
            escaped = c == '\\' && !escaped;
        } else if c == '#' {
            comment = true;
        } else if !c.is_whitespace() {
            match c {
                '"' | '\'' => quote = Some(c),
                '{' | '[' | '<' => depth += 1,
                '}' | ']' | '>' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > MAX_NESTING {
                let line = line_of(text, at);
                return Err(ModelConfigError(format!(
                    "line {line}: nested more than {MAX_NESTING} deep"
                )));
            }
            if c == '[' && (last.is_ascii_alphanumeric() || last == '_') {
                out.push(':');
            }
            last = c;
        }
        out.push(c);
    }
    Ok(out)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::grpc::{DataType, ModelConfig};

    const TEXT: &str = r#"
        name: "m"  # a comment
        backend: 'onnxruntime'
        max_batch_size: 8
        input [
          { name: "x" data_type: TYPE_FP32 dims: [ 16, -1 ] reshape { shape: [ 4, 4 ] } },
          { name: "y" data_type: TYPE_STRING dims: 1 optional: true }
        ]
        dynamic_batching { max_queue_delay_microseconds: 100 preferred_batch_size: [4, 8] }
        instance_group { count: 2 kind: KIND_CPU }
        version_policy: { specific { versions: [1, 3] } }
        parameters { key: "a" value: { string_value: "b" } }
    "#;

    #[test]
    fn text_is_read_as_protobuf_has_it() {
        let config = ModelConfig::parse_text(TEXT).unwrap();
        assert_eq!((config.name.as_str(), config.max_batch_size), ("m", 8));
        assert_eq!(config.input[0].dims, [16, -1]);
        assert_eq!(config.input[1].data_type(), DataType::TypeString);
        assert!(config.input[1].optional && !config.input[0].optional);
        assert_eq!(config.parameters["a"].string_value, "b");
    }

    #[test]
    fn json_goes_both_ways() {
        let config = ModelConfig::parse_text(TEXT).unwrap();
        let json = config.to_json();
        assert_eq!(json["input"][0]["data_type"], "TYPE_FP32");
        assert_eq!(json["max_batch_size"], 8);
        assert_eq!(json["dynamic_batching"]["max_queue_delay_microseconds"], 100);
        assert_eq!(json["default_model_filename"], "");
        assert_eq!(ModelConfig::parse_json(&json.to_string()).unwrap(), config);
    }

    #[test]
    fn mistakes_are_named() {
        let deep = "input { ".repeat(100_000);
        let long = " ".repeat(super::MAX_LENGTH + 1);
        for (text, says) in [
            ("nam: \"m\"", "line 1: "),
            ("name: \"m\"\n\nname_: 7", "line 3: "),
            ("name: 7", "expected a string"),
            ("\ninput {\n dims: \"x\" }", "line 3: expected an integer"),
            ("input [\n {} ", "reached end of input"),
            ("input { data_type: TYPE_FP99 }", "TYPE_FP99"),
            (&deep, "nested more than 64 deep"),
            (&long, "at most 1048576 are read"),
        ] {
            let error = ModelConfig::parse_text(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        assert!(ModelConfig::parse_json("{\"nam\": 1}").unwrap_err().to_string().contains("nam"));
        assert!(ModelConfig::parse_json("{} x").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z_:{}\\[\\]\"'#<>0-9 \\n.,\\\\-]{0,60}") {
            drop(ModelConfig::parse_text(&text));
            drop(ModelConfig::parse_json(&text));
        }
    }
}
