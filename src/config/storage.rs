//! Where Storage is, and what signs for it.

use super::{Config, Error, Surroundings};
use crate::objects::{Access, Endpoint, Keys};
use crate::secret::Secret;
use std::path::PathBuf;

/// A linked project: its ref, and the host that its services stand below, such as `supabase.co`.
#[derive(Clone, Copy, Debug)]
pub struct Linked<'a> {
    /// The project ref.
    pub project_ref: &'a str,
    /// The host.
    pub host: &'a str,
}

impl Config {
    /// Where a target's Storage is, by the first of its names that has a section, and what signs for it. A target that is not linked has Storage
    /// only when its address is given.
    pub fn storage(
        &self,
        surroundings: &Surroundings,
        names: &[&str],
        linked: Option<Linked<'_>>,
    ) -> Result<Option<Access>, Error> {
        let own = names.iter().find_map(|name| self.file.targets.get(*name)).cloned().unwrap_or_default();
        let setting = |variable: &str, own: &Option<String>, all: &Option<String>| {
            surroundings.variable(variable).or_else(|| own.clone()).or_else(|| all.clone())
        };
        let endpoint =
            match (setting("SUPA_SAFE_STORAGE_URL", &own.storage_url, &self.file.storage_url), linked) {
                (Some(url), _) => Endpoint::parse(&url)?,
                (None, Some(linked)) => Endpoint::of_project(linked.project_ref, linked.host)?,
                (None, None) => return Ok(None),
            };
        let profile = setting("SUPA_SAFE_S3_PROFILE", &own.storage_profile, &self.file.storage_profile);
        let project = linked.map(|linked| linked.project_ref).or_else(|| endpoint.project_ref());
        let keys = match pair(surroundings)? {
            Some(pair) => Some(pair),
            None => profile
                .and_then(|name| Some(Keys::Profile { name, files: aws_files(surroundings)? }))
                .or_else(|| session(surroundings, project?)),
        };
        let region = setting("SUPA_SAFE_S3_REGION", &own.storage_region, &self.file.storage_region);
        let service_role = surroundings
            .variable("SUPA_SAFE_SERVICE_ROLE_KEY")
            // The project's own key goes to the project's own endpoint.
            .or_else(|| project.and_then(|_| surroundings.variable("SUPABASE_SERVICE_ROLE_KEY")))
            .map(Secret::new);
        Ok(Some(Access { endpoint, region, keys, service_role }))
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
fn aws_files(surroundings: &Surroundings) -> Option<[PathBuf; 2]> {
    let file = |variable: &str, name: &str| {
        let named = surroundings.variable(variable).map(PathBuf::from);
        named.or_else(|| Some(surroundings.home()?.join(".aws").join(name)))
    };
    Some([file("AWS_CONFIG_FILE", "config")?, file("AWS_SHARED_CREDENTIALS_FILE", "credentials")?])
}

/// The project's own keys. A secret key of the new form is no JWT, and cannot be a session token.
fn session(surroundings: &Surroundings, project: &str) -> Option<Keys> {
    let service_role = surroundings.variable("SUPABASE_SERVICE_ROLE_KEY")?;
    let anon = surroundings.variable("SUPABASE_ANON_KEY")?;
    (service_role.split('.').count() == 3).then(|| Keys::Session {
        project: project.to_owned(),
        anon: Secret::new(anon),
        service_role: Secret::new(service_role),
    })
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
        let linked = storage(&[], "", true).unwrap().unwrap();
        assert_eq!(
            linked.endpoint.as_str(),
            "https://abcdefghijklmnopqrst.storage.supabase.co/storage/v1/s3/"
        );
        assert!(linked.keys.is_none());

        let keys = |vars: &[(&str, &str)], text: &str| storage(vars, text, true).unwrap().unwrap().keys;
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
        let service = |vars: &[(&str, &str)], linked: bool| {
            let given =
                storage(&[vars, &[("SUPA_SAFE_STORAGE_URL", "http://127.0.0.1:9")]].concat(), "", linked);
            given.unwrap().unwrap().service_role.map(|key| key.expose().to_owned())
        };
        let own = [("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_x")];
        assert_eq!((service(&own, true).as_deref(), service(&own, false)), (Some("sb_secret_x"), None));
        let ours = [own[0], ("SUPA_SAFE_SERVICE_ROLE_KEY", "y")];
        assert_eq!(
            (service(&ours, true).as_deref(), service(&ours, false).as_deref()),
            (Some("y"), Some("y"))
        );
        let given =
            storage(&url, "storage_url = \"https://h\"\nstorage_region = \"x\"", true).unwrap().unwrap();
        assert_eq!(
            (given.endpoint.as_str(), given.region.as_deref()),
            ("http://127.0.0.1:9/storage/v1/s3/", Some("eu-west-1"))
        );
    }
}
