//! Where Storage is, and what signs for it.

use super::{Config, Error, Surroundings};
use crate::objects::{Access, Endpoint, Keys, Origin};
use crate::secret::Secret;
use crate::target::Profile;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;
use std::fmt;
use std::path::PathBuf;

/// A linked project: its ref, and the host that its services stand below, such as `supabase.co`.
#[derive(Clone, Copy, Debug)]
pub struct Linked<'a> {
    /// The project ref.
    pub project_ref: &'a str,
    /// The host.
    pub host: &'a str,
}

/// Where a target's Storage is, what signs for it, and why a key that is set is not used.
#[derive(Clone, Debug)]
pub struct Storage {
    /// Where, and what signs.
    pub access: Access,
    /// Why keys of the service role are not used.
    pub withheld: Vec<Withheld>,
}

/// Why a key of the service role, which may do everything to a project, is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// A key of the new form is no JWT, and cannot be a session token.
    NoToken,
    /// The endpoint is none of the project's own hosts: whoever answers there would have the key.
    Host(String),
    /// The key says that it is another project's.
    Project(String),
    /// Only a file of the repository names the endpoint, and whoever can change that would have the key
    /// of our own variable.
    File(String),
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variable = match self {
            Self::File(_) => "SUPA_SAFE_SERVICE_ROLE_KEY",
            Self::NoToken | Self::Host(_) | Self::Project(_) => "SUPABASE_SERVICE_ROLE_KEY",
        };
        write!(f, "{variable} is not used for Storage: ")?;
        match self {
            Self::NoToken => f.write_str("it is no JWT, and only a JWT can be a session token; use S3 keys"),
            Self::Host(endpoint) => {
                write!(f, "`{endpoint}` is not a host of the project; use S3 keys, which are never sent")
            }
            Self::Project(found) => write!(f, "it is the key of project {}", found.escape_debug()),
            Self::File(endpoint) => write!(
                f,
                "only `storage_url` names `{endpoint}`; set SUPA_SAFE_STORAGE_URL to it if it may have the key"
            ),
        }
    }
}

impl Config {
    /// Where a target's Storage is, by the first of its names that has a section, and what signs for it.
    /// A target that is not linked has Storage only when its address is given.
    pub fn storage(
        &self,
        surroundings: &Surroundings,
        names: &[&str],
        linked: Option<Linked<'_>>,
    ) -> Result<Option<Storage>, Error> {
        let own = names.iter().find_map(|name| self.file.targets.get(*name)).cloned().unwrap_or_default();
        let setting = |variable: &str, own: &Option<String>, all: &Option<String>| {
            surroundings.variable(variable).or_else(|| own.clone()).or_else(|| all.clone())
        };
        let exported = surroundings.variable("SUPA_SAFE_STORAGE_URL");
        let is_exported = exported.is_some();
        let in_file = || own.storage_url.clone().or_else(|| self.file.storage_url.clone());
        let endpoint = match (exported.or_else(in_file), linked) {
            (Some(url), _) => Endpoint::parse(&url)?,
            (None, Some(linked)) => Endpoint::of_project(linked.project_ref, linked.host)?,
            (None, None) => return Ok(None),
        };
        let is_own = linked.is_some_and(|linked| endpoint.is_of_project(linked.project_ref, linked.host));
        let origin = if is_exported || is_own { Origin::Vouched } else { Origin::File };
        let place = Place { endpoint: &endpoint, origin, linked };
        let profile = setting("SUPA_SAFE_S3_PROFILE", &own.storage_profile, &self.file.storage_profile);
        let (mut keys, mut withheld) = (pair(surroundings)?, Vec::new());
        if keys.is_none() {
            keys = profile.and_then(|name| Some(Keys::Profile { name, files: aws_files(surroundings)? }));
        }
        if keys.is_none() {
            match session(surroundings, place).transpose() {
                Ok(session) => keys = session,
                Err(why) => withheld.push(why),
            }
        }
        let region = setting("SUPA_SAFE_S3_REGION", &own.storage_region, &self.file.storage_region);
        let mut service_role = surroundings.variable("SUPA_SAFE_SERVICE_ROLE_KEY");
        if service_role.is_some() && origin == Origin::File {
            withheld.push(Withheld::File(endpoint.to_string()));
            service_role = None;
        }
        let service_role = service_role
            // The project's own key goes to the project's own endpoint.
            .or_else(|| own_key(surroundings, place).ok())
            .map(Secret::new);
        Ok(Some(Storage { access: Access { endpoint, origin, region, keys, service_role }, withheld }))
    }
}

