//! What networks cost, beside Docker (without its proxy) and bare veth pairs: `cargo xtask bench net`.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hull_benches::docker::Docker;
use hull_benches::hull::{self, Hull};
use hull_benches::measure::{Case, interleaved, median, median_ms};
use hull_benches::memory::pss_kib;
use hull_benches::netload::{self, PORT};
use hull_benches::netns::Place;
use hull_benches::report::{Row, table, write};
use hull_testkit::archive::Layer;
use hull_testkit::{fixtures, paths};

/// Runs of each command that count.
const ROUNDS: usize = 11;
/// This host and the outside one, addresses set aside for benchmarks (RFC 2544).
const OURS: &str = "198.18.7.1";
const OUTSIDE: &str = "198.18.7.2";
/// The bare pair.
const BARE: [&str; 2] = ["198.18.8.1", "198.18.8.2"];
/// Turns in one run.
const TURNS: &str = "5000";
/// Containers that ask for names, questions of each in a second, and seconds.
const ASKERS: usize = 50;
const RATE: usize = 200;
const SECONDS: usize = 5;
/// A range of ports, and what the memory of publishing it may be: nothing for each port.
const RANGE: &str = "20000-24999:20000-24999";
const RANGE_KIB: f64 = 128.0;
/// Networks, and containers each on some of them: a thousand endpoints.
const NETWORKS: usize = 200;
const CONTAINERS: usize = 200;
const EACH: usize = 5;

/// A command line of an engine's.
type Engine<'a> = &'a dyn Fn(&[&str]) -> Case;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("load", rest)) = args.split_first().map(|(f, r)| (f.as_str(), r)) {
        return netload::main(rest);
    }
    let dir = paths::target().join("bench");
    std::fs::create_dir_all(&dir)?;
    let rows = bench(&dir)?;
    write(&dir, "net", &rows)?;
    let mut out = std::io::stdout().lock();
    std::io::Write::write_all(&mut out, table(&rows).as_bytes())?;
    Ok(())
}

fn bench(dir: &Path) -> Result<Vec<Row>> {
    hull::clean(dir)?;
    let (hull, _) = Hull::start(dir)?;
    let ours: Engine<'_> = &|a| hull.case(a);
    let mut rows = Vec::new();
    let outcome = beside_docker(dir, ours, &mut rows).and_then(|()| {
        names(ours, &mut rows)?;
        ports(ours, &hull, &mut rows)?;
        crowd(ours, &mut rows)
    });
    // What was made goes whatever happened: networks are the host's.
    remove_all(ours)?;
    hull.stop()?;
    hull::clean(dir)?;
    outcome.map(|()| rows)
}

