//! Where the shared store is, and what signs for it.

use super::storage::aws_files;
use super::{Config, Error, Surroundings};
use crate::objects::{Access, Endpoint, Keys, Origin};
use crate::secret::Secret;
use crate::store::{Address, Location};

/// What says that there is no shared store, over a policy that names one.
const LOCAL: &str = "local";

/// Variables that tell of a CI job: the one that nearly all of them set, and those of Azure Pipelines,
/// Jenkins, `TeamCity`, and AWS `CodeBuild`, which set others.
const CI_VARIABLES: [&str; 5] = ["CI", "TF_BUILD", "JENKINS_URL", "TEAMCITY_VERSION", "CODEBUILD_BUILD_ID"];

impl Surroundings {
    /// The variable by which a CI job gives itself away, if one does.
    pub fn ci(&self) -> Option<&'static str> {
        let is_on = |name: &&str| self.variable(name).is_some_and(|value| value != "false" && value != "0");
        CI_VARIABLES.into_iter().find(is_on)
    }
}

impl Config {
    /// Where the shared store of a target is, by the first of its names that has a section; `None`
    /// when the state folder is all.
    pub fn store(&self, surroundings: &Surroundings, names: &[&str]) -> Result<Option<Location>, Error> {
        let own = names.iter().find_map(|name| self.file.targets.get(*name)).cloned().unwrap_or_default();
        let setting = |variable: &str, own: &Option<String>, all: &Option<String>| {
            surroundings.variable(variable).or_else(|| own.clone()).or_else(|| all.clone())
        };
        let Some(text) = setting("SUPA_SAFE_STORE", &own.store, &self.file.store) else { return Ok(None) };
        if text == LOCAL {
            return Ok(None);
        }
        let address: Address = text.parse()?;
        let region = setting("SUPA_SAFE_STORE_REGION", &own.store_region, &self.file.store_region)
            .or_else(|| surroundings.variable("AWS_REGION"))
            .or_else(|| surroundings.variable("AWS_DEFAULT_REGION"));
        let endpoint =
            match setting("SUPA_SAFE_STORE_ENDPOINT", &own.store_endpoint, &self.file.store_endpoint) {
                Some(endpoint) => Endpoint::of_store(&endpoint)?,
                None => Endpoint::of_amazon(region.as_deref().ok_or(Error::NoStoreRegion)?)?,
            };
        let profile = setting("SUPA_SAFE_STORE_PROFILE", &own.store_profile, &self.file.store_profile);
        let keys = keys(surroundings, profile)?;
        let access = Access { endpoint, origin: Origin::Vouched, region, keys, service_role: None };
        let reads_back = own.store_reads_back.or(self.file.store_reads_back).unwrap_or(true);
        Ok(Some(Location { address, access, reads_back }))
    }
}

/// The store's own keys, then the profile that is named, then what the AWS CLI would take from the
/// environment. Nothing is asked of a cloud's metadata address.
fn keys(surroundings: &Surroundings, profile: Option<String>) -> Result<Option<Keys>, Error> {
    const OWN: [&str; 2] = ["SUPA_SAFE_STORE_ACCESS_KEY_ID", "SUPA_SAFE_STORE_SECRET_ACCESS_KEY"];
    const AMAZON: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    if let Some((id, secret)) = pair(surroundings, OWN)? {
        return Ok(Some(Keys::Pair { id, secret }));
    }
    let of_profile = |name| Some(Keys::Profile { name, files: aws_files(surroundings)? });
    if let Some(keys) = profile.and_then(of_profile) {
        return Ok(Some(keys));
    }
    if let Some((id, secret)) = pair(surroundings, AMAZON)? {
        return Ok(Some(match surroundings.variable("AWS_SESSION_TOKEN") {
            Some(token) => Keys::Temporary { id, secret, token: Secret::new(token) },
            None => Keys::Pair { id, secret },
        }));
    }
    Ok(surroundings.variable("AWS_PROFILE").and_then(of_profile))
}

