//! The question before something is deleted.

use std::io::{self, BufRead, IsTerminal as _, Write};

use anyhow::{Context as _, bail};

/// Asks whether to go on, unless `yes`. `what` says what is deleted and what goes with it, a line each.
///
/// # Errors
///
/// There is no terminal to ask on, or the answer is not `y` or `yes`.
pub(crate) fn confirm(yes: bool, what: &[String]) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    let is_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !is_terminal {
        bail!(
            "nobody can be asked, because there is no terminal; to go on without a question, add --yes"
        );
    }
    ask(&mut io::stdin().lock(), &mut io::stderr().lock(), what)
}

fn ask(input: &mut impl BufRead, output: &mut impl Write, what: &[String]) -> anyhow::Result<()> {
    let mut answer = String::new();
    let asked = what
        .iter()
        .try_for_each(|line| writeln!(output, "{line}"))
        .and_then(|()| write!(output, "Go on? [y/N] "))
        .and_then(|()| output.flush())
        .and_then(|()| input.read_line(&mut answer));
    asked.context("cannot ask on the terminal")?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("nothing was changed: the answer was not yes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_goes_on() {
        let what =
            vec!["delete folder acme/web".to_owned(), "  with 2 role bindings at it".to_owned()];
        for (answer, goes_on) in [
            ("y\n", true),
            ("YES\n", true),
            ("n\n", false),
            ("\n", false),
            ("", false),
            ("yes please\n", false),
        ] {
            let mut shown = Vec::new();
            let asked = ask(&mut answer.as_bytes(), &mut shown, &what);
            assert_eq!(asked.is_ok(), goes_on, "{answer:?}");
            let shown = String::from_utf8(shown).unwrap();
            assert_eq!(
                shown,
                "delete folder acme/web\n  with 2 role bindings at it\nGo on? [y/N] "
            );
        }
    }
}
