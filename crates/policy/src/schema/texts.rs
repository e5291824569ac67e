//! The forms of strings: a regular expression of ECMA-262, which also the Rust crates `regex` and `fancy-regex` take,
//! and bounds in characters. A limit in bytes is stated as the same limit in characters: the schema then accepts more
//! than the reader if a text is not ASCII.

use capstan_engine::{NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_SEGMENTS_MAX, SEGMENT_BYTES_MAX};
use capstan_iam::limits::{
    CLAIM_BYTES_MAX, DNS_LABEL_BYTES_MAX, DNS_NAME_BYTES_MAX, PATTERN_BYTES_MAX,
    PATTERN_NESTING_MAX, PROPERTY_BYTES_MAX, TRUST_DOMAIN_BYTES_MAX,
};

use crate::{CHALLENGE_BYTES_MAX, ROUTE_PATH_BYTES_MAX, ROUTE_SEGMENTS_MAX, TEXT_BYTES_MAX};

/// A form of string.
#[derive(Debug)]
pub struct Text {
    /// What such a string is, such as `path`.
    pub name: &'static str,
    /// The form in words.
    pub description: fn() -> String,
    /// The regular expression; empty if every string of the length is right.
    pub pattern: fn() -> String,
    /// Fewest characters.
    pub min: usize,
    /// Most characters.
    pub max: Option<usize>,
}

/// Control characters, in a class of characters.
const CONTROL: &str = r"\x00-\x1f\x7f-\x9f";
/// The characters of a segment of a path.
const SEGMENT: &str = r"A-Za-z0-9._~@:+=-";
/// What a segment may not be: `.` or `..`.
const NO_DOTS: &str = r"(?!\.{1,2}(?:/|$))";
/// A parameter's name.
const PARAMETER_NAME: &str = "[A-Za-z0-9_]{1,64}";

const fn text(
    name: &'static str,
    description: fn() -> String,
    pattern: fn() -> String,
    min: usize,
    max: usize,
) -> Text {
    Text { name, description, pattern, min, max: Some(max) }
}

fn segment() -> String {
    format!("{NO_DOTS}[{SEGMENT}]{{1,{SEGMENT_BYTES_MAX}}}")
}

fn path() -> String {
    let (segment, more) = (segment(), PATH_SEGMENTS_MAX - 1);
    format!("{segment}(?:/{segment}){{0,{more}}}")
}

/// Any string.
pub(super) const STRING: Text = Text {
    name: "string",
    description: || "any string".into(),
    pattern: String::new,
    min: 0,
    max: None,
};

/// A name for people, a description or a purpose.
pub(super) const TEXT: Text = text(
    "text",
    || format!("at most {TEXT_BYTES_MAX} bytes, no control characters"),
    || format!("^[^{CONTROL}]*$"),
    0,
    TEXT_BYTES_MAX,
);

/// A text that is not empty.
pub(super) const WORD: Text = text(
    "word",
    || format!("1 to {TEXT_BYTES_MAX} bytes, no control characters"),
    || format!("^[^{CONTROL}]+$"),
    1,
    TEXT_BYTES_MAX,
);

/// The path of an object.
pub(super) const PATH: Text = text(
    "path",
    || {
        format!(
            "1 to {PATH_SEGMENTS_MAX} segments joined by `/`, at most {PATH_BYTES_MAX} bytes; a segment is 1 to \
             {SEGMENT_BYTES_MAX} of `A-Z a-z 0-9 - . _ ~ @ : + =`, and neither `.` nor `..`"
        )
    },
    || format!("^{}$", path()),
    1,
    PATH_BYTES_MAX,
);

/// The id of a custom role.
pub(super) const ROLE_ID: Text = text(
    "role path",
    || format!("a path of 2 to {PATH_SEGMENTS_MAX} segments"),
    || {
        let (segment, more) = (segment(), PATH_SEGMENTS_MAX - 1);
        format!("^{segment}(?:/{segment}){{1,{more}}}$")
    },
    3,
    PATH_BYTES_MAX,
);

/// The name of a catalog, a built-in role or a route.
pub(super) const NAME: Text = text(
    "name",
    || {
        format!(
            "1 to {NAME_BYTES_MAX} of `A-Z a-z 0-9 _ - . +`, no dot at either end and no two in a row"
        )
    },
    || r"^[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*$".into(),
    1,
    NAME_BYTES_MAX,
);