/// An endpoint, who names it, and the project that it should be of.
#[derive(Clone, Copy)]
struct Place<'a> {
    endpoint: &'a Endpoint,
    origin: Origin,
    linked: Option<Linked<'a>>,
}

impl<'a> Place<'a> {
    /// The project whose own host the endpoint is.
    fn project(self) -> Option<&'a str> {
        let platform = Profile::default();
        let host = self.linked.map_or(platform.project_host.as_str(), |linked| linked.host);
        let project = self.linked.map(|linked| linked.project_ref).or_else(|| self.endpoint.project_ref());
        project.filter(|project| self.endpoint.is_of_project(project, host))
    }
}

/// S3 keys. Those of Amazon's own variables are never taken: they would go to another server.
fn pair(surroundings: &Surroundings) -> Result<Option<Keys>, Error> {
    const NAMES: [&str; 2] = ["SUPA_SAFE_S3_ACCESS_KEY_ID", "SUPA_SAFE_S3_SECRET_ACCESS_KEY"];
    match NAMES.map(|name| surroundings.variable(name)) {
        [Some(id), Some(secret)] => Ok(Some(Keys::Pair { id, secret: Secret::new(secret) })),
        [None, None] => Ok(None),
        [None, Some(_)] => Err(Error::Half { set: NAMES[1], missing: NAMES[0] }),
        [Some(_), None] => Err(Error::Half { set: NAMES[0], missing: NAMES[1] }),
    }
}

/// The files of AWS profiles, where the AWS CLI looks for them.
pub(super) fn aws_files(surroundings: &Surroundings) -> Option<[PathBuf; 2]> {
    let file = |variable: &str, name: &str| {
        let named = surroundings.variable(variable).map(PathBuf::from);
        named.or_else(|| Some(surroundings.home()?.join(".aws").join(name)))
    };
    Some([file("AWS_CONFIG_FILE", "config")?, file("AWS_SHARED_CREDENTIALS_FILE", "credentials")?])
}

/// The project's own keys as an S3 session, when the endpoint and the key are that project's.
fn session(surroundings: &Surroundings, place: Place<'_>) -> Option<Result<Keys, Withheld>> {
    surroundings.variable("SUPABASE_SERVICE_ROLE_KEY")?;
    let anon = surroundings.variable("SUPABASE_ANON_KEY")?;
    let keys = own_key(surroundings, place).and_then(|service_role| {
        if service_role.split('.').count() != 3 {
            return Err(Withheld::NoToken);
        }
        let project = place.project().unwrap_or_default().to_owned();
        Ok(Keys::Session { project, anon: Secret::new(anon), service_role: Secret::new(service_role) })
    });
    Some(keys)
}

/// The key of the service role, when the endpoint and the key are the project's. Where a file of the
/// repository alone says which project that is, the key has to say so itself.
fn own_key(surroundings: &Surroundings, place: Place<'_>) -> Result<String, Withheld> {
    let other = || Withheld::Host(place.endpoint.to_string());
    let project = place.project().ok_or_else(other)?;
    let key = surroundings.variable("SUPABASE_SERVICE_ROLE_KEY").ok_or_else(other)?;
    match project_of(&key) {
        Some(found) if found != project => Err(Withheld::Project(found)),
        None if place.origin == Origin::File => Err(other()),
        Some(_) | None => Ok(key),
    }
}