fn pair(surroundings: &Surroundings, names: [&'static str; 2]) -> Result<Option<(String, Secret)>, Error> {
    match names.map(|name| surroundings.variable(name)) {
        [Some(id), Some(secret)] => Ok(Some((id, Secret::new(secret)))),
        [None, None] => Ok(None),
        [None, Some(_)] => Err(Error::Half { set: names[1], missing: names[0] }),
        [Some(_), None] => Err(Error::Half { set: names[0], missing: names[1] }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Flags;
    use super::super::tests::{surroundings, with_file};
    use super::*;
    use std::path::Path;

    fn store(vars: &[(&str, &str)], text: &str) -> Result<Option<Location>, Error> {
        with_file(text, Flags::default()).unwrap().store(&surroundings(vars, Path::new("/")), &["t"])
    }

    #[test]
    fn a_store_is_there_when_it_is_named() {
        assert!(store(&[], "").unwrap().is_none());
        let text =
            "store = \"s3://all/x\"\nstore_region = \"eu-central-1\"\n[targets.t]\nstore = \"s3://own\"\n";
        let found = store(&[], text).unwrap().unwrap();
        assert_eq!(found.address.to_string(), "s3://own");
        assert_eq!(found.access.endpoint.as_str(), "https://s3.eu-central-1.amazonaws.com/");
        assert!(found.access.keys.is_none() && found.reads_back);
        assert!(store(&[("SUPA_SAFE_STORE", "local")], text).unwrap().is_none());
        let other = [("SUPA_SAFE_STORE_ENDPOINT", "https://s3.example.com")];
        let found = store(&other, "store = \"s3://all/x\"\nstore_reads_back = false").unwrap().unwrap();
        assert_eq!(found.access.endpoint.as_str(), "https://s3.example.com/");
        assert!(!found.reads_back);
        assert!(matches!(store(&[], "store = \"s3://all\""), Err(Error::NoStoreRegion)));
        assert!(matches!(store(&[], "store = \"/srv/x\""), Err(Error::Store(_))));
    }

    #[test]
    fn the_stores_own_keys_come_before_amazons() {
        let text = "store = \"s3://all\"\nstore_region = \"x\"\n";
        let keys = |vars: &[(&str, &str)], more: &str| {
            let text = format!("{text}{more}");
            store(vars, &text).unwrap().unwrap().access.keys
        };
        let amazon = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_SESSION_TOKEN", "c")];
        assert!(matches!(keys(&amazon, ""), Some(Keys::Temporary { id, .. }) if id == "a"));
        assert!(matches!(keys(&amazon[..2], ""), Some(Keys::Pair { id, .. }) if id == "a"));
        let home = [amazon[0], amazon[1], ("HOME", "/h")];
        let own = "store_profile = \"evidence\"\n";
        assert!(matches!(keys(&home, own), Some(Keys::Profile { name, .. }) if name == "evidence"));
        let pair = [
            ("HOME", "/h"),
            ("SUPA_SAFE_STORE_ACCESS_KEY_ID", "o"),
            ("SUPA_SAFE_STORE_SECRET_ACCESS_KEY", "s"),
        ];
        assert!(matches!(keys(&pair, own), Some(Keys::Pair { id, .. }) if id == "o"));
        assert!(
            matches!(keys(&[("HOME", "/h"), ("AWS_PROFILE", "p")], ""), Some(Keys::Profile { name, .. }) if name == "p")
        );
        assert!(matches!(store(&pair[1..2], text), Err(Error::Half { .. })));
    }

    #[test]
    fn a_ci_job_gives_itself_away() {
        let ci = |vars: &[(&str, &str)]| surroundings(vars, Path::new("/")).ci();
        assert_eq!(ci(&[("CI", "true")]), Some("CI"));
        assert_eq!(ci(&[("TF_BUILD", "True")]), Some("TF_BUILD"));
        assert_eq!(ci(&[("CI", "false")]), None);
        assert_eq!(ci(&[]), None);
    }
}
