//! The parameters of a request for an access token.
//!
//! `subject_token`, `subject_token_type`, `requested_token_type`, `audience`, `resource` and `scope` are those of RFC 8693,
//! section 2.1. `scope` has names of capabilities. Capstan's own are `identity`, which names whom the token is of; `association`
//! and `service`, which name it by an account association; and `subtree`.

use std::collections::HashMap;

use capstan_engine::PathBuf;
use capstan_iam::Narrowing;

use super::Refusal;
use crate::authn::issued::capabilities;
use crate::authn::remembered::Named;
use crate::limits::TOKEN_CAPABILITIES_MAX;

/// The grant type of a token exchange.
pub(super) const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// The type of what is issued.
pub(super) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Types of what is exchanged: all of them are JSON Web Tokens here.
const TYPES: [&str; 3] = [
    "urn:ietf:params:oauth:token-type:jwt",
    "urn:ietf:params:oauth:token-type:id_token",
    ACCESS_TOKEN,
];

/// A request that can be answered.
#[derive(PartialEq, Eq)]
pub(super) struct Parameters {
    pub(super) subject_token: String,
    pub(super) named: Named,
    pub(super) narrowing: Narrowing,
    pub(super) audience: Option<String>,
}

/// Reads the bytes of a form.
struct Form(HashMap<String, String>);