/// The name of a resource of a catalog, or of a capability.
pub(super) const CAPABILITY: Text = text(
    "capability",
    || {
        format!(
            "1 to {NAME_BYTES_MAX} of `A-Z a-z 0-9 _ - . + / :`, no dot at either end and no two in a row, no `/` and \
             no `:` at either end"
        )
    },
    || r"^(?![/:])(?!.*[/:]$)[A-Za-z0-9_+/:-]+(?:\.[A-Za-z0-9_+/:-]+)*$".into(),
    1,
    NAME_BYTES_MAX,
);

/// An action, or a capability without a dot.
pub(super) const ACTION: Text = text(
    "action",
    || {
        format!(
            "1 to {NAME_BYTES_MAX} of `A-Z a-z 0-9 _ - + / :`, no dot, no `/` and no `:` at either end"
        )
    },
    || r"^(?![/:])(?!.*[/:]$)[A-Za-z0-9_+/:-]+$".into(),
    1,
    NAME_BYTES_MAX,
);

/// A built-in role's name or a custom role's path.
pub(super) const ROLE: Text = text(
    "role",
    || "a built-in role's name, which has no slash, or a custom role's path, which has one".into(),
    || {
        let (segment, more) = (segment(), PATH_SEGMENTS_MAX - 1);
        let name =
            format!(r"(?!.{{{},}})[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*", NAME_BYTES_MAX + 1);
        format!("^(?:{name}|{segment}(?:/{segment}){{1,{more}}})$")
    },
    1,
    PATH_BYTES_MAX,
);

/// A time.
pub(super) const TIME: Text = Text {
    name: "time",
    description: || {
        "a time in RFC 3339, such as `2027-01-01T00:00:00Z`, of the years 1 to 9999".into()
    },
    pattern: || {
        let date = "[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])";
        let minutes = "(?:[01][0-9]|2[0-3]):[0-5][0-9]";
        format!(r"^{date}.{minutes}:(?:[0-5][0-9]|60)(?:\.[0-9]+)?(?:[Zz]|[+-]{minutes})$")
    },
    min: 20,
    max: None,
};

/// The SHA-256 of a secret. The hash of the empty string is refused.
pub(super) const HASH: Text = text(
    "hash",
    || "64 lower-case hexadecimal digits; quote a hash of digits alone".into(),
    || {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        format!("^(?!{empty}$)[0-9a-f]{{64}}$")
    },
    64,
    64,
);

/// The attribute that a condition tests.
pub(super) const ATTRIBUTE: Text = Text {
    name: "attribute",
    description: || {
        format!(
            "`subject.NAME`, `resource.NAME`, `action.NAME` or `context.NAME`; the name is everything after the first dot, \
             1 to {PROPERTY_BYTES_MAX} bytes, no control characters"
        )
    },
    pattern: || {
        format!(r"^(?:subject|resource|action|context)\.[^{CONTROL}]{{1,{PROPERTY_BYTES_MAX}}}$")
    },
    min: 8,
    max: None,
};

/// A property's name.
pub(super) const PROPERTY: Text = text(
    "property name",
    || format!("1 to {PROPERTY_BYTES_MAX} bytes, no control characters, not `<<`"),
    || format!("^(?!<<$)[^{CONTROL}]+$"),
    1,
    PROPERTY_BYTES_MAX,
);

/// The name of a claim that has no key of its own.
pub(super) const CLAIM_NAME: Text = text(
    "claim name",
    || {
        format!(
            "1 to {PROPERTY_BYTES_MAX} bytes, no control characters, not `<<`, `iss`, `sub` or `aud`"
        )
    },
    || format!("^(?!(?:<<|iss|sub|aud)$)[^{CONTROL}]+$"),
    1,
    PROPERTY_BYTES_MAX,
);

/// The text of a claim.
pub(super) const CLAIM: Text = text(
    "claim",
    || format!("1 to {CLAIM_BYTES_MAX} bytes, no control characters"),
    || format!("^[^{CONTROL}]+$"),
    1,
    CLAIM_BYTES_MAX,
);

/// A pattern of claims.
pub(super) const PATTERN: Text = text(
    "pattern",
    || {
        format!(
            "a regular expression in the syntax of the Rust crate `regex`, which begins with `^` and ends with `$`; it \
             matches a text as a whole, has at most {PATTERN_BYTES_MAX} bytes, and is nested at most \
             {PATTERN_NESTING_MAX} deep"
        )
    },
    || format!(r"^\^[^{CONTROL}]*\$$"),
    2,
    PATTERN_BYTES_MAX,
);

