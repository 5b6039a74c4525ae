//! The settings file: every key of it is a setting, and what is wrong with one is told with its
//! line. A key that looks like a setting's and is none is a mistake, since what was meant by it would
//! not be in force. Another one is left aside, loudly: files and binaries roll back separately.

use std::path::Path;

use serde::Deserialize;
use sluice_protocol::toml_fault;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, Deserializer};

use super::Settings;
use super::unknown::Unknown;

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
    let unknown = Unknown::new();
    let (mut complaints, mut unread) = (Vec::new(), Vec::new());
    let mut keys: Vec<_> = document.get_ref().iter().collect();
    keys.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in keys {
        let (name, line): (&str, _) = (key.get_ref(), line(text, key));
        if unknown.is_known(name) {
            // Alone, so that what is wrong is wrong with it.
            if let Err(error) = settings(only(key, value)) {
                complaints.push(format!("line {line}: {name}: {}", one_line(&error)));
            }
        } else if let Some(meant) = unknown.meant(name, value.get_ref()) {
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

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::control::exposure::ControlGroup;
    use crate::trace::TraceLevel;

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
    fn a_key_that_may_stand_for_a_setting_is_told_with_its_line() {
        let told = complaints("cores = 1\nadmin_token = \"t\"");
        let says = "line 2: unknown key \"admin_token\"; is \"admin_token_file\" meant?";
        assert_eq!(told, says);
    }

    #[test]
    fn a_key_that_looks_like_no_other_is_left_aside() {
        let settings = parse("colour = \"blue\"\ncores = 2\n[check]\nall = true\n").unwrap();
        assert_eq!(settings.cores, Some(2));
        let unread = ["line 1: unknown key \"colour\"", "line 3: unknown key \"check\""];
        assert_eq!(settings.unread, unread);
    }

    #[test]
    fn one_text_is_a_list_as_its_flag_has_it() {
        let settings = parse(
            "trace_level = \"timestamps,Tensors\"\nserve_control = \"trace,logging\"\nload_model = \"a,b\"\nmetric_names = \"triton\"\n",
        );
        let settings = settings.unwrap();
        let (stamps, tensors) = (TraceLevel::Timestamps, TraceLevel::Tensors);
        assert_eq!(settings.trace.trace_level, [stamps, tensors]);
        assert_eq!(settings.serve_control, [ControlGroup::Trace, ControlGroup::Logging]);
        assert_eq!(settings.load_model, ["a", "b"]);
        assert_eq!(settings.metric_names.map(|names| names.len()), Some(1));
        let listed = parse("trace_level = [\"tensors\", \"TIMESTAMPS\"]").unwrap();
        assert_eq!(listed.trace.trace_level, [tensors, stamps]);
        let says = complaints("trace_level = 3\nserve_control = \"trace,all\"");
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
