//! The settings file: every key of it is a setting, and what is wrong with one is told with its
//! line. A key that looks like a setting's and is none is a mistake, since what was meant by it would
//! not be in force. Another one is left aside, loudly: files and binaries roll back separately.

use std::path::Path;

use serde::Deserialize;
use sluice_protocol::toml_fault;
use strsim::levenshtein;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, Deserializer};

use super::Settings;

/// Reads the file. Gives every complaint.
pub(super) fn read(path: &Path) -> Result<Settings, Vec<String>> {
    let named = |complaint: String| format!("{}: {complaint}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| vec![named(error.to_string())])?;
    let settings = parse(&text).map_err(|complaints| complaints.into_iter().map(&named));
    let mut settings = settings.map_err(Iterator::collect::<Vec<_>>)?;
    settings.unread = settings.unread.into_iter().map(named).collect();
    Ok(settings)
}

fn parse(text: &str) -> Result<Settings, Vec<String>> {
    let document = DeTable::parse(text).map_err(|error| vec![toml_fault(text, &error)])?;
    let known = known_keys();
    let (mut complaints, mut unread) = (Vec::new(), Vec::new());
    let mut keys: Vec<_> = document.get_ref().iter().collect();
    keys.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in keys {
        let (name, line): (&str, _) = (key.get_ref(), line(text, key));
        if known.iter().any(|known| known == name) {
            // Alone, so that what is wrong is wrong with it.
            if let Err(error) = settings(only(key, value)) {
                complaints.push(format!("line {line}: {name}: {}", one_line(&error)));
            }
        } else if let Some(meant) = meant(name, value.get_ref(), &known) {
            complaints.push(format!("line {line}: unknown key {name:?}; {meant}"));
        } else {
            unread.push(format!("line {line}: unknown key {name:?}"));
        }
    }
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let read = settings(document).map_err(|error| vec![one_line(&error)])?;
    Ok(Settings { unread, ..read })
}

fn settings(document: Spanned<DeTable<'_>>) -> Result<Settings, toml::de::Error> {
    Settings::deserialize(Deserializer::from(document))
}

/// A document that holds one of the keys.
fn only<'t>(key: &Spanned<DeString<'t>>, value: &Spanned<DeValue<'t>>) -> Spanned<DeTable<'t>> {
    let mut table = DeTable::new();
    table.insert(key.clone(), value.clone());
    Spanned::new(value.span(), table)
}

/// What is wrong, without the excerpt of the text that would come with it.
fn one_line(error: &toml::de::Error) -> String {
    error.message().lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// The line of a key, from 1 on.
fn line(text: &str, key: &Spanned<DeString<'_>>) -> usize {
    let before = text.get(..key.span().start).unwrap_or_default();
    before.matches('\n').count() + 1
}

/// Every key that a file may have.
fn known_keys() -> Vec<String> {
    match serde_json::to_value(Settings::default()) {
        Ok(serde_json::Value::Object(table)) => table.into_iter().map(|(key, _)| key).collect(),
        _ => Vec::new(),
    }
}

/// Which known key an unknown one may have been meant for, in words.
fn meant(key: &str, value: &DeValue<'_>, known: &[String]) -> Option<String> {
    let below = |known: &&String| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('_'));
    let grouped: Vec<&str> = known.iter().filter(below).map(String::as_str).collect();
    if value.is_table() && !grouped.is_empty() {
        return Some(format!("keys are not grouped in tables: write {}", grouped.join(", ")));
    }
    let plain = key.replace('-', "_");
    let (edits, nearest) = known.iter().map(|known| (levenshtein(&plain, known), known)).min()?;
    (edits <= 1 + key.len() / 4).then(|| format!("is {nearest:?} meant?"))
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn complaints(text: &str) -> String {
        parse(text).unwrap_err().join("\n")
    }

    #[test]
    fn what_is_wrong_has_its_key_and_its_line() {
        for (text, says) in [
            ("cores = 1\ntrace_rate = \"often\"\n", "line 2: trace_rate: invalid type"),
            ("\n\nnan = \"zero\"", "line 3: nan: unknown variant `zero`"),
            ("cores = 1\n\ntrace_level = [\"ALL\"]", "line 3: trace_level: unknown variant `ALL`"),
            ("max_body = \"large\"", "line 1: max_body: \"large\" is no size"),
            ("max_body = -1", "line 1: max_body: -1 is no size"),
            ("request_timeout = 3", "line 1: request_timeout: invalid type"),
            ("request_timeout = \"3 suns\"", "line 1: request_timeout: unknown time unit \"suns\""),
            ("cores = 1\ncores = 2", "line 2: duplicate key"),
            ("cores = ", "line 1: "),
        ] {
            assert!(complaints(text).starts_with(says), "{text:?}: {}", complaints(text));
        }
        let both = complaints("nan = 1\n\ncores = \"two\"\nmaxbody = 3");
        assert_eq!(both.lines().count(), 3, "{both}");
    }

    #[test]
    fn the_file_in_the_readme_can_be_read() {
        let page = include_str!("../../../README.md");
        let (_, file) = page.split_once("```toml\n# sluice.toml").unwrap();
        let settings = parse(&format!("#{}", file.split_once("```").unwrap().0)).unwrap();
        assert_eq!(settings.max_body, Some(16 << 20));
        assert_eq!(settings.security.restrict.len(), 1);
    }

    #[test]
    fn an_unknown_key_is_told_with_the_one_that_may_be_meant() {
        for (text, says) in [
            (
                "admin_tokens_file = \"t\"",
                "line 1: unknown key \"admin_tokens_file\"; is \"admin_token_file\" meant?",
            ),
            ("admin-token-file = \"t\"", "is \"admin_token_file\" meant?"),
            ("maxbody = 3", "is \"max_body\" meant?"),
            (
                "[tls]\ncertificate = \"c\"",
                "unknown key \"tls\"; keys are not grouped in tables: write tls_certificate, tls_client_ca, tls_key",
            ),
        ] {
            assert!(complaints(text).contains(says), "{text:?}: {}", complaints(text));
        }
    }

    #[test]
    fn a_key_that_looks_like_no_other_is_left_aside() {
        let settings = parse("colour = \"blue\"\ncores = 2\n[check]\nall = true\n").unwrap();
        assert_eq!(settings.cores, Some(2));
        let unread = ["line 1: unknown key \"colour\"", "line 3: unknown key \"check\""];
        assert_eq!(settings.unread, unread);
    }

    #[test]
    fn one_text_is_a_list_of_one() {
        let settings = parse(
            "trace_level = \"TIMESTAMPS\"\nserve_control = \"trace\"\nload_model = \"a\"\nmetric_names = \"triton\"\n",
        );
        let settings = settings.unwrap();
        let lengths = (
            settings.trace.trace_level.len(),
            settings.serve_control.len(),
            settings.load_model.len(),
            settings.metric_names.map(|names| names.len()),
        );
        assert_eq!(lengths, (1, 1, 1, Some(1)));
        let says = complaints("trace_level = 3\nserve_control = \"all\"");
        assert!(says.contains("expected a list of texts, or one text"), "{says}");
        assert!(says.contains("line 2: serve_control: unknown variant `all`"), "{says}");
    }

    #[test]
    fn no_complaint_repeats_a_secret() {
        for (text, fine) in [
            ("restrict = \"model-repository=admin-key:hunter2\"", true),
            ("restrict = [\"logging=key:hunter2\", \"trace=key:hunter2\"]", true),
            ("[restrict]\n\"logging,trace\" = \"key:hunter2\"", true),
            ("restrict = [[\"hunter2\"]]", false),
            ("[restrict.logging]\nkey = \"hunter2\"", false),
            ("[restrict]\nlogging = [\"hunter2\"]", false),
            ("[restrict]\nlogging = \"key:hunter2", false),
            ("restrict = 'hunter2\n'", false),
        ] {
            match parse(text) {
                Ok(settings) => assert!(fine && !settings.security.restrict.is_empty(), "{text}"),
                Err(complaints) => {
                    let told = complaints.join("\n");
                    assert!(!fine && !told.contains("hunter2") && !told.is_empty(), "{told}");
                }
            }
        }
        assert!(complaints("restrict = 5").contains("GROUP[,GROUP...]"));
    }
}
