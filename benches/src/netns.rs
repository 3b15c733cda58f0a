//! Other hosts, as network namespaces that the bench makes and removes: one behind a veth pair to
//! this host, and two with nothing but a veth pair between them.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::measure::Case;

/// A namespace with a name; it goes when this is dropped, and its links with it.
#[derive(Debug)]
pub struct Place(String);

fn ip(args: &[&str]) -> Result<()> {
    let status = Command::new("ip")
        .args(args)
        .stdin(Stdio::null())
        .status()
        .context("cannot run ip: is iproute2 installed?")?;
    if !status.success() {
        bail!("ip {} failed", args.join(" "));
    }
    Ok(())
}

impl Place {
    fn new(name: &str) -> Result<Self> {
        ip(&["netns", "add", name])?;
        let place = Self(name.to_owned());
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(place)
    }

    /// A host behind a veth pair, at `theirs`, which reaches this one at `ours`; both in one /24.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn outside(name: &str, ours: &str, theirs: &str) -> Result<Self> {
        let place = Self::new(name)?;
        let link = name;
        ip(&[
            "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name,
        ])?;
        ip(&["addr", "add", &format!("{ours}/24"), "dev", link])?;
        ip(&["link", "set", link, "up"])?;
        ip(&[
            "-n",
            name,
            "addr",
            "add",
            &format!("{theirs}/24"),
            "dev",
            "eth0",
        ])?;
        ip(&["-n", name, "link", "set", "eth0", "up"])?;
        Ok(place)
    }

    /// Two hosts with a bare veth pair between them, at these addresses in one /24.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn pair(names: [&str; 2], addresses: [&str; 2]) -> Result<[Self; 2]> {
        let places = [Self::new(names[0])?, Self::new(names[1])?];
        let [a, b] = names;
        ip(&[
            "-n", a, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", b,
        ])?;
        for (name, address) in names.iter().zip(addresses) {
            ip(&[
                "-n",
                name,
                "addr",
                "add",
                &format!("{address}/24"),
                "dev",
                "eth0",
            ])?;
            ip(&["-n", name, "link", "set", "eth0", "up"])?;
        }
        Ok(places)
    }

    /// A command run there.
    pub fn case(&self, args: &[&str]) -> Case {
        let mut argv = vec!["ip", "netns", "exec", &self.0];
        argv.extend_from_slice(args);
        Case::new(&argv)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A link to this host goes with its other end, but only after the kernel's delay.
        let _ = Command::new("ip")
            .args(["link", "del", &self.0])
            .stderr(Stdio::null())
            .status();
        let _ = ip(&["netns", "del", &self.0]);
    }
}
