//! `capstan config`: checks a configuration file, and writes one to begin with.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use capstan_server::server::Misfit;
use clap::{Arg, ArgAction, FromArgMatches as _};
use serde::Serialize;

use super::lint::{Finding, findings};
use super::together::together;
use super::{Place, Problem, Setting, kind, merged, options, read, refuse, serve, variables};
use crate::DENIED;
use crate::output::{self, Format, Style};
use crate::serve::Serve;

const EXAMPLES: &str = "\
Examples:
  capstan config check capstan.toml
  capstan config check capstan.toml --output json
  capstan config check --no-files capstan.toml  of another machine: without what the file names
  capstan config template > capstan.toml        every option, with what it means
  capstan serve --config capstan.toml

The keys of a file are the names of the options of `capstan serve`. What counts, first to last: options, environment variables \
(CAPSTAN_SERVE_LISTEN for --listen; several values with spaces between them), the file.

`check` reads the file as `serve` does, with the environment over it, looks into every file and folder that it names, and looks for \
settings that are dangerous. It changes nothing, and a server that runs with the file is not disturbed: of the directory of a store it looks at \
owner, permissions and the first bytes of the file. Run it as the user of the server, on its machine; elsewhere, such as in a \
pipeline, with --no-files. Exit codes: 0 nothing was found, 1 something is dangerous, 2 the file cannot be used.";

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

        /// Do not look at the files, folders and sockets that it names: they are those of another machine
        #[arg(long)]
        no_files: bool,
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
            Command::Check { file, no_files } => check(&file, !no_files, format),
            Command::Template => {
                output::line(template())?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// `looks`: whether at what is named, too.
fn check(file: &Path, looks: bool, format: Format) -> anyhow::Result<ExitCode> {
    let serve = serve();
    let given = [variables(&serve, std::env::vars_os()), read(file, &serve)?];
    let mut problems = given.iter().flat_map(|one| one.problems.clone()).collect::<Vec<_>>();
    let unread: Vec<_> = given.iter().flat_map(|one| one.unread.clone()).collect();
    let settings = merged(given.map(|one| one.settings));
    problems.extend(together(&serve, &settings, &unread, Some(file)));
    // Also of settings that do not fit together: what is wrong with each is told at once.
    let words = settings.iter().flat_map(Setting::arguments);
    let matches = serve.ignore_errors(true).try_get_matches_from(words)?;
    let misfits = Serve::from_arg_matches(&matches)?.misfits(looks);
    problems.extend(misfits.iter().map(|misfit| placed(misfit, &settings, file)));
    let findings = findings(&settings, looks);
    let code = if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DENIED) };
    let is_quiet = findings.is_empty();
    match format {
        Format::Json if problems.is_empty() || !is_quiet => output::json(&Checked { findings })?,
        Format::Json => {}
        Format::Table => {
            for Finding { rule, place, problem, advice, .. } in findings {
                let rule = output::styled(Style::Red, rule);
                let place = place.told(Some(file));
                output::line(format!("{place}: {rule}: {problem}; {advice}"))?;
            }
        }
    }
    refuse(Some(file), problems)?;
    if is_quiet && format == Format::Table {
        let count = settings.len();
        output::line(format!("{}: {count} options, nothing dangerous", file.display()))?;
    }
    Ok(code)
}

/// Options that stand in for one that is not given.
const STAND_INS: [(&str, &str); 3] =
    [("management", "data"), ("signing-keys", "data"), ("webhook-ca", "public-url")];

/// A misfit, with the places of the settings that it is about.
fn placed(misfit: &Misfit, settings: &[Setting], file: &Path) -> Problem {
    let find = |key: &str| settings.iter().find(|one| one.key == key && !one.values.is_empty());
    let stand_in = |key: &str| {
        let (_, other) = STAND_INS.iter().find(|(option, _)| *option == key)?;
        find(other)
    };
    let of = |key: &&str| find(key).or_else(|| stand_in(key));
    let mut given = misfit.options.iter().filter_map(of);
    let place = given.next().map_or(Place::File(1, 1), |first| first.place.clone());
    let others: Vec<_> =
        given.map(|other| format!("{} ({})", other.key, other.place.told(Some(file)))).collect();
    let problem = &misfit.problem;
    match others.is_empty() {
        true => (place, problem.clone()),
        false => (place, format!("{problem}; beside {}", others.join(", "))),
    }
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
        assert_eq!(super::super::parse(&text, &serve()), super::super::Given::default());
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
        let given = super::super::parse(&defaults, &serve);
        assert_eq!((given.settings.len(), given.problems), (7, vec![]), "{defaults}");
    }
}
