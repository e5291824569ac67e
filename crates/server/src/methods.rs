//! The table of methods: those of the schema, made from its descriptors, Envoy's, and the endpoints of AuthZEN.
//!
//! ```text
//! path of a request ─▶ Rpc ─▶ name, deadline, sizes, streaming, decisions
//! ```
//!
//! A method of the schema without an option that says who may call it does not build.
//!
//! **Invariant**: this table is the only list of methods. Metrics, deadlines, admission and the
//! decision log use it.

use std::time::Duration;

use capstan_policy::Asks;
use capstan_proto::methods::{Access, METHODS, Method};

use crate::limits::{HEALTH_BYTES_MAX, Limits, REQUEST_BYTES_MAX};

/// The package of the management services.
const MANAGEMENT: &str = "/capstan.iam.v1.";

/// The path of the only method of `envoy.service.auth.v3.Authorization`.
pub(crate) const EXT_AUTHZ_PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

/// A method that is served, as its index in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rpc(u8);

const OTHER: Method = Method {
    path: "",
    name: "other",
    label: "other",
    streams: false,
    decides: false,
    access: Access::Open,
    writes: false,
};

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const TABLE: [Method; Rpc::COUNT] = {
    let mut table = [OTHER; Rpc::COUNT];
    let mut at = 0;
    while at < METHODS.len() {
        table[at] = METHODS[at];
        at += 1;
    }
    table[Rpc::EXT_AUTHZ.0 as usize] = Method {
        path: EXT_AUTHZ_PATH,
        name: "ExtAuthz",
        label: "ExtAuthz",
        decides: true,
        ..OTHER
    };
    // They are served on the HTTP port, so no path of a call names them.
    let mut at = 0;
    while at < AUTHZEN.len() {
        let (label, decides) = AUTHZEN[at];
        table[METHODS.len() + 2 + at] = Method { name: label, label, decides, ..OTHER };
        at += 1;
    }
    table
};

/// The endpoints of AuthZEN: their names, and whether the answers are decisions.
const AUTHZEN: [(&str, bool); 5] = [
    ("authzen.Evaluation", true),
    ("authzen.Evaluations", true),
    ("authzen.SearchSubject", false),
    ("authzen.SearchResource", false),
    ("authzen.SearchAction", false),
];

#[expect(clippy::cast_possible_truncation, reason = "there are fewer than 256 methods")]
impl Rpc {
    /// The number of methods, [`Rpc::OTHER`] included.
    pub const COUNT: usize = METHODS.len() + 2 + AUTHZEN.len();

    /// `DecisionService.Check`.
    pub const CHECK: Self = Self::labelled("Check");
    /// `DecisionService.BatchCheck`.
    pub const BATCH_CHECK: Self = Self::labelled("BatchCheck");
    /// `DecisionService.StreamCheck`.
    pub const STREAM_CHECK: Self = Self::labelled("StreamCheck");
    /// `DecisionService.Explain`.
    pub const EXPLAIN: Self = Self::labelled("Explain");
    /// `DecisionService.ListCapabilities`.
    pub(crate) const LIST_CAPABILITIES: Self = Self::labelled("ListCapabilities");
    /// `DecisionService.ListIdentities`.
    pub(crate) const LIST_IDENTITIES: Self = Self::labelled("ListIdentities");
    /// `DecisionService.ListScopes`.
    pub(crate) const LIST_SCOPES: Self = Self::labelled("ListScopes");
    /// `RoleBindingService.BatchCreateRoleBindings`.
    pub(crate) const BATCH_CREATE: Self = Self::labelled("iam.BatchCreateRoleBindings");
    /// `RoleBindingService.BatchDeleteRoleBindings`.
    pub(crate) const BATCH_DELETE: Self = Self::labelled("iam.BatchDeleteRoleBindings");
    /// `PolicyService.Import`.
    pub(crate) const IMPORT: Self = Self::labelled("iam.Import");
    /// Envoy's external authorization of an HTTP request.
    pub const EXT_AUTHZ: Self = Self(METHODS.len() as u8);
    /// Any path that is not served.
    pub const OTHER: Self = Self(METHODS.len() as u8 + 1);
    /// AuthZEN's access evaluation.
    pub(crate) const EVALUATION: Self = Self(METHODS.len() as u8 + 2);
    /// AuthZEN's access evaluations.
    pub(crate) const EVALUATIONS: Self = Self(METHODS.len() as u8 + 3);
    /// AuthZEN's subject search.
    pub(crate) const SEARCH_SUBJECT: Self = Self(METHODS.len() as u8 + 4);
    /// AuthZEN's resource search.
    pub(crate) const SEARCH_RESOURCE: Self = Self(METHODS.len() as u8 + 5);
    /// AuthZEN's action search.
    pub(crate) const SEARCH_ACTION: Self = Self(METHODS.len() as u8 + 6);