/// The project that a JWT of the platform names in its claim `ref`.
fn project_of(token: &str) -> Option<String> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    claims.get("ref")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::Flags;
    use super::super::tests::{surroundings, with_file};
    use super::*;
    use std::path::Path;

    #[test]
    fn storage_is_there_when_its_address_is_known() {
        let storage = |vars: &[(&str, &str)], text: &str, linked: bool| {
            let linked =
                linked.then_some(Linked { project_ref: "abcdefghijklmnopqrst", host: "supabase.co" });
            with_file(text, Flags::default()).unwrap().storage(
                &surroundings(vars, Path::new("/")),
                &["t"],
                linked,
            )
        };
        assert!(storage(&[], "", false).unwrap().is_none());
        let linked = storage(&[], "", true).unwrap().unwrap().access;
        assert_eq!(
            linked.endpoint.as_str(),
            "https://abcdefghijklmnopqrst.storage.supabase.co/storage/v1/s3/"
        );
        assert!(linked.keys.is_none());

        let keys =
            |vars: &[(&str, &str)], text: &str| storage(vars, text, true).unwrap().unwrap().access.keys;
        // Amazon's own keys are for Amazon.
        assert!(keys(&[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")], "").is_none());
        let session = [("SUPABASE_ANON_KEY", "a"), ("SUPABASE_SERVICE_ROLE_KEY", "a.b.c")];
        assert!(
            matches!(keys(&session, ""), Some(Keys::Session { project, .. }) if project == "abcdefghijklmnopqrst")
        );
        assert!(keys(&[session[0], ("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_x")], "").is_none());
        let home = [("HOME", "/h"), session[0], session[1]];
        let profile = "storage_profile = \"all\"\n[targets.t]\nstorage_profile = \"own\"\n";
        let files = [PathBuf::from("/h/.aws/config"), PathBuf::from("/h/.aws/credentials")];
        assert!(
            matches!(keys(&home, profile), Some(Keys::Profile { name, files: found }) if name == "own" && found == files)
        );
        let pair =
            [("SUPA_SAFE_S3_ACCESS_KEY_ID", "i"), ("SUPA_SAFE_S3_SECRET_ACCESS_KEY", "s"), ("HOME", "/h")];
        assert!(matches!(keys(&pair, profile), Some(Keys::Pair { id, .. }) if id == "i"));
        let half = storage(&pair[..1], "", true).unwrap_err();
        assert_eq!(
            half.to_string(),
            "SUPA_SAFE_S3_ACCESS_KEY_ID is set and SUPA_SAFE_S3_SECRET_ACCESS_KEY is not"
        );

        let url = [("SUPA_SAFE_STORAGE_URL", "http://127.0.0.1:9"), ("SUPA_SAFE_S3_REGION", "eu-west-1")];
        let service = |vars: &[(&str, &str)], url: &str| {
            let given = storage(&[vars, &[("SUPA_SAFE_STORAGE_URL", url)]].concat(), "", true);
            given.unwrap().unwrap().access.service_role.map(|key| key.expose().to_owned())
        };
        let (own, other) = ("https://abcdefghijklmnopqrst.supabase.co", "http://127.0.0.1:9");
        let key = [("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_x")];
        assert_eq!((service(&key, own).as_deref(), service(&key, other)), (Some("sb_secret_x"), None));
        let ours = [key[0], ("SUPA_SAFE_SERVICE_ROLE_KEY", "y")];
        assert_eq!(
            (service(&ours, own).as_deref(), service(&ours, other).as_deref()),
            (Some("y"), Some("y"))
        );
        let given =
            storage(&url, "storage_url = \"https://h\"\nstorage_region = \"x\"", true).unwrap().unwrap();
        let given = given.access;
        assert_eq!(
            (given.endpoint.as_str(), given.region.as_deref()),
            ("http://127.0.0.1:9/storage/v1/s3/", Some("eu-west-1"))
        );
    }

    #[test]
    fn the_service_role_goes_to_its_own_project_alone() {
        let id = "abcdefghijklmnopqrst";
        let token = |claims: &str| format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let own = token(&format!("{{\"ref\":\"{id}\",\"role\":\"service_role\"}}"));
        let read = |key: &str, url: &str, linked: bool| {
            let vars = [("SUPABASE_ANON_KEY", "a"), ("SUPABASE_SERVICE_ROLE_KEY", key)];
            let linked = linked.then_some(Linked { project_ref: id, host: "supabase.co" });
            let file = if url.is_empty() { String::new() } else { format!("storage_url = \"{url}\"") };
            let config = with_file(&file, Flags::default()).unwrap();
            let storage = config.storage(&surroundings(&vars, Path::new("/")), &["t"], linked);
            let Storage { access, withheld } = storage.unwrap().unwrap();
            assert_eq!(access.keys.is_some(), withheld.is_empty());
            withheld.into_iter().next()
        };
        let direct = format!("https://{id}.supabase.co/storage/v1/s3");
        for (url, linked) in [("", true), (direct.as_str(), true), (direct.as_str(), false)] {
            assert_eq!(read(&own, url, linked), None, "{url}");
            // Which project a key belongs to that does not say so, the link says, and a file does not.
            let host = || Some(Withheld::Host(format!("{direct}/")));
            assert_eq!(read(&token("{}"), url, linked), if linked { None } else { host() }, "{url}");
            let no_token = if linked { Some(Withheld::NoToken) } else { host() };
            assert_eq!(read("sb_secret_x", url, linked), no_token);
            let other = token("{\"ref\":\"bcdefghijklmnopqrstu\"}");
            assert_eq!(read(&other, url, linked), Some(Withheld::Project("bcdefghijklmnopqrstu".to_owned())));
        }
        for url in [
            "http://127.0.0.1:9/s3/",
            "https://abcdefghijklmnopqrst.example.com/s3/",
            // Its own functions are no part of Storage, and write down what they are sent.
            "https://abcdefghijklmnopqrst.supabase.co/functions/v1/log/s3/",
        ] {
            for linked in [true, false] {
                assert_eq!(read(&own, url, linked), Some(Withheld::Host(url.to_owned())));
            }
        }
        let other = "https://bcdefghijklmnopqrstu.supabase.co/storage/v1/s3/";
        assert_eq!(read(&own, other, true), Some(Withheld::Host(other.to_owned())));
        assert_eq!(read(&own, other, false), Some(Withheld::Project(id.to_owned())));
    }
    #[test]
    fn our_own_variable_goes_where_the_environment_or_the_project_says() {
        let id = "abcdefghijklmnopqrst";
        let read = |exported: Option<&str>, file: &str, host: &str| {
            let mut vars = vec![("SUPA_SAFE_SERVICE_ROLE_KEY", "y")];
            vars.extend(exported.map(|url| ("SUPA_SAFE_STORAGE_URL", url)));
            let config = with_file(file, Flags::default()).unwrap();
            let linked = Some(Linked { project_ref: id, host });
            let storage = config.storage(&surroundings(&vars, Path::new("/")), &["t"], linked);
            let Storage { access, withheld } = storage.unwrap().unwrap();
            assert_eq!(access.service_role.is_some(), withheld.is_empty());
            assert_eq!(access.origin == Origin::Vouched, withheld.is_empty());
            (access.endpoint.to_string(), withheld)
        };
        let other = "https://storage.example.com/s3/";
        let in_file = format!("storage_url = \"{other}\"");
        let own = format!("https://{id}.storage.supabase.co/storage/v1/s3/");
        let staging = format!("https://{id}.storage.supabase.red/storage/v1/s3/");
        assert_eq!(read(None, "", "supabase.co"), (own.clone(), Vec::new()));
        // The profile says which platform the project is on.
        assert_eq!(read(None, "", "supabase.red"), (staging, Vec::new()));
        assert_eq!(read(None, &format!("storage_url = \"{own}\""), "supabase.co"), (own.clone(), Vec::new()));
        assert_eq!(read(Some(other), &in_file, "supabase.co"), (other.to_owned(), Vec::new()));
        let withheld = |url: &str| (url.to_owned(), vec![Withheld::File(url.to_owned())]);
        assert_eq!(read(None, &in_file, "supabase.co"), withheld(other));
        assert_eq!(read(None, &format!("storage_url = \"{own}\""), "supabase.red"), withheld(&own));
    }
}
