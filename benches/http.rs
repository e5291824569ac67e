//! What an evaluation of AuthZEN costs beside `/livez` on the same address: `cargo bench -p capstan-benches --bench http`.
//!
//! ```text
//! started program ◀─ connections that are kept, each asking again and again ─▶ CPU of the program a request, in turns
//! ```
//!
//! Options: see [`capstan_benches::started::Options`].

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use anyhow::{bail, ensure};
use capstan_benches::started::{Options, Started, quartiles};

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
const QUESTION: &str = r#"{"subject": {"type": "user", "id": "alice"}, "action": {"name": "list"}, "resource": {"type": "repo", "id": "acme/platform/nginx"}}"#;

/// Asks over one connection until the end. Returns how often.
fn ask(address: &str, request: &str, expected: &str, end: &AtomicBool) -> anyhow::Result<usize> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let (mut asked, mut answer) = (0, vec![0; 4_096]);
    while !end.load(Relaxed) {
        stream.write_all(request.as_bytes())?;
        // The responses are short: each comes at once.
        let read = stream.read(&mut answer)?;
        let text = String::from_utf8_lossy(answer.get(..read).unwrap_or_default());
        ensure!(text.starts_with("HTTP/1.1 200") && text.ends_with(expected), "{text}");
        asked += 1;
    }
    Ok(asked)
}

/// Microseconds of the server's CPU a request.
#[expect(clippy::disallowed_methods, reason = "a turn has a length")]
fn turn(
    server: &Started,
    (request, expected): (&str, &str),
    options: &Options,
) -> anyhow::Result<f64> {
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking: Vec<_> = (0..options.in_flight)
            .map(|_| scope.spawn(|| ask(&server.http, request, expected, &end)))
            .collect();
        let before = server.cpu()?;
        thread::sleep(options.time);
        end.store(true, Relaxed);
        let asked = asking.into_iter().map(|one| match one.join() {
            Ok(asked) => asked,
            Err(_) => bail!("a connection panicked"),
        });
        let asked: usize = asked.sum::<anyhow::Result<_>>()?;
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no 16 digits")]
        Ok((server.cpu()? - before) * 1e6 / asked as f64)
    })
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse()?;
    let server = Started::demo(&options.binary)?;
    let post = format!(
        "POST /access/v1/evaluation HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{QUESTION}",
        QUESTION.len()
    );
    let evaluation = (&*post, r#"{"decision":true,"context":{"reason":"GRANTED"}}"#);
    let (mut probes, mut evaluations, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..options.turns {
        let probe = turn(&server, (LIVEZ, "ok\n"), &options)?;
        let evaluated = turn(&server, evaluation, &options)?;
        probes.push(probe);
        evaluations.push(evaluated);
        ratios.push(evaluated / probe);
    }
    let [low, ratio, high] = quartiles(&mut ratios);
    let [_, evaluated, _] = quartiles(&mut evaluations);
    let [_, probed, _] = quartiles(&mut probes);
    writeln!(
        io::stdout(),
        "evaluation over /livez, CPU of the server a request: {ratio:.2} (quartiles {low:.2}, {high:.2}); {evaluated:.1} and {probed:.1} us, \
         {} turns of {:?}, {} connections",
        options.turns,
        options.time,
        options.in_flight,
    )?;
    Ok(())
}
