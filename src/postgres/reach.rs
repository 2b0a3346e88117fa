//! Whether a host answers at all, and why not.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};

/// Why a host is out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Its name has no address.
    Unknown,
    /// It has IPv6 addresses only, and none answers: an IPv4 network, as a rule.
    OnlyIpv6,
    /// Nothing answers.
    NoAnswer,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "is not known here",
            Self::OnlyIpv6 => "has an IPv6 address only, which this network does not reach",
            Self::NoAnswer => "does not answer",
        })
    }
}

/// Opens a connection to every address of a host, and is content with the first.
pub async fn probe(host: &str, port: u16, limit: Duration) -> Result<(), Unreachable> {
    let addresses: Vec<SocketAddr> = match tokio::time::timeout(limit, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(_)) | Err(_) => return Err(Unreachable::Unknown),
    };
    let tries = addresses.iter().map(|address| Box::pin(TcpStream::connect(*address)));
    if addresses.is_empty() {
        return Err(Unreachable::Unknown);
    }
    match tokio::time::timeout(limit, futures_util::future::select_ok(tries)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) if addresses.iter().all(SocketAddr::is_ipv6) => Err(Unreachable::OnlyIpv6),
        Ok(Err(_)) | Err(_) => Err(Unreachable::NoAnswer),
    }
}
