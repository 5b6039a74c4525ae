//! V1's paths. As in TensorFlow Serving, the fixed parts of a path may be in any case and a
//! version is digits; the colon before a verb may come percent-encoded.

use std::borrow::Cow;

use super::super::route::decode;

/// What a path below `/v1` asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'p> {
    Models,
    Status(Target<'p>),
    Metadata(Target<'p>),
    Call(Verb, Target<'p>),
}

/// What is done with a model, behind the colon of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Predict,
    Explain,
    Classify,
    Regress,
}

/// A model, and which of its versions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'p> {
    pub(super) model: Cow<'p, str>,
    pub(super) pick: Pick<'p>,
}

/// The one that answers by default, one by number, or the one that a label names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pick<'p> {
    Default,
    Version(Cow<'p, str>),
    Label(Cow<'p, str>),
}

impl<'p> Route<'p> {
    /// The route of a path's parts behind `/v1`. None when they name nothing.
    pub(crate) fn parse(parts: &[&'p str]) -> Option<Self> {
        let (first, rest) = parts.split_first()?;
        if !is(first, "models") {
            return None;
        }
        match *rest {
            [] => Some(Self::Models),
            [last] => Self::ending_in(last, |model| Some(Target { model, pick: Pick::Default })),
            [model, last] if is(last, "metadata") => {
                Some(Self::Metadata(Target { model: decode(model)?, pick: Pick::Default }))
            }
            [model, by, last] => Self::ending_in(last, |last| Target::new(model, by, last)),
            [model, by, pick, last] if is(last, "metadata") => {
                Some(Self::Metadata(Target::new(model, by, decode(pick)?)?))
            }
            _ => None,
        }
    }

    /// The route of a path whose last part may end in a verb; `target` makes sense of the rest.
    fn ending_in(
        last: &'p str,
        target: impl FnOnce(Cow<'p, str>) -> Option<Target<'p>>,
    ) -> Option<Self> {
        let last = decode(last)?;
        let Some((name, verb)) = last.rsplit_once(':') else {
            return target(last).map(Self::Status);
        };
        let verb = Verb::parse(verb)?;
        Some(Self::Call(verb, target(name.to_owned().into())?))
    }

    /// The model that it asks for a prediction, if it does, and the form of its path.
    pub(crate) fn predicts(&self) -> Option<(&str, &'static str)> {
        let Self::Call(Verb::Predict, target) = self else { return None };
        let form = match target.pick {
            Pick::Default => "/v1/models/{model}:predict",
            Pick::Version(_) => "/v1/models/{model}/versions/{version}:predict",
            Pick::Label(_) => "/v1/models/{model}/labels/{label}:predict",
        };
        Some((&target.model, form))
    }

    /// The method that it answers to.
    pub(crate) const fn method(&self) -> &'static str {
        match self {
            Self::Call(..) => "POST",
            Self::Models | Self::Status(_) | Self::Metadata(_) => "GET",
        }
    }

    /// Whether a body comes with it that matters.
    pub(crate) const fn has_body(&self) -> bool {
        matches!(self, Self::Call(Verb::Predict, _))
    }
}

impl<'p> Target<'p> {
    fn new(model: &'p str, by: &str, pick: Cow<'p, str>) -> Option<Self> {
        let pick = if is(by, "labels") && !pick.is_empty() {
            Pick::Label(pick)
        } else if is(by, "versions") && is_number(&pick) {
            Pick::Version(pick)
        } else {
            return None;
        };
        Some(Self { model: decode(model)?, pick })
    }
}

impl Verb {
    fn parse(text: &str) -> Option<Self> {
        [Self::Predict, Self::Explain, Self::Classify, Self::Regress]
            .into_iter()
            .find(|verb| is(text, verb.as_str()))
    }

    /// As it stands in a path.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Predict => "predict",
            Self::Explain => "explain",
            Self::Classify => "classify",
            Self::Regress => "regress",
        }
    }
}

const fn is(part: &str, word: &str) -> bool {
    part.eq_ignore_ascii_case(word)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::{Pick, Route, Target, Verb};

    fn parse(path: &str) -> Option<Route<'_>> {
        Route::parse(&path.split('/').collect::<Vec<_>>())
    }

    fn target<'p>(model: &'p str, pick: Pick<'p>) -> Target<'p> {
        Target { model: model.into(), pick }
    }

    #[test]
    fn paths_name_routes() {
        let version = || Pick::Version("12".into());
        let label = || Pick::Label("stable one".into());
        for (path, route) in [
            ("models", Route::Models),
            ("models/a", Route::Status(target("a", Pick::Default))),
            ("models/a%20b", Route::Status(target("a b", Pick::Default))),
            ("models/a/versions/12", Route::Status(target("a", version()))),
            ("models/a/labels/stable%20one", Route::Status(target("a", label()))),
            ("models/a/metadata", Route::Metadata(target("a", Pick::Default))),
            ("models/a/versions/12/metadata", Route::Metadata(target("a", version()))),
            ("models/a/labels/stable%20one/metadata", Route::Metadata(target("a", label()))),
            ("models/a:predict", Route::Call(Verb::Predict, target("a", Pick::Default))),
            ("models/a%3Apredict", Route::Call(Verb::Predict, target("a", Pick::Default))),
            ("models/a%3apredict", Route::Call(Verb::Predict, target("a", Pick::Default))),
            ("Models/A:PREDICT", Route::Call(Verb::Predict, target("A", Pick::Default))),
            ("models/a/versions/12:predict", Route::Call(Verb::Predict, target("a", version()))),
            ("models/a/VERSIONS/12:regress", Route::Call(Verb::Regress, target("a", version()))),
            (
                "models/a/labels/stable%20one:predict",
                Route::Call(Verb::Predict, target("a", label())),
            ),
            ("models/a:explain", Route::Call(Verb::Explain, target("a", Pick::Default))),
            ("models/a:classify", Route::Call(Verb::Classify, target("a", Pick::Default))),
            // A model may be called like a part of a path.
            ("models/metadata", Route::Status(target("metadata", Pick::Default))),
            ("models/metadata/metadata", Route::Metadata(target("metadata", Pick::Default))),
        ] {
            assert_eq!(parse(path), Some(route), "{path}");
        }
    }

    #[test]
    fn other_paths_name_nothing() {
        for path in [
            "",
            "model",
            "models/a:x",
            "models/a/b",
            "models/a/versions",
            "models/a/versions/x",
            "models/a/versions/:predict",
            "models/a/versions/1x:predict",
            "models/a/versions/-1",
            "models/a/labels/",
            "models/a/labels/:predict",
            "models/a/others/1",
            "models/a/versions/1/labels/b",
            "models/a/versions/1/b",
            "models/%zz:predict",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
