//! Writes policy documents, item by item.
//!
//! ```text
//! catalog ─▶ head      facts and details, one by one ─▶ a line each ─▶ YAML or JSON
//! ```
//!
//! **Invariants**: whatever is written is loaded again as the same facts and details. The same facts in the same order
//! give the same bytes. No more than one item is held in memory.

use std::borrow::Cow;
use std::io;

use capstan_engine::{
    AttributeCategory, Catalog, CatalogFacts, Condition, CustomRole, Family, Group, Identity,
    Properties, RegisteredResource, RoleBinding, Timestamp, Value,
};
use capstan_iam::{Authentication, ClaimMatch, ClientCertificate, Match, StaticKeys, anchored};
use serde_json::Value as Json;

use crate::scalar::{Plain, resolve};
use crate::{Catalogs, Details, format_timestamp};

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// YAML: a line for each item, as in the examples of docs/POLICY.md.
    Yaml,
    /// JSON, with a line for each item, too.
    Json,
}

/// The lists of a document, in the order in which they are written: what refers to others comes after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum List {
    Groups,
    Roles,
    Identities,
    Resources,
    RoleBindings,
}

impl List {
    const fn key(self) -> &'static str {
        match self {
            Self::Groups => "groups",
            Self::Roles => "roles",
            Self::Identities => "identities",
            Self::Resources => "resources",
            Self::RoleBindings => "role_bindings",
        }
    }
}

/// Writes a policy document. The items come kind by kind: groups, roles, identities, resources, role bindings.
#[derive(Debug)]
pub struct PolicyWriter<W> {
    out: W,
    style: Style,
    list: Option<List>,
    item: String,
}

impl<W: io::Write> PolicyWriter<W> {
    /// Writes the head of a document. A built-in catalog is written by its name, any other one as a whole, so that the
    /// document loads by itself.
    ///
    /// # Errors
    ///
    /// The output cannot be written.
    pub fn new(mut out: W, style: Style, catalog: &Catalog) -> io::Result<Self> {
        let built_in = Catalogs::default().get(catalog.name());
        let mut text = String::new();
        if built_in.is_some_and(|known| known.facts() == catalog.facts()) {
            write_text(&mut text, style, catalog.name());
        } else {
            write_catalog(&mut text, style, catalog.facts());
        }
        match style {
            Style::Yaml => writeln!(out, "version: 1\ncatalog: {text}")?,
            Style::Json => write!(out, "{{\"version\": 1,\n\"catalog\": {text}")?,
        }
        Ok(Self { out, style, list: None, item: text })
    }

    /// Writes a group.
    ///
    /// # Errors
    ///
    /// As of [`Self::new`], or a list comes after one that is behind it. So in the other methods.
    pub fn group(&mut self, group: &Group, details: &Details) -> io::Result<()> {
        self.item(List::Groups, |item| {
            item.text("id", group.id.as_str());
            item.text_if("name", &group.name);
            item.text_if("description", &details.description);
        })
    }

    /// Writes a custom role.
    ///
    /// # Errors
    ///
    /// As of [`Self::group`].
    pub fn role(&mut self, role: &CustomRole) -> io::Result<()> {
        self.item(List::Roles, |item| {
            item.text("id", role.id.as_str());
            item.text_if("name", &role.name);
            item.text_if("description", &role.description);
            item.texts("capabilities", &role.capabilities);
        })
    }

    /// Writes an identity.
    ///
    /// # Errors
    ///
    /// As of [`Self::group`].
    pub fn identity(&mut self, identity: &Identity, details: &Details) -> io::Result<()> {
        self.item(List::Identities, |item| {
            item.text("id", identity.id.as_str());
            item.text_if("name", &identity.name);
            item.text_if("description", &details.description);
            if identity.kind != "user" {
                item.text("type", &identity.kind);
            }
            item.properties(&identity.properties);
            if identity.disabled {
                item.raw("disabled", "true");
            }
            if let Some(authentication) = &details.authentication {
                item.mapping("authentication", |item| write_authentication(item, authentication));
            }
        })
    }

