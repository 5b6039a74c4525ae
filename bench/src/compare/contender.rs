//! Who is compared: servers that are up, and those that are not and why.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Uri;
use serde::Deserialize;
use tempfile::TempDir;

use super::CompareOptions;
use super::answers::{difference, numbers};
use super::comparison::Told;
use super::peers::{Peer, Peers};
use super::server::Server;
use crate::check::Check;
use crate::error::BenchError;
use crate::options::{LoadOptions, Question, Transport};
use crate::question::{Asked, Protocol, ask_models, once};

/// The names of our own.
pub(super) const SLUICE: &str = "sluice";
pub(super) const FLOOR: &str = "floor";
/// The model's name at every server.
const MODEL: &str = "model";
const ALL: [Protocol; 4] = [Protocol::V1, Protocol::V2, Protocol::V2Binary, Protocol::Grpc];

/// One server.
#[derive(Debug)]
pub(super) struct Contender {
    pub(super) name: String,
    title: String,
    version: Option<String>,
    pub(super) protocols: Vec<Protocol>,
    pub(super) server: Server,
    /// Protocols over which it did not answer as Sluice did.
    wrong: Vec<String>,
}

/// All of them. Sluice is the first, the floor the second.
#[derive(Debug)]
pub(super) struct Contenders {
    pub(super) up: Vec<Contender>,
    broken: Vec<Told>,
    /// Sluice's models, for as long as it runs.
    _models: TempDir,
}

/// What is asked over one protocol: the same of everybody.
pub(super) type Questions = Vec<(Protocol, LoadOptions)>;

impl Contenders {
    pub(super) fn start(
        options: &CompareOptions,
        say: &mut dyn FnMut(&str),
        stop: &AtomicBool,
    ) -> Result<Self, BenchError> {
        let models = models(&options.model)?;
        let model = options.model.canonicalize();
        let model = model.map_err(|reason| unread(&options.model, &reason))?;
        say("starting sluice and the floor");
        let mut up = vec![
            sluice(&options.sluice, models.path()).map_err(BenchError::Options)?,
            floor(&options.sluice, models.path()).map_err(BenchError::Options)?,
        ];
        let mut broken = Vec::new();
        for peer in &options.peers.peers {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            say(&format!("starting {}", peer.title));
            match start(peer, &options.peers, &model) {
                Ok(contender) => up.push(contender),
                Err(why) => {
                    let why = format!("{why}; it is set up by: {}", peer.setup);
                    say(&format!("{} is left out: {why}", peer.name));
                    let (name, title) = (peer.name.clone(), peer.title.clone());
                    broken.push(Told { name, title, version: None, left_out: Some(why) });
                }
            }
        }
        Ok(Self { up, broken, _models: models })
    }

    /// What is asked, made of what Sluice says of the model.
    pub(super) fn questions(&self, options: &CompareOptions) -> Result<Questions, BenchError> {
        let sluice = &self.up[0].server;
        let ask = |&protocol: &Protocol| {
            let (models, choices) = (vec![MODEL.to_owned()], Vec::new());
            let asked = Asked { models, protocol, rows: options.rows, choices };
            Ok((protocol, ask_models(&sluice.url(protocol)?, &asked, false)?))
        };
        options.protocols.iter().map(ask).collect()
    }

    /// Asks every server one question over each of its protocols, and takes the protocols from it
    /// over which it has another answer than Sluice. The floor has no answer of its own.
    pub(super) fn check_answers(&mut self, questions: &Questions, say: &mut dyn FnMut(&str)) {
        for (protocol, options) in questions {
            let expected = answer(&self.up[0], *protocol, options);
            for contender in &mut self.up {
                if contender.name == FLOOR || !contender.protocols.contains(protocol) {
                    continue;
                }
                let theirs = answer(contender, *protocol, options);
                let wrong = match (&expected, theirs) {
                    (Ok(own), Ok(theirs)) => difference(own, &theirs),
                    (Err(why), _) => Some(format!("Sluice's answer: {why}")),
                    (_, Err(why)) => Some(why),
                };
                if let Some(wrong) = wrong {
                    say(&format!("{} is left out over {protocol}: {wrong}", contender.name));
                    contender.protocols.retain(|left| left != protocol);
                    contender.wrong.push(format!("over {protocol}: {wrong}"));
                }
            }
        }
    }

    /// Everybody, for the report.
    pub(super) fn told(&self) -> Vec<Told> {
        let up = self.up.iter().map(|contender| Told {
            name: contender.name.clone(),
            title: contender.title.clone(),
            version: contender.version.clone(),
            left_out: (!contender.wrong.is_empty()).then(|| contender.wrong.join("; ")),
        });
        up.chain(self.broken.iter().cloned()).collect()
    }
}

