//! Control groups that systemd makes: transient units, asked for over D-Bus.
//!
//! A scope needs a process to begin with, and the container's own is born into its group. So a
//! process that does nothing holds the scope until the container's is there:
//!
//! ```text
//! holder ──▶ StartTransientUnit(PIDs=[holder]) ──▶ limits ──▶ clone into the group ──▶ holder ends
//! ```

mod bus;
mod gvariant;
mod holder;
mod properties;
mod value;

use std::cell::RefCell;

use anyhow::{Context as _, Result, bail};
use hull_container::Host;
use hull_proto::oci::SystemdUnit;
use hull_proto::plan::CgroupPlan;

use bus::{Bus, Message, Refused};
use holder::Holder;
use properties::{Manager, Properties};
use value::Value;

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";
const SYSTEM_PRIVATE: &str = "/run/systemd/private";
/// What a unit that exists already is refused with, and one that does not.
const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const MISSING: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// Where systemd is spoken to.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    /// Address of the message bus.
    bus: String,
    /// systemd's own socket, for hosts without a message bus.
    private: String,
}

impl Address {
    /// The manager of the system, or that of the user who calls.
    pub(crate) fn of(user: bool) -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        if !user {
            return Ok(Self {
                bus: variable("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(|| SYSTEM_BUS.to_owned()),
                private: SYSTEM_PRIVATE.to_owned(),
            });
        }
        let uid = rustix::process::getuid().as_raw();
        let run = variable("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{uid}"));
        Ok(Self {
            bus: variable("DBUS_SESSION_BUS_ADDRESS")
                .unwrap_or_else(|| format!("unix:path={run}/bus")),
            private: format!("{run}/systemd/private"),
        })
    }
}

/// A connection to systemd.
#[derive(Debug)]
pub(crate) struct Systemd {
    bus: Bus,
    /// Whom messages are for; nobody on systemd's own socket.
    destination: &'static str,
}

impl Systemd {
    pub(crate) fn connect(address: &Address) -> Result<Self> {
        match Bus::connect(&address.bus) {
            Ok(bus) => Ok(Self {
                bus,
                destination: NAME,
            }),
            Err(error) => match Bus::connect_peer(&address.private) {
                Ok(bus) => Ok(Self {
                    bus,
                    destination: "",
                }),
                Err(_) => Err(error.context(
                    "--systemd-cgroup: cannot speak to systemd: start it or leave the option away",
                )),
            },
        }
    }

    fn manager(&mut self, member: &str, body: Vec<Value>) -> Result<Vec<Value>> {
        let call = Message::call(self.destination, PATH, MANAGER, member).with(body);
        self.bus.call(call)
    }

    fn property(&mut self, name: &str) -> Result<Value> {
        let properties = "org.freedesktop.DBus.Properties";
        let call = Message::call(self.destination, PATH, properties, "Get")
            .with(vec![Value::text(MANAGER), Value::text(name)]);
        match self.bus.call(call)?.into_iter().next() {
            Some(Value::Variant(value)) => Ok(*value),
            _ => bail!("systemd has no property {name}"),
        }
    }

    /// The number in `252.22-1~deb12u1` or `v245`.
    fn version(&mut self) -> Result<u32> {
        let version = self.property("Version")?;
        let text = version
            .as_text()
            .unwrap_or_default()
            .trim_start_matches('v');
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        text.get(..end)
            .and_then(|digits| digits.parse().ok())
            .with_context(|| format!("systemd tells no version: {text:?}"))
    }

    /// Group of the manager itself, below which its units are.
    fn own_group(&mut self) -> Result<String> {
        let group = self.property("ControlGroup")?;
        let group = group.as_text().unwrap_or_default();
        Ok(group
            .trim_end_matches('/')
            .trim_end_matches("/init.scope")
            .to_owned())
    }

    /// From here on the ends of jobs are told.
    fn subscribe(&mut self) -> Result<()> {
        if !self.destination.is_empty() {
            let dbus = "org.freedesktop.DBus";
            let rule = format!("type='signal',interface='{MANAGER}',member='JobRemoved'");
            let call = Message::call(dbus, "/org/freedesktop/DBus", dbus, "AddMatch");
            self.bus.call(call.with(vec![Value::Text(rule)]))?;
        }
        self.manager("Subscribe", Vec::new()).map(drop)
    }

    /// Waits for the end of a job, given as the answer to a call.
    fn finish(&mut self, answer: &[Value], what: &str, unit: &str) -> Result<()> {
        let job = answer
            .first()
            .and_then(Value::as_text)
            .context("systemd answers without a job")?
            .to_owned();
        let removed = self
            .bus
            .wait_for(|message| {
                message.is_signal(MANAGER, "JobRemoved")
                    && message.body.get(1).and_then(Value::as_text) == Some(&job)
            })
            .with_context(|| format!("systemd does not {what} {unit}"))?;
        match removed.body.get(3).and_then(Value::as_text) {
            Some("done") => Ok(()),
            result => bail!(
                "systemd cannot {what} {unit}: {}",
                result.unwrap_or("failed")
            ),
        }
    }

    fn start(&mut self, unit: &str, properties: Properties) -> Result<()> {
        let body = vec![
            Value::text(unit),
            Value::text("replace"),
            properties.into_value(),
            Value::Array("(sa(sv))".to_owned(), Vec::new()),
        ];
        let answer = match self.manager("StartTransientUnit", body.clone()) {
            // What is left of one that failed gives the name away when it is told so.
            Err(error) if is_refused(&error, EXISTS) => {
                let _ = self.manager("ResetFailedUnit", vec![Value::text(unit)]);
                self.manager("StartTransientUnit", body)
            }
            result => result,
        };
        let answer = answer.with_context(|| format!("systemd refuses to start {unit}"))?;
        self.finish(&answer, "start", unit)
    }

