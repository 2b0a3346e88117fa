//! What rehearsals run on: `--rehearse`, the environment, and the section `[rehearse]` of the policy.

use super::{Config, Error, Surroundings};
use crate::tools::container::{Preference, Pull, Wish};
use serde::Deserialize;
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error as ValueError, StrDeserializer};

/// Where a rehearsal runs, over what the policy says.
const ENGINE: &str = "SUPA_SAFE_REHEARSE_ENGINE";

/// The section as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    engine: Option<Preference>,
    image: Option<String>,
    pull: Option<Pull>,
    container_args: Option<Vec<String>>,
}

impl Config {
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
        let preference = match surroundings.variable(ENGINE) {
            None => section.engine.unwrap_or_default(),
            Some(word) => {
                let read: StrDeserializer<'_, ValueError> = word.as_str().into_deserializer();
                Preference::deserialize(read).map_err(|_| Error::Value {
                    name: ENGINE.to_owned(),
                    value: word.clone(),
                    wanted: "`auto`, `container`, or `local`",
                })?
            }
        };
        Ok(Wish {
            preference,
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
}
