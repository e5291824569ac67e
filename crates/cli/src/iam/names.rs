//! Names for ids: what a command line calls an object.

use anyhow::bail;
use capstan_engine::{PathBuf, quote};
use capstan_proto::iam::v1::{Group, Resource};

use super::connection::{Connection, Write, next_page};
use super::kind::{Kind, Listed, Query};
use super::refusal::Refusal;
use crate::limits::CANDIDATES_SHOWN_MAX;

/// What a scope is, in messages.
const SCOPE: &str = "group or resource";
/// What marks a text as a display name that could be a path, too.
const NAME_PREFIX: &str = "name:";

/// The id of the object that a write is about, or that it gives something to.
///
/// **Invariant**: what could be a path is an id, whatever has it as its display name: a name is free for anybody to take,
/// and must not decide who gets a role or what is deleted. A name is what cannot be a path, such as a text with a blank,
/// or what follows `name:`.
///
/// # Errors
///
/// No object, or several, with the name.
pub(crate) async fn id_of<K: Listed>(server: &Connection, text: &str) -> anyhow::Result<String> {
    let Some(name) = only_name(text) else { return Ok(text.to_owned()) };
    by_name::<K>(server, name).await?.ok_or_else(|| Refusal::no_name(K::WORD, name).into())
}

/// As [`id_of`], of a group or a registered resource.
///
/// # Errors
///
/// As of [`id_of`].
async fn id_of_scope(server: &Connection, text: &str) -> anyhow::Result<String> {
    let Some(name) = only_name(text) else { return Ok(text.to_owned()) };
    scope_by_name(server, name).await?.ok_or_else(|| Refusal::no_name(SCOPE, name).into())
}

/// As [`id_of`], for a write that may be repeated: later the name may be that of nothing, or of another object.
///
/// # Errors
///
/// As of [`id_of`]; a name and `--request-id`.
pub(crate) async fn id_to_write<K: Listed>(
    server: &Connection,
    text: &str,
    write: &mut Write,
) -> anyhow::Result<String> {
    repeatable(text, write, async || id_of::<K>(server, text).await).await
}

/// As [`id_to_write`], of a group or a registered resource.
///
/// # Errors
///
/// As of [`id_to_write`].
pub(crate) async fn scope_to_write(
    server: &Connection,
    text: &str,
    write: &mut Write,
) -> anyhow::Result<String> {
    repeatable(text, write, async || id_of_scope(server, text).await).await
}

async fn repeatable(
    text: &str,
    write: &mut Write,
    id: impl AsyncFnOnce() -> anyhow::Result<String>,
) -> anyhow::Result<String> {
    if only_name(text).is_none() {
        return Ok(text.to_owned());
    }
    write.ensure_first(&format!("the name {}", quote(text)), "the id")?;
    let id = id().await?;
    write.repeat_with(format!("the id {id} instead of {}", quote(text)));
    Ok(id)
}

/// The id of the object that a read is about: of the object with this id, else of the only one with this display name. A
/// text that names nothing and could be an id stays as it is: the caller may not see what it refers to, and the server
/// judges it.
///
/// # Errors
///
/// Several objects have the name, or none has it and it cannot be an id.
pub(crate) async fn resolve<K: Kind>(server: &Connection, text: &str) -> anyhow::Result<String> {
    if only_name(text).is_some() || is_certainly_id(text) || is_seen::<K>(server, text).await? {
        return id_of::<K>(server, text).await;
    }
    Ok(by_name::<K>(server, text).await?.unwrap_or_else(|| text.to_owned()))
}

/// As [`resolve`], of a group or a registered resource. The id of either wins over a name.
///
/// # Errors
///
/// As of [`resolve`].
pub(crate) async fn resolve_scope(server: &Connection, text: &str) -> anyhow::Result<String> {
    if only_name(text).is_some()
        || is_certainly_id(text)
        || is_seen::<Group>(server, text).await?
        || is_seen::<Resource>(server, text).await?
    {
        return id_of_scope(server, text).await;
    }
    Ok(scope_by_name(server, text).await?.unwrap_or_else(|| text.to_owned()))
}