    /// Stops a unit; one that is gone is stopped.
    fn stop(&mut self, unit: &str) -> Result<()> {
        let body = vec![Value::text(unit), Value::text("replace")];
        match self.manager("StopUnit", body) {
            Ok(answer) => self.finish(&answer, "stop", unit)?,
            Err(error) if is_refused(&error, MISSING) => return Ok(()),
            Err(error) => return Err(error.context(format!("systemd refuses to stop {unit}"))),
        }
        // Failed ones are remembered until told otherwise.
        let _ = self.manager("ResetFailedUnit", vec![Value::text(unit)]);
        Ok(())
    }

    /// `below` is a group in that of the unit, as an absolute path; empty is the unit's own.
    fn attach(&mut self, unit: &str, below: &str, pid: u32) -> Result<()> {
        let body = vec![
            Value::text(unit),
            Value::text(below),
            Value::Array("u".to_owned(), vec![Value::U32(pid)]),
        ];
        self.manager("AttachProcessesToUnit", body)
            .map(drop)
            .with_context(|| format!("systemd refuses to bring process {pid} into {unit}"))
    }

    fn set_properties(&mut self, unit: &str, properties: Properties) -> Result<()> {
        let body = vec![
            Value::text(unit),
            Value::Bool(true),
            properties.into_value(),
        ];
        self.manager("SetUnitProperties", body)
            .map(drop)
            .with_context(|| format!("systemd refuses the limits of {unit}"))
    }
}

fn is_refused(error: &anyhow::Error, name: &str) -> bool {
    error
        .downcast_ref::<Refused>()
        .is_some_and(|refused| refused.name == name)
}

/// A unit that was just started for a container.
#[derive(Debug)]
pub(crate) struct Started {
    systemd: RefCell<Systemd>,
    unit: String,
    /// It is the user's own, who may move no process into it from outside.
    attaches: bool,
    _holder: Option<Holder>,
}

impl Started {
    /// Undoes it: the container could not be made.
    pub(crate) fn undo(self) {
        let _ = self.systemd.borrow_mut().stop(&self.unit);
    }

    /// Whether systemd has to bring processes into the unit.
    pub(crate) fn attaches(&self) -> bool {
        self.attaches
    }

    /// Has systemd bring a process into the unit.
    pub(crate) fn attach(&self, pid: u32) -> Result<()> {
        self.systemd.borrow_mut().attach(&self.unit, "", pid)
    }
}

/// Starts the unit of the plan, if systemd is to make the group. The plan then has the path of
/// the group. The unit needs another process in it by the time the result is dropped.
pub(crate) fn start(id: &str, plan: &mut CgroupPlan, host: &Host) -> Result<Option<Started>> {
    let Some(unit) = plan.systemd.clone() else {
        return Ok(None);
    };
    start_at(&Address::of(unit.user)?, &unit, id, plan, host).map(Some)
}

fn start_at(
    address: &Address,
    unit: &SystemdUnit,
    id: &str,
    plan: &mut CgroupPlan,
    host: &Host,
) -> Result<Started> {
    let mut systemd = Systemd::connect(address)?;
    let manager = Manager {
        version: systemd.version()?,
        is_v2: host.hierarchies.is_v2(),
    };
    systemd.subscribe()?;
    let holder = if unit.unit.ends_with(".slice") {
        None
    } else {
        Some(Holder::start()?)
    };
    let pid = holder.as_ref().map(Holder::pid);
    let properties = Properties::of_new(unit, id, plan, pid, manager)?;
    systemd.start(&unit.unit, properties)?;
    let path = match &holder {
        // Where systemd has put it, whatever the manager's own place is.
        Some(holder) => holder.group(),
        None => Ok(format!("{}{}", systemd.own_group()?, plan.path)),
    };
    match path {
        Ok(path) => plan.path = path,
        Err(error) => {
            let _ = systemd.stop(&unit.unit);
            return Err(error);
        }
    }
    Ok(Started {
        systemd: RefCell::new(systemd),
        unit: unit.unit.clone(),
        attaches: unit.user,
        _holder: holder,
    })
}

/// Stops the unit of a container that has ended.
pub(crate) fn stop(unit: &SystemdUnit) -> Result<()> {
    Systemd::connect(&Address::of(unit.user)?)?.stop(&unit.unit)
}

/// Brings one more process into the unit of a container, if its user may not do so himself.
pub(crate) fn attach(unit: &SystemdUnit, below: &str, pid: u32) -> Result<()> {
    if !unit.user {
        return Ok(());
    }
    Systemd::connect(&Address::of(true)?)?.attach(&unit.unit, below, pid)
}

/// Tells systemd of other limits: it would set its own back when it is reloaded.
pub(crate) fn update(unit: &SystemdUnit, plan: &CgroupPlan, host: &Host) -> Result<()> {
    let mut systemd = Systemd::connect(&Address::of(unit.user)?)?;
    let manager = Manager {
        version: systemd.version()?,
        is_v2: host.hierarchies.is_v2(),
    };
    let properties = Properties::of_update(plan, manager);
    if properties.is_empty() {
        return Ok(());
    }
    systemd.set_properties(&unit.unit, properties)
}

#[cfg(test)]
mod tests;
