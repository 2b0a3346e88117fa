//! Which platform the CLI talks to: its profiles, built in or in a file of the user's
//! (CLI source, `internal/utils/profile.go`).

use serde::Deserialize;

/// The hosts of a platform.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// The Management API.
    pub api_url: String,
    /// The domain of the projects: a database's direct host is `db.<ref>.<project_host>`.
    pub project_host: String,
    /// The domain of the poolers; without one any domain is taken.
    #[serde(default)]
    pub pooler_host: Option<String>,
}

/// Why a profile's file is not one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProfileError {
    /// The name ends in something that the CLI does not read.
    #[error("a profile's file is YAML, JSON, or TOML, by the end of its name")]
    Type,
    /// It cannot be read, or lacks something.
    #[error("{0}")]
    Content(String),
}

/// Name, API, project host, pooler host.
const BUILT_IN: [(&str, &str, &str, Option<&str>); 4] = [
    ("supabase", "https://api.supabase.com", "supabase.co", Some("supabase.com")),
    ("supabase-staging", "https://api.supabase.green", "supabase.red", Some("supabase.green")),
    ("supabase-local", "http://localhost:8080", "supabase.red", None),
    ("snap", "https://cloudapi.snap.com", "snapcloud.dev", Some("snapcloud.co")),
];

impl Default for Profile {
    fn default() -> Self {
        let [(name, api_url, project_host, pooler_host), ..] = BUILT_IN;
        Self::of(name, api_url, project_host, pooler_host)
    }
}

impl Profile {
    fn of(name: &str, api_url: &str, project_host: &str, pooler_host: Option<&str>) -> Self {
        Self {
            name: name.to_owned(),
            api_url: api_url.to_owned(),
            project_host: project_host.to_owned(),
            pooler_host: pooler_host.map(str::to_owned),
        }
    }

    /// A profile that the CLI knows by name, in any case of letters.
    pub fn built_in(name: &str) -> Option<Self> {
        let known = BUILT_IN.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name));
        known.map(|(name, api_url, project_host, pooler_host)| {
            Self::of(name, api_url, project_host, *pooler_host)
        })
    }

    /// Reads a profile's file; its name says the format.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, ProfileError> {
        let content = |error: String| ProfileError::Content(error);
        let (_, extension) = file_name.rsplit_once('.').ok_or(ProfileError::Type)?;
        let mut profile: Self = match extension.to_ascii_lowercase().as_str() {
            "json" => serde_json::from_str(text).map_err(|error| content(error.to_string()))?,
            "toml" => toml::from_str(text).map_err(|error| content(error.message().to_owned()))?,
            "yaml" | "yml" => {
                let flat = serde_json::Value::Object(flat_yaml(text));
                serde_json::from_value(flat).map_err(|error| content(error.to_string()))?
            }
            _ => return Err(ProfileError::Type),
        };
        profile.pooler_host = profile.pooler_host.filter(|host| !host.is_empty());
        Ok(profile)
    }

    /// Whether a pooler's host belongs to this platform.
    pub fn owns_pooler(&self, host: &str) -> bool {
        let Some(domain) = self.pooler_host.as_deref() else { return true };
        let host = host.to_ascii_lowercase();
        host == domain || host.strip_suffix(domain).is_some_and(|front| front.ends_with('.'))
    }
}

/// The text values at the top of a YAML document. A profile has no other ones but a list of
/// regions, which means nothing here.
fn flat_yaml(text: &str) -> serde_json::Map<String, serde_json::Value> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(':')?;
        let (value, key) = (value.trim(), key.trim().trim_matches(['"', '\'']));
        if key.is_empty() || line.starts_with([' ', '\t', '#', '-']) {
            return None;
        }
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => value.get(1..)?.split(quote).next()?,
            _ => value.split(" #").next().unwrap_or_default().trim_end(),
        };
        (!value.is_empty()).then(|| (key.to_owned(), value.into()))
    };
    text.trim_start_matches('\u{feff}').lines().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_gives_the_same_profile() {
        let expected = Profile::of("stub", "http://127.0.0.1:21100", "supabase.co", Some("supabase.com"));
        for (name, text) in [
            (
                "p.yaml",
                "# ours\nname: stub\napi_url: http://127.0.0.1:21100 # loopback\ndashboard_url: \"http://x\"\n\
                 project_host: 'supabase.co'\npooler_host: supabase.com\nregions:\n  - eu-central-1\n",
            ),
            (
                "p.JSON",
                r#"{"name":"stub","api_url":"http://127.0.0.1:21100","dashboard_url":"http://x","project_host":"supabase.co","pooler_host":"supabase.com"}"#,
            ),
            (
                "p.toml",
                "name = 'stub'\napi_url = 'http://127.0.0.1:21100'\nproject_host = 'supabase.co'\npooler_host = 'supabase.com'\n",
            ),
        ] {
            assert_eq!(Profile::parse(name, text), Ok(expected.clone()), "{name}");
        }
        assert_eq!(Profile::parse("profile", ""), Err(ProfileError::Type));
        assert_eq!(
            Profile::parse("p.yml", "name: x\n"),
            Err(ProfileError::Content("missing field `api_url`".to_owned()))
        );
        assert_eq!(Profile::built_in("Supabase"), Some(Profile::default()));
        assert_eq!(Profile::built_in("stub"), None);
    }

    #[test]
    fn a_pooler_belongs_to_its_platform() {
        let profile = Profile::default();
        assert!(profile.owns_pooler("aws-0-eu-central-1.pooler.Supabase.com"));
        for foreign in ["evilsupabase.com", "supabase.com.example.org", "pooler.supabase.co", ""] {
            assert!(!profile.owns_pooler(foreign), "{foreign}");
        }
    }
}
