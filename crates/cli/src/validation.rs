//! What the `validate` commands share: documents are read, and their mistakes printed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use capstan_policy::{Diagnostic, Diagnostics};
use capstan_server::feed::source::read;
use serde::{Serialize, Serializer};

use super::FAILED;
use super::audit::{count, file};
use super::output::{self, Format};

/// What a valid document has.
#[derive(Default)]
pub(crate) struct Valid {
    pub(crate) warnings: Vec<Diagnostic>,
    pub(crate) declares: Vec<Declared>,
}

/// A field of the report, the same in words, and the number of what the document declares.
type Declared = (&'static str, &'static str, usize);

#[derive(Debug, Serialize)]
struct Report {
    files: Vec<FileReport>,
}

#[derive(Debug, Default, Serialize)]
struct FileReport {
    file: String,
    valid: bool,
    errors: Vec<Finding>,
    /// The number of errors. `errors` has the first 100.
    error_count: usize,
    warnings: Vec<Finding>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "numbers")]
    declares: Option<Vec<Declared>>,
}

#[derive(Debug, Serialize)]
struct Finding {
    line: usize,
    column: usize,
    field: String,
    found: String,
    expected: String,
}

/// Validates each file, prints the results, and says by the exit code whether all are valid.
pub(crate) fn run(
    files: &[PathBuf],
    bytes_max: u64,
    format: Format,
    validate: impl Fn(&[u8]) -> Result<Valid, Diagnostics>,
) -> anyhow::Result<ExitCode> {
    let reports = files.iter().map(|path| match read(&file(path), bytes_max) {
        Ok(document) => FileReport::new(path, validate(&document)),
        Err(error) => FileReport::unreadable(path, &error),
    });
    let report = Report { files: reports.collect() };
    match format {
        Format::Json => output::json(&report)?,
        Format::Table => report.files.iter().try_for_each(FileReport::print)?,
    }
    let valid = report.files.iter().all(|file| file.valid);
    Ok(if valid { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn numbers<S: Serializer>(declares: &Option<Vec<Declared>>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(declares.iter().flatten().map(|(field, _, number)| (field, number)))
}

impl FileReport {
    fn new(path: &Path, validated: Result<Valid, Diagnostics>) -> Self {
        let file = path.display().to_string();
        match validated {
            Ok(Valid { warnings, declares }) => Self {
                file,
                valid: true,
                warnings: warnings.iter().map(Finding::from).collect(),
                declares: Some(declares),
                ..Self::default()
            },
            Err(found) => Self {
                file,
                errors: found.iter().map(Finding::from).collect(),
                error_count: found.total(),
                ..Self::default()
            },
        }
    }

    fn unreadable(path: &Path, error: &anyhow::Error) -> Self {
        let found = format!("nothing: {error:#}");
        let finding = Finding {
            line: 1,
            column: 1,
            field: String::new(),
            found,
            expected: "a document that can be read".into(),
        };
        Self {
            file: path.display().to_string(),
            errors: vec![finding],
            error_count: 1,
            ..Self::default()
        }
    }

    fn print(&self) -> anyhow::Result<()> {
        let file = &self.file;
        for (word, findings) in [("warning", &self.warnings), ("error", &self.errors)] {
            for Finding { line, column, field, found, expected } in findings {
                let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
                let word = output::verdict(false, word);
                output::line(format!(
                    "{file}:{line}:{column}: {word}: {field}found {found}; expected {expected}"
                ))?;
            }
        }
        match &self.declares {
            Some(declares) => {
                let word = output::verdict(true, "valid");
                let counted = declares.iter().map(|(_, words, number)| count(*number, words));
                output::line(format!("{file}: {word}: {}", counted.collect::<Vec<_>>().join(", ")))
            }
            None => {
                let (shown, all) = (self.errors.len(), self.error_count);
                let more =
                    if all > shown { format!(", the first {shown} shown") } else { String::new() };
                let word = output::verdict(false, "not valid");
                output::line(format!("{file}: {word}: {}{more}", count(all, "errors")))
            }
        }
    }
}

impl From<&Diagnostic> for Finding {
    fn from(diagnostic: &Diagnostic) -> Self {
        let Diagnostic { line, column, field, found, expected } = diagnostic.clone();
        Self { line, column, field, found, expected }
    }
}
