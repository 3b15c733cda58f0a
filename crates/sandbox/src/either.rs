//! A sandbox whose back end is known at its launch.

use std::os::fd::{BorrowedFd, OwnedFd};

use hull_model::{Resources, Stats};
use hull_proto::guest::Processes;
use hull_proto::{ExecLaunch, Failure, LaunchPlan};

use crate::container::Container;
use crate::contract::{Process, Sandbox, Stdio};
use crate::vm::Vm;

/// A container, or a virtual machine if the plan has one.
#[derive(Default)]
pub struct Either {
    container: Container,
    vm: Option<Box<Vm>>,
}

impl Either {
    /// One that is not launched yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`Container::ask_host`].
    pub fn ask_host(&mut self) {
        self.container.ask_host();
    }

    fn chosen(&self) -> &dyn Sandbox {
        match &self.vm {
            Some(vm) => vm.as_ref(),
            None => &self.container,
        }
    }

    fn chosen_mut(&mut self) -> &mut dyn Sandbox {
        match &mut self.vm {
            Some(vm) => vm.as_mut(),
            None => &mut self.container,
        }
    }
}

impl Sandbox for Either {
    fn launch(
        &mut self,
        plan: &LaunchPlan,
        fds: Vec<OwnedFd>,
        stdio: Stdio,
    ) -> Result<Process, Failure> {
        if plan.vm.is_some() {
            self.vm = Some(Box::default());
        }
        self.chosen_mut().launch(plan, fds, stdio)
    }

    fn exec(&mut self, exec: &ExecLaunch, stdio: Stdio) -> Result<Process, Failure> {
        self.chosen_mut().exec(exec, stdio)
    }

    fn ended(&mut self) -> Option<(u32, i32)> {
        self.chosen_mut().ended()
    }

    fn watch(&self) -> Option<BorrowedFd<'_>> {
        self.chosen().watch()
    }

    fn notices(&mut self) -> Vec<String> {
        self.chosen_mut().notices()
    }

    fn resize(
        &mut self,
        pid: u32,
        terminal: BorrowedFd<'_>,
        rows: u16,
        cols: u16,
    ) -> Result<(), Failure> {
        self.chosen_mut().resize(pid, terminal, rows, cols)
    }

    fn signal(&mut self, pid: u32, signal: i32) -> Result<(), Failure> {
        self.chosen_mut().signal(pid, signal)
    }

    fn kill_all(&mut self) -> Result<(), Failure> {
        self.chosen_mut().kill_all()
    }

    fn pause(&mut self) -> Result<(), Failure> {
        self.chosen_mut().pause()
    }

    fn resume(&mut self) -> Result<(), Failure> {
        self.chosen_mut().resume()
    }

    fn update(&mut self, resources: &Resources) -> Result<Vec<String>, Failure> {
        self.chosen_mut().update(resources)
    }

    fn stats(&mut self) -> Result<Stats, Failure> {
        self.chosen_mut().stats()
    }

    fn pids(&mut self) -> Result<Vec<u32>, Failure> {
        self.chosen_mut().pids()
    }

    fn processes(&mut self) -> Result<Processes, Failure> {
        self.chosen_mut().processes()
    }

    fn oom_kills(&mut self) -> u64 {
        self.chosen_mut().oom_kills()
    }

    fn oom_notice(&mut self) -> Option<OwnedFd> {
        self.chosen_mut().oom_notice()
    }

    fn outlives_first(&self) -> bool {
        self.chosen().outlives_first()
    }

    fn delete(&mut self) -> Result<(), Failure> {
        self.chosen_mut().delete()
    }
}
