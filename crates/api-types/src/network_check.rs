//! What Hull itself tells of networks: whether they are as they should be, and what is there.

use std::collections::BTreeMap;

wire! {
    /// Reply of `POST /hull/networks/check`.
    #[derive(Eq)]
    pub struct NetworkCheck {
        /// Those that were looked at.
        networks: Vec<String>,
        faults: Vec<NetworkFault>,
        /// What could be put right was.
        repair: bool,
    }
}

wire! {
    /// Something that is not as it should be.
    #[derive(Eq)]
    pub struct NetworkFault {
        /// Empty where all networks are concerned.
        network: String,
        /// bridge, address, setting, firewall, container or names.
        part: String,
        /// In words.
        text: String,
        repaired: bool,
        /// Why it is not repaired.
        error!: String,
    }
}

wire! {
    /// What stands behind a network, for `inspect` with `verbose`.
    #[derive(Eq)]
    pub struct NetworkDetail {
        bridge: String,
        /// Of nf_tables.
        table: String,
        /// What stands there for this network.
        rules: Vec<String>,
        /// Whether names are served at the bridge's address.
        name_server: bool,
        /// The addresses of each name.
        names: BTreeMap<String, Vec<String>>,
        /// The host's ends of the containers' links, by container id.
        links: BTreeMap<String, String>,
        /// What does not work on this host.
        warnings!: Vec<String>,
    }
}
