//! Sorting of many texts that share long prefixes, as the paths of one organization do.

/// Runs of at most this many texts are compared directly.
const RUN_MIN: usize = 24;
/// Bytes that are compared as one number.
const KEY_BYTES: usize = size_of::<u64>();

/// The positions of the texts, in the order of the texts. Linear if they are sorted already.
///
/// Sorts by eight bytes at a time, and then each run of equal keys by the bytes behind their common prefix:
/// each text is read a few times and in order, instead of twice for each of n log n comparisons.
pub(crate) fn order_of(texts: &[&str]) -> Vec<u32> {
    let mut run: Vec<(u64, u32)> = (0u32..).take(texts.len()).map(|at| (0, at)).collect();
    if !texts.is_sorted() {
        sort_run(texts, &mut run, 0);
    }
    run.into_iter().map(|(_, at)| at).collect()
}

fn rest<'t>(texts: &[&'t str], at: u32, depth: usize) -> &'t [u8] {
    texts.get(at as usize).and_then(|text| text.as_bytes().get(depth..)).unwrap_or_default()
}

/// Sorts texts that are equal up to `depth`.
fn sort_run(texts: &[&str], run: &mut [(u64, u32)], depth: usize) {
    if run.len() <= RUN_MIN {
        run.sort_unstable_by(|(_, a), (_, b)| rest(texts, *a, depth).cmp(rest(texts, *b, depth)));
        return;
    }
    let depth = depth + common_prefix(texts, run, depth);
    for (key, at) in run.iter_mut() {
        *key = key_of(rest(texts, *at, depth));
    }
    run.sort_unstable();
    for run in run.chunk_by_mut(|(a, _), (b, _)| a == b) {
        let ends = run.first().is_none_or(|(key, _)| key & 0xff == 0);
        if run.len() > 1 && !ends {
            sort_run(texts, run, depth + KEY_BYTES);
        }
    }
}

/// The first eight bytes. Behind a text that ends before, zeros: no path has a zero byte, so it comes first.
fn key_of(text: &[u8]) -> u64 {
    if let Some(bytes) = text.first_chunk() {
        return u64::from_be_bytes(*bytes);
    }
    let mut bytes = [0; KEY_BYTES];
    bytes.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
    u64::from_be_bytes(bytes)
}

/// How many bytes from `depth` on all texts of a run have in common.
fn common_prefix(texts: &[&str], run: &[(u64, u32)], depth: usize) -> usize {
    let Some((_, first)) = run.first() else { return 0 };
    let first = rest(texts, *first, depth);
    let mut common = first.len();
    for (_, at) in run {
        let (first, other) = (first.get(..common).unwrap_or(first), rest(texts, *at, depth));
        if !other.starts_with(first) {
            common = first.iter().zip(other).take_while(|(a, b)| a == b).count();
        }
        if common == 0 {
            break;
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorts(texts: &[String]) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut expected = texts.clone();
        expected.sort_unstable();
        let found = order_of(&texts).into_iter().map(|at| texts[at as usize]);
        assert!(found.eq(expected), "{texts:?}");
    }

    #[test]
    fn texts_are_sorted_as_the_standard_library_does() {
        sorts(&[]);
        sorts(&["one".into()]);
        let mut state = 7u64;
        let mut draw = |below: u8| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
            state.to_be_bytes()[1] % below
        };
        for count in [2, 25, 30, 1_000] {
            for alphabet in [1, 2, 26] {
                let mut texts: Vec<String> = (0..count)
                    .map(|_| {
                        let shared = "acme/a-long-name/".repeat(usize::from(draw(4)));
                        let own = (0..draw(30)).map(|_| char::from(b'a' + draw(alphabet)));
                        shared + &own.collect::<String>()
                    })
                    .collect();
                sorts(&texts);
                texts.sort_unstable();
                sorts(&texts);
                texts.reverse();
                sorts(&texts);
            }
        }
    }
}
