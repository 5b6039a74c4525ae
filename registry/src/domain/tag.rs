//! What a tag may hold.

use crate::{RegistryError, Result};

const MAX_KEY: usize = 250;
const MAX_VALUE: usize = 100_000;

/// Refuses a key that is empty, overlong or holds a control character, and an overlong value.
pub(crate) fn check_tag(key: &str, value: &str) -> Result<()> {
    let refuse = |text: String| Err(RegistryError::InvalidArgument(text));
    if key.trim().is_empty() {
        return refuse("Missing value for required parameter 'key'".into());
    }
    if key.len() > MAX_KEY || key.chars().any(char::is_control) {
        let shown: String = key.chars().take(300).collect();
        return refuse(format!(
            "Invalid value {shown:?} for parameter 'key' supplied: at most {MAX_KEY} bytes without control characters"
        ));
    }
    if value.len() > MAX_VALUE {
        return refuse(format!(
            "Invalid value for parameter 'value' of tag '{key}' supplied: {} bytes are more than {MAX_VALUE}",
            value.len()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_tag;

    #[test]
    fn tags_have_bounds() {
        assert!(check_tag("mlflow.source.git.commit", "").is_ok());
        assert!(check_tag("a", &"x".repeat(100_000)).is_ok());
        for (key, value) in [("", "a"), (" ", "a"), ("a\n", "a"), (&*"k".repeat(251), "a")] {
            assert!(check_tag(key, value).is_err(), "{key}");
        }
        assert!(check_tag("a", &"x".repeat(100_001)).is_err());
    }
}