    /// The schema's method with this label. An unknown label does not compile.
    pub(crate) const fn labelled(label: &str) -> Self {
        let mut at = 0;
        #[expect(clippy::indexing_slicing, clippy::panic, reason = "evaluated by the compiler")]
        loop {
            if at == METHODS.len() {
                panic!("the schema has no such method");
            }
            if equal(METHODS[at].label.as_bytes(), label.as_bytes()) {
                return Self(at as u8);
            }
            at += 1;
        }
    }

    /// The method that a request path names; [`Rpc::OTHER`] if none.
    pub(crate) fn from_path(path: &str) -> Self {
        // The path of `OTHER` is empty; the path of a request must not match it.
        let at = TABLE.iter().position(|method| method.path == path && !path.is_empty());
        at.map_or(Self::OTHER, |at| Self(at as u8))
    }

    /// Every method, in the order of the table.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(|at| Self(at as u8))
    }

    const fn method(self) -> &'static Method {
        let table: &'static [Method] = &TABLE;
        match table.split_at_checked(self.0 as usize) {
            Some((_, [method, ..])) => method,
            _ => &OTHER,
        }
    }

    /// The index in the table, below [`Rpc::COUNT`].
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The name in metrics and logs, unique: the schema's (of management methods after `iam.`), `ExtAuthz`, AuthZEN's after
    /// `authzen.`, or `other`.
    #[must_use]
    #[expect(clippy::misnamed_getters, reason = "a name that is unique among all services")]
    pub const fn name(self) -> &'static str {
        self.method().label
    }

    /// Service and method of a management method, such as `GroupService/CreateGroup`: as audit records have it.
    pub(crate) fn audited_name(self) -> &'static str {
        let path = self.method().path;
        path.strip_prefix(MANAGEMENT).unwrap_or(path)
    }

    /// The set of methods that it is in for callers of decisions; `None` if none of them may use it: it changes something, or is not
    /// served.
    pub(crate) fn asks(self) -> Option<Asks> {
        match self.name() {
            "Check"
            | "BatchCheck"
            | "StreamCheck"
            | "authzen.Evaluation"
            | "authzen.Evaluations" => Some(Asks::Check),
            "ListCapabilities" => Some(Asks::Capabilities),
            "Explain" => Some(Asks::Explain),
            "ListIdentities"
            | "ListScopes"
            | "authzen.SearchSubject"
            | "authzen.SearchResource"
            | "authzen.SearchAction" => Some(Asks::Search),
            "ExtAuthz" => Some(Asks::Authorize),
            _ if self.manages() && !self.writes() => Some(Asks::Policy),
            _ => None,
        }
    }

    /// Whether it is a management method.
    pub(crate) fn manages(self) -> bool {
        self.method().path.starts_with(MANAGEMENT)
    }

    /// Time from the start of a call to its end; `None` for streams, whose clients decide.
    pub(crate) const fn time_max(self, limits: &Limits) -> Option<Duration> {
        match self.method() {
            Method { streams: true, .. } => None,
            Method { writes: true, .. } => Some(limits.write_time_max),
            _ => Some(limits.unary_time_max),
        }
    }

    /// Whether the responses are decisions.
    pub(crate) const fn decides(self) -> bool {
        self.method().decides
    }

    /// Whether it changes the policy.
    pub(crate) const fn writes(self) -> bool {
        self.method().writes
    }

    /// Whether requests or responses are streams. The client decides how long a stream lives.
    pub(crate) const fn streams(self) -> bool {
        self.method().streams
    }

    /// Bytes of one message of a request: [`Limits::message_bytes_max`] for batches, chunks of an import and Envoy's
    /// requests, else at most [`REQUEST_BYTES_MAX`] (contract, section 7).
    pub(crate) fn request_bytes_max(self, limits: &Limits) -> usize {
        if LONG.contains(&self) {
            limits.message_bytes_max
        } else {
            limits.message_bytes_max.min(REQUEST_BYTES_MAX)
        }
    }
}

/// Methods whose requests may be as long as any message.
const LONG: [Rpc; 7] = [
    Rpc::EVALUATIONS,
    Rpc::BATCH_CHECK,
    Rpc::STREAM_CHECK,
    Rpc::EXT_AUTHZ,
    Rpc::BATCH_CREATE,
    Rpc::BATCH_DELETE,
    Rpc::IMPORT,
];

/// A method of health or reflection. Their calls have permits of their own and are not counted as
/// requests, so that health checks of an overloaded server still succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// One answer.
    Unary,
    /// A stream: the client decides how long it lives.
    Stream,
}

