//! Timing of whole commands: from the start of the process to its end.

use std::process::{Command, Stdio};
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

    fn command(&self) -> Result<Command> {
        let (program, args) = self.argv.split_first().context("an empty command line")?;
        let mut command = Command::new(program);
        command
            .args(args)
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        Ok(command)
    }

    /// Runs it once.
    ///
    /// # Errors
    /// If it cannot be run or fails: a failed run is no measurement.
    pub fn once(&self) -> Result<Duration> {
        let mut command = self.command()?;
        let begun = Instant::now();
        let output = command
            .output()
            .with_context(|| format!("cannot run {}", self.argv.join(" ")))?;
        let took = begun.elapsed();
        if !output.status.success() {
            bail!(
                "{} failed: {}",
                self.argv.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(took)
    }

    /// Runs it `n` times at once; the time until the last has ended.
    ///
    /// # Errors
    /// If one of them fails.
    pub fn at_once(&self, n: usize) -> Result<Duration> {
        let begun = Instant::now();
        let children = (0..n)
            .map(|_| {
                self.command()?
                    .spawn()
                    .with_context(|| format!("cannot run {}", self.argv.join(" ")))
            })
            .collect::<Result<Vec<_>>>()?;
        for child in children {
            let output = child.wait_with_output()?;
            if !output.status.success() {
                bail!(
                    "one of {n} {} failed: {}",
                    self.argv.join(" "),
                    String::from_utf8_lossy(&output.stderr).trim()
                );
            }
        }
        Ok(begun.elapsed())
    }
}

/// Runs the cases in turn, `rounds` times, after one round that does not count. Noise of the
/// machine meets all of them alike. Returns the median of each, in milliseconds.
///
/// # Errors
/// If a run fails.
pub fn interleaved(cases: &[Case], rounds: usize) -> Result<Vec<f64>> {
    let timed: Vec<_> = cases.iter().map(|case| || case.once()).collect();
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
        assert!(Case::new(&["false"]).once().is_err());
        assert!(Case::new(&["true"]).at_once(3).is_ok());
    }
}
