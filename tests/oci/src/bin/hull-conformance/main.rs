//! The conformance suite: one case for each item of the specification, run by `hull-oci`, and by
//! runc and crun to show that the cases are right. Prints a table, and writes it to
//! `target/oci-conformance.{md,json}`. Speaks cargo's form: `cargo test` and its filters work.
//!
//! ```text
//! hull-conformance [--runtime hull-oci,runc,crun] [--systemd-cgroup] [--test-threads N] [PART…]
//! ```

#![allow(clippy::print_stdout, reason = "a test program prints its results")]

mod cases;
mod lacks;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use cases::Case;
use hull_oci_tests::{Kind, Manager, Runtime};
use serde_json::json;

const THREADS: usize = 4;
/// Tries that another runtime has at a case: its races are not ours to show.
const TRIES: usize = 3;

/// What came of a case.
#[derive(Debug, Clone)]
enum Outcome {
    Passed,
    /// What went wrong.
    Failed(String),
    /// Not run, since it would do harm.
    Left,
}

/// What is asked for.
struct Wish {
    kinds: Vec<Kind>,
    manager: Manager,
    threads: usize,
    /// Parts of names; none is all.
    filters: Vec<String>,
}

impl Wish {
    fn of(mut args: impl Iterator<Item = String>) -> Option<Self> {
        let all = [Kind::Hull, Kind::Runc, Kind::Crun];
        let mut wish = Self {
            kinds: all.to_vec(),
            manager: Manager::Files,
            threads: THREADS,
            filters: Vec::new(),
        };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--list" => return None,
                "--systemd-cgroup" => wish.manager = Manager::Systemd,
                "--test-threads" => {
                    let number = args.next().and_then(|text| text.parse().ok());
                    wish.threads = number.unwrap_or(THREADS);
                }
                "--runtime" => {
                    let names = args.next().unwrap_or_default();
                    wish.kinds
                        .retain(|kind| names.split(',').any(|name| name == kind.name()));
                }
                other if other.starts_with('-') => {}
                _ => wish.filters.push(arg),
            }
        }
        wish.kinds.retain(|kind| kind.is_there());
        Some(wish)
    }

    fn wants(&self, case: &Case) -> bool {
        let fits = |part: &String| case.name.contains(part.as_str());
        self.filters.is_empty() || self.filters.iter().any(fits)
    }
}

fn main() -> ExitCode {
    let started = Instant::now();
    let Some(wish) = Wish::of(std::env::args().skip(1)) else {
        return ExitCode::SUCCESS;
    };
    let all = cases::all();
    let chosen: Vec<&Case> = all.iter().filter(|case| wish.wants(case)).collect();
    std::panic::set_hook(Box::new(|_| {}));
    let kinds = &wish.kinds;
    let outcomes: Vec<Vec<Outcome>> = kinds
        .iter()
        .map(|&kind| run(kind, &wish, &chosen))
        .collect();

    let (mut passed, mut failures) = (0, Vec::new());
    for (index, case) in chosen.iter().enumerate() {
        for (kind, list) in kinds.iter().zip(&outcomes) {
            let outcome = list.get(index).unwrap_or(&Outcome::Left);
            let word = match judge(*kind, case.name, outcome) {
                Ok(word) => {
                    passed += 1;
                    word
                }
                Err(text) => {
                    failures.push(format!("{}::{}: {text}", kind.name(), case.name));
                    "FAILED".to_owned()
                }
            };
            println!("test {}::{} ... {word}", kind.name(), case.name);
        }
    }
    table(&wish, &chosen, &outcomes);
    for failure in &failures {
        println!("\n---- {failure}");
    }
    let word = if failures.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s",
        failures.len(),
        (all.len() - chosen.len()) * kinds.len(),
        started.elapsed().as_secs_f64()
    );
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// How a case ended, or why that is a failure of the suite. What another runtime is known to lack
/// must show in what it says or does, or else it is no known lack.
fn judge(kind: Kind, name: &str, outcome: &Outcome) -> Result<String, String> {
    let lack = lacks::of(kind, name);
    match (outcome, lack) {
        (Outcome::Left, _) => Ok("ok (not run: it would change the host's groups)".to_owned()),
        (Outcome::Passed, None) => Ok("ok".to_owned()),
        (Outcome::Passed, Some(lack)) => Err(format!(
            "it passes, and the list says that it lacks this: {}",
            lack.reason
        )),
        (Outcome::Failed(text), None) => Err(text.clone()),
        (Outcome::Failed(text), Some(lack)) if text.contains(lack.shown) => {
            Ok(format!("ok (lacks it: {})", lack.reason))
        }
        (Outcome::Failed(text), Some(lack)) => Err(format!(
            "{text}\nwhich is not what shows that it {}: {:?}",
            lack.reason, lack.shown
        )),
    }
}

/// Runs the cases by one runtime, some at a time.
fn run(kind: Kind, wish: &Wish, cases: &[&Case]) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(vec![Outcome::Left; cases.len()]);
    std::thread::scope(|scope| {
        for _ in 0..wish.threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(index) else { break };
                    let runtime = Runtime::with(kind, wish.manager);
                    // Without a control group of its own, crun would change the host's.
                    if !runtime.has_groups() && case.name.starts_with("update.") {
                        continue;
                    }
                    let mut outcome = outcome(case, &runtime);
                    for _ in 1..TRIES {
                        if kind == Kind::Hull || judge(kind, case.name, &outcome).is_ok() {
                            break;
                        }
                        outcome = self::outcome(case, &Runtime::with(kind, wish.manager));
                    }
                    if let Some(slot) = results.lock().expect("results").get_mut(index) {
                        *slot = outcome;
                    }
                }
            });
        }
    });
    results.into_inner().expect("results")
}

fn outcome(case: &Case, runtime: &Runtime) -> Outcome {
    let result = catch_unwind(AssertUnwindSafe(|| {
        (case.run)(runtime);
        runtime.clear();
        runtime.nothing_left();
    }));
    match result {
        Ok(()) => Outcome::Passed,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Outcome::Failed(text.unwrap_or_default())
        }
    }
}

/// Prints who passes what, and keeps it where the whole suite was run.
fn table(wish: &Wish, cases: &[&Case], outcomes: &[Vec<Outcome>]) {
    let mut text = String::from("| item |");
    let mut rule = String::from("|---|");
    for kind in &wish.kinds {
        text += &format!(" {} |", kind.name());
        rule += "---|";
    }
    text += &format!("\n{rule}\n");
    let mut rows = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        text += &format!("| {} |", case.name);
        let mut row = json!({ "item": case.name });
        for (kind, list) in wish.kinds.iter().zip(outcomes) {
            let outcome = list.get(index).unwrap_or(&Outcome::Left);
            let (word, value) = match outcome {
                Outcome::Passed => ("yes", json!(true)),
                Outcome::Failed(_) => ("no", json!(false)),
                Outcome::Left => ("not run", json!(null)),
            };
            text += &format!(" {word} |");
            row[kind.name()] = value;
        }
        text.push('\n');
        rows.push(row);
    }
    text += "| all |";
    for list in outcomes {
        let good = list
            .iter()
            .filter(|outcome| matches!(outcome, Outcome::Passed))
            .count();
        text += &format!(" {good} of {} |", list.len());
    }
    println!("\n{text}");
    if wish.filters.is_empty() && wish.manager == Manager::Files && wish.kinds.len() > 2 {
        let target = hull_testkit::paths::target();
        let _ = std::fs::write(target.join("oci-conformance.md"), text + "\n");
        let _ = std::fs::write(target.join("oci-conformance.json"), json!(rows).to_string());
    }
}
