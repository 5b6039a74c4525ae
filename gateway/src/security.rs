//! Settings of who may connect and ask: certificates, tokens and restrictions, and the files that
//! hold them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Deserializer, Serialize};
use sluice_protocol::Digest;

use crate::access::{Access, Restrictions, Tokens};
use crate::tls::{Files, Tls};

/// The settings as written. Without any, ports are plain and open.
#[derive(Debug, Clone, Default, Args, Deserialize, Serialize)]
#[serde(default)]
pub struct SecuritySettings {
    /// The server's certificate in PEM, with those that lead to its authority: every port speaks TLS then
    #[arg(long, value_name = "FILE", env = "SLUICE_TLS_CERTIFICATE")]
    pub tls_certificate: Option<PathBuf>,
    /// The certificate's private key in PEM
    #[arg(long, value_name = "FILE", env = "SLUICE_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// Authorities in PEM: clients need a certificate of one of them, on every port but --metrics
    #[arg(long, value_name = "FILE", env = "SLUICE_TLS_CLIENT_CA")]
    pub tls_client_ca: Option<PathBuf>,
    /// Bearer tokens, one a line: the admin port, and calls that change what is served, want one of them
    #[arg(long, value_name = "FILE", env = "SLUICE_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Bearer tokens, one a line: the serving ports want one of them for everything but health
    #[arg(long, value_name = "FILE", env = "SLUICE_INFERENCE_TOKEN_FILE")]
    pub inference_token_file: Option<PathBuf>,
    /// Answer these APIs only to requests with this header; may be given several times, and wins over the file's of the same group. Groups: health, metadata, inference, shared-memory, model-config, model-repository, statistics, trace, logging
    #[arg(
        long,
        value_name = "GROUP[,GROUP...]=HEADER:VALUE",
        env = "SLUICE_RESTRICT",
        hide_env_values = true,
        value_delimiter = '\n'
    )]
    #[serde(deserialize_with = "restrictions")]
    pub restrict: Vec<String>,
}

/// The settings as run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Security {
    pub(crate) access: Access,
    pub(crate) tls: Option<Tls>,
}

/// What the files held when they were looked at, by the setting that names each: its digest, or why
/// it cannot be read.
pub(crate) type Seen = BTreeMap<&'static str, Result<Digest, String>>;

/// The same with what they held.
type Contents = BTreeMap<&'static str, std::io::Result<Vec<u8>>>;

impl SecuritySettings {
    /// These, and where they say nothing, `file`.
    pub(crate) fn over(self, file: Self) -> Self {
        Self {
            tls_certificate: self.tls_certificate.or(file.tls_certificate),
            tls_key: self.tls_key.or(file.tls_key),
            tls_client_ca: self.tls_client_ca.or(file.tls_client_ca),
            admin_token_file: self.admin_token_file.or(file.admin_token_file),
            inference_token_file: self.inference_token_file.or(file.inference_token_file),
            restrict: Restrictions::over(self.restrict, file.restrict),
        }
    }

    /// With the TLS settings of `other`.
    pub(crate) fn with_tls_of(self, other: &Self) -> Self {
        Self {
            tls_certificate: other.tls_certificate.clone(),
            tls_key: other.tls_key.clone(),
            tls_client_ca: other.tls_client_ca.clone(),
            ..self
        }
    }

    /// Looks at the files.
    pub(crate) fn look(&self) -> Seen {
        seen(&self.read())
    }

    /// Reads the files and checks everything. Gives every complaint; and what was read in any case,
    /// so that a change of it is noticed.
    pub(crate) fn open(&self) -> (Seen, Result<Security, Vec<String>>) {
        let contents = self.read();
        (seen(&contents), self.check(&contents))
    }

    fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let all = [
            ("tls_certificate", &self.tls_certificate),
            ("tls_key", &self.tls_key),
            ("tls_client_ca", &self.tls_client_ca),
            ("admin_token_file", &self.admin_token_file),
            ("inference_token_file", &self.inference_token_file),
        ];
        all.into_iter().filter_map(|(key, path)| Some((key, path.as_deref()?)))
    }

    fn read(&self) -> Contents {
        self.files().map(|(key, path)| (key, std::fs::read(path))).collect()
    }

    fn check(&self, contents: &Contents) -> Result<Security, Vec<String>> {
        let mut complaints = Vec::new();
        for (key, path) in self.files() {
            if let Some(Err(error)) = contents.get(key) {
                complaints.push(format!("{} {}: {error}", flag(key), path.display()));
            }
        }
        let tls = self.tls(contents).unwrap_or_else(|found| {
            complaints.extend(found);
            None
        });
        let mut tokens = |key, path: &Option<PathBuf>| {
            let (path, Some(Ok(file))) = (path.as_ref()?, contents.get(key)) else { return None };
            let complain =
                |reason| complaints.push(format!("{} {}: {reason}", flag(key), path.display()));
            Tokens::parse(file).map_err(complain).ok()
        };
        let inference = tokens("inference_token_file", &self.inference_token_file);
        let admin = tokens("admin_token_file", &self.admin_token_file);
        let restrictions = Restrictions::parse(self.restrict.iter().map(String::as_str));
        let restrictions = restrictions.unwrap_or_else(|found| {
            complaints.extend(found);
            Restrictions::default()
        });
        if complaints.is_empty() {
            Ok(Security { access: Access { inference, admin, restrictions }, tls })
        } else {
            Err(complaints)
        }
    }

    fn tls(&self, contents: &Contents) -> Result<Option<Tls>, Vec<String>> {
        let file = |key| match contents.get(key) {
            Some(Ok(bytes)) => Some(bytes.as_slice()),
            _ => None,
        };
        let complain = |text: &str| Err(vec![text.to_owned()]);
        match (&self.tls_certificate, &self.tls_key, &self.tls_client_ca) {
            (None, None, None) => Ok(None),
            (None, None, Some(_)) => complain("--tls-client-ca asks for --tls-certificate FILE"),
            (Some(_), None, _) => complain("--tls-certificate asks for --tls-key FILE"),
            (None, Some(_), _) => complain("--tls-key asks for --tls-certificate FILE"),
            (Some(certificate), Some(key), client_ca) => {
                let client_ca = match client_ca {
                    None => None,
                    Some(path) => match file("tls_client_ca") {
                        Some(pem) => Some((path.as_path(), pem)),
                        None => return Ok(None),
                    },
                };
                // A file that cannot be read has been complained about.
                let (Some(chain), Some(secret)) = (file("tls_certificate"), file("tls_key")) else {
                    return Ok(None);
                };
                let files =
                    Files { certificate: (certificate, chain), key: (key, secret), client_ca };
                Tls::new(files).map(Some)
            }
        }
    }
}

fn seen(contents: &Contents) -> Seen {
    let look = |file: &std::io::Result<Vec<u8>>| match file {
        Ok(bytes) => Ok(Digest::of(bytes)),
        Err(error) => Err(error.to_string()),
    };
    contents.iter().map(|(&key, file)| (key, look(file))).collect()
}

/// The flag of a key.
fn flag(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

/// What a settings file says, as flags have it. A table of `"GROUP,GROUP" = "HEADER:VALUE"`, or what
/// the flag says, once or in a list. What is wrong is told without the value, which is a secret.
fn restrictions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    use toml::Value;
    let text = |value| match value {
        Value::String(text) => Some(text),
        _ => None,
    };
    let written = match Value::deserialize(deserializer)? {
        Value::String(one) => Some(vec![one]),
        Value::Array(list) => list.into_iter().map(text).collect(),
        Value::Table(table) => {
            let one = |(groups, header)| Some(format!("{groups}={}", text(header)?));
            table.into_iter().map(one).collect()
        }
        _ => None,
    };
    written.ok_or_else(|| {
        serde::de::Error::custom(
            "write \"GROUP[,GROUP...]\" = \"HEADER:VALUE\" below [restrict], one a line",
        )
    })
}