    /// Writes a registered resource.
    ///
    /// # Errors
    ///
    /// As of [`Self::group`].
    pub fn resource(&mut self, resource: &RegisteredResource, details: &Details) -> io::Result<()> {
        self.item(List::Resources, |item| {
            item.text("id", resource.id.as_str());
            item.text("type", &resource.kind);
            item.text_if("name", &resource.name);
            item.text_if("description", &details.description);
            item.properties(&resource.properties);
        })
    }

    /// Writes a role binding.
    ///
    /// # Errors
    ///
    /// As of [`Self::group`].
    pub fn role_binding(&mut self, binding: &RoleBinding, details: &Details) -> io::Result<()> {
        self.item(List::RoleBindings, |item| {
            if let Some(id) = &binding.id {
                item.text("id", id.as_str());
            }
            item.text("identity", binding.identity.as_str());
            item.text("role", &binding.role);
            item.text("scope", binding.scope.as_str());
            item.text_if("description", &details.description);
            item.time_if("expires_at", binding.expires_at);
            if !binding.when.is_empty() {
                item.list("when", binding.when.iter(), write_condition);
            }
        })
    }

    /// Writes the end of the document. Returns the output, which is not flushed.
    ///
    /// # Errors
    ///
    /// As of [`Self::new`].
    pub fn finish(mut self) -> io::Result<W> {
        match (self.style, self.list) {
            (Style::Yaml, _) => {}
            (Style::Json, None) => writeln!(self.out, "}}")?,
            (Style::Json, Some(_)) => writeln!(self.out, "\n]}}")?,
        }
        Ok(self.out)
    }

    fn item(&mut self, list: List, write: impl FnOnce(&mut Mapping<'_>)) -> io::Result<()> {
        if self.list.is_some_and(|last| list < last) {
            let late = format!("{} come too late in the document", list.key());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, late));
        }
        let is_first = self.list != Some(list);
        let before = match (self.style, self.list) {
            (Style::Yaml, _) if is_first => format!("{}:\n  - ", list.key()),
            (Style::Yaml, _) => "  - ".to_owned(),
            (Style::Json, None) => format!(",\n\"{}\": [\n", list.key()),
            (Style::Json, Some(_)) if is_first => format!("\n],\n\"{}\": [\n", list.key()),
            (Style::Json, Some(_)) => ",\n".to_owned(),
        };
        self.list = Some(list);
        self.item.clear();
        self.item.push_str(&before);
        write_mapping(&mut self.item, self.style, write);
        if self.style == Style::Yaml {
            self.item.push('\n');
        }
        self.out.write_all(self.item.as_bytes())
    }
}

// === Parts of items ===

/// A mapping in one line.
struct Mapping<'o> {
    out: &'o mut String,
    style: Style,
    is_empty: bool,
}

fn write_mapping(out: &mut String, style: Style, write: impl FnOnce(&mut Mapping<'_>)) {
    out.push('{');
    let mut mapping = Mapping { out, style, is_empty: true };
    write(&mut mapping);
    out.push('}');
}

impl Mapping<'_> {
    fn next(&mut self) {
        if !std::mem::take(&mut self.is_empty) {
            self.out.push_str(", ");
        }
    }

    /// A key of the format.
    fn key(&mut self, key: &str) {
        self.next();
        match self.style {
            Style::Yaml => self.out.push_str(key),
            Style::Json => write_quoted(self.out, key),
        }
        self.out.push_str(": ");
    }

    /// A key that is any text, such as the name of a property.
    fn named(&mut self, name: &str) {
        self.next();
        let is_explicit = self.style == Style::Yaml && name.len() > SHORT_KEY_BYTES;
        if is_explicit {
            self.out.push_str("? ");
        }
        write_text(self.out, self.style, name);
        self.out.push_str(if is_explicit { " : " } else { ": " });
    }

    fn raw(&mut self, key: &str, value: &str) {
        self.key(key);
        self.out.push_str(value);
    }

    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        write_text(self.out, self.style, text);
    }

    fn text_if(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.text(key, text);
        }
    }

    /// Loaded times are in the years 1 to 9999, which can be written.
    fn time_if(&mut self, key: &str, time: Option<Timestamp>) {
        if let Some(text) = time.and_then(format_timestamp) {
            self.key(key);
            match self.style {
                Style::Yaml => self.out.push_str(&text),
                Style::Json => write_quoted(self.out, &text),
            }
        }
    }

    fn texts(&mut self, key: &str, texts: &[String]) {
        self.list(key, texts.iter(), |out, style, text| write_text(out, style, text));
    }

    fn list<T>(
        &mut self,
        key: &str,
        items: impl Iterator<Item = T>,
        write: impl Fn(&mut String, Style, T),
    ) {
        self.key(key);
        write_list(self.out, self.style, items, write);
    }

    fn mapping(&mut self, key: &str, write: impl FnOnce(&mut Mapping<'_>)) {
        self.key(key);
        write_mapping(self.out, self.style, write);
    }

    fn properties(&mut self, properties: &Properties) {
        if properties.is_empty() {
            return;
        }
        self.mapping("properties", |item| {
            for (name, value) in properties {
                item.named(name);
                write_value(item.out, item.style, value);
            }
        });
    }
}