/// The SPIFFE ID of a workload.
pub(super) const SPIFFE_ID: Text = text(
    "SPIFFE ID",
    || {
        format!(
            "`spiffe://trust-domain/path`, at most {CLAIM_BYTES_MAX} bytes; the trust domain is of `a-z 0-9 . _ -`, \
             a segment of the path of `A-Z a-z 0-9 . _ -`, and neither `.` nor `..`"
        )
    },
    || {
        format!(
            "^spiffe://[a-z0-9._-]{{1,{TRUST_DOMAIN_BYTES_MAX}}}(?:/{NO_DOTS}[A-Za-z0-9._-]+)+$"
        )
    },
    12,
    CLAIM_BYTES_MAX,
);

/// A DNS name of a certificate.
pub(super) const DNS_NAME: Text = text(
    "DNS name",
    || {
        format!(
            "labels joined by `.`, at most {DNS_NAME_BYTES_MAX} bytes; a label is 1 to {DNS_LABEL_BYTES_MAX} of \
             `a-z 0-9 -` without `-` at either end, and the last one is no number; so no wildcard and no IP address"
        )
    },
    || {
        let inner = DNS_LABEL_BYTES_MAX - 2;
        let label = format!("[a-z0-9](?:[a-z0-9-]{{0,{inner}}}[a-z0-9])?");
        format!(r"^(?!(?:.*\.)?[0-9]+$){label}(?:\.{label})*$")
    },
    1,
    DNS_NAME_BYTES_MAX,
);

/// A host without a port.
pub(super) const HOST: Text = text(
    "host",
    || {
        "1 to 255 bytes in lower case, without a port: a name, an IPv4 address, or an IPv6 address in brackets"
            .into()
    },
    || r"^(?:[a-z0-9._-]+|\[[0-9a-f:.]*\])$".into(),
    1,
    255,
);

/// The template of the paths of requests.
pub(super) const PATH_TEMPLATE: Text = text(
    "path template",
    || {
        format!(
            "begins with `/`; at most {ROUTE_PATH_BYTES_MAX} bytes and {ROUTE_SEGMENTS_MAX} segments; `{{x}}` matches \
             one segment, `{{x...}}` one or more, at most once; other segments are canonical: of \
             `A-Z a-z 0-9 - . _ ~ ! $ & ' ( ) * + , = : @`, neither `.` nor `..`"
        )
    },
    || {
        let canonical = r"[A-Za-z0-9._~!$&'()*+,=:@-]+";
        let segment = format!(r"/{NO_DOTS}(?:\{{{PARAMETER_NAME}(?:\.\.\.)?\}}|{canonical})");
        let (all, most) = (ROUTE_SEGMENTS_MAX, ROUTE_SEGMENTS_MAX - 1);
        format!("^(?:(?:{segment}){{1,{all}}}|(?:{segment}){{0,{most}}}/)$")
    },
    1,
    ROUTE_PATH_BYTES_MAX,
);

/// A gRPC method.
pub(super) const GRPC_METHOD: Text = text(
    "gRPC method",
    || "`package.Service/Method`".into(),
    || r"^[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*/[A-Za-z0-9_]+$".into(),
    3,
    ROUTE_PATH_BYTES_MAX - 1,
);

/// The name of a query parameter.
pub(super) const QUERY_NAME: Text = text(
    "query parameter",
    || "1 to 128 of visible ASCII without `% + & = ; #`".into(),
    || "^(?!.*[%+&=;#])[!-~]+$".into(),
    1,
    128,
);

/// The name of a query parameter that Envoy can remove.
pub(super) const REMOVABLE: Text = text(
    "removable query parameter",
    || "1 to 128 of `A-Z a-z 0-9 - . _ ~`".into(),
    || "^[A-Za-z0-9._~-]+$".into(),
    1,
    128,
);

/// The name of a parameter.
pub(super) const PARAMETER: Text = text(
    "parameter",
    || "1 to 64 of `A-Z a-z 0-9 _`".into(),
    || format!("^{PARAMETER_NAME}$"),
    1,
    64,
);

/// The template of a resource's path.
pub(super) const RESOURCE_TEMPLATE: Text = Text {
    name: "resource template",
    description: || "a path, in which `{x}` as a whole segment is the value of a parameter".into(),
    pattern: || {
        let segment = format!(r"(?:\{{{PARAMETER_NAME}\}}|{})", segment());
        let more = PATH_SEGMENTS_MAX - 1;
        format!("^{segment}(?:/{segment}){{0,{more}}}$")
    },
    min: 1,
    max: None,
};

/// The challenge of a 401.
pub(super) const CHALLENGE: Text = text(
    "challenge",
    || format!("1 to {CHALLENGE_BYTES_MAX} bytes of visible ASCII and blanks"),
    || "^[ -~]+$".into(),
    1,
    CHALLENGE_BYTES_MAX,
);
