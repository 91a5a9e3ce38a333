//! The syntax of connection URLs, judged without ever repeating one: they hold passwords.

/// What is wrong with a URL of one of these schemes. Hosts may be several, by commas; a host may be left out.
///
/// RFC 3986, section 3.2: the authority ends at the first `/`, `?` or `#`. A password with one of these in it therefore
/// breaks the URL apart, which is by far the most frequent mistake; it shows as a port that is no number.
pub(super) fn fault(url: &str, schemes: &[&str]) -> Option<String> {
    let starts = || schemes.iter().map(|scheme| format!("`{scheme}://`")).collect::<Vec<_>>().join(" or ");
    let Some((scheme, rest)) = url.split_once("://") else {
        return Some(format!("this is no URL: it does not start with {}", starts()));
    };
    if !schemes.contains(&scheme) {
        return Some(format!("the URL must start with {}", starts()));
    }
    if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Some("the URL holds a space, a line break or a control character".into());
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (user, hosts) = authority.rsplit_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts));
    // A `/` in the password ends the authority early: what follows has another `@`.
    // The value of a parameter may hold one.
    let before_values = tail.split('=').next().unwrap_or_default();
    if user.is_some_and(|user| user.contains('@'))
        || before_values.contains('@')
        || tail.contains('@') && user.is_none()
    {
        return Some("there is an `@` in the wrong place".into());
    }
    if tail.starts_with('#') {
        return Some("there is a `#` in the wrong place".into());
    }
    if !percent_encoding_holds(url) {
        return Some("a `%` is not followed by two hexadecimal digits".into());
    }
    hosts.split(',').find_map(host_fault)
}

/// The way out of most faults.
pub(super) const FAULT_HELP: &str =
    "in a user name or password write @ : / ? # % as %40 %3A %2F %3F %23 %25 (the value itself is withheld here)";

pub(super) fn scheme(url: &str) -> &str {
    url.split_once("://").map_or("", |(scheme, _)| scheme)
}

fn host_fault(host: &str) -> Option<String> {
    let port = match host.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((address, rest)) if address.parse::<std::net::Ipv6Addr>().is_ok() => match rest.strip_prefix(':') {
                Some(port) => Some(port),
                None if rest.is_empty() => None,
                None => return Some("something other than `:port` follows the address in [ ]".into()),
            },
            _ => return Some("there is no IPv6 address between [ and ]".into()),
        },
        None => host.split_once(':').map(|(_, port)| port),
    };
    match port.map(str::parse::<u16>) {
        None => None,
        Some(Ok(port)) if port > 0 => None,
        Some(_) => Some("the port is not a number from 1 to 65535".into()),
    }
}

fn percent_encoding_holds(url: &str) -> bool {
    url.split('%').skip(1).all(|after| after.len() >= 2 && after.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_in_use_pass() {
        for url in [
            "amqp://localhost",
            "amqp://guest:guest@localhost:5672/%2f",
            "amqps://u:p%40ss@[::1]:5671/vhost?heartbeat=10",
            "amqp://u:p@h:1/",
        ] {
            assert_eq!(fault(url, &["amqp", "amqps"]), None, "{url}");
        }
        for url in [
            "postgres://app@db.example/orders",
            "postgresql://app:x@a:5432,b:5433/orders?sslmode=verify-full",
            "postgres:///orders?host=/var/run/postgresql",
            "postgres://%2Fvar%2Frun/orders",
            "postgres://h/db?options=a@b",
        ] {
            let expected = url.ends_with("a@b").then(|| "there is an `@` in the wrong place".to_owned());
            assert_eq!(fault(url, &["postgres", "postgresql"]), expected, "{url}");
        }
    }

    #[test]
    fn a_broken_url_is_named_and_never_repeated() {
        let cases = [
            ("localhost:5672", "this is no URL"),
            ("", "this is no URL"),
            ("http://localhost", "must start with `amqp://` or `amqps://`"),
            ("amqp://u:hunter2/x@host", "`@` in the wrong place"),
            ("amqp://u:hun@ter2@host", "`@` in the wrong place"),
            ("amqp://u:hunter2@ss/word@host", "`@` in the wrong place"),
            ("amqp://u:hunter2?x@host", "`@` in the wrong place"),
            ("amqp://u:hunter2#", "`#` in the wrong place"),
            ("amqp://u:hunter2%@host", "`%` is not followed"),
            ("amqp://u:hunter2@host:port", "port is not a number"),
            ("amqp://u:hunter2@host:0", "port is not a number"),
            ("amqp://u:hunter2@host:70000", "port is not a number"),
            ("amqp://u:hun ter2@host", "holds a space"),
            ("amqp://u:hunter2@[zz]", "no IPv6 address"),
            ("amqp://u:hunter2@[::1]x", "follows the address"),
        ];
        for (url, expected) in cases {
            let fault = fault(url, &["amqp", "amqps"]).expect(url);
            assert!(fault.contains(expected), "{url}: {fault}");
            assert!(!fault.contains("hunter2"));
        }
    }
}