fn write_list<T>(
    out: &mut String,
    style: Style,
    items: impl Iterator<Item = T>,
    write: impl Fn(&mut String, Style, T),
) {
    out.push('[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        write(out, style, item);
    }
    out.push(']');
}

fn write_condition(out: &mut String, style: Style, condition: &Condition) {
    let category = match condition.category {
        AttributeCategory::Subject => "subject",
        AttributeCategory::Resource => "resource",
        AttributeCategory::Action => "action",
        AttributeCategory::Context => "context",
    };
    write_mapping(out, style, |item| {
        item.text("attribute", &format!("{category}.{}", condition.name));
        item.key(if condition.equals { "equals" } else { "not_equals" });
        write_value(item.out, style, &condition.value);
    });
}

fn write_value(out: &mut String, style: Style, value: &Value) {
    match value {
        Value::String(text) => write_text(out, style, text),
        Value::Boolean(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Integer(value) => out.push_str(&value.to_string()),
    }
}

fn write_authentication(item: &mut Mapping<'_>, authentication: &Authentication) {
    match authentication {
        Authentication::ClaimMatch(claims) => {
            item.mapping("claim_match", |item| write_claims(item, claims));
        }
        Authentication::StaticKeys(keys) => {
            item.mapping("static_keys", |item| write_keys(item, keys));
        }
        Authentication::ClientCertificate(certificate) => {
            item.mapping("client_certificate", |item| match certificate {
                ClientCertificate::SpiffeId(id) => item.text("spiffe_id", id),
                ClientCertificate::DnsName(name) => item.text("dns_name", name),
            });
        }
    }
}

fn write_claims(item: &mut Mapping<'_>, claims: &ClaimMatch) {
    let all = [
        ("issuer", "issuer_pattern", Some(&claims.issuer)),
        ("subject", "subject_pattern", Some(&claims.subject)),
        ("audience", "audience_pattern", claims.audience.as_ref()),
    ];
    for (exactly, pattern, matcher) in all {
        match matcher {
            Some(Match::Exact(text)) => item.text(exactly, text),
            Some(Match::Pattern(text)) => item.text(pattern, &anchored(text)),
            None => {}
        }
    }
    let texts = claims.claims.iter().map(|(name, text)| (name, Cow::from(text))).collect();
    let patterns = claims.claim_patterns.iter();
    let patterns = patterns.map(|(name, pattern)| (name, anchored(pattern))).collect();
    let named: [(_, Vec<(_, Cow<'_, str>)>); 2] = [("claims", texts), ("claim_patterns", patterns)];
    for (key, named) in named.into_iter().filter(|(_, named)| !named.is_empty()) {
        item.mapping(key, |item| {
            for (name, text) in named {
                item.named(name);
                write_text(item.out, item.style, &text);
            }
        });
    }
}

fn write_keys(item: &mut Mapping<'_>, keys: &StaticKeys) {
    item.text("issuer", &keys.issuer);
    item.text("subject", &keys.subject);
    item.text_if("audience", keys.audience.as_deref().unwrap_or_default());
    item.time_if("expires_at", keys.expires_at);
    let set: Json = serde_json::from_str(&keys.jwks).unwrap_or_default();
    let set = set.get("keys").and_then(Json::as_array).into_iter().flatten();
    item.mapping("jwks", |item| {
        item.list("keys", set.filter_map(Json::as_object), |out, style, key| {
            write_mapping(out, style, |item| {
                for (name, value) in key {
                    write_member(item, name, value);
                }
            });
        });
    });
}

/// A member of a key: a string, a boolean or a list of strings. No key has another.
fn write_member(item: &mut Mapping<'_>, name: &str, value: &Json) {
    match value {
        Json::String(text) => {
            item.named(name);
            write_text(item.out, item.style, text);
        }
        Json::Bool(value) => {
            item.named(name);
            item.out.push_str(if *value { "true" } else { "false" });
        }
        Json::Array(all) if all.iter().all(Json::is_string) => {
            item.named(name);
            let texts = all.iter().filter_map(Json::as_str);
            write_list(item.out, item.style, texts, write_text);
        }
        Json::Null | Json::Number(_) | Json::Array(_) | Json::Object(_) => {}
    }
}

fn write_catalog(out: &mut String, style: Style, facts: &CatalogFacts) {
    write_mapping(out, style, |item| {
        item.text("name", &facts.name);
        item.list("resources", facts.resources.iter(), |out, style, resource| {
            write_mapping(out, style, |item| {
                item.text("name", &resource.name);
                item.text_if("purpose", &resource.purpose);
                item.texts("actions", &resource.actions);
            });
        });
        item.texts("capabilities", &facts.capabilities);
        item.list("roles", facts.roles.iter(), |out, style, role| {
            write_mapping(out, style, |item| {
                item.text("name", &role.name);
                item.text("family", Family::as_str(role.family));
                item.text_if("description", &role.description);
                if role.owner {
                    item.raw("owner", "true");
                }
                item.texts("capabilities", &role.capabilities);
            });
        });
    });
}

// === Texts ===

/// Bytes of a key that need not be explicit: YAML reads longer ones only behind a `?`.
const SHORT_KEY_BYTES: usize = 100;

fn write_text(out: &mut String, style: Style, text: &str) {
    if style == Style::Yaml && is_plain(text) {
        out.push_str(text);
    } else {
        write_quoted(out, text);
    }
}

/// Whether YAML reads the text as a string without quotes, also inside of brackets.
fn is_plain(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || " -._/@+=~".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !text.ends_with(' ')
        && text.chars().all(is_inner)
        && resolve(text) == Plain::String
}

/// In double quotes, which YAML and JSON read in the same way.
fn write_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            _ if is_printable(c) => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push('"');
}

/// Whether YAML takes the character as it is (YAML 1.2.2, section 5.1), and people see it.
const fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}')
        || (c > '\u{ffff}' && c as u32 & 0xfffe != 0xfffe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_plain_only_if_it_is_read_so() {
        for plain in ["acme", "acme/ci", "CI bot", "a@b.example", "chainguard-2025-08-14+errata"] {
            assert!(is_plain(plain), "{plain}");
        }
        for quoted in
            ["", "true", "12", "1e3", "0x1f", "null", "-", "~", " a", "a ", "a: b", "a#", "[a", "é"]
        {
            assert!(!is_plain(quoted), "{quoted:?}");
        }
    }

    #[test]
    fn a_list_that_comes_too_late_is_refused() {
        let catalog = Catalogs::default().get("chainguard-2025-08-14").unwrap();
        let mut writer = PolicyWriter::new(vec![], Style::Yaml, &catalog).unwrap();
        let identity = Identity::named("a".parse().unwrap());
        let group = Group { id: "b".parse().unwrap(), name: String::new() };
        writer.identity(&identity, &Details::default()).unwrap();
        assert!(writer.group(&group, &Details::default()).is_err());
        assert!(writer.identity(&identity, &Details::default()).is_ok());
    }
}
