//! Names for ids: what a command line calls an object.

use anyhow::bail;
use capstan_engine::{PathBuf, quote};
use capstan_proto::iam::v1::{Group, Resource};

use super::connection::{Connection, next_page};
use super::kind::{Kind, Query};
use super::refusal::Refusal;
use crate::limits::CANDIDATES_SHOWN_MAX;

/// The id of the object that a text names.
///
/// A path with a slash is an id, and so is what a server generates for a root. Any other text is an id if there is an
/// object with it, else the display name of one object. A text that names nothing and could be an id stays as it is: the
/// caller may not see what it refers to, and the server judges it.
///
/// # Errors
///
/// Several objects have the name, or none has it and it cannot be an id.
pub(crate) async fn resolve<K: Kind>(server: &Connection, text: &str) -> anyhow::Result<String> {
    match resolve_seen::<K>(server, text).await? {
        Some(id) => Ok(id),
        None if is_path(text) => Ok(text.to_owned()),
        None => Err(Refusal::no_name(K::WORD, text).into()),
    }
}

/// As [`resolve`]; `None` if there is nothing with this id or name that the caller may see.
async fn resolve_seen<K: Kind>(server: &Connection, text: &str) -> anyhow::Result<Option<String>> {
    if is_certainly_id(text) {
        return Ok(Some(text.to_owned()));
    }
    if is_path(text) && exists(K::get(server, text, None).await)? {
        return Ok(Some(text.to_owned()));
    }
    by_name::<K>(server, text).await
}

/// The path of the group or resource that a text names.
///
/// # Errors
///
/// As of [`resolve`].
pub(crate) async fn resolve_scope(server: &Connection, text: &str) -> anyhow::Result<String> {
    match resolve_seen::<Group>(server, text).await? {
        Some(id) => Ok(id),
        None => resolve::<Resource>(server, text).await,
    }
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
pub(crate) async fn by_name<K: Kind>(
    server: &Connection,
    name: &str,
) -> anyhow::Result<Option<String>> {
    let query = Query { filter: term("name", name), ..Query::default() };
    // One more than is shown, to know that there are more.
    let most = i32::try_from(CANDIDATES_SHOWN_MAX + 1)?;
    let (mut ids, mut token) = (Vec::new(), String::new());
    loop {
        let page = K::page(server, &query, most, &token).await?;
        // A server that does not know the filter sends other objects, too.
        let named = page.objects.iter().filter(|object| object.name() == name);
        ids.extend(named.map(|object| object.id().to_owned()));
        if ids.len() > CANDIDATES_SHOWN_MAX || !next_page(&mut token, page.next)? {
            break;
        }
    }
    match ids.as_slice() {
        [] => Ok(None),
        [id] => Ok(Some(id.clone())),
        several => {
            let shown = several.iter().take(CANDIDATES_SHOWN_MAX).cloned();
            let shown = shown.collect::<Vec<_>>().join(", ");
            let more = if several.len() > CANDIDATES_SHOWN_MAX { ", and others" } else { "" };
            bail!(
                "several {} have the name {}: {shown}{more}; give the id",
                K::LIST.replace('_', " "),
                quote(name)
            )
        }
    }
}

/// A term of a filter: `field = "value"`.
pub(crate) fn term(field: &str, value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('"', "\\\"");
    format!("{field} = \"{value}\"")
}

/// Whether an object is there: found, or refused to this caller.
fn exists<T>(answer: anyhow::Result<T>) -> anyhow::Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(error) => match error.downcast_ref::<Refusal>() {
            Some(refusal) if refusal.is_not_found() => Ok(false),
            Some(refusal) if refusal.is_refused() => Ok(true),
            _ => Err(error),
        },
    }
}

fn is_path(text: &str) -> bool {
    text.parse::<PathBuf>().is_ok()
}

/// Whether a text has a slash or is a generated root segment (contract, section 2).
fn is_certainly_id(text: &str) -> bool {
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
/// As of [`place`] and [`resolve`].
pub(crate) async fn place_in(
    server: &Connection,
    id: Option<&str>,
    parent: Option<&str>,
) -> anyhow::Result<(String, String)> {
    match parent {
        Some(parent) => place(id, Some(&resolve::<Group>(server, parent).await?)),
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
        assert!(is_path("acme") && !is_path("CI bot") && !is_path(""));
    }
}