/// The path of the group that a text names; empty for none.
///
/// # Errors
///
/// As of [`resolve`].
pub(crate) async fn group_or_all(
    server: &Connection,
    group: Option<&str>,
) -> anyhow::Result<String> {
    match group {
        Some(group) => resolve::<Group>(server, group).await,
        None => Ok(String::new()),
    }
}

/// The id of the only object with a display name.
///
/// # Errors
///
/// Several objects have it.
pub(crate) async fn by_name<K: Listed>(
    server: &Connection,
    name: &str,
) -> anyhow::Result<Option<String>> {
    only(with_name::<K>(server, name).await?, K::LIST, name)
}

/// The id of the only group or resource with a display name.
async fn scope_by_name(server: &Connection, name: &str) -> anyhow::Result<Option<String>> {
    let mut ids = with_name::<Group>(server, name).await?;
    ids.extend(with_name::<Resource>(server, name).await?);
    only(ids, "groups or resources", name)
}

/// The ids of the objects with a display name: at least one more than is shown, if there are so many.
async fn with_name<K: Listed>(server: &Connection, name: &str) -> anyhow::Result<Vec<String>> {
    let query = Query { filter: term("name", name), ..Query::default() };
    let most = i32::try_from(CANDIDATES_SHOWN_MAX + 1)?;
    let (mut ids, mut token) = (Vec::new(), String::new());
    loop {
        let page = K::page(server, &query, most, &token).await?;
        // A server that does not know the filter sends other objects, too.
        let named = page.objects.iter().filter(|object| object.name() == name);
        ids.extend(named.map(|object| object.id().to_owned()));
        if ids.len() > CANDIDATES_SHOWN_MAX || !next_page(&mut token, page.next)? {
            return Ok(ids);
        }
    }
}

/// # Errors
///
/// There are several ids.
fn only(mut ids: Vec<String>, kinds: &str, name: &str) -> anyhow::Result<Option<String>> {
    if ids.len() < 2 {
        return Ok(ids.pop());
    }
    let more = if ids.len() > CANDIDATES_SHOWN_MAX { ", and others" } else { "" };
    ids.truncate(CANDIDATES_SHOWN_MAX);
    bail!(
        "several {} have the name {}: {}{more}; give the id",
        kinds.replace('_', " "),
        quote(name),
        ids.join(", ")
    )
}

/// A term of a filter: `field = "value"`.
pub(crate) fn term(field: &str, value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('"', "\\\"");
    format!("{field} = \"{value}\"")
}

/// Whether there is an object with this id: found, or refused to this caller.
async fn is_seen<K: Kind>(server: &Connection, id: &str) -> anyhow::Result<bool> {
    match K::get(server, id, None).await {
        Ok(_) => Ok(true),
        Err(error) => match error.downcast_ref::<Refusal>() {
            Some(refusal) if refusal.is_not_found() => Ok(false),
            Some(refusal) if refusal.is_refused() => Ok(true),
            _ => Err(error),
        },
    }
}

/// The display name that a text can only be: what follows the prefix, or what is no path. A text with a slash is a path,
/// perhaps a malformed one.
pub(crate) fn only_name(text: &str) -> Option<&str> {
    let is_path = || text.contains('/') || text.parse::<PathBuf>().is_ok();
    text.strip_prefix(NAME_PREFIX).or_else(|| (!is_path()).then_some(text))
}

/// Whether a text has a slash or is a generated root segment (contract, section 2).
pub(crate) fn is_certainly_id(text: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.contains('/') || (text.len() == 40 && text.bytes().all(is_hex))
}

