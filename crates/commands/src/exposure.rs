//! Whom the settings let in: refused at start is what serves strangers by oversight.

use crate::acl::Strangers;
use crate::config::Config;

/// Refuses to serve other machines without a password unless told to, and memcached clients, who
/// cannot give one, where others would have to or may do less than everything.
///
/// # Errors
/// A sentence that says what is open to whom, and the way out.
pub fn check(config: &Config, strangers: Strangers) -> Result<(), String> {
    let is_protected = config.is_on("protected-mode");
    let public = public_address(&config.get("bind")).filter(|_| is_protected);
    if let Some(address) = &public
        && strangers != Strangers::Refused
        && config.get_int("port") != 0
    {
        return Err(format!(
            "refusing to listen on {address} without a password: set requirepass, or say \
             `--protected-mode no` where the network is safe"
        ));
    }
    check_memcached(config, strangers, public.as_deref())
}

/// The first address of `bind` that other machines may reach.
fn public_address(bind: &str) -> Option<String> {
    let is_loopback = |address: &str| {
        address == "localhost"
            || address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    };
    let mut addresses = bind.split_whitespace().map(|word| word.trim_start_matches('-'));
    addresses.find(|address| !is_loopback(address)).map(str::to_owned)
}

/// A password protects nothing if memcached clients reach the same keys without it.
fn check_memcached(
    config: &Config,
    strangers: Strangers,
    public: Option<&str>,
) -> Result<(), String> {
    let port = config.get_int("memcached-port");
    if port == 0 {
        return Ok(());
    }
    if let Some(address) = public {
        return Err(format!(
            "refusing to serve memcached clients, who need no password, on {address}: say \
             `--protected-mode no` where the network is safe"
        ));
    }
    if port == config.get_int("port") {
        return Err("'memcached-port' is that of 'port': each protocol needs its own".into());
    }
    let why = match strangers {
        _ if config.is_on("memcached-unauthenticated") => return Ok(()),
        Strangers::Free => return Ok(()),
        Strangers::Limited => "memcached clients may do what the default user may not",
        Strangers::Refused => "memcached clients cannot give the password",
    };
    Err(format!("{why}: leave memcached-port out, or say `--memcached-unauthenticated yes`"))
}
