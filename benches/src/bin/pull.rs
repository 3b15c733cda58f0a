//! What bringing images in and out costs, beside Docker and Podman: `cargo xtask bench pull`.
//!
//! All fetch the same image from one registry on loopback. Whatever is in the page cache of the
//! registry's side stays there, since it stands for a network; the rest is dropped before a pull.
//! `--small` (or `HULL_BENCH_SMALL=1`) makes a tenth of the image and one round: a test of the
//! bench, not a measurement. `--rounds N` measures as often as that, and not more.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hull_benches::bigimage::{BigImage, HALF};
use hull_benches::docker::Docker;
use hull_benches::hull::{self, Hull};
use hull_benches::measure::{Case, median_ms};
use hull_benches::memory;
use hull_benches::podman::Podman;
use hull_benches::registry::Registry;
use hull_benches::report::{Row, table, write};
use hull_testkit::paths;

/// How long a daemon may take to delete what was removed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Hull may take so many times the slowest of plain download, inflate and write.
const LIMIT: f64 = 1.3;
const NAME: &str = "bench/image";

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Size {
    scale: f64,
    /// Rounds of each pull.
    pulls: usize,
    /// Rounds of push, save, load and commit.
    others: usize,
}

const FULL: Size = Size {
    scale: 1.0,
    pulls: 5,
    others: 3,
};
const SMALL: Size = Size {
    scale: 0.1,
    pulls: 1,
    others: 1,
};

/// An engine that pulls.
struct Engine<'a> {
    name: &'static str,
    pull: Box<dyn Fn(&str) -> Case + 'a>,
    /// Removes all images and waits until that is done.
    clear: Box<dyn Fn() -> Result<()> + 'a>,
}

/// Makes a command line of arguments.
type CommandLine<'a> = dyn Fn(&[&str]) -> Case + 'a;

struct Bench {
    dir: PathBuf,
    size: Size,
    image: BigImage,
    registry: Registry,
    hull: Hull,
    docker: Docker,
    podman: Podman,
}

impl Bench {
    fn full(&self) -> String {
        format!("{}/{NAME}:full", self.registry.host)
    }

    fn half(&self) -> String {
        format!("{}/{NAME}:half", self.registry.host)
    }

