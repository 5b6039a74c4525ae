//! Who may ask for what: bearer tokens, and headers without which an API is closed. HTTP and gRPC
//! say which API a request is for; the rule is the same.

mod admin;
pub(crate) mod origin;
mod restriction;
mod tokens;

use http::HeaderMap;
use http::header::AUTHORIZATION;

pub(crate) use admin::guarded;
pub(crate) use restriction::{ApiGroup, Restriction, Restrictions};
pub(crate) use tokens::Tokens;

/// Paths of the admin and metrics ports that are answered to everybody: probes have no tokens.
pub(crate) const HEALTH_PATHS: [&str; 2] = ["/v2/health/live", "/v2/health/ready"];

/// What is asked for of whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    /// Nothing: probes have no tokens.
    Nothing,
    /// To be one who may use models.
    Use,
    /// To be one who may change what is served and how.
    Control,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Api {
    pub(crate) group: ApiGroup,
    pub(crate) demand: Demand,
}

/// How a request comes, which decides what its headers are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Grpc,
}

/// The rules in force. Without any, everything is open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    /// Of those who may use models.
    pub(crate) inference: Option<Tokens>,
    /// Of those who may do everything.
    pub(crate) admin: Option<Tokens>,
    pub(crate) restrictions: Restrictions,
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal<'a> {
    /// It brings no token.
    NoToken,
    /// Its token is none of those that are known.
    UnknownToken,
    /// Its token is good for using models only.
    NotPermitted,
    /// It lacks the header that its API is restricted to.
    Restricted(&'a Restriction),
}

impl Api {
    pub(crate) const fn new(group: ApiGroup, demand: Demand) -> Self {
        Self { group, demand }
    }
}

impl Access {
    /// Whether a request with `headers` may ask for `api` on a serving port. Nothing is allocated
    /// and hardly anything done where no rule says otherwise.
    pub(crate) fn check(
        &self,
        api: Api,
        headers: &HeaderMap,
        protocol: Protocol,
    ) -> Result<(), Refusal<'_>> {
        let (inference, admin) = (self.inference.as_ref(), self.admin.as_ref());
        match api.demand {
            Demand::Nothing => {}
            Demand::Use => self.check_use(headers)?,
            Demand::Control => match (admin, inference) {
                (None, None) => {}
                (None, Some(inference)) => permit(headers, &[Some(inference)], None)?,
                (Some(admin), lesser) => permit(headers, &[Some(admin)], lesser)?,
            },
        }
        match self.restrictions.of(api.group) {
            Some(restriction) if !restriction.is_met(headers, protocol) => {
                Err(Refusal::Restricted(restriction))
            }
            _ => Ok(()),
        }
    }

    /// Whether everybody may change something with `api`: no token is asked for, and no header that
    /// web pages have no way to know.
    pub(crate) fn leaves_open(&self, api: Api) -> bool {
        api.demand == Demand::Control
            && self.inference.is_none()
            && self.admin.is_none()
            && self.restrictions.of(api.group).is_none()
    }

    /// Whether `headers` are those of one who may use models.
    pub(crate) fn check_use(&self, headers: &HeaderMap) -> Result<(), Refusal<'_>> {
        match &self.inference {
            None => Ok(()),
            Some(inference) => permit(headers, &[Some(inference), self.admin.as_ref()], None),
        }
    }

    /// Whether a request with `headers` may ask for `path` on the admin port.
    pub(crate) fn check_admin(&self, path: &str, headers: &HeaderMap) -> Result<(), Refusal<'_>> {
        match &self.admin {
            Some(admin) if !HEALTH_PATHS.contains(&path) => {
                permit(headers, &[Some(admin)], self.inference.as_ref())
            }
            _ => Ok(()),
        }
    }
}

