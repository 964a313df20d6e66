//! Where an HTTP source is: `http://HOST[:PORT][/PATH]`.
//!
//! The host is any [`PeerAddress`] but another source, the port 80 unless it is given, the path what stands before `/rest`
//! where a server in front has moved it. A user and password, a query and a fragment (RFC 3986, section 3) are refused: a
//! source is asked for public data. So is `https`; the bytes prove themselves, and who wants them hidden goes through an
//! onion address, or a transport of his own that knows which hosts want TLS.

use super::address::{AddressParseError, PeerAddress};
use crate::limits::MAX_SOURCE_PATH;
use core::fmt;

/// The port of HTTP (RFC 9110, section 4.2.1).
const HTTP_PORT: u16 = 80;
const SCHEME: &str = "http://";

/// Whether a text is meant to be such an address.
pub(super) fn has_scheme(text: &str) -> bool {
    text.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME))
}

/// The address of an HTTP source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceUrl {
    host: Box<PeerAddress>,
    /// Empty, or begins with a slash and ends without one.
    path: String,
}

impl SourceUrl {
    /// Whom to connect to; never a source.
    pub fn host(&self) -> &PeerAddress {
        &self.host
    }

    /// What stands before `/rest`: nothing, or a path that ends without a slash.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}{}", self.host, self.path)
    }
}

impl core::str::FromStr for SourceUrl {
    type Err = AddressParseError;

    fn from_str(text: &str) -> Result<Self, AddressParseError> {
        let rest = text.get(SCHEME.len()..).filter(|_| has_scheme(text)).ok_or(AddressParseError)?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let is_path = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:@".contains(&byte);
        let path = path.trim_end_matches('/');
        if path.len() > MAX_SOURCE_PATH || !path.bytes().all(is_path) {
            return Err(AddressParseError);
        }
        // Within brackets the colons are an IPv6 address's.
        let has_port = authority.rsplit(']').next().is_some_and(|end| end.contains(':'));
        let host: PeerAddress =
            if has_port { authority.parse()? } else { format!("{authority}:{HTTP_PORT}").parse()? };
        match host {
            PeerAddress::Http(_) => Err(AddressParseError),
            host => Ok(Self { host: Box::new(host), path: path.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_sources_are_read_and_written_as_the_same() {
        let onion = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:8332";
        for (text, written) in [
            ("http://127.0.0.1:8332", "http://127.0.0.1:8332"),
            ("HTTP://127.0.0.1:8332/", "http://127.0.0.1:8332"),
            ("http://node.example", "http://node.example:80"),
            ("http://[::1]/a/b%20c//", "http://[::1]:80/a/b%20c"),
            ("http://[::1]:8332/x", "http://[::1]:8332/x"),
            (&format!("http://{onion}"), &format!("http://{onion}")),
        ] {
            let address: PeerAddress = text.parse().unwrap();
            let PeerAddress::Http(url) = &address else { panic!("{text} is a source") };
            assert_eq!(url.to_string(), written);
            assert_eq!(address.to_string().parse(), Ok(address), "{text}");
        }
    }

    #[test]
    fn what_a_source_has_no_use_for_is_refused() {
        let long = format!("http://a/{}", "p".repeat(MAX_SOURCE_PATH));
        for text in [
            "http://",
            "http:///rest",
            "http://user:pass@a:1",
            "http://a:1?b",
            "http://a:1/b?c",
            "http://a:1/b#c",
            "http://a:1/b c",
            "http://a:1/b\r\nHost: c",
            "http://a:65536",
            "http://http://a:1",
            "https://a:1",
            "a:1/b",
            &long,
        ] {
            assert_eq!(text.parse::<PeerAddress>(), Err(AddressParseError), "{text}");
        }
    }
}
