//! Which proxy leads to a host, as `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` say it: Go's rules,
//! which Docker's users know. Loopback is always reached directly.

use std::net::IpAddr;

use reqwest::{ClientBuilder, Proxy, Url};

use crate::RegistryError;
use crate::hosts::within;

/// Proxies; the empty value means none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://` addresses.
    pub http: Option<String>,
    /// For `https://` addresses.
    pub https: Option<String>,
    /// Hosts that are reached directly: `*`, a domain with its subdomains, `.domain` for these
    /// alone, an address, a network in CIDR notation; each perhaps with a port. Comma separated.
    pub direct: String,
}

impl Proxies {
    /// Checks the addresses of the proxies.
    ///
    /// # Errors
    /// If one is none.
    pub fn check(&self) -> Result<(), RegistryError> {
        for text in [&self.http, &self.https].into_iter().flatten() {
            if address(text).is_none() {
                return Err(RegistryError::Config {
                    file: "proxy".to_owned(),
                    why: format!("{text:?} is no address of a proxy: write http://HOST:PORT"),
                });
            }
        }
        Ok(())
    }

    pub(crate) fn apply(&self, builder: ClientBuilder) -> ClientBuilder {
        if self.http.is_none() && self.https.is_none() {
            return builder.no_proxy();
        }
        let this = self.clone();
        builder.proxy(Proxy::custom(move |url| this.of(url)))
    }

    /// The proxy on the way to an address.
    fn of(&self, url: &Url) -> Option<Url> {
        let text = match url.scheme() {
            "http" => self.http.as_deref(),
            "https" => self.https.as_deref(),
            _ => None,
        };
        let host = url.host_str().unwrap_or_default();
        if self.is_direct(host, url.port_or_known_default().unwrap_or(0)) {
            return None;
        }
        address(text?)
    }

    fn is_direct(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let ip: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
            return true;
        }
        self.direct
            .split(',')
            .map(|one| one.trim().to_ascii_lowercase())
            .filter(|one| !one.is_empty())
            .any(|one| {
                if one == "*" {
                    return true;
                }
                if let Some(ip) = ip
                    && one.contains('/')
                {
                    return within(ip, &one);
                }
                let (name, wanted_port) = match one.rsplit_once(':') {
                    Some((name, text)) if !name.contains(':') || name.ends_with(']') => {
                        (name.to_owned(), text.parse::<u16>().ok())
                    }
                    _ => (one.clone(), None),
                };
                if wanted_port.is_some_and(|wanted| wanted != port) {
                    return false;
                }
                if let Some(ip) = ip {
                    return name.trim_matches(['[', ']']).parse() == Ok(ip);
                }
                let name = name.strip_prefix('*').unwrap_or(&name);
                match name.strip_prefix('.') {
                    Some(domain) => host
                        .strip_suffix(domain)
                        .is_some_and(|rest| rest.ends_with('.')),
                    None => {
                        host == name
                            || host
                                .strip_suffix(name)
                                .is_some_and(|rest| rest.ends_with('.'))
                    }
                }
            })
    }
}

/// A proxy without a scheme is one of HTTP.
fn address(text: &str) -> Option<Url> {
    let text = text.trim();
    let url = if text.contains("://") {
        Url::parse(text)
    } else {
        Url::parse(&format!("http://{text}"))
    };
    url.ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(direct: &str) -> Proxies {
        Proxies {
            http: Some("proxy.example:3128".into()),
            https: Some("http://user:word@secure.example:3129".into()),
            direct: direct.into(),
        }
    }

    fn of(direct: &str, url: &str) -> Option<String> {
        proxies(direct)
            .of(&Url::parse(url).expect("url"))
            .map(|url| url.to_string())
    }

    #[test]
    fn proxy_is_chosen_by_scheme_and_loopback_needs_none() {
        assert_eq!(
            of("", "http://reg.example/v2/").as_deref(),
            Some("http://proxy.example:3128/")
        );
        assert_eq!(
            of("", "https://reg.example/v2/").as_deref(),
            Some("http://user:word@secure.example:3129/")
        );
        for url in [
            "http://127.0.0.1:5000/",
            "http://localhost:1/",
            "http://[::1]/",
        ] {
            assert_eq!(of("", url), None, "{url}");
        }
    }

    #[test]
    fn no_proxy_takes_domains_addresses_networks_and_ports() {
        for (direct, url, is_direct) in [
            ("*", "http://a.example/", true),
            ("example", "http://a.example/", true),
            ("a.example", "http://a.example/", true),
            ("a.example", "http://b.a.example/", true),
            (".a.example", "http://a.example/", false),
            (".a.example", "http://b.a.example/", true),
            ("*.a.example", "http://b.a.example/", true),
            ("xample", "http://a.example/", false),
            ("other, a.example:8080", "http://a.example:8080/", true),
            ("a.example:8080", "http://a.example/", false),
            ("10.0.0.0/8", "http://10.1.2.3/", true),
            ("10.0.0.0/8", "http://11.1.2.3/", false),
            ("11.1.2.3:80", "http://11.1.2.3/", true),
            ("11.1.2.3", "http://11.1.2.4/", false),
            ("2001:db8::/32", "http://[2001:db8::1]/", true),
        ] {
            assert_eq!(of(direct, url).is_none(), is_direct, "{direct} {url}");
        }
    }

    #[test]
    fn check_refuses_what_is_no_address() {
        assert!(proxies("").check().is_ok());
        for bad in ["socks5://x:1", "http://", "ftp://a"] {
            let proxies = Proxies {
                http: Some(bad.into()),
                ..Proxies::default()
            };
            assert!(proxies.check().is_err(), "{bad}");
        }
    }
}
