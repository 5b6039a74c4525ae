//! Bearer tokens out of a file: one a line. Only their digests are kept.

use sluice_protocol::Digest;
use subtle::{Choice, ConstantTimeEq};

/// Tokens of which each is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tokens(Vec<Digest>);

impl Tokens {
    /// Reads a file's lines. Blank ones and those that begin with `#` are ignored. What is wrong is
    /// told without the token.
    pub(crate) fn parse(file: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(file).map_err(|_| "it is not UTF-8".to_owned())?;
        let mut tokens = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let token = line.trim();
            if token.is_empty() || token.starts_with('#') {
                continue;
            }
            if !token.bytes().all(is_part_of_a_token) {
                return Err(format!(
                    "line {} is no bearer token: letters, digits and -._~+/= are",
                    index + 1
                ));
            }
            tokens.push(Digest::of(token.as_bytes()));
        }
        if tokens.is_empty() {
            return Err("there is no token in it; nobody could get in".to_owned());
        }
        Ok(Self(tokens))
    }

    /// Whether `token` is one of them. How long that takes tells nothing about them but their
    /// number.
    pub(crate) fn contain(&self, token: &[u8]) -> bool {
        let digest = Digest::of(token);
        let any = |found: Choice, known: &Digest| found | known.as_bytes().ct_eq(digest.as_bytes());
        self.0.iter().fold(Choice::from(0), any).into()
    }
}

/// As RFC 6750 has it.
const fn is_part_of_a_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=')
}

#[cfg(test)]
mod tests {
    use super::Tokens;

    #[test]
    fn each_line_is_a_token() {
        let tokens = Tokens::parse(b"# since May\n\n  one \r\n#two\nthree==\n").unwrap();
        for (token, known) in [
            ("one", true),
            ("three==", true),
            ("two", false),
            ("#two", false),
            ("on", false),
            ("one ", false),
            ("", false),
        ] {
            assert_eq!(tokens.contain(token.as_bytes()), known, "{token:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_the_token() {
        for (file, says) in [
            (&b""[..], "no token in it"),
            (b"\n# all gone\n", "no token in it"),
            (b"good\nsecret word\n", "line 2 is no bearer token"),
            (b"gehe\xc3\xafm\n", "line 1 is no bearer token"),
            (b"\xff\xfe", "not UTF-8"),
        ] {
            let complaint = Tokens::parse(file).unwrap_err();
            assert!(complaint.contains(says), "{complaint}");
            assert!(!complaint.contains("secret") && !complaint.contains("gehe"), "{complaint}");
        }
        let shown = format!("{:?}", Tokens::parse(b"secret").unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }
}
