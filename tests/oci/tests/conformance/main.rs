//! The conformance suite: one case for each item of the specification, run by `hull-oci`, and by
//! runc and crun to show that the cases are right. Prints a table, and writes it to
//! `target/oci-conformance.{md,json}`. Speaks cargo's form: `cargo test` and its filters work.

#![allow(clippy::print_stdout, reason = "a test program prints its results")]

mod cases;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use cases::Case;
use hull_oci_tests::{Kind, Runtime};
use serde_json::json;

const THREADS: usize = 4;

/// What came of a case: nothing, or what went wrong.
type Outcome = Option<String>;

fn main() -> ExitCode {
    let started = Instant::now();
    let mut filter = None;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--test-threads" => drop(args.next()),
            "--list" => return ExitCode::SUCCESS,
            other if other.starts_with('-') => {}
            _ => filter = Some(arg),
        }
    }
    let all = cases::all();
    let chosen: Vec<&Case> = all
        .iter()
        .filter(|case| {
            filter
                .as_deref()
                .is_none_or(|part| case.name.contains(part))
        })
        .collect();
    std::panic::set_hook(Box::new(|_| {}));
    let kinds: Vec<Kind> = [Kind::Hull, Kind::Runc, Kind::Crun]
        .into_iter()
        .filter(|kind| kind.is_there())
        .collect();
    let outcomes: Vec<Vec<Outcome>> = kinds.iter().map(|&kind| run(kind, &chosen)).collect();

    let (mut passed, mut failures) = (0, Vec::new());
    for (index, case) in chosen.iter().enumerate() {
        for (kind, list) in kinds.iter().zip(&outcomes) {
            let outcome = list.get(index).and_then(Option::as_deref);
            let known = case.lacking(*kind);
            match (outcome, known) {
                (None, _) | (Some(_), Some(_)) => passed += 1,
                (Some(text), None) => {
                    failures.push(format!("{}::{}: {text}", kind.name(), case.name))
                }
            }
            let word = match (outcome, known) {
                (None, _) => "ok".to_owned(),
                (Some(_), Some(reason)) => format!("ok (lacks it: {reason})"),
                (Some(_), None) => "FAILED".to_owned(),
            };
            println!("test {}::{} ... {word}", kind.name(), case.name);
        }
    }
    table(&kinds, &chosen, &outcomes, filter.is_none());
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

/// Runs the cases by one runtime, some at a time.
fn run(kind: Kind, cases: &[&Case]) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(vec![None; cases.len()]);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(index) else { break };
                    // Without a control group of its own, crun would change the host's.
                    if kind == Kind::Crun && case.name.starts_with("update.") {
                        if let Some(slot) = results.lock().expect("results").get_mut(index) {
                            *slot = Some("not run".to_owned());
                        }
                        continue;
                    }
                    let outcome = catch_unwind(AssertUnwindSafe(|| {
                        let runtime = Runtime::new(kind);
                        (case.run)(&runtime);
                        runtime.clear();
                        runtime.nothing_left();
                    }));
                    let text = outcome.err().map(|panic| {
                        let text = panic.downcast_ref::<String>().cloned();
                        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                            .unwrap_or_default()
                    });
                    if let Some(slot) = results.lock().expect("results").get_mut(index) {
                        *slot = text;
                    }
                }
            });
        }
    });
    results.into_inner().expect("results")
}

/// Prints who passes what, and keeps it where the whole suite was run.
fn table(kinds: &[Kind], cases: &[&Case], outcomes: &[Vec<Outcome>], whole: bool) {
    let mut text = String::from("| item |");
    let mut rule = String::from("|---|");
    for kind in kinds {
        text += &format!(" {} |", kind.name());
        rule += "---|";
    }
    text += &format!("\n{rule}\n");
    let mut rows = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        text += &format!("| {} |", case.name);
        let mut row = json!({ "item": case.name });
        for (kind, list) in kinds.iter().zip(outcomes) {
            let good = list.get(index).is_some_and(Option::is_none);
            text += if good { " yes |" } else { " no |" };
            row[kind.name()] = json!(good);
        }
        text.push('\n');
        rows.push(row);
    }
    text += "| all |";
    for list in outcomes {
        let good = list.iter().filter(|outcome| outcome.is_none()).count();
        text += &format!(" {good} of {} |", list.len());
    }
    println!("\n{text}");
    if whole {
        let target = hull_testkit::paths::target();
        let _ = std::fs::write(target.join("oci-conformance.md"), text + "\n");
        let _ = std::fs::write(target.join("oci-conformance.json"), json!(rows).to_string());
    }
}