/// Where a new object is: its parent and its id, either of which may be empty for the server to say.
///
/// `ID` is a whole path, or a segment below `--parent`.
///
/// # Errors
///
/// A whole path that is not directly below the given parent.
pub(crate) fn place(id: Option<&str>, parent: Option<&str>) -> anyhow::Result<(String, String)> {
    match (id, parent) {
        (None, parent) => Ok((parent.unwrap_or_default().to_owned(), String::new())),
        (Some(id), None) => {
            let parent = id.rsplit_once('/').map_or("", |(parent, _)| parent);
            Ok((parent.to_owned(), id.to_owned()))
        }
        (Some(id), Some(parent)) => match id.rsplit_once('/') {
            None => Ok((parent.to_owned(), format!("{parent}/{id}"))),
            Some((above, _)) if above == parent => Ok((parent.to_owned(), id.to_owned())),
            Some(_) => bail!(
                "{} is not directly below --parent {}: give its last segment alone, or leave out --parent",
                quote(id),
                quote(parent)
            ),
        },
    }
}

/// As [`place`]; the parent may be a name.
///
/// # Errors
///
/// As of [`place`] and [`id_to_write`].
pub(crate) async fn place_in(
    server: &Connection,
    id: Option<&str>,
    parent: Option<&str>,
    write: &mut Write,
) -> anyhow::Result<(String, String)> {
    match parent {
        Some(parent) => place(id, Some(&id_to_write::<Group>(server, parent, write).await?)),
        None => place(id, None),
    }
}

/// The lowest path that all these paths are at or below; `None` for paths of several roots.
pub(crate) fn common_ancestor<'p>(paths: impl IntoIterator<Item = &'p str>) -> Option<String> {
    let mut paths = paths.into_iter();
    let mut common: Vec<&str> = paths.next()?.split('/').collect();
    for path in paths {
        let same = common.iter().zip(path.split('/')).take_while(|(a, b)| **a == *b).count();
        common.truncate(same);
    }
    (!common.is_empty()).then(|| common.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_object_is_placed_by_a_path_or_by_a_segment_and_its_parent() {
        let at = |id, parent| place(id, parent).unwrap();
        let is = |parent: &str, id: &str| (parent.to_owned(), id.to_owned());
        assert_eq!(at(Some("acme/web"), None), is("acme", "acme/web"));
        assert_eq!(at(Some("web"), Some("acme")), is("acme", "acme/web"));
        assert_eq!(at(Some("acme/web"), Some("acme")), is("acme", "acme/web"));
        assert_eq!(at(None, Some("acme")), is("acme", ""));
        assert_eq!(at(Some("alice"), None), is("", "alice"));
        assert_eq!(at(None, None), is("", ""));
        let error = place(Some("acme/web"), Some("other")).unwrap_err().to_string();
        assert!(error.contains("not directly below --parent `other`"), "{error}");
        assert!(place(Some("acme/a/b"), Some("acme")).is_err());
    }

    #[test]
    fn paths_have_a_lowest_common_ancestor() {
        let of = |paths: &[&str]| common_ancestor(paths.iter().copied());
        assert_eq!(of(&["acme/a/b", "acme/a/c", "acme/a"]).as_deref(), Some("acme/a"));
        assert_eq!(of(&["acme/ab", "acme/a"]).as_deref(), Some("acme"));
        assert_eq!(of(&["acme"]).as_deref(), Some("acme"));
        assert_eq!(of(&["acme", "other"]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_term_of_a_filter_is_quoted() {
        assert_eq!(term("name", r#"a "b" \c"#), r#"name = "a \"b\" \\c""#);
    }

    #[test]
    fn slashes_and_generated_roots_are_ids() {
        assert!(is_certainly_id("acme/ci"));
        assert!(is_certainly_id(&"0f".repeat(20)));
        assert!(!is_certainly_id(&"0F".repeat(20)));
        assert!(!is_certainly_id("acme"));
    }

    #[test]
    fn a_text_is_a_name_if_it_says_so_or_cannot_be_a_path() {
        for path in ["acme", "Alice", "acme/ci", "acme//ci", "acme/C I", "a:b"] {
            assert_eq!(only_name(path), None, "{path}");
        }
        let names = [("CI bot", "CI bot"), ("name:acme", "acme"), ("name:a/b", "a/b"), ("", "")];
        for (text, name) in names {
            assert_eq!(only_name(text), Some(name), "{text}");
        }
    }
}
