//! Timing of whole commands: from the start of the process to its end.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A command line that is run again and again.
#[derive(Debug, Clone)]
pub struct Case {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables set for it.
    pub env: Vec<(String, String)>,
}

impl Case {
    /// A command without variables.
    pub fn new(argv: &[&str]) -> Self {
        Self {
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
            env: Vec::new(),
        }
    }

    /// With these variables.
    #[must_use]
    pub fn env(mut self, env: &[(String, String)]) -> Self {
        self.env.extend_from_slice(env);
        self
    }

    /// Starts it. What it says on stderr goes to a file and not through a pipe, whose reading
    /// would wake this process once more while it measures.
    fn spawn(&self) -> Result<Started<'_>> {
        let (program, args) = self.argv.split_first().context("an empty command line")?;
        let complaints = tempfile::tempfile().context("cannot make a file for stderr")?;
        let mut command = Command::new(program);
        command
            .args(args)
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(complaints.try_clone()?);
        let begun = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {}", self.argv.join(" ")))?;
        Ok(Started {
            case: self,
            child,
            begun,
            complaints,
        })
    }

    /// Runs it once.
    ///
    /// # Errors
    /// If it cannot be run or fails: a failed run is no measurement.
    pub fn once(&self) -> Result<Duration> {
        self.spawn()?.end()
    }

    /// Runs it once; what it writes to standard output.
    ///
    /// # Errors
    /// As [`Case::once`].
    pub fn output(&self) -> Result<String> {
        let (program, args) = self.argv.split_first().context("an empty command line")?;
        let output = Command::new(program)
            .args(args)
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", self.argv.join(" ")))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            bail!("{} failed: {}", self.argv.join(" "), text.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Runs it `n` times at once; the time until the last has ended.
    ///
    /// # Errors
    /// If one of them fails.
    pub fn at_once(&self, n: usize) -> Result<Duration> {
        let begun = Instant::now();
        let started = (0..n).map(|_| self.spawn()).collect::<Result<Vec<_>>>()?;
        for started in started {
            started.end()?;
        }
        Ok(begun.elapsed())
    }
}

/// A command that runs.
struct Started<'a> {
    case: &'a Case,
    child: Child,
    begun: Instant,
    complaints: File,
}

impl Started<'_> {
    /// Waits for its end; how long it ran.
    fn end(mut self) -> Result<Duration> {
        let status = self.child.wait()?;
        let took = self.begun.elapsed();
        if !status.success() {
            let mut text = String::new();
            self.complaints.rewind()?;
            self.complaints.read_to_string(&mut text)?;
            bail!("{} failed: {}", self.case.argv.join(" "), text.trim());
        }
        Ok(took)
    }
}

/// Runs the cases in turn, `rounds` times, after one round that does not count. Noise of the
/// machine meets all of them alike. In its turn a case runs twice and the second run counts:
/// what engines do after a command has ended (taking down a network, say) is borne by the next
/// command of the same engine, and not by whichever engine is measured after it. Returns the
/// median of each, in milliseconds.
///
/// # Errors
/// If a run fails.
pub fn interleaved(cases: &[Case], rounds: usize) -> Result<Vec<f64>> {
    let timed: Vec<_> = cases
        .iter()
        .map(|case| || case.once().and_then(|_| case.once()))
        .collect();
    let timed: Vec<&Timed<'_>> = timed.iter().map(|t| t as &Timed<'_>).collect();
    interleaved_steps(&timed, rounds)
}

/// What takes time, and says how much.
pub type Timed<'a> = dyn Fn() -> Result<Duration> + 'a;

/// As [`interleaved`], for cases of several commands.
///
/// # Errors
/// If a run fails.
pub fn interleaved_steps(cases: &[&Timed<'_>], rounds: usize) -> Result<Vec<f64>> {
    let mut times = vec![Vec::with_capacity(rounds); cases.len()];
    for round in 0..=rounds {
        for (case, times) in cases.iter().zip(&mut times) {
            let took = case()?;
            if round > 0 {
                times.push(took);
            }
        }
    }
    Ok(times.iter_mut().map(|t| median_ms(t)).collect())
}

/// The median of figures; none of none.
pub fn median(figures: &mut [f64]) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median in milliseconds.
pub fn median_ms(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times
        .get(times.len() / 2)
        .map_or(f64::NAN, |t| t.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_outlier_is_not_moved() {
        let mut times = [1, 2, 1000].map(Duration::from_millis);
        assert!((median_ms(&mut times) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn failing_command_is_no_measurement() {
        let failed = Case::new(&["ls", "/nowhere"]).once().unwrap_err();
        assert!(failed.to_string().contains("No such file"), "{failed}");
        assert!(Case::new(&["true"]).at_once(3).is_ok());
    }
}
