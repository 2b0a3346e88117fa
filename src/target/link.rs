//! What `supabase link` leaves in a project's folder, read as the CLI reads it.

use super::{Profile, ProjectRef};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use url::Url;

/// What the files of a link say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The linked project, and the file that says so.
    pub project: Option<(ProjectRef, &'static str)>,
    /// The project that was linked by name; after a branch was linked, the branch's parent.
    pub named: Option<Named>,
    /// The session pooler's URL, and the file that says so.
    pub pooler_url: Option<(String, &'static str)>,
}

/// A ref with a name (`supabase/.temp/linked-project.json`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Named {
    /// The project.
    #[serde(rename = "ref")]
    pub project_ref: ProjectRef,
    /// Its name.
    pub name: Option<String>,
}

/// `supabase/.link.json`, which CLI 3 keeps in stack mode.
#[derive(Debug, Deserialize)]
struct LinkJson {
    project: Option<Named>,
    active_branch: ActiveBranch,
}

#[derive(Debug, Deserialize)]
struct ActiveBranch {
    #[serde(rename = "ref")]
    project_ref: ProjectRef,
    pooler_url: Option<String>,
}

impl Link {
    /// Reads `.link.json`, the file of stack mode.
    pub fn of_stack(text: &str, file: &'static str) -> Result<Self, serde_json::Error> {
        let link: LinkJson = serde_json::from_str(text)?;
        let pooler_url = link.active_branch.pooler_url.map(|url| (url, file));
        Ok(Self { project: Some((link.active_branch.project_ref, file)), named: link.project, pooler_url })
    }

    /// The name of a project, when it is the one that was linked by name.
    pub fn name_of(&self, project_ref: &ProjectRef) -> Option<String> {
        self.named.as_ref().filter(|named| named.project_ref == *project_ref)?.name.clone()
    }

    /// The linked project.
    pub fn project_ref(&self) -> Option<&ProjectRef> {
        self.project.as_ref().map(|(project_ref, _)| project_ref)
    }
}

/// Why a pooler's URL was not used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PoolerError {
    /// It is no URL.
    #[error("what stands there is not a connection URL")]
    Malformed,
    /// It is another project's.
    #[error("its user is one of another project than `{0}`")]
    OtherProject(ProjectRef),
    /// The host is not one of the platform's.
    #[error("its host `{host}` is not under `{domain}`, where the poolers of `{profile}` are")]
    ForeignHost {
        /// The host.
        host: String,
        /// The platform's domain.
        domain: String,
        /// The platform.
        profile: String,
    },
}

/// The host of the session pooler in a URL that a link left behind.
///
/// The URL is a file that anybody can edit and that outlives a change of the link: project and
/// domain must be the right ones, as the CLI demands (facts 4.1). Port and user are not read; the
/// session pooler's are known.
pub fn pooler_host(url: &str, project_ref: &ProjectRef, profile: &Profile) -> Result<String, PoolerError> {
    let url = Url::parse(&url.trim().replace("[YOUR-PASSWORD]", "")).map_err(|_| PoolerError::Malformed)?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(PoolerError::Malformed)?;
    let user = percent_decode_str(url.username()).decode_utf8_lossy();
    let named = match user.split_once('.') {
        Some((_, named)) => Some(named.to_owned()),
        None => url.query_pairs().find_map(|(name, value)| {
            (name == "options").then(|| value.strip_prefix("reference=").map(str::to_owned)).flatten()
        }),
    };
    if named.as_deref() != Some(project_ref.as_str()) {
        return Err(PoolerError::OtherProject(project_ref.clone()));
    }
    if !profile.owns_pooler(host) {
        return Err(PoolerError::ForeignHost {
            host: host.to_owned(),
            domain: profile.pooler_host.clone().unwrap_or_default(),
            profile: profile.name.clone(),
        });
    }
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const REF: &str = "abcdefghijklmnopqrst";

    fn host(url: &str) -> Result<String, PoolerError> {
        pooler_host(url, &REF.parse().unwrap(), &Profile::default())
    }

    #[test]
    fn the_pooler_is_this_projects_and_the_platforms() {
        let expected = Ok("aws-0-eu-central-1.pooler.supabase.com".to_owned());
        for url in [
            "postgresql://postgres.abcdefghijklmnopqrst@aws-0-eu-central-1.pooler.supabase.com:6543/postgres\n",
            "postgres://postgres.abcdefghijklmnopqrst:[YOUR-PASSWORD]@aws-0-eu-central-1.pooler.supabase.com/postgres",
            "postgres://postgres@aws-0-eu-central-1.pooler.supabase.com/postgres?options=reference%3Dabcdefghijklmnopqrst",
        ] {
            assert_eq!(host(url), expected, "{url}");
        }
        let other = Err(PoolerError::OtherProject(REF.parse().unwrap()));
        assert_eq!(
            host("postgresql://postgres.zzzzzzzzzzzzzzzzzzzz@aws-0.pooler.supabase.com/postgres"),
            other
        );
        assert_eq!(host("postgresql://postgres@aws-0.pooler.supabase.com/postgres"), other);
        assert_eq!(
            host("postgresql://postgres.abcdefghijklmnopqrst@pooler.example.com/postgres")
                .unwrap_err()
                .to_string(),
            "its host `pooler.example.com` is not under `supabase.com`, where the poolers of `supabase` are"
        );
        assert_eq!(host("nonsense"), Err(PoolerError::Malformed));
    }

    #[test]
    fn the_file_of_stack_mode_names_the_active_branch() {
        let text = r#"{"project":{"ref":"pppppppppppppppppppp","name":"Prod App","organization_id":"1"},
            "active_branch":{"ref":"abcdefghijklmnopqrst","name":"dev","pooler_url":"postgresql://x"},"fetchedAt":1}"#;
        let link = Link::of_stack(text, ".link.json").unwrap();
        assert_eq!(link.project_ref().unwrap().as_str(), REF);
        assert_eq!(link.name_of(&REF.parse().unwrap()), None, "the name is the parent's");
        assert_eq!(link.name_of(&"pppppppppppppppppppp".parse().unwrap()).as_deref(), Some("Prod App"));
        assert_eq!(link.pooler_url, Some(("postgresql://x".to_owned(), ".link.json")));
        assert!(Link::of_stack("{\"active_branch\":{\"ref\":\"abc\"}}", "x").is_err());
    }
}
