//! `capstan keys`: the keys that a server signs events and access tokens with.
//!
//! It works on their folder. A server that runs looks at the folder every few seconds.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use capstan_engine::Timestamp;
use capstan_server::signing::{KeyFile, KeyFolder, KeyState};
use serde::Serialize;

use crate::DENIED;
use crate::output::{self, Format};
use crate::serve::KEYS;

const EXAMPLES: &str = "\
Examples:
  capstan keys list --data /var/lib/capstan
  capstan keys rotate --data /var/lib/capstan            the next key, which signs in 15 minutes
  capstan keys revoke KID --folder /etc/capstan/keys     what it has signed counts no more

A server that runs sees a change within seconds. Receivers of events keep the published keys for up to five minutes.

Exit codes: 0 done, 1 there is no such key, 2 error.";

/// The keys that a server signs events and access tokens with
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct KeysCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The keys, and what each is for now
    #[command(alias = "ls")]
    List(Place),

    /// Makes the next key: it is published at once, and signs when receivers have read it
    ///
    /// The key that signs now is published for another hour and a half then. The server does the same by itself
    /// (`serve --rotate-keys`).
    Rotate(Place),

    /// Deletes a key that others may know: what it has signed counts no more, and access tokens are refused
    ///
    /// The key before it signs again if it is still published. Otherwise one is made that signs at once.
    Revoke {
        /// Its id, as `list` and the tokens have it
        // One of 64 begins with a hyphen.
        #[arg(value_name = "KID", allow_hyphen_values = true)]
        kid: String,

        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// The directory of the store, which has them in `keys`
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    data: Option<PathBuf>,

    /// The folder of `serve --signing-keys`
    #[arg(long, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    folder: Option<PathBuf>,
}

impl Place {
    fn open(self) -> KeyFolder {
        let of_store = self.data.map(|data| data.join(KEYS));
        KeyFolder::new(self.folder.or(of_store).unwrap_or_else(|| KEYS.into()))
    }
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    state: &'static str,
    signs_from: String,
    file: String,
}

impl KeysCommand {
    pub(crate) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let now = now();
        match self.command {
            Command::List(place) => list(&place.open(), now, format)?,
            Command::Rotate(place) => {
                let folder = place.open();
                let name = folder.rotate(now)?;
                match format {
                    Format::Json => list(&folder, now, format)?,
                    Format::Table => output::line(format!(
                        "made {name}: it signs from the time of its name on, and is published now"
                    ))?,
                }
            }
            Command::Revoke { kid, place } => {
                let folder = place.open();
                if !folder.revoke(&kid, now)? {
                    let place = folder.path().display();
                    output::note(format!("no key has the id {kid} in {place}"))?;
                    return Ok(ExitCode::from(DENIED));
                }
                match format {
                    Format::Json => list(&folder, now, format)?,
                    Format::Table => output::line(format!("deleted the key {kid}"))?,
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list(folder: &KeyFolder, now: Timestamp, format: Format) -> anyhow::Result<()> {
    let files = folder.list(now)?;
    let row = |file: &KeyFile| Row {
        kid: file.key_id.clone().ok(),
        problem: file.key_id.clone().err(),
        state: file.state.as_str(),
        signs_from: capstan_policy::format_timestamp(file.from).unwrap_or_default(),
        file: file.name.clone(),
    };
    let rows: Vec<_> = files.iter().map(row).collect();
    if format == Format::Json {
        return output::json(&serde_json::json!({ "keys": rows }));
    }
    if rows.is_empty() {
        let place = folder.path().display();
        return output::note(format!("no keys in {place}: the server makes one when it starts"));
    }
    let mut table = output::table(["kid", "state", "signs from", "file"]);
    for (row, file) in rows.iter().zip(&files) {
        let state = match file.state {
            KeyState::Signs => output::verdict(true, row.state),
            KeyState::Unusable => output::verdict(false, row.state),
            _ => row.state.to_owned(),
        };
        let kid = row.kid.as_ref().or(row.problem.as_ref()).cloned().unwrap_or_default();
        table.add_row([kid, state, row.signs_from.clone(), row.file.clone()]);
    }
    output::line(table)
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::new(i64::try_from(now.as_secs()).unwrap_or(i64::MAX), 0)
}
