//! A project of the platform: its ref, its names, and where its hosts are.

use super::Profile;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A project ref: twenty lowercase letters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectRef(String);

/// A text is not a project ref.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a project ref (twenty lowercase letters, such as `abcdefghijklmnopqrst`)")]
pub struct BadRef(String);

impl ProjectRef {
    /// The ref as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProjectRef {
    type Err = BadRef;

    fn from_str(text: &str) -> Result<Self, BadRef> {
        if is_project_ref(text) { Ok(Self(text.to_owned())) } else { Err(BadRef(text.to_owned())) }
    }
}

/// Whether a text is a project ref: twenty lowercase letters.
pub fn is_project_ref(text: &str) -> bool {
    text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_lowercase())
}

impl TryFrom<String> for ProjectRef {
    type Error = BadRef;

    fn try_from(text: String) -> Result<Self, BadRef> {
        text.parse()
    }
}

impl From<ProjectRef> for String {
    fn from(project_ref: ProjectRef) -> Self {
        project_ref.0
    }
}

impl fmt::Display for ProjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A project of the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Its ref.
    pub project_ref: ProjectRef,
    /// Its name, when the link's files say it.
    pub name: Option<String>,
    /// The `[remotes.*]` of the configuration that have its ref: the words for its environment.
    pub remotes: Vec<String>,
    /// The platform that it is on.
    pub profile: Profile,
}

impl Project {
    /// The direct host of its database.
    pub fn direct_host(&self) -> String {
        format!("db.{}.{}", self.project_ref, self.profile.project_host)
    }

    /// What is known of it beside its ref, for the first line of a run.
    pub fn about(&self) -> Vec<String> {
        let name = self.name.iter().map(|name| format!("project {name}"));
        name.chain(self.remotes.iter().map(|remote| format!("[remotes.{remote}]"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ref_is_twenty_lowercase_letters() {
        let good = "abcdefghijklmnopqrst";
        assert_eq!(good.parse::<ProjectRef>().unwrap().as_str(), good);
        for bad in ["", "abc", "abcdefghijklmnopqrsT", "abcdefghijklmnopqrs1", "abcdefghijklmnopqrstu"] {
            assert_eq!(bad.parse::<ProjectRef>(), Err(BadRef(bad.to_owned())));
        }
        let error = serde_json::from_str::<ProjectRef>("\"abc\"").unwrap_err().to_string();
        assert_eq!(
            error,
            "`abc` is not a project ref (twenty lowercase letters, such as `abcdefghijklmnopqrst`)"
        );
    }
}
