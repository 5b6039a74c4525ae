//! What an alias may be called.

use crate::{RegistryError, Result};

/// Refuses a text that cannot be an alias: 1 to 255 of ASCII letters, digits, `_` and `-`,
/// and neither `latest` nor `v` with a number, which MLflow reads as something else.
pub(crate) fn check_alias(alias: &str) -> Result<()> {
    let refuse = |text: String| Err(RegistryError::InvalidArgument(text));
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if alias.is_empty() {
        return refuse("Registered model alias name cannot be empty.".into());
    }
    if alias.len() > 255 || !alias.bytes().all(allowed) {
        let shown: String = alias.chars().take(300).collect();
        return refuse(format!(
            "Invalid alias name: '{shown}'. An alias is 1 to 255 of letters, digits, '_' and '-'."
        ));
    }
    if alias.eq_ignore_ascii_case("latest") {
        return refuse("'latest' alias name (case insensitive) is reserved.".into());
    }
    let number = alias.strip_prefix(['v', 'V']).unwrap_or_default();
    if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) {
        return refuse(format!("Version alias name '{alias}' is reserved."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_alias;

    #[test]
    fn aliases_are_words_that_mlflow_does_not_read_otherwise() {
        for good in ["champion", "v", "version1", "v1-rc", "A_b-9", &"x".repeat(255)] {
            assert!(check_alias(good).is_ok(), "{good}");
        }
        for bad in ["", "latest", "LATEST", "v1", "V22", "a b", "a/b", "ä", &"x".repeat(256)] {
            assert!(check_alias(bad).is_err(), "{bad}");
        }
    }
}
