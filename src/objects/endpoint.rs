//! The address of an S3 endpoint, in the one form that works.

use crate::target::is_project_ref;
use std::fmt;
use std::net::IpAddr;
use url::Url;

/// The path of the S3 protocol below a project's host.
const PATH: &str = "/storage/v1/s3/";

/// Why an address was not accepted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EndpointError {
    /// It is not an address of the web.
    #[error(
        "`{0}` is not the URL of an S3 endpoint (such as `https://<ref>.storage.supabase.co/storage/v1/s3`)"
    )]
    Malformed(String),
    /// It is plaintext on a host that is not this machine.
    #[error("`{0}` would send all objects in the clear: use `https://`")]
    Plaintext(String),
    /// It holds a sign-in.
    #[error(
        "the URL of the S3 endpoint at `{0}` holds a user or a password; keys have variables of their own"
    )]
    SignIn(String),
}

/// The address of an S3 endpoint. Its path ends with one slash: without it aws-sdk-s3 glues the
/// bucket to the last part (awslabs/aws-sdk-rust#1387).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(String);

impl Endpoint {
    /// Reads an address; one without a path means the path that every project has.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        Self::with_path(text, PATH)
    }

    /// Reads the address of any S3 service; one without a path has none.
    pub fn of_store(text: &str) -> Result<Self, EndpointError> {
        Self::with_path(text, "/")
    }

    fn with_path(text: &str, default: &str) -> Result<Self, EndpointError> {
        let malformed = || EndpointError::Malformed(text.to_owned());
        // An address that cannot be read may hold a password, so it is not repeated then.
        let mut url = Url::parse(text.trim()).map_err(|_| malformed())?;
        let host = url.host_str().ok_or_else(malformed)?.to_owned();
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointError::SignIn(host));
        }
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
            return Err(malformed());
        }
        if url.scheme() == "http" && !is_loopback(&host) {
            return Err(EndpointError::Plaintext(text.to_owned()));
        }
        let path = url.path().trim_end_matches('/');
        let path = if path.is_empty() { default.to_owned() } else { format!("{path}/") };
        url.set_path(&path);
        Ok(Self(url.into()))
    }

    /// The endpoint of a project on the platform, such as `<ref>` on `supabase.co`.
    pub fn of_project(project_ref: &str, project_host: &str) -> Result<Self, EndpointError> {
        Self::parse(&format!("https://{project_ref}.storage.{project_host}"))
    }

    /// The endpoint of Amazon S3 in a region.
    pub fn of_amazon(region: &str) -> Result<Self, EndpointError> {
        Self::of_store(&format!("https://s3.{region}.amazonaws.com"))
    }

    /// The ref of the project, when its host says it.
    pub fn project_ref(&self) -> Option<&str> {
        let host = self.0.split_once("://")?.1;
        host.split(['.', ':', '/']).next().filter(|label| is_project_ref(label))
    }

    /// Whether it is Storage on one of the two hosts that the platform gives a project
    /// (guides/storage/s3/authentication).
    pub fn is_of_project(&self, project_ref: &str, project_host: &str) -> bool {
        let hosts =
            [format!("{project_ref}.storage.{project_host}"), format!("{project_ref}.{project_host}")];
        hosts.iter().any(|host| self.0 == format!("https://{host}{PATH}"))
    }

    /// Host and port, which two endpoints of one service have in common.
    pub fn authority(&self) -> &str {
        self.0.split('/').nth(2).unwrap_or_default()
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_address_becomes_the_one_that_works() {
        let read = |text: &str| Endpoint::parse(text).unwrap().to_string();
        let hosted = "https://abc.storage.supabase.co/storage/v1/s3/";
        assert_eq!(read("https://abc.storage.supabase.co/storage/v1/s3"), hosted);
        assert_eq!(read("https://abc.storage.supabase.co/storage/v1/s3//"), hosted);
        assert_eq!(read(" https://abc.storage.supabase.co\n"), hosted);
        assert_eq!(Endpoint::of_project("abc", "supabase.co").unwrap().as_str(), hosted);
        assert_eq!(read("http://127.0.0.1:54321/storage/v1/s3"), "http://127.0.0.1:54321/storage/v1/s3/");
        assert_eq!(read("http://[::1]:9/s3"), "http://[::1]:9/s3/");
        assert_eq!(Endpoint::of_store("https://s3.example.com").unwrap().as_str(), "https://s3.example.com/");
        assert_eq!(Endpoint::of_store("https://h/minio/").unwrap().as_str(), "https://h/minio/");
    }

    #[test]
    fn the_host_may_say_the_project() {
        let read = |text: &str| Endpoint::parse(text).unwrap().project_ref().map(str::to_owned);
        assert_eq!(read("https://abcdefghijklmnopqrst.supabase.co").as_deref(), Some("abcdefghijklmnopqrst"));
        assert_eq!(read("http://127.0.0.1:1"), None);
    }

    #[test]
    fn only_its_own_hosts_are_a_projects() {
        let id = "abcdefghijklmnopqrst";
        let is = |text: &str| Endpoint::parse(text).unwrap().is_of_project(id, "supabase.co");
        for own in [
            "https://abcdefghijklmnopqrst.supabase.co",
            "https://ABCDEFGHIJKLMNOPQRST.storage.supabase.co/storage/v1/s3",
        ] {
            assert!(is(own), "{own}");
        }
        for other in [
            "http://127.0.0.1:1",
            "https://bcdefghijklmnopqrstu.supabase.co",
            "https://abcdefghijklmnopqrst.example.com",
            "https://abcdefghijklmnopqrst.supabase.co.example.com",
            "https://abcdefghijklmnopqrst.supabase.co:8443",
            "https://abcdefghijklmnopqrst.supabase.co/functions/v1/log/s3",
            "https://example.com/abcdefghijklmnopqrst.supabase.co/",
        ] {
            assert!(!is(other), "{other}");
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        let refused = |text: &str| Endpoint::parse(text).unwrap_err();
        assert_eq!(refused("abc"), EndpointError::Malformed("abc".into()));
        assert_eq!(refused("ftp://h/s3"), EndpointError::Malformed("ftp://h/s3".into()));
        assert_eq!(refused("https://h/s3?x=1"), EndpointError::Malformed("https://h/s3?x=1".into()));
        assert_eq!(refused("http://h/s3"), EndpointError::Plaintext("http://h/s3".into()));
        assert_eq!(refused("https://u:p@h/s3"), EndpointError::SignIn("h".into()));
    }
}
