//! What the transport costs: `cargo bench -p capstan-benches --bench transport -- --binary PATH`.
//!
//! ```text
//! spike   plain checks on `h2::server` alone, with the engine's decision: no tonic, no admission, no metrics
//! load    CPU of the server a call under h2load, which sends one question, and under the load generator of
//!         `capstan bench`, which asks 20,000 in turn and verifies the answers
//! report  medians, and ratio of the pairs
//! ```
//!
//! Options:
//!
//! ```text
//! --binary PATH     a `capstan` to measure against the spike; given twice, the second against the first
//! --pairs N         how often both are measured, one directly after the other: 20
//! --seconds N       of each run: 2
//! --load NAME       only `h2load` or only `generator`
//! --latency RATE    latencies at this number of calls a second, instead of CPU: the servers on the first core.
//!                   Start it with `taskset -c 1`
//! --quick           one short pair on a small world, to see that the command works
//! ```

mod load;
mod report;
mod spike;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context as _, bail, ensure};
use capstan_bench::child::{Folder, Server};
use capstan_benches::worlds::World;

use crate::load::{Load, Questions, Shape};
use crate::report::Row;

/// The allocator of `capstan`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the command line asks for.
struct Options {
    binaries: Vec<PathBuf>,
    pairs: usize,
    run: Duration,
    load: Option<String>,
    latency: Option<u64>,
    world: World,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Self {
            binaries: Vec::new(),
            pairs: 20,
            run: Duration::from_secs(2),
            load: None,
            latency: None,
            world: World::W,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} has no value"));
            match argument.as_str() {
                "--binary" => options.binaries.push(value()?.into()),
                "--pairs" => options.pairs = usize::from_str(&value()?)?.max(1),
                "--seconds" => options.run = Duration::from_secs_f64(value()?.parse()?),
                "--load" => options.load = Some(value()?),
                "--latency" => options.latency = Some(value()?.parse()?),
                "--quick" => {
                    (options.world, options.pairs) = (World::Bindings(3_000), 1);
                    options.run = Duration::from_millis(200);
                }
                // What cargo adds.
                "--bench" => {}
                other => bail!("unknown argument `{other}`: benches/transport/main.rs lists them"),
            }
        }
        let count = options.binaries.len();
        ensure!((1..=2).contains(&count), "give --binary PATH once or twice");
        Ok(options)
    }
}

/// A server to measure.
struct Program {
    name: String,
    server: Server,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    if let Some("spike") = env::args().nth(1).as_deref() {
        let path = arguments.nth(1).context("no policy")?;
        return spike::serve(Path::new(&path));
    }
    let options = Options::read(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = runtime.block_on(measure(&options))?;
    Ok(write!(io::stdout(), "{}", report::table(&rows))?)
}

async fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let folder = Folder::new()?;
    let policy = folder.file("policy.json");
    fs::write(&policy, options.world.document())?;
    let programs = start(options, &policy).await?;
    let questions = Questions::new(options.world, &folder)?;
    let mut rows = Vec::new();
    for load in loads(options)? {
        let mut row = Row::new(load.to_string(), programs.each_ref().map(|one| one.name.clone()));
        for pair in 0..options.pairs {
            say(&format!("{load}: pair {} of {}", pair + 1, options.pairs))?;
            let [first, second] = [pair % 2, 1 - pair % 2];
            for at in [first, second] {
                let Some(program) = programs.get(at) else { continue };
                let figures = load.run(program.server.measured(), &questions, options.run).await;
                row.add(at, figures.with_context(|| format!("{load}, {}", program.name))?);
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

/// The two servers: the spike and a program, or two programs.
async fn start(options: &Options, policy: &Path) -> anyhow::Result<[Program; 2]> {
    let policy = policy.to_str().context("the folder has no name in UTF-8")?;
    let this = env::current_exe()?;
    let served = ["serve", "--listen", "127.0.0.1:0", "--http", "none", "--policy", policy];
    let program = async |binary: Option<&PathBuf>| {
        let (path, arguments) = match binary {
            Some(path) => (path, &served[..]),
            None => (&this, &["spike", policy][..]),
        };
        let mut command = match options.latency {
            Some(_) => {
                let mut pinned = Command::new("taskset");
                pinned.args(["-c", "0"]).arg(path);
                pinned
            }
            None => Command::new(path),
        };
        let name = binary.map_or("spike".to_owned(), |path| path.display().to_string());
        let server = Server::start_by(command.args(arguments)).await;
        anyhow::Ok(Program { server: server.with_context(|| name.clone())?, name })
    };
    Ok(match &options.binaries[..] {
        [first, second] => [program(Some(first)).await?, program(Some(second)).await?],
        binaries => [program(None).await?, program(binaries.first()).await?],
    })
}

fn loads(options: &Options) -> anyhow::Result<Vec<Load>> {
    let shapes =
        [Shape { connections: 8, in_flight: 16 }, Shape { connections: 16, in_flight: 64 }];
    if let Some(rate) = options.latency {
        return Ok(vec![Load::Latency(rate)]);
    }
    let is_wanted = |name: &str| options.load.as_ref().is_none_or(|load| load == name);
    let mut loads = Vec::new();
    if is_wanted("h2load") && load::has_h2load() {
        loads.extend(shapes.map(Load::H2load));
    } else if is_wanted("h2load") {
        say("h2load is missing, and is left out: install it, e.g. apt-get install nghttp2-client")?;
    }
    if is_wanted("generator") {
        loads.extend(shapes.map(Load::Generator));
    }
    ensure!(!loads.is_empty(), "nothing to measure: there are the loads h2load and generator");
    Ok(loads)
}

/// Says what is being done, since each takes a while.
fn say(what: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stderr(), "{what}")?)
}