impl Probe {
    /// The method that a request path names; `None` if it is of another service.
    pub(crate) fn of(path: &str) -> Option<Self> {
        if path == "/grpc.health.v1.Health/Check" {
            return Some(Self::Unary);
        }
        let services = [
            "/grpc.health.v1.Health/",
            "/grpc.reflection.v1.ServerReflection/",
            "/grpc.reflection.v1alpha.ServerReflection/",
        ];
        services.iter().any(|service| path.starts_with(service)).then_some(Self::Stream)
    }

    /// Bytes of one message of a request (contract, section 7).
    pub(crate) const fn request_bytes_max(self) -> usize {
        HEALTH_BYTES_MAX
    }
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    match (a, b) {
        ([], []) => true,
        ([x, a @ ..], [y, b @ ..]) => *x == *y && equal(a, b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{MESSAGE_BYTES_MAX, UNARY_TIME_MAX, WRITE_TIME_MAX};

    #[test]
    fn every_path_has_its_own_method() {
        for method in METHODS {
            let rpc = Rpc::from_path(method.path);
            assert_eq!((rpc.name(), rpc.streams()), (method.label, method.streams));
            assert_eq!(rpc.manages(), method.label.starts_with("iam."), "{}", method.path);
        }
        assert_eq!(Rpc::from_path(EXT_AUTHZ_PATH), Rpc::EXT_AUTHZ);
        for unknown in
            ["", "/", "/capstan.v1.DecisionService/", "/capstan.iam.v1.RoleService/Check"]
        {
            assert_eq!(Rpc::from_path(unknown), Rpc::OTHER, "{unknown}");
        }
        assert_eq!(Rpc::all().count(), Rpc::COUNT);
        let mut names: Vec<_> = Rpc::all().map(Rpc::name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Rpc::COUNT, "two methods have one name in metrics");
    }

    #[test]
    fn every_method_that_changes_nothing_can_be_given_to_a_caller() {
        for rpc in Rpc::all() {
            let wanted = rpc != Rpc::OTHER && !rpc.writes();
            assert_eq!(rpc.asks().is_some(), wanted, "{}", rpc.name());
            assert_eq!(rpc.asks() == Some(Asks::Policy), wanted && rpc.manages(), "{}", rpc.name());
        }
    }

    /// R1 asks for more of whoever gives away what manages access: every capability of the management methods, but those
    /// to list, and those of a resource's type.
    #[test]
    fn the_rules_know_what_manages_access() {
        let mut managing = std::collections::BTreeSet::new();
        for method in METHODS.iter().filter(|method| method.label.starts_with("iam.")) {
            let capabilities = match method.access {
                Access::Open | Access::Operator => &[],
                Access::Narrowed(capabilities) => capabilities,
                Access::At(needed) | Access::AtParentOf(needed) => needed.capabilities,
            };
            let others = capabilities.iter().filter(|name| !name.starts_with("TYPE."));
            for name in others {
                let manages = capstan_iam::manages_access(name);
                assert_eq!(manages, !name.ends_with(".list"), "{name} of {}", method.path);
                managing.extend(manages.then_some(*name));
            }
        }
        assert!(managing.len() >= 12, "{managing:?}");
    }

    #[test]
    fn methods_have_limits_by_their_kind() {
        let limits = Limits::default();
        let of = |service: &str, name: &str| {
            let rpc = Rpc::from_path(&format!("/capstan.{service}/{name}"));
            assert_ne!(rpc, Rpc::OTHER, "{service}/{name}");
            (rpc.time_max(&limits), rpc.request_bytes_max(&limits))
        };
        let (read, write) = (Some(UNARY_TIME_MAX), Some(WRITE_TIME_MAX));
        let bindings = "iam.v1.RoleBindingService";
        assert_eq!(of("v1.DecisionService", "Check"), (read, REQUEST_BYTES_MAX));
        assert_eq!(of("v1.DecisionService", "BatchCheck"), (read, MESSAGE_BYTES_MAX));
        assert_eq!(of(bindings, "GetRoleBinding"), (read, REQUEST_BYTES_MAX));
        assert_eq!(of(bindings, "CreateRoleBinding"), (write, REQUEST_BYTES_MAX));
        assert_eq!(of(bindings, "BatchCreateRoleBindings"), (write, MESSAGE_BYTES_MAX));
        assert_eq!(of(bindings, "BatchDeleteRoleBindings"), (write, MESSAGE_BYTES_MAX));
        assert_eq!(of("iam.v1.PolicyService", "Import"), (None, MESSAGE_BYTES_MAX));
        assert_eq!(of("iam.v1.PolicyService", "SetCatalog"), (write, REQUEST_BYTES_MAX));
    }
}