/// Whether the token in `headers` is one of those that `suffice`; one of the `lesser` ones says
/// who is asking, but is not enough.
fn permit(
    headers: &HeaderMap,
    suffice: &[Option<&Tokens>],
    lesser: Option<&Tokens>,
) -> Result<(), Refusal<'static>> {
    let token = headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    let token = token.ok_or(Refusal::NoToken)?;
    if suffice.iter().flatten().any(|tokens| tokens.contain(token)) {
        Ok(())
    } else if lesser.is_some_and(|tokens| tokens.contain(token)) {
        Err(Refusal::NotPermitted)
    } else {
        Err(Refusal::UnknownToken)
    }
}

/// The token of `Bearer TOKEN`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::{Access, Api, ApiGroup, Demand, Protocol, Refusal, Restrictions, Tokens, bearer};

    fn access(inference: bool, admin: bool) -> Access {
        let tokens = |text: &str| Tokens::parse(text.as_bytes()).unwrap();
        Access {
            inference: inference.then(|| tokens("user\n")),
            admin: admin.then(|| tokens("operator\n")),
            restrictions: Restrictions::default(),
        }
    }

    fn carrying(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !token.is_empty() {
            let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
            headers.insert("authorization", value);
        }
        headers
    }

    #[test]
    fn each_demand_wants_its_tokens() {
        use Refusal::{NoToken, NotPermitted, UnknownToken};
        let nobody = [Ok(()); 4];
        for (inference, admin, demand, expected) in [
            (false, false, Demand::Nothing, nobody),
            (false, false, Demand::Use, nobody),
            (false, false, Demand::Control, nobody),
            (true, true, Demand::Nothing, nobody),
            (false, true, Demand::Use, nobody),
            (
                true,
                false,
                Demand::Use,
                [Err(NoToken), Err(UnknownToken), Ok(()), Err(UnknownToken)],
            ),
            (true, true, Demand::Use, [Err(NoToken), Err(UnknownToken), Ok(()), Ok(())]),
            (
                true,
                false,
                Demand::Control,
                [Err(NoToken), Err(UnknownToken), Ok(()), Err(UnknownToken)],
            ),
            (
                false,
                true,
                Demand::Control,
                [Err(NoToken), Err(UnknownToken), Err(UnknownToken), Ok(())],
            ),
            (
                true,
                true,
                Demand::Control,
                [Err(NoToken), Err(UnknownToken), Err(NotPermitted), Ok(())],
            ),
        ] {
            let access = access(inference, admin);
            let api = Api::new(ApiGroup::Inference, demand);
            for (token, expected) in ["", "guess", "user", "operator"].into_iter().zip(expected) {
                let found = access.check(api, &carrying(token), Protocol::Http);
                assert_eq!(found, expected, "{inference} {admin} {demand:?} {token:?}");
            }
        }
    }

    #[test]
    fn the_admin_port_is_open_without_tokens_and_its_health_always() {
        for token in ["", "guess", "user", "operator"] {
            let headers = carrying(token);
            assert_eq!(access(true, false).check_admin("/drain", &headers), Ok(()), "{token}");
            let both = access(true, true);
            assert_eq!(both.check_admin("/v2/health/live", &headers), Ok(()), "{token}");
            let expected = match token {
                "" => Err(Refusal::NoToken),
                "user" => Err(Refusal::NotPermitted),
                "operator" => Ok(()),
                _ => Err(Refusal::UnknownToken),
            };
            for path in ["/drain", "/metrics", "/v2/health/live/", "/v2/health/../drain"] {
                assert_eq!(both.check_admin(path, &headers), expected, "{token} {path}");
            }
        }
    }

    #[test]
    fn tokens_follow_the_word_bearer() {
        for (value, token) in [
            ("Bearer a", Some("a")),
            ("bearer  a=", Some("a=")),
            ("Bearer ", None),
            ("Bearer", None),
            ("Bearera", None),
            ("Basic YTpi", None),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(bearer(value.as_bytes()), token.map(str::as_bytes), "{value:?}");
        }
    }
}