impl Form {
    /// Each parameter may be there once (RFC 6749, section 3.2). One without a value is as one that is absent.
    fn read(body: &[u8]) -> Result<Self, Refusal> {
        let mut all = HashMap::new();
        for (name, value) in form_urlencoded::parse(body) {
            if !value.is_empty() && all.insert(name.to_string(), value.into_owned()).is_some() {
                let name = name.escape_debug();
                let problem = format!("{name:.64} is there twice: send it once");
                return Err(Refusal::new("invalid_request", problem));
            }
        }
        Ok(Self(all))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    fn needed(&mut self, name: &str) -> Result<String, Refusal> {
        self.take(name).ok_or_else(|| Refusal::new("invalid_request", format!("{name} is missing")))
    }

    fn path(&mut self, name: &str) -> Result<Option<PathBuf>, Refusal> {
        let parsed = self.take(name).map(|text| text.parse()).transpose();
        parsed.map_err(|error| Refusal::new("invalid_request", format!("{name}: {error}")))
    }
}

impl Parameters {
    /// # Errors
    ///
    /// What is missing, there twice, or not understood.
    pub(super) fn read(body: &[u8]) -> Result<Self, Refusal> {
        let mut form = Form::read(body)?;
        if form.needed("grant_type")? != EXCHANGE {
            let problem = format!("expected {EXCHANGE}");
            return Err(Refusal::new("unsupported_grant_type", problem));
        }
        // A file often ends with a line feed.
        let subject_token = form.needed("subject_token")?.trim_ascii().to_owned();
        if !TYPES.contains(&&*form.needed("subject_token_type")?) {
            let problem = format!("subject_token_type: expected one of {}", TYPES.join(", "));
            return Err(Refusal::new("invalid_request", problem));
        }
        let wanted = form.take("requested_token_type");
        if wanted.is_some_and(|wanted| wanted != ACCESS_TOKEN && wanted != TYPES[0]) {
            let problem = format!("requested_token_type: expected {ACCESS_TOKEN}, or none");
            return Err(Refusal::new("invalid_request", problem));
        }
        // A delegation that is not made must not look like one that is.
        for (name, problem) in [
            ("actor_token", "nobody can act for others here"),
            ("actor_token_type", "nobody can act for others here"),
            ("authorization_details", "narrow it by scope and subtree"),
        ] {
            if form.take(name).is_some() {
                return Err(Refusal::new("invalid_request", format!("{name}: {problem}")));
            }
        }
        let named = named(&mut form)?;
        let subtree = form.path("subtree")?;
        let capabilities = form.take("scope").map(|scope| capabilities(&scope));
        let count = capabilities.as_ref().map_or(0, std::collections::BTreeSet::len);
        if count > TOKEN_CAPABILITIES_MAX {
            let problem = format!("{count} capabilities are more than {TOKEN_CAPABILITIES_MAX}");
            return Err(Refusal::new("invalid_scope", problem));
        }
        let audience = match (form.take("audience"), form.take("resource")) {
            (Some(audience), Some(resource)) if audience != resource => {
                let problem = "audience and resource name two: a token has one";
                return Err(Refusal::new("invalid_target", problem));
            }
            (audience, resource) => audience.or(resource),
        };
        let narrowing = Narrowing { subtree, capabilities };
        Ok(Self { subject_token, named, narrowing, audience })
    }
}

fn named(form: &mut Form) -> Result<Named, Refusal> {
    let (identity, association) = (form.path("identity")?, form.path("association")?);
    Ok(match (identity, association, form.take("service")) {
        (identity, None, None) => identity.into(),
        (None, Some(association), Some(service)) => {
            Named::Service { association, service: service.into() }
        }
        _ => {
            let problem = "expected identity, or association and service, or none of them";
            return Err(Refusal::new("invalid_request", problem));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const JWT: &str = "subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt";

    fn read(rest: &str) -> Result<Parameters, (&'static str, String)> {
        let grant = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", EXCHANGE)
            .finish();
        let body = format!("{grant}&{JWT}&subject_token=a.b.c%0A&{rest}");
        Parameters::read(body.as_bytes()).map_err(|refusal| (refusal.error, refusal.description))
    }

    fn asked(rest: &str) -> Parameters {
        read(rest).unwrap_or_else(|refusal| panic!("{refusal:?}"))
    }

    #[test]
    fn what_is_asked_for_is_read() {
        let plain = asked("client_id=anything&identity=");
        assert_eq!((&*plain.subject_token, plain.named), ("a.b.c", Named::Nobody));
        assert_eq!((plain.narrowing, plain.audience), (Narrowing::default(), None));
        let all =
            asked("identity=acme%2Fci&subtree=acme/shop&scope=a.b+c.d++a.b&audience=x&resource=x");
        assert_eq!(all.named, Named::Identity("acme/ci".parse().unwrap()));
        assert_eq!(all.narrowing.subtree.unwrap().as_str(), "acme/shop");
        let names: Vec<_> = all.narrowing.capabilities.unwrap().into_iter().collect();
        assert_eq!((names, all.audience.as_deref()), (vec!["a.b".into(), "c.d".into()], Some("x")));
        let service = asked("association=acme&service=INGESTER");
        let (association, service_name) = ("acme".parse().unwrap(), "INGESTER".into());
        assert_eq!(service.named, Named::Service { association, service: service_name });
        // Nothing but spaces is no capability, and not every one.
        assert_eq!(asked("scope=+").narrowing.capabilities.map(|all| all.len()), Some(0));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let many: Vec<_> = (0..=TOKEN_CAPABILITIES_MAX).map(|at| format!("a.b{at}")).collect();
        for (rest, error, words) in [
            ("subject_token=d.e.f", "invalid_request", "twice"),
            ("scope=a.b&scope=c.d", "invalid_request", "twice"),
            ("identity=//", "invalid_request", "identity"),
            ("subtree=a/", "invalid_request", "subtree"),
            ("association=acme", "invalid_request", "association and service"),
            ("service=X", "invalid_request", "association and service"),
            ("identity=a&association=acme&service=X", "invalid_request", "association and service"),
            ("actor_token=x", "invalid_request", "actor_token"),
            ("authorization_details=x", "invalid_request", "by scope"),
            (
                "requested_token_type=urn:ietf:params:oauth:token-type:saml2",
                "invalid_request",
                "requested",
            ),
            ("audience=a&resource=b", "invalid_target", "one"),
            (&format!("scope={}", many.join("+")), "invalid_scope", "more than"),
        ] {
            let Err(found) = read(rest) else { panic!("{rest} is read") };
            assert!(found.0 == error && found.1.contains(words), "{rest}: {found:?}");
        }
        for (body, error) in
            [("", "invalid_request"), ("grant_type=client_credentials", "unsupported_grant_type")]
        {
            let Err(found) = Parameters::read(body.as_bytes()) else { panic!("{body}") };
            assert_eq!(found.error, error);
        }
    }
}