fn beside_docker(dir: &Path, ours: Engine<'_>, rows: &mut Vec<Row>) -> Result<()> {
    let program = std::env::current_exe()?.display().to_string();
    let load = dir.join("net.tar").display().to_string();
    let layer = Layer::new().dir("etc", 0o755).dir("tmp", 0o777);
    let layer = layer.file("net", 0o755, &fs::read(&program)?);
    fs::write(&load, layer.finish())?;
    let (debian, busybox) = (fixtures::debian(), fixtures::busybox());
    let docker = Docker::start_with(dir, &["--userland-proxy=false"])?;
    let engines: [Engine<'_>; 2] = [ours, &|a| docker.case(a)];
    for engine in engines {
        engine(&["import", &load, "net"]).once()?;
        engine(&["import", &debian.display().to_string(), "debian"]).once()?;
        engine(&["load", "-i", &busybox.display().to_string()]).once()?;
    }
    let outcome = wires(&engines, &program, rows).and_then(|()| attach(&engines, rows));
    engines.iter().try_for_each(|engine| remove_all(*engine))?;
    outcome
}

fn remove_all(engine: Engine<'_>) -> Result<()> {
    let all = engine(&["ps", "-aq"]).output()?;
    for some in all.split_whitespace().collect::<Vec<_>>().chunks(50) {
        engine(&[&["rm", "-f"], some].concat()).once()?;
    }
    engine(&["network", "prune", "-f"]).once()?;
    Ok(())
}

/// A server that is killed at the end.
struct Server(Child);

impl Server {
    fn start(case: &Case) -> Result<Self> {
        let (program, args) = case.argv.split_first().context("an empty command line")?;
        let mut command = Command::new(program);
        let command = command.args(args).stdin(Stdio::null());
        Ok(Self(command.spawn().context("cannot start a server")?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The medians of what the cases print, each run in turn.
fn figures(cases: &[Case], rounds: usize, read: fn(&str) -> Result<f64>) -> Result<Vec<f64>> {
    let mut all = vec![Vec::new(); cases.len()];
    for round in 0..=rounds {
        for (case, figures) in cases.iter().zip(&mut all) {
            let figure = read(&case.output()?)?;
            if round > 0 {
                figures.push(figure);
            }
        }
    }
    Ok(all.iter_mut().map(|f| median(f)).collect())
}

fn number(text: &str) -> Result<f64> {
    text.parse()
        .with_context(|| format!("not a figure: {text}"))
}

fn requests(text: &str) -> Result<f64> {
    let line = text
        .lines()
        .find_map(|l| l.trim().strip_prefix("Requests/sec:"));
    number(line.context("wrk printed no rate")?.trim())
}

/// Throughput and turns between containers, out, and in; nginx behind a published port.
fn wires(engines: &[Engine<'_>; 2], program: &str, rows: &mut Vec<Row>) -> Result<()> {
    let outside = Place::outside("hullbench-out", OURS, OUTSIDE)?;
    let pair = Place::pair(["hullbench-a", "hullbench-b"], BARE)?;
    let serve = [program, "load", "serve"];
    let _servers = [
        Server::start(&outside.case(&serve))?,
        Server::start(&pair[1].case(&serve))?,
    ];
    let mut inner = Vec::new();
    let published = [7101, 7102];
    let web = [7201, 7202];
    for (i, engine) in engines.iter().enumerate() {
        engine(&["network", "create", "wire"]).once()?;
        let port = format!("{}:{PORT}", published[i]);
        let run = ["run", "-d", "--network", "wire"];
        let load = ["net", "/net", "load", "serve"];
        engine(&[&run, &["--name", "server", "-p", &port][..], &load].concat()).once()?;
        engine(&[&run, &["--name", "client"][..], &load].concat()).once()?;
        let format = "{{.NetworkSettings.Networks.wire.IPAddress}}";
        inner.push(engine(&["inspect", "-f", format, "server"]).output()?);
        let port = format!("{}:80", web[i]);
        let nginx = ["debian", "nginx", "-g", "daemon off;"];
        engine(&[&run, &["--name", "web", "-p", &port][..], &nginx].concat()).once()?;
    }
    std::thread::sleep(Duration::from_secs(1));

    let within = |i: usize, what: &str, to: &str, much: &str| {
        engines[i](&["exec", "client", "/net", "load", what, to, much])
    };
    for (what, much) in [("stream", "0.5"), ("turns", TURNS)] {
        let bare = format!("{}:{PORT}", BARE[1]);
        let cases = [
            within(0, what, &format!("{}:{PORT}", inner[0]), much),
            within(1, what, &format!("{}:{PORT}", inner[1]), much),
            pair[0].case(&[program, "load", what, &bare, much]),
            within(0, what, &format!("{OUTSIDE}:{PORT}"), much),
            within(1, what, &format!("{OUTSIDE}:{PORT}"), much),
            outside.case(&[
                program,
                "load",
                what,
                &format!("{OURS}:{}", published[0]),
                much,
            ]),
            outside.case(&[
                program,
                "load",
                what,
                &format!("{OURS}:{}", published[1]),
                much,
            ]),
        ];
        let found = figures(&cases, ROUNDS, number)?;
        let [h, d, bare, ho, d_o, hi, di] = found[..] else {
            bail!("seven cases were measured")
        };
        let row = if what == "stream" {
            Row::more
        } else {
            Row::less
        };
        let names: [&'static str; 4] = if what == "stream" {
            ["stream", "stream-bare", "stream-out", "stream-in"]
        } else {
            ["turns", "turns-bare", "turns-out", "turns-in"]
        };
        let unit = if what == "stream" {
            "MB/s"
        } else {
            "µs there and back"
        };
        rows.push(row(
            names[0],
            format!("container to container, {unit}"),
            [h, d],
            "docker",
            1.0,
        ));
        rows.push(row(
            names[1],
            format!("container to container, {unit}"),
            [h, bare],
            "bare veth pair",
            0.95,
        ));
        rows.push(row(
            names[2],
            format!("out through masquerade, {unit}"),
            [ho, d_o],
            "docker",
            1.0,
        ));
        rows.push(row(
            names[3],
            format!("in through a published port, {unit}"),
            [hi, di],
            "docker",
            1.0,
        ));
    }
    let cases = web.map(|port| {
        let url = format!("http://{OURS}:{port}/");
        outside.case(&["wrk", "-t", "1", "-c", "32", "-d", "1s", &url])
    });
    let found = figures(&cases, ROUNDS / 2, requests)?;
    rows.push(Row::more(
        "nginx",
        "nginx behind a published port, requests/s",
        [found[0], found[1]],
        "docker",
        1.0,
    ));
    Ok(())
}

/// How long a running container takes to join one more network.
fn attach(engines: &[Engine<'_>; 2], rows: &mut Vec<Row>) -> Result<()> {
    let mut all = [Vec::new(), Vec::new()];
    for engine in engines {
        engine(&["network", "create", "other"]).once()?;
    }
    for round in 0..=ROUNDS {
        for (engine, times) in engines.iter().zip(&mut all) {
            let took = engine(&["network", "connect", "other", "client"]).once()?;
            engine(&["network", "disconnect", "other", "client"]).once()?;
            if round > 0 {
                times.push(took);
            }
        }
    }
    let [hull, docker] = all.each_mut().map(|times| median_ms(times));
    rows.push(Row::less(
        "attach",
        "network connect, ms",
        [hull, docker],
        "docker",
        10.0,
    ));
    Ok(())
}

/// Ten thousand questions a second from fifty containers.
fn names(hull: Engine<'_>, rows: &mut Vec<Row>) -> Result<()> {
    hull(&["network", "create", "asking"]).once()?;
    let name = |i: usize| format!("asker-{i}");
    for i in 0..ASKERS {
        let run = ["run", "-d", "--network", "asking", "--name", &name(i)];
        hull(&[&run[..], &["net", "/net", "load", "serve"]].concat()).once()?;
    }
    let (rate, seconds) = (RATE.to_string(), SECONDS.to_string());
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..ASKERS)
            .map(|i| {
                let peer = name((i + 1) % ASKERS);
                let load = ["/net", "load", "names", &peer, &rate, &seconds];
                let case = hull(&[&["exec", &name(i)][..], &load].concat());
                scope.spawn(move || case.output())
            })
            .collect();
        running.into_iter().map(|r| r.join()).collect()
    });
    let mut times = Vec::new();
    for output in outputs {
        let text = output.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        for word in text.split_whitespace() {
            times.push(number(word)? / 1e3);
        }
    }
    times.sort_unstable_by(f64::total_cmp);
    let p99 = times.get(times.len() * 99 / 100).copied();
    let asked = (ASKERS * RATE) as f64;
    let answered = times.len() as f64 / SECONDS as f64;
    rows.push(Row::more(
        "names",
        "names asked by 50 containers, answers/s",
        [answered, asked],
        "questions/s",
        1.0,
    ));
    rows.push(Row::less(
        "names-p99",
        "… the time of 99 in 100 answers at most, ms",
        [p99.unwrap_or(f64::NAN), 2.0],
        "the promise",
        1.0,
    ));
    remove_all(hull)
}

/// A range of five thousand ports.
fn ports(hull: Engine<'_>, daemon: &Hull, rows: &mut Vec<Row>) -> Result<()> {
    let without = ["run", "--rm", "busybox", "true"];
    let with = ["run", "--rm", "-p", RANGE, "busybox", "true"];
    let times = interleaved(&[hull(&without), hull(&with)], ROUNDS)?;
    rows.push(Row::less(
        "ports",
        "publishing 5,000 ports, ms",
        [times[1] - times[0], 50.0],
        "the promise",
        1.0,
    ));
    std::thread::sleep(Duration::from_secs(2));
    let before = pss_kib(daemon.pid());
    hull(&["run", "-d", "-p", RANGE, "busybox", "sleep", "100000"]).once()?;
    std::thread::sleep(Duration::from_secs(2));
    let grown = pss_kib(daemon.pid()).saturating_sub(before) as f64;
    rows.push(Row::less(
        "ports-memory",
        "… memory of the daemon for them, KiB",
        [grown.max(1.0), RANGE_KIB],
        "the promise",
        1.0,
    ));
    remove_all(hull)
}

/// A start beside two hundred networks with a thousand endpoints.
fn crowd(hull: Engine<'_>, rows: &mut Vec<Row>) -> Result<()> {
    let network = |i: usize| format!("net-{}", i % NETWORKS);
    hull(&["network", "create", &network(0)]).once()?;
    let start = hull(&["run", "--rm", "--network", &network(0), "busybox", "true"]);
    let few = interleaved(std::slice::from_ref(&start), ROUNDS)?;
    for i in 1..NETWORKS {
        hull(&["network", "create", &network(i)]).once()?;
    }
    for i in 0..CONTAINERS {
        let mut args = vec!["run".to_owned(), "-d".to_owned()];
        for k in 0..EACH {
            args.extend(["--network".to_owned(), network(i + k * NETWORKS / EACH)]);
        }
        args.extend(["busybox", "sleep", "100000"].map(str::to_owned));
        hull(&args.iter().map(String::as_str).collect::<Vec<_>>()).once()?;
    }
    std::thread::sleep(Duration::from_secs(2));
    let many = interleaved(&[start], ROUNDS)?;
    rows.push(Row::less(
        "networks",
        "run beside 200 networks, 1,000 endpoints, ms",
        [many[0], few[0]],
        "beside one",
        1.0 / 1.3,
    ));
    Ok(())
}
