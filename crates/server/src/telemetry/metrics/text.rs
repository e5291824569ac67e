//! The text of `/metrics`: Prometheus's format 0.0.4, or OpenMetrics 1.0 for a scraper that asks for it.
//!
//! The formats differ in three points. In 0.0.4 the description of a counter names the series, with
//! `_total`; there are no units and no infos; and there is no end mark.

use std::fmt::{self, Write as _};

/// A format of `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The text format 0.0.4, which every scraper reads.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The content type of a text in this format.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The format for a request with this `Accept` header. OpenMetrics only if it is named, and is not
    /// wanted less than plain text.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let (mut open, mut text) = (0.0, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let (mut quality, mut version) = (1.0, "1.0.0");
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                let value = value.trim().trim_matches('"');
                match name.trim() {
                    name if name.eq_ignore_ascii_case("q") => {
                        quality = value.parse().unwrap_or(0.0)
                    }
                    name if name.eq_ignore_ascii_case("version") => version = value,
                    _ => {}
                }
            }
            if media.eq_ignore_ascii_case("application/openmetrics-text") && version == "1.0.0" {
                open = f64::max(open, quality);
            } else if media.eq_ignore_ascii_case("text/plain") {
                text = f64::max(text, quality);
            }
        }
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }
}

/// The same metrics in the text format 0.0.4.
///
/// # Errors
///
/// Writing to a string fails, which does not happen.
pub(super) fn from_open_metrics(open: &str) -> Result<String, fmt::Error> {
    let mut text = String::with_capacity(open.len());
    // HELP comes before TYPE, which says what the name becomes.
    let mut help = None;
    for line in open.lines() {
        let described = line.strip_prefix("# ").map(|rest| rest.splitn(3, ' ').collect::<Vec<_>>());
        match described.as_deref() {
            None => writeln!(text, "{line}")?,
            Some(["HELP", name, words]) => help = Some((*name, *words)),
            Some(["TYPE", name, kind]) => {
                let (suffix, kind) = match *kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    kind => ("", kind),
                };
                if let Some((_, words)) = help.take().filter(|(of, _)| of == name) {
                    // Quotes are escaped in OpenMetrics only.
                    writeln!(text, "# HELP {name}{suffix} {}", words.replace("\\\"", "\""))?;
                }
                writeln!(text, "# TYPE {name}{suffix} {kind}")?;
            }
            // UNIT and EOF.
            Some(_) => {}
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_has_to_be_asked_for() {
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for accept in [
            prometheus_3,
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8",
            "text/plain, application/openmetrics-text",
            "text/plain;q=0.5 , application/openmetrics-text ; q=0.5",
        ] {
            assert_eq!(Format::accepted(accept), Format::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/*;q=0.1, */*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "text/plain;version=0.0.4;q=1,*/*;q=0.1",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=nonsense",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0.4, text/plain;q=0.5",
            ",;=,;q=",
        ] {
            assert_eq!(Format::accepted(accept), Format::Text, "{accept}");
        }
    }

    #[test]
    fn descriptions_change_and_series_do_not() {
        let open = "# HELP a Calls \\\"a\\\".\n# TYPE a counter\na_total{x=\"# TYPE\"} 1\n\
                    # HELP b_seconds Time.\n# TYPE b_seconds gauge\n# UNIT b_seconds seconds\nb_seconds 2.5\n\
                    # HELP c What.\n# TYPE c info\nc_info{v=\"1\"} 1\n# TYPE d histogram\nd_bucket{le=\"+Inf\"} 0\n\
                    # EOF\n";
        let text = "# HELP a_total Calls \"a\".\n# TYPE a_total counter\na_total{x=\"# TYPE\"} 1\n\
                    # HELP b_seconds Time.\n# TYPE b_seconds gauge\nb_seconds 2.5\n\
                    # HELP c_info What.\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n# TYPE d histogram\n\
                    d_bucket{le=\"+Inf\"} 0\n";
        assert_eq!(from_open_metrics(open).unwrap(), text);
    }
}