impl Contender {
    fn new(name: &str, title: &str, protocols: &[Protocol], server: Server) -> Self {
        let version = version(&server);
        let (name, title) = (name.to_owned(), title.to_owned());
        Self { name, title, version, protocols: protocols.to_vec(), server, wrong: Vec::new() }
    }

    /// The same questions, for this server.
    pub(super) fn asked(
        &self,
        protocol: Protocol,
        options: &LoadOptions,
    ) -> Result<LoadOptions, BenchError> {
        let root = self.server.url(protocol)?.to_string();
        let here = |question: &Question| {
            let url = format!("{}{}", root.trim_end_matches('/'), question.url.path());
            let url: Uri =
                url.parse().map_err(|error| BenchError::Options(format!("{url}: {error}")))?;
            Ok(Question { url, ..question.clone() })
        };
        let questions = options.questions.iter().map(here).collect::<Result<_, BenchError>>()?;
        Ok(LoadOptions { questions, ..options.clone() })
    }
}

/// A repository with the graph as its only model.
fn models(graph: &Path) -> Result<TempDir, BenchError> {
    let failed = |reason: std::io::Error| unread(graph, &reason);
    let models = tempfile::Builder::new().prefix("sluice-compare-").tempdir().map_err(failed)?;
    let version = models.path().join(MODEL).join("1");
    std::fs::create_dir_all(&version).map_err(failed)?;
    std::fs::copy(graph, version.join("model.onnx")).map_err(failed)?;
    Ok(models)
}

fn unread(graph: &Path, reason: &std::io::Error) -> BenchError {
    BenchError::Options(format!("model {}: {reason}", graph.display()))
}

fn sluice(program: &Path, models: &Path) -> Result<Contender, String> {
    let arguments = |http: SocketAddr, grpc: SocketAddr| {
        let [http, grpc] = [http, grpc].map(|address| OsString::from(address.to_string()));
        let folder = models.as_os_str().to_owned();
        let words = ["serve", "--admin", "127.0.0.1:0", "--model-repository"].map(OsString::from);
        let ports = [OsString::from("--http"), http, OsString::from("--grpc"), grpc];
        words.into_iter().chain([folder]).chain(ports).collect()
    };
    let server = Server::start(program, models, arguments, "/v2/health/ready")
        .map_err(|why| format!("sluice serve: {why}"))?;
    Ok(Contender::new(SLUICE, "Sluice", &ALL, server))
}

fn floor(program: &Path, folder: &Path) -> Result<Contender, String> {
    let arguments = |http: SocketAddr, grpc: SocketAddr| {
        let [http, grpc] = [http.to_string(), grpc.to_string()];
        let words = ["bench", "echo", "--http", &http, "--grpc", &grpc];
        words.iter().map(OsString::from).collect()
    };
    let server = Server::start(program, folder, arguments, "/")
        .map_err(|why| format!("sluice bench echo: {why}"))?;
    Ok(Contender::new(FLOOR, "the floor: an echo on the same runtimes", &ALL, server))
}

fn start(peer: &Peer, peers: &Peers, model: &Path) -> Result<Contender, String> {
    let (program, first) = peer.command.split_first().ok_or("it has no command")?;
    // A program without a folder is looked for where programs are.
    let program = if program.contains('/') { peers.folder.join(program) } else { program.into() };
    let arguments = |http: SocketAddr, grpc: SocketAddr| {
        let ports = [http.port().to_string(), grpc.port().to_string()].map(OsString::from);
        let named = [model.as_os_str().to_owned(), OsString::from(MODEL)];
        first.iter().map(OsString::from).chain(named).chain(ports).collect()
    };
    let server = Server::start(&program, &peers.folder, arguments, "/v2/health/ready")?;
    Ok(Contender::new(&peer.name, &peer.title, &peer.protocols, server))
}

/// What a server says its version is.
fn version(server: &Server) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        version: String,
    }
    let url = server.url(Protocol::V2).ok()?.to_string();
    let question = Question::new(format!("{}v2", url).parse().ok()?);
    let answer = once(question, Transport::Http1, false).ok()?.ok()?;
    Check::Json.judge(&answer).ok()?;
    serde_json::from_slice::<Said>(&answer.body).ok().map(|said| said.version)
}

/// The numbers that a server answers the first question with.
fn answer(
    contender: &Contender,
    protocol: Protocol,
    options: &LoadOptions,
) -> Result<Vec<f64>, String> {
    let mut here = contender.asked(protocol, options).map_err(|error| error.to_string())?;
    let question = here.questions.swap_remove(0);
    let answer = once(question, here.transport, false).map_err(|error| error.to_string())?;
    let answer = answer.map_err(|fault| format!("{}: {}", fault.failure, fault.detail))?;
    let judged = options.check.judge(&answer);
    judged.map_err(|fault| format!("{}: {}", fault.failure, fault.detail))?;
    numbers(protocol, &answer)
}