    fn engines(&self) -> Vec<Engine<'_>> {
        vec![
            Engine {
                name: "hull",
                pull: Box::new(|name| self.hull.case(&["pull", "-q", name])),
                clear: Box::new(|| self.clear_hull()),
            },
            Engine {
                name: "docker",
                pull: Box::new(|name| self.docker.case(&["pull", "-q", name])),
                clear: Box::new(|| clear_docker(&self.docker)),
            },
            Engine {
                name: "podman",
                pull: Box::new(|name| self.podman.pull(name)),
                clear: Box::new(|| self.podman.remove_all().once().map(drop)),
            },
        ]
    }

    fn clear_hull(&self) -> Result<()> {
        remove_all(&self.hull, |hull, args| hull.case(args))?;
        // Deletion goes on after the reply.
        let trash = self.hull.data_dir().join("image/tmp");
        let begun = Instant::now();
        while fs::read_dir(&trash)?.next().is_some() {
            if begun.elapsed() > PATIENCE {
                bail!("hull does not delete {}", trash.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Has nothing of others be written or cached when the clock starts; false if the machine
    /// does not let caches be dropped.
    fn calm(&self) -> Result<bool> {
        Command::new("sync").status()?;
        let dropped = hull_benches::oci::drop_caches().is_ok();
        self.registry.warm()?;
        Ok(dropped)
    }

    /// Times of pulls of the whole image, each engine in turn, with the lower half there or
    /// nothing.
    fn pulls(&self, half: bool) -> Result<Vec<Vec<Duration>>> {
        let engines = self.engines();
        let mut times = vec![Vec::new(); engines.len()];
        for round in 0..self.size.pulls {
            for (engine, times) in engines.iter().zip(&mut times) {
                (engine.clear)()?;
                if half {
                    (engine.pull)(&self.half()).once()?;
                }
                self.calm()?;
                let took = (engine.pull)(&self.full())
                    .once()
                    .with_context(|| format!("pull by {}", engine.name))?;
                times.push(took);
                say(&format!(
                    "pull {} round {round}: {} {:.2} s",
                    if half { "with half there" } else { "cold" },
                    engine.name,
                    took.as_secs_f64()
                ));
            }
        }
        Ok(times)
    }

    /// Seconds of plain download, plain inflate and plain write of the same data.
    fn plain(&self) -> Result<[f64; 3]> {
        let mut best = [f64::INFINITY; 3];
        let tars = self.dir.join("tars");
        for _ in 0..self.size.pulls.min(3) {
            self.calm()?;
            let [download, inflate, write] = &mut best;
            *download = download.min(self.download()?.as_secs_f64());
            *inflate = inflate.min(self.inflate()?.as_secs_f64());
            *write = write.min(self.write(&tars)?.as_secs_f64());
        }
        fs::remove_dir_all(&tars)?;
        Ok(best)
    }

    fn download(&self) -> Result<Duration> {
        let mut argv = vec!["curl".to_owned(), "-sSf".to_owned()];
        for layer in &self.image.layers {
            argv.extend(["-o".to_owned(), "/dev/null".to_owned()]);
            argv.push(self.registry.blob_url(NAME, &layer.hex));
        }
        let curl = Case {
            argv,
            env: Vec::new(),
        };
        curl.once()
    }

    /// One thread with the inflater that Hull uses, layer after layer, from memory to nowhere.
    fn inflate(&self) -> Result<Duration> {
        let begun = Instant::now();
        for layer in &self.image.layers {
            let file = io::BufReader::with_capacity(256 << 10, File::open(self.image.blob(layer))?);
            let mut plain = flate2::bufread::GzDecoder::new(file);
            let mut buffer = vec![0; 256 << 10];
            while io::Read::read(&mut plain, &mut buffer)? > 0 {}
        }
        Ok(begun.elapsed())
    }

    /// GNU tar, layer after layer, then a sync, as Hull's pull ends with one.
    fn write(&self, tars: &Path) -> Result<Duration> {
        fs::create_dir_all(tars)?;
        for (number, layer) in self.image.layers.iter().enumerate() {
            let to = tars.join(format!("{number}.tar"));
            if !to.exists() {
                let mut plain = flate2::read::GzDecoder::new(File::open(self.image.blob(layer))?);
                io::copy(&mut plain, &mut File::create(&to)?)?;
            }
        }
        Command::new("sync").status()?;
        for number in 0..self.image.layers.len() {
            // From memory, as the inflater would deliver it.
            let mut file = File::open(tars.join(format!("{number}.tar")))?;
            io::copy(&mut file, &mut io::sink())?;
        }
        let out = tars.join("out");
        fs::create_dir_all(&out)?;
        // As Hull does it, on file systems that know the wish: away from what was just removed.
        let _ = Command::new("chattr")
            .arg("+T")
            .arg(&out)
            .stderr(Stdio::null())
            .status();
        let begun = Instant::now();
        for number in 0..self.image.layers.len() {
            let dir = out.join(number.to_string());
            fs::create_dir_all(&dir)?;
            let (tar, dir) = (
                tars.join(format!("{number}.tar")).display().to_string(),
                dir.display().to_string(),
            );
            Case::new(&["tar", "-xpf", &tar, "-C", &dir]).once()?;
        }
        Case::new(&["sync", "-f", &out.display().to_string()]).once()?;
        let took = begun.elapsed();
        fs::remove_dir_all(&out)?;
        Ok(took)
    }

    /// Both have the image; each sends it to a registry that has nothing.
    fn push(&self) -> Result<[f64; 2]> {
        let cases: [&CommandLine<'_>; 2] =
            [&|args| self.hull.case(args), &|args| self.docker.case(args)];
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..self.size.others {
            for (case, times) in cases.iter().zip(&mut times) {
                let empty = Registry::start(&self.dir.join("push"))?;
                let name = format!("{}/{NAME}:pushed", empty.host);
                case(&["tag", &self.full(), &name]).once()?;
                Command::new("sync").status()?;
                times.push(case(&["push", "-q", &name]).once()?);
                case(&["rmi", &name]).once()?;
            }
        }
        Ok(times.map(|mut t| median_ms(&mut t)))
    }

    /// `save` to a file, and `load` of what Docker saved.
    fn archive(&self) -> Result<[[f64; 2]; 2]> {
        let at = |name: &str| self.dir.join(name).display().to_string();
        let (ours, theirs) = (at("hull.tar"), at("docker.tar"));
        let name = self.full();
        let mut times: [[Vec<Duration>; 2]; 2] = Default::default();
        let [[hull_save, docker_save], [hull_load, docker_load]] = &mut times;
        for _ in 0..self.size.others {
            self.calm()?;
            hull_save.push(self.hull.case(&["save", "-o", &ours, &name]).once()?);
            let _ = fs::remove_file(&ours);
            self.calm()?;
            docker_save.push(self.docker.case(&["save", "-o", &theirs, &name]).once()?);
            self.clear_hull()?;
            self.calm()?;
            hull_load.push(self.hull.case(&["load", "-q", "-i", &theirs]).once()?);
            clear_docker(&self.docker)?;
            self.calm()?;
            docker_load.push(self.docker.case(&["load", "-q", "-i", &theirs]).once()?);
            fs::remove_file(&theirs)?;
        }
        Ok(times.map(|pair| pair.map(|mut t| median_ms(&mut t))))
    }

    /// `commit` of a container that has copied a layer's files; `None` if Hull has no commit.
    fn commit(&self) -> Result<Option<[f64; 2]>> {
        if self.hull.case(&["commit", "--help"]).once().is_err() {
            return Ok(None);
        }
        let cases: [&CommandLine<'_>; 2] =
            [&|args| self.hull.case(args), &|args| self.docker.case(args)];
        let mut times = [Vec::new(), Vec::new()];
        let name = self.full();
        let copy = ["/bin/busybox", "cp", "-a", "/layer0", "/copy"];
        for case in cases {
            let mut run = vec!["run", "--network", "none", "--name", "bench-commit", &name];
            run.extend(copy);
            case(&run).once()?;
        }
        for _ in 0..self.size.others {
            for (case, times) in cases.iter().zip(&mut times) {
                self.calm()?;
                times.push(case(&["commit", "bench-commit", "bench-commit:1"]).once()?);
                case(&["rmi", "bench-commit:1"]).once()?;
            }
        }
        for case in cases {
            case(&["rm", "bench-commit"]).once()?;
        }
        Ok(Some(times.map(|mut t| median_ms(&mut t))))
    }

    fn rows(&self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let idle = memory::peak_kib(self.hull.pid());
        let cold = medians(self.pulls(false)?);
        let peaks = [self.hull.pid(), self.docker.pid()].map(memory::peak_kib);
        let half = medians(self.pulls(true)?);
        for (name, what, [hull, docker, podman]) in [
            ("pull", "pull, nothing there, s", cold),
            ("half", "pull, half the layers there, s", half),
        ] {
            rows.push(Row::less(name, what, [hull, docker], "docker", 3.0));
            rows.push(Row::less(name, what, [hull, podman], "podman", 3.0));
        }
        let plain = self.plain()?;
        for (what, seconds) in ["download", "inflate", "write"].iter().zip(plain) {
            say(&format!("plain {what}: {seconds:.2} s"));
        }
        let slowest = plain.into_iter().fold(0.0, f64::max);
        rows.push(Row::less(
            "limit",
            "pull, nothing there, s",
            [cold[0], slowest],
            "slowest part alone",
            1.0 / LIMIT,
        ));
        rows.push(Row::less(
            "push",
            "push, s",
            seconds(self.push()?),
            "docker",
            1.0,
        ));
        let [save, load] = self.archive()?;
        rows.push(Row::less("save", "save, s", seconds(save), "docker", 1.0));
        rows.push(Row::less("load", "load, s", seconds(load), "docker", 1.0));
        match self.commit()? {
            Some(commit) => rows.push(Row::less(
                "commit",
                "commit, s",
                seconds(commit),
                "docker",
                1.0,
            )),
            None => say("commit: Hull has none yet"),
        }
        let mib = peaks.map(|kib| kib as f64 / 1024.0);
        say(&format!("daemon idle: {:.1} MiB", idle as f64 / 1024.0));
        rows.push(Row::less(
            "memory",
            "daemon's peak memory while it pulls, MiB",
            mib,
            "dockerd",
            1.0,
        ));
        Ok(rows)
    }
}

fn medians(times: Vec<Vec<Duration>>) -> [f64; 3] {
    let mut out = [f64::NAN; 3];
    for (slot, mut times) in out.iter_mut().zip(times) {
        *slot = median_ms(&mut times) / 1e3;
    }
    out
}

fn seconds(ms: [f64; 2]) -> [f64; 2] {
    ms.map(|ms| ms / 1e3)
}

/// Lists images by id and removes them one after the other.
fn remove_all<T>(engine: &T, case: impl Fn(&T, &[&str]) -> Case) -> Result<()> {
    let list = case(engine, &["images", "-aq"]);
    let (program, args) = list.argv.split_first().context("a command")?;
    let out = Command::new(program)
        .args(args)
        .envs(list.env.iter().cloned())
        .stdin(Stdio::null())
        .output()?;
    let mut ids: Vec<String> = String::from_utf8_lossy(&out.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    for id in ids {
        // One may have gone with another.
        let _ = case(engine, &["rmi", "-f", &id]).once();
    }
    Ok(())
}

fn clear_docker(docker: &Docker) -> Result<()> {
    remove_all(docker, |docker, args| docker.case(args))
}

fn say(text: &str) {
    // Whoever does not listen to progress still gets the table.
    let _ = io::Write::write_all(&mut io::stderr().lock(), format!("{text}\n").as_bytes());
}

fn main() -> Result<()> {
    let small = std::env::args().any(|a| a == "--small")
        || std::env::var_os("HULL_BENCH_SMALL").is_some_and(|v| v != "0");
    let mut size = if small { SMALL } else { FULL };
    let mut args = std::env::args().skip_while(|a| a != "--rounds").skip(1);
    if let Some(rounds) = args.next() {
        let rounds = rounds.parse().context("--rounds wants a number")?;
        (size.pulls, size.others) = (rounds, rounds);
    }
    let dir = paths::target().join("bench").join("pull");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    let outcome = measure(&dir, size);
    hull::clean(&dir)?;
    fs::remove_dir_all(&dir)?;
    let rows = outcome?;
    write(&paths::target().join("bench"), "pull", &rows)?;
    io::Write::write_all(&mut io::stdout().lock(), table(&rows).as_bytes())?;
    Ok(())
}

fn measure(dir: &Path, size: Size) -> Result<Vec<Row>> {
    let image = BigImage::make(&dir.join("layout"), size.scale)?;
    let (plain, packed, entries) = image.totals();
    say(&format!(
        "image: {} layers, {entries} members, {} MB, {} MB compressed; its lower {HALF} layers are the half",
        image.layers.len(),
        plain / 1_000_000,
        packed / 1_000_000
    ));
    let registry = Registry::start(&dir.join("registry"))?;
    for tag in ["full", "half"] {
        registry.put(&image.dir, tag, &format!("{NAME}:{tag}"))?;
    }
    let bench = Bench {
        dir: dir.to_owned(),
        size,
        image,
        registry,
        hull: Hull::start(dir)?.0,
        docker: Docker::start(dir)?,
        podman: Podman::new(dir)?,
    };
    let rows = bench.rows();
    let Bench { hull, .. } = bench;
    hull.stop()?;
    rows
}
