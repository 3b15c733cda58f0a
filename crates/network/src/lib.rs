//! Bridge, addresses, ports and firewall rules.
