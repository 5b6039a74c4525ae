//! Keys of a settings file that are none. One that may stand for a setting is a mistake: what was
//! meant by it would not be in force, and a door that its writer has closed would be open.

use strsim::osa_distance;
use toml::de::DeValue;

use super::{Settings, keys_of};
use crate::security::SecuritySettings;

/// Words that say that a key is about who may connect and ask, whatever else it is called.
const SECURITY: [&str; 33] = [
    "acl",
    "auth",
    "authentication",
    "authorization",
    "bearer",
    "ca",
    "cert",
    "certificate",
    "certificates",
    "certs",
    "credential",
    "credentials",
    "https",
    "key",
    "keys",
    "mtls",
    "passphrase",
    "passwd",
    "password",
    "passwords",
    "private",
    "restrict",
    "restricted",
    "restriction",
    "restrictions",
    "secret",
    "secrets",
    "secure",
    "security",
    "ssl",
    "tls",
    "token",
    "tokens",
];

/// Tells keys that may stand for a setting from those that are of another version, or of nobody.
#[derive(Debug)]
pub(super) struct Unknown {
    known: Vec<String>,
    security: Vec<String>,
}

impl Unknown {
    pub(super) fn new() -> Self {
        Self {
            known: keys_of(&Settings::default()),
            security: keys_of(&SecuritySettings::default()),
        }
    }

    /// Whether a setting is called so.
    pub(super) fn is_known(&self, key: &str) -> bool {
        self.known.iter().any(|known| known == key)
    }

    /// What may have been meant by a key that is not known, in words; none when it looks like no
    /// setting. Values are not repeated, since they may be secrets.
    pub(super) fn meant(&self, key: &str, value: &DeValue<'_>) -> Option<String> {
        let plain = plain(key);
        let is_longer =
            |known: &&String| known.strip_prefix(&plain).is_some_and(|rest| rest.starts_with('_'));
        let longer: Vec<&str> = self.known.iter().filter(is_longer).map(String::as_str).collect();
        match *longer {
            [] => {}
            _ if value.is_table() => {
                let keys = longer.join(", ");
                return Some(format!("keys are not grouped in tables: write {keys}"));
            }
            [one] => return Some(format!("is {one:?} meant?")),
            _ => return Some(format!("is one of {} meant?", longer.join(", "))),
        }
        if let Some(inner) = self.setting_within(value) {
            return Some(format!("keys are not grouped in tables, as {inner:?} is in it"));
        }
        let all = self.known.iter().map(|known| (osa_distance(&plain, known), known));
        if let Some((edits, nearest)) = all.min()
            && edits <= if plain.len() < 8 { 1 } else { 1 + plain.len() / 4 }
        {
            return Some(format!("is {nearest:?} meant?"));
        }
        // Words may be run together, as in `apikey`; what is short is the end of many.
        let is_about = |word: &str, end: &str| word == end || end.len() > 2 && word.ends_with(end);
        plain
            .split('_')
            .any(|word| SECURITY.iter().any(|known| is_about(word, known)))
            .then(|| format!("who may connect and ask is said by {}", self.security.join(", ")))
    }

    /// A key inside a table, or inside those of a list, that is a setting's or may stand for one.
    fn setting_within<'v>(&self, value: &'v DeValue<'_>) -> Option<&'v str> {
        match value {
            DeValue::Table(table) => table.iter().find_map(|(key, value)| {
                let (key, value): (&str, _) = (key.get_ref(), value.get_ref());
                let is_setting = self.is_known(key) || self.meant(key, value).is_some();
                is_setting.then_some(key)
            }),
            DeValue::Array(list) => {
                list.iter().find_map(|element| self.setting_within(element.get_ref()))
            }
            _ => None,
        }
    }
}

/// A key as settings are written: `adminToken`, `admin-token` and `ADMIN.TOKEN` are `admin_token`.
fn plain(key: &str) -> String {
    let mut plain = String::with_capacity(key.len());
    let mut before = '_';
    for letter in key.chars() {
        if letter.is_ascii_uppercase() && before.is_ascii_lowercase() {
            plain.push('_');
        }
        plain.push(if letter.is_alphanumeric() { letter.to_ascii_lowercase() } else { '_' });
        before = letter;
    }
    plain
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::Unknown;

    fn meant(text: &str) -> Option<String> {
        let document = DeTable::parse(text).unwrap();
        let (key, value) = document.get_ref().iter().next().unwrap();
        Unknown::new().meant(key.get_ref(), value.get_ref())
    }

    #[test]
    fn what_was_to_close_a_door_is_never_left_aside() {
        for text in [
            "admin_token = \"t\"",
            "admin_tokens = \"t\"",
            "adminTokenFile = \"t\"",
            "ADMIN_TOKEN_FILE = \"t\"",
            "inference_token = \"t\"",
            "token_file = \"t\"",
            "api_key = \"t\"",
            "client_ca = \"c\"",
            "tls_ca = \"c\"",
            "certificate = \"c\"",
            "tls = true",
            "restricted_apis = \"health\"",
            "grpc_restricted_protocol = \"health:a=b\"",
            "[security]\nadmin_token_file = \"t\"",
            "[access]\nallow = { tokens = \"t\" }",
            "[[port]]\nname = \"http\"\ntls_key = \"k\"",
            "password = \"hunter2\"",
            "apikey = \"k\"",
            "authtoken = \"t\"",
            "adminTLSCert = \"c\"",
            "clientcert = \"c\"",
            "passwd = \"hunter2\"",
        ] {
            let meant = meant(text).unwrap_or_else(|| panic!("{text} is left aside"));
            assert!(!meant.contains("hunter2"), "{meant}");
        }
    }

    #[test]
    fn what_may_be_meant_is_told() {
        for (text, says) in [
            ("admin_token = \"t\"", "is \"admin_token_file\" meant?"),
            ("tls = true", "is one of tls_certificate, tls_client_ca, tls_key meant?"),
            ("client_ca = 1", "who may connect and ask is said by admin_token_file, "),
            ("[security]\ntls_key = 1", "keys are not grouped in tables, as \"tls_key\" is in it"),
            ("[limits]\nmax_bdy = 1", "keys are not grouped in tables, as \"max_bdy\" is in it"),
            ("[tls]\nkey = 1", "write tls_certificate, tls_client_ca, tls_key"),
            ("admin-token-file = \"t\"", "is \"admin_token_file\" meant?"),
            ("coers = 1", "is \"cores\" meant?"),
            ("maxBodies = 1", "is \"max_body\" meant?"),
        ] {
            assert!(meant(text).is_some_and(|meant| meant.contains(says)), "{text}");
        }
    }

    #[test]
    fn what_looks_like_no_setting_is_nobody_s_business() {
        for text in [
            "name = \"a\"",
            "strict = true",
            "colour = \"blue\"",
            "author = \"a\"",
            "\"\" = 1",
            "[check]\nall = true",
            "[[step]]\nnumber = 1",
        ] {
            assert_eq!(meant(text), None, "{text}");
        }
    }
}
