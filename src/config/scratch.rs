//! What rehearsals run on: `--rehearse`, the environment, and the section `[rehearse]` of the policy.

use super::{Config, Error, Surroundings};
use crate::secret::{Secret, without_url_passwords};
use crate::target::Defaults;
use crate::tools::container::{Preference, Pull, Wish};
use serde::Deserialize;
use std::str::FromStr;
use url::Url;

/// Where a rehearsal runs, over what the policy says.
const ENGINE: &str = "SUPA_SAFE_REHEARSE_ENGINE";
/// The password of a staging server.
const STAGING_PASSWORD: &str = "SUPA_SAFE_STAGING_PASSWORD";
/// What says where a rehearsal runs.
const PLACES: &str = "`auto`, `container`, `local`, or the URL of a staging server";

/// Where rehearsals run.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub enum Place {
    /// On a server of our own.
    Own(Preference),
    /// On the server with this URL, which may hold its password.
    Given(Secret),
}

impl Default for Place {
    fn default() -> Self {
        Self::Own(Preference::default())
    }
}

impl Place {
    /// What the choice of an engine goes by.
    pub fn preference(&self) -> Preference {
        match self {
            Self::Own(preference) => *preference,
            Self::Given(_) => Preference::Staging,
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Own(Preference::Auto)),
            "container" => Ok(Self::Own(Preference::Container)),
            "local" => Ok(Self::Own(Preference::Local)),
            url if url.contains("://") => Ok(Self::Given(Secret::new(url))),
            other => Err(format!("`{other}` is not {PLACES}")),
        }
    }
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Refuses a password in what is to be committed. It is done here and not where the file is read: the
/// error of that shows the line.
fn without_password(place: Place) -> Result<Place, Error> {
    let Place::Given(url) = &place else { return Ok(place) };
    if Url::parse(url.expose()).is_ok_and(|url| url.password().is_none()) {
        return Ok(place);
    }
    Err(Error::Value {
        name: "[rehearse] engine".to_owned(),
        value: without_url_passwords(url.expose()),
        wanted: "the URL of a staging server without a password, which SUPA_SAFE_STAGING_PASSWORD holds,",
    })
}

impl Surroundings {
    /// What fills the gaps of a staging server's URL. What `PGPASSWORD` and its like say is about the target.
    pub fn staging_defaults(&self) -> Defaults {
        Defaults { password: self.variable(STAGING_PASSWORD).map(Secret::new), ..Defaults::default() }
    }
}

/// The section as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    engine: Option<Place>,
    image: Option<String>,
    pull: Option<Pull>,
    container_args: Option<Vec<String>>,
}

impl Config {
    /// Where rehearsals run, unless a flag says otherwise.
    pub fn place(&self, surroundings: &Surroundings) -> Result<Place, Error> {
        let committed = self.file.rehearse.engine.clone().map(without_password).transpose()?;
        match surroundings.variable(ENGINE) {
            None => Ok(committed.unwrap_or_default()),
            Some(word) => word.parse().map_err(|_| Error::Value {
                name: ENGINE.to_owned(),
                value: word,
                wanted: PLACES,
            }),
        }
    }

    /// What rehearsals run on; `linked_version` is the version of the linked project's image.
    pub fn scratch(
        &self,
        surroundings: &Surroundings,
        linked_version: Option<String>,
    ) -> Result<Wish, Error> {
        let section = self.file.rehearse.clone();
        if section.image.as_ref().is_some_and(|image| image.trim().is_empty()) {
            return Err(Error::Value {
                name: "[rehearse] image".to_owned(),
                value: section.image.unwrap_or_default(),
                wanted: "the name of an image",
            });
        }
        Ok(Wish {
            preference: self.place(surroundings)?.preference(),
            image: section.image,
            pull: section.pull.unwrap_or_default(),
            args: section.container_args.unwrap_or_default(),
            linked_version,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::FILE;
    use super::super::tests::surroundings;
    use super::*;
    use crate::config::Flags;
    use crate::disk;

    fn wish(text: &str, variable: Option<&str>) -> Result<Wish, Error> {
        let dir = tempfile::tempdir().unwrap();
        disk::write(&dir.path().join(FILE), text.as_bytes()).unwrap();
        let vars = variable.map(|word| (ENGINE, word));
        let vars: Vec<(&str, &str)> = std::iter::once(("HOME", "/h")).chain(vars).collect();
        let surroundings = surroundings(&vars, dir.path());
        let config = Config::load(&surroundings, Flags::default(), Some(dir.path()))?;
        config.scratch(&surroundings, None)
    }

    #[test]
    fn the_variable_goes_over_the_section() {
        assert_eq!(wish("", None).unwrap(), Wish::default());
        let section = "[rehearse]\nengine = \"container\"\nimage = \"i:1\"\npull = \"never\"\ncontainer_args = [\"--memory=1g\"]\n";
        let expected = Wish {
            preference: Preference::Container,
            image: Some("i:1".to_owned()),
            pull: Pull::Never,
            args: vec!["--memory=1g".to_owned()],
            linked_version: None,
        };
        assert_eq!(wish(section, None).unwrap(), expected);
        assert_eq!(wish(section, Some("local")).unwrap().preference, Preference::Local);
    }

    #[test]
    fn a_mistake_is_named() {
        let name = |text, variable| match wish(text, variable) {
            Err(Error::Value { name, .. }) => name,
            other => panic!("{other:?}"),
        };
        assert_eq!(name("", Some("docker")), ENGINE);
        assert_eq!(name("[rehearse]\nimage = \" \"", None), "[rehearse] image");
        assert!(matches!(wish("[rehearse]\nengine = \"docker\"", None), Err(Error::File { .. })));
    }

    #[test]
    fn a_staging_server_is_named_by_its_url_and_no_password_is_committed() {
        let url = "postgresql://supabase_admin@staging.example.com/postgres?sslmode=verify-full";
        let section = format!("[rehearse]\nengine = \"{url}\"");
        assert_eq!(wish(&section, None).unwrap().preference, Preference::Staging);
        assert_eq!(wish("", Some(url)).unwrap().preference, Preference::Staging);
        assert_eq!(wish(&section, Some("local")).unwrap().preference, Preference::Local);
        let with_password = "[rehearse]\nengine = \"postgresql://u:hunter2@h/d\"";
        let error = wish(with_password, None).unwrap_err();
        assert!(matches!(&error, Error::Value { name, .. } if name == "[rehearse] engine"));
        assert!(!error.to_string().contains("hunter2"));
        assert!(!format!("{:?}", Place::from_str("postgresql://u:hunter2@h/d")).contains("hunter2"));
    }
}
