//! `capstan config`: checks a configuration file, and writes one to begin with.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction};
use serde::Serialize;

use super::lint::{Finding, findings};
use super::{Setting, kind, options, read, serve};
use crate::DENIED;
use crate::output::{self, Format, Style};

const EXAMPLES: &str = "\
Examples:
  capstan config check capstan.toml
  capstan config check capstan.toml --output json
  capstan config template > capstan.toml        every option, with what it means
  capstan serve --config capstan.toml

The keys of a file are the names of the options of `capstan serve`. What counts, first to last: options, environment variables \
(CAPSTAN_SERVE_LISTEN for --listen; several values with spaces between them), the file.

`check` reads the file and the callers that it names as `serve` does, and looks for settings that are dangerous. Exit codes: 0 nothing was found, 1 something \
is dangerous, 2 the file cannot be used.";

/// The configuration file of a server
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConfigCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Reads a file as `serve` does, and finds what is dangerous in it
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },

    /// Prints a file with every option, its meaning and its default
    Template,
}

#[derive(Debug, Serialize)]
struct Checked {
    findings: Vec<Finding>,
}

impl ConfigCommand {
    pub(crate) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Check { file } => check(&file, format),
            Command::Template => {
                output::line(template())?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn check(file: &Path, format: Format) -> anyhow::Result<ExitCode> {
    let settings = read(file, &serve())?;
    together(file, &settings)?;
    for setting in settings.iter().filter(|setting| setting.key == "callers") {
        for path in &setting.values {
            capstan_server::askers::load(Path::new(path))?;
        }
    }
    let findings = findings(&settings);
    let code = if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DENIED) };
    match format {
        Format::Json => output::json(&Checked { findings })?,
        Format::Table if findings.is_empty() => {
            output::line(format!(
                "{}: {} options, nothing dangerous",
                file.display(),
                settings.len()
            ))?;
        }
        Format::Table => {
            for Finding { rule, line, column, problem, advice } in findings {
                let rule = output::styled(Style::Red, rule);
                let place = format!("{}:{line}:{column}", file.display());
                output::line(format!("{place}: {rule}: {problem}; {advice}"))?;
            }
        }
    }
    Ok(code)
}

/// What only all options together show: two that exclude each other, or one that needs another.
fn together(file: &Path, settings: &[Setting]) -> anyhow::Result<()> {
    let words = settings.iter().flat_map(Setting::arguments);
    let Err(error) = serve().try_get_matches_from(words) else { return Ok(()) };
    let text = error.to_string();
    let said = text.lines().take_while(|line| !line.starts_with("Usage")).collect::<Vec<_>>();
    let said = said.join(" ");
    anyhow::bail!("{}: {}", file.display(), said.trim_start_matches("error: ").trim())
}

/// Every option as a comment, with what it means.
fn template() -> String {
    let serve = serve();
    let mut text = String::from(
        "# capstan serve --config FILE. Each key is an option of `capstan serve`; options and CAPSTAN_SERVE_... go before it.\n",
    );
    let mut heading = None;
    for option in options(&serve) {
        let next = option.get_help_heading().map(str::to_owned);
        if next != heading {
            if let Some(next) = &next {
                text += &format!("\n# === {next} ===\n");
            }
            heading = next;
        }
        let help = option.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.replace('\n', " ");
        text += &format!(
            "\n# {help}\n#{} = {}\n",
            option.get_long().unwrap_or_default(),
            example(option)
        );
    }
    text.trim_end().to_owned()
}

/// A value of the right kind: the default if there is one.
fn example(option: &Arg) -> String {
    let (is_flag, several) = kind(option);
    if is_flag {
        return "false".into();
    }
    let defaults: Vec<_> =
        option.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let name = || option.get_value_names().unwrap_or_default().join(" ");
    let values = match defaults.first() {
        Some(default) if default.parse::<f64>().is_ok() => return default.to_string(),
        Some(default) => format!("{default:?}"),
        None => format!("{:?}", name()),
    };
    debug_assert!(matches!(option.get_action(), ArgAction::Set | ArgAction::Append));
    if several { format!("[{values}]") } else { values }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The template is a file with nothing in it, and each of its lines is a key that `serve` knows.
    #[test]
    fn the_template_has_every_option() {
        let text = template();
        let (settings, problems) = super::super::parse(&text, &serve());
        assert_eq!((settings, problems), (vec![], vec![]));
        let keys: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix('#')?.split_once(" = ").map(|(key, _)| key))
            .filter(|key| !key.starts_with(' '))
            .collect();
        let serve = serve();
        let all: Vec<&str> = options(&serve).filter_map(Arg::get_long).collect();
        assert_eq!(keys, all);
        assert!(keys.contains(&"trust-issuer") && !keys.contains(&"config"));
        // Those with a default say it.
        assert!(text.contains("#listen = [\"127.0.0.1:4480\"]"), "{text}");
        let defaults: String = text
            .lines()
            .filter(|line| {
                ["#listen ", "#http ", "#quota-", "#drain"].iter().any(|key| line.starts_with(key))
            })
            .map(|line| format!("{}\n", &line[1..]))
            .collect();
        let (settings, problems) = super::super::parse(&defaults, &serve);
        assert_eq!((settings.len(), problems), (7, vec![]), "{defaults}");
    }
}
