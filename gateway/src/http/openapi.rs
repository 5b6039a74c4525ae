//! The machine-readable description of everything that is answered over HTTP. It is written by
//! hand and held against the routes by the tests below.

use bytes::Bytes;
use http::Response;

use super::{Body, reply};

/// The document: OpenAPI 3.1.
pub(super) const DOCUMENT: &str = include_str!("openapi.json");

/// `GET /openapi.json`.
pub(super) fn document() -> Response<Body> {
    reply::with_body(200, reply::JSON, Bytes::from_static(DOCUMENT.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use http::Method;
    use serde_json::{Map, Value};

    use super::super::has_body;
    use super::super::route::{Memory, Route};
    use super::super::v1::{self, Verb};
    use super::DOCUMENT;
    use crate::control::exposure::Port;
    use crate::error::GatewayError;

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    /// What the document lists: (path, method, the operation).
    fn operations(document: &Value) -> Vec<(String, Method, &Map<String, Value>)> {
        let paths = document["paths"].as_object().unwrap();
        let operations = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter();
            methods.map(move |(method, operation)| {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                (path.clone(), method, operation.as_object().unwrap())
            })
        });
        operations.collect()
    }

    fn is_on(operation: &Map<String, Value>, port: &str) -> bool {
        operation["x-ports"].as_array().unwrap().iter().any(|on| on == port)
    }

    /// A path of the template, as a caller would write it.
    fn filled(template: &str) -> String {
        let path = template.replace("{version}", "3");
        let names = ["{model}", "{label}", "{repository}", "{region}", "{service}"];
        let path = names.iter().fold(path, |path, name| path.replace(name, "a"));
        assert!(!path.contains('{'), "{template} has a parameter that is not known here");
        path
    }

    /// Names what routes there are, and makes a function of it that knows every route.
    macro_rules! routes {
        ($($route:pat => $name:literal,)*) => {
            const NAMES: &[&str] = &[$($name),*];

            fn name(route: &Route<'_>) -> &'static str {
                match route {
                    $($route => $name,)*
                }
            }
        };
    }

    // A route that is added does not compile without a name here, and then must be in the document.
    routes! {
        Route::Alive => "alive",
        Route::Live => "live",
        Route::Ready => "ready",
        Route::Server => "server",
        Route::Models => "models",
        Route::Metadata { version: None, .. } => "metadata",
        Route::Metadata { version: Some(_), .. } => "metadata of a version",
        Route::ModelReady { version: None, .. } => "model ready",
        Route::ModelReady { version: Some(_), .. } => "version ready",
        Route::Config { version: None, .. } => "config",
        Route::Config { version: Some(_), .. } => "config of a version",
        Route::Statistics { model: None, .. } => "all statistics",
        Route::Statistics { model: Some(_), version: None } => "statistics",
        Route::Statistics { model: Some(_), version: Some(_) } => "statistics of a version",
        Route::Infer { version: None, .. } => "infer",
        Route::Infer { version: Some(_), .. } => "infer by a version",
        Route::V1(v1::Route::Models) => "v1 models",
        Route::V1(v1::Route::Status(_)) => "v1 status",
        Route::V1(v1::Route::Metadata(_)) => "v1 metadata",
        Route::V1(v1::Route::Call(Verb::Predict, _)) => "predict",
        Route::V1(v1::Route::Call(Verb::Explain, _)) => "explain",
        Route::V1(v1::Route::Call(Verb::Classify, _)) => "classify",
        Route::V1(v1::Route::Call(Verb::Regress, _)) => "regress",
        Route::Generate { stream: false, version: None, .. } => "generate",
        Route::Generate { stream: false, version: Some(_), .. } => "generate by a version",
        Route::Generate { stream: true, version: None, .. } => "stream",
        Route::Generate { stream: true, version: Some(_), .. } => "stream by a version",
        Route::Metrics => "metrics",
        Route::OpenApi => "openapi",
        Route::RepositoryIndex => "index",
        Route::RepositoryLoad { .. } => "load",
        Route::RepositoryUnload { .. } => "unload",
        Route::NamedRepository => "named repository",
        Route::RegionStatus { memory: Memory::System, region: None } => "regions",
        Route::RegionStatus { memory: Memory::System, region: Some(_) } => "region",
        Route::RegionStatus { memory: Memory::Cuda, region: None } => "cuda regions",
        Route::RegionStatus { memory: Memory::Cuda, region: Some(_) } => "cuda region",
        Route::RegionRegister { memory: Memory::System, .. } => "register",
        Route::RegionRegister { memory: Memory::Cuda, .. } => "cuda register",
        Route::RegionUnregister { memory: Memory::System, region: None } => "unregister all",
        Route::RegionUnregister { memory: Memory::System, region: Some(_) } => "unregister",
        Route::RegionUnregister { memory: Memory::Cuda, region: None } => "cuda unregister all",
        Route::RegionUnregister { memory: Memory::Cuda, region: Some(_) } => "cuda unregister",
        Route::LogSettings => "log settings",
        Route::LogUpdate => "log update",
        Route::TraceSettings { model: None } => "trace settings",
        Route::TraceSettings { model: Some(_) } => "trace settings of a model",
        Route::TraceUpdate { model: None } => "trace update",
        Route::TraceUpdate { model: Some(_) } => "trace update of a model",
    }

    #[test]
    fn every_path_is_a_route_and_every_route_has_a_path() {
        let document = document();
        let mut names = BTreeSet::new();
        for (template, method, operation) in operations(&document) {
            let path = filled(&template);
            if !is_on(operation, "serving") {
                let unknown = Route::parse(&method, &path).unwrap_err();
                assert!(matches!(unknown, GatewayError::NoRoute(_)), "{method} {template}");
                continue;
            }
            let route = Route::parse(&method, &path)
                .unwrap_or_else(|error| panic!("{method} {template}: {error}"));
            assert_eq!(route.is_on(Port::Admin), is_on(operation, "admin"), "{method} {template}");
            names.insert(name(&route));
        }
        let missing: Vec<_> = NAMES.iter().filter(|name| !names.contains(*name)).collect();
        assert!(missing.is_empty(), "not in the document: {missing:?}");
    }

    #[test]
    fn what_is_not_listed_is_refused_and_told_what_is() {
        let document = document();
        let mut listed = BTreeMap::<String, BTreeSet<String>>::new();
        for (template, method, operation) in operations(&document) {
            if is_on(operation, "serving") {
                listed.entry(template).or_default().insert(method.to_string());
            }
        }
        for (template, methods) in listed {
            // Who may read may ask for the head alone; the document leaves that out.
            for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "X"] {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                let path = filled(&template);
                let parsed = Route::parse(&method, &path);
                if methods.contains(method.as_str()) {
                    assert!(parsed.is_ok(), "{method} {template}");
                    continue;
                }
                let error = parsed.unwrap_err();
                let GatewayError::MethodNotAllowed { allowed, .. } = error else {
                    panic!("{method} {template}: {error}");
                };
                let allowed = allowed.split(", ").filter(|&method| method != "HEAD");
                let allowed: BTreeSet<_> = allowed.map(str::to_owned).collect();
                assert_eq!(allowed, methods, "{method} {template}");
            }
        }
    }

    /// What the code reads of a request's headers.
    #[test]
    fn headers_that_are_read_are_listed() {
        let document = document();
        let listed = |operation: &Map<String, Value>| -> BTreeSet<String> {
            let parameters = operation.get("parameters").and_then(Value::as_array);
            let names = parameters.into_iter().flatten().filter_map(|one| one["$ref"].as_str());
            names.map(|name| name.rsplit('/').next().unwrap().to_owned()).collect()
        };
        for (template, method, operation) in operations(&document) {
            if !is_on(operation, "serving") {
                continue;
            }
            let path = filled(&template);
            let route = Route::parse(&method, &path).unwrap();
            let names = listed(operation);
            let takes_codings = has_body(&route) && !matches!(route, Route::Generate { .. });
            let is_traced = match &route {
                Route::Infer { .. } | Route::Generate { .. } => true,
                Route::V1(route) => route.predicts().is_some(),
                _ => false,
            };
            let is_v1 = is_traced && matches!(route, Route::V1(_));
            for (header, expected) in [
                ("ContentEncoding", takes_codings),
                ("Traceparent", is_traced),
                ("Tracestate", is_traced),
                ("AcceptEncoding", is_traced && takes_codings),
                ("HeaderLength", matches!(route, Route::Infer { .. })),
                ("CeSpecversion", is_v1),
                ("CeId", is_v1),
                ("CeSource", is_v1),
                ("CeType", is_v1),
            ] {
                assert_eq!(names.contains(header), expected, "{method} {template}: {header}");
            }
        }
    }

    #[test]
    fn references_lead_somewhere_and_names_are_given_once() {
        let document = document();
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let mut used = BTreeSet::new();
        references(&document, &mut used);
        for reference in &used {
            assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
        }
        for (kind, all) in document["components"].as_object().unwrap() {
            for name in all.as_object().unwrap().keys().filter(|_| kind != "securitySchemes") {
                let reference = format!("#/components/{kind}/{name}");
                assert!(used.contains(&reference), "{reference} is used nowhere");
            }
        }
        let operations = operations(&document);
        let ids: BTreeSet<_> = operations.iter().map(|(.., o)| o["operationId"].as_str()).collect();
        assert_eq!(ids.len(), operations.len());
        let tags = document["tags"].as_array().unwrap();
        for (path, method, operation) in operations {
            let tag = &operation["tags"][0];
            assert!(tags.iter().any(|known| known["name"] == *tag), "{method} {path}");
            for name in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
                let parameters = operation["parameters"].as_array().unwrap().iter();
                let mut names = parameters.map(|parameter| {
                    let whole = parameter["$ref"]
                        .as_str()
                        .map(|r| &document.pointer(&r[1..]).unwrap()["name"]);
                    whole.unwrap_or(&parameter["name"])
                });
                assert!(names.any(|known| known == name), "{method} {path}");
            }
        }
    }

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
}
