//! A linked project: what its folder says, which platform it is on, and which door to its database
//! is open from here. The order is the CLI's (facts 1.2 and 4.1).

use crate::postgres::reach::{self, Unreachable};
use crate::target::{
    EndpointKind, Link, Named, PoolerError, Profile, ProfileError, Project, ProjectRef, pooler_host,
};
use fs_err as fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the direct host may take to answer, as in the CLI.
const PROBE: Duration = Duration::from_secs(5);
/// The port of the direct host, and of the pooler in session mode.
const PORT: u16 = 5432;

const REF_FILE: &str = "supabase/.temp/project-ref";
const POOLER_FILE: &str = "supabase/.temp/pooler-url";
const NAME_FILE: &str = "supabase/.temp/linked-project.json";
const VERSION_FILE: &str = "supabase/.temp/postgres-version";
const STACK_FILE: &str = "supabase/.link.json";

/// Why a linked project is not understood, or not reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the link cannot be read.
    #[error("cannot read the link of the project")]
    Read(#[from] io::Error),
    /// A file of the link is not what `supabase link` writes.
    #[error("`{}` is not what `supabase link` writes: {why}", .path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// There is no such profile.
    #[error("`{name}` is neither a profile that supabase knows nor a file of one")]
    NoProfile {
        /// As given.
        name: String,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
    /// The file of a profile is not one.
    #[error("`{name}` is not a profile")]
    Profile {
        /// As given.
        name: String,
        /// Why.
        #[source]
        source: ProfileError,
    },
    /// The direct host is out of reach, and no pooler is known.
    #[error("`{host}` {why}, and no session pooler of this project is known")]
    NoDoor {
        /// The direct host.
        host: String,
        /// Why it is out of reach.
        why: Unreachable,
    },
    /// The direct host is out of reach, and the pooler in the link is not this project's.
    #[error("`{host}` {why}, and the pooler in `{file}` is not used")]
    Pooler {
        /// The direct host.
        host: String,
        /// Why it is out of reach.
        why: Unreachable,
        /// Where the pooler stands.
        file: &'static str,
        /// Why it is not used.
        #[source]
        source: PoolerError,
    },
}

/// An address that leads to a project's database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What a role's name has behind it there.
    pub suffix: String,
    /// What it is.
    pub kind: EndpointKind,
}

/// Reads what `supabase link` left in a project's folder; in stack mode that is one file.
pub fn read(root: &Path, stack: bool) -> Result<Link, Error> {
    if stack {
        let Some(text) = read_if_there(&root.join(STACK_FILE))? else { return Ok(Link::default()) };
        return Link::of_stack(&text, STACK_FILE).map_err(|error| broken(root, STACK_FILE, &error));
    }
    let line = |file| -> Result<Option<String>, Error> {
        let text = read_if_there(&root.join(file))?.map(|text| text.trim().to_owned());
        Ok(text.filter(|text| !text.is_empty()))
    };
    let project = match line(REF_FILE)? {
        Some(text) => {
            let project_ref: ProjectRef = text.parse().map_err(|error| broken(root, REF_FILE, &error))?;
            Some((project_ref, REF_FILE))
        }
        None => None,
    };
    // The name is a cache: it says something or nothing.
    let named = line(NAME_FILE)?.and_then(|text| serde_json::from_str::<Named>(&text).ok());
    Ok(Link { project, named, pooler_url: line(POOLER_FILE)?.map(|url| (url, POOLER_FILE)) })
}

/// The version of a project's image, such as `17.6.1.054`, when the folder is linked to that project and
/// the link says so.
pub fn image_version(root: &Path, project_ref: &ProjectRef) -> Option<String> {
    let link = read(root, false).ok()?;
    let text = read_if_there(&root.join(VERSION_FILE)).ok()??.trim().to_owned();
    // It becomes part of the name of an image.
    let is_version = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
    (is_version && link.project_ref() == Some(project_ref)).then_some(text)
}

/// The profile of a name or a file, which stands relative to `cwd`.
pub fn profile(name: &str, cwd: &Path) -> Result<Profile, Error> {
    if let Some(known) = Profile::built_in(name) {
        return Ok(known);
    }
    let text = fs::read_to_string(cwd.join(name))
        .map_err(|source| Error::NoProfile { name: name.to_owned(), source })?;
    Profile::parse(name, &text).map_err(|source| Error::Profile { name: name.to_owned(), source })
}

/// The file that names the profile when nothing else does.
pub fn profile_file(supabase_home: &Path) -> Result<Option<String>, Error> {
    let text = read_if_there(&supabase_home.join("profile"))?.map(|text| text.trim().to_owned());
    Ok(text.filter(|text| !text.is_empty()))
}

/// The door to a project's database: the direct host when it answers, else the session pooler.
pub async fn door(project: &Project, link: &Link) -> Result<Door, Error> {
    let host = project.direct_host();
    let why = match reach::probe(&host, PORT, PROBE).await {
        Ok(()) => return Ok(Door { host, port: PORT, suffix: String::new(), kind: EndpointKind::Direct }),
        Err(why) => why,
    };
    let Some((url, file)) = &link.pooler_url else { return Err(Error::NoDoor { host, why }) };
    match pooler(project, url) {
        Ok(door) => Ok(door),
        // Another project's pooler stands there because another project is linked.
        Err(PoolerError::OtherProject(_)) if link.project_ref() != Some(&project.project_ref) => {
            Err(Error::NoDoor { host, why })
        }
        Err(source) => Err(Error::Pooler { host, why, file, source }),
    }
}

/// The session pooler, by the URL that the link or the platform names.
pub fn pooler(project: &Project, url: &str) -> Result<Door, PoolerError> {
    Ok(Door {
        host: pooler_host(url, &project.project_ref, &project.profile)?,
        port: PORT,
        suffix: format!(".{}", project.project_ref),
        kind: EndpointKind::SessionPooler,
    })
}

fn read_if_there(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn broken(root: &Path, file: &str, error: &dyn std::error::Error) -> Error {
    Error::Broken { path: root.join(file), why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk;

    const REF: &str = "abcdefghijklmnopqrst";

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            disk::make_private_dir(path.parent().unwrap()).unwrap();
            disk::write(&path, text.as_bytes()).unwrap();
        }
        dir
    }

    #[test]
    fn a_link_is_read_as_the_cli_reads_it() {
        let nothing = folder(&[]);
        assert_eq!(read(nothing.path(), false).unwrap(), Link::default());
        let linked = folder(&[
            (REF_FILE, &format!("{REF}\n")),
            (NAME_FILE, &format!("{{\"ref\":\"{REF}\",\"name\":\"Prod App\",\"organization_id\":\"1\"}}")),
            (POOLER_FILE, "postgresql://p\n"),
            (STACK_FILE, "{\"active_branch\":{\"ref\":\"zzzzzzzzzzzzzzzzzzzz\"}}"),
        ]);
        let link = read(linked.path(), false).unwrap();
        assert_eq!(link.project, Some((REF.parse().unwrap(), REF_FILE)));
        assert_eq!(link.name_of(&REF.parse().unwrap()).as_deref(), Some("Prod App"));
        assert_eq!(link.pooler_url, Some(("postgresql://p".to_owned(), POOLER_FILE)));
        let link = read(linked.path(), true).unwrap();
        assert_eq!(link.project, Some(("zzzzzzzzzzzzzzzzzzzz".parse().unwrap(), STACK_FILE)));
    }

    #[test]
    fn the_version_counts_for_the_linked_project_only() {
        let version = |text: &str, project_ref: &str| {
            let linked = folder(&[(REF_FILE, REF), (VERSION_FILE, text)]);
            image_version(linked.path(), &project_ref.parse().unwrap())
        };
        assert_eq!(version("17.6.1.054\n", REF).as_deref(), Some("17.6.1.054"));
        assert_eq!(version("17.6.1.054", "zzzzzzzzzzzzzzzzzzzz"), None);
        assert_eq!(version("17 --privileged", REF), None);
        assert_eq!(image_version(folder(&[(REF_FILE, REF)]).path(), &REF.parse().unwrap()), None);
    }

    #[test]
    fn a_link_that_was_edited_is_named() {
        let edited = folder(&[(REF_FILE, "my-project")]);
        let message = read(edited.path(), false).unwrap_err().to_string();
        assert_eq!(
            message.replace(&edited.path().display().to_string(), "X"),
            "`X/supabase/.temp/project-ref` is not what `supabase link` writes: `my-project` is not a project ref (twenty lowercase letters, such as `abcdefghijklmnopqrst`)"
        );
    }

    #[test]
    fn a_profile_is_a_name_or_a_file() {
        let dir = folder(&[("p.yaml", "name: a\napi_url: b\nproject_host: c\n"), ("profile", " p.yaml\n")]);
        assert_eq!(profile("SUPABASE", dir.path()).unwrap(), Profile::default());
        let named = profile_file(dir.path()).unwrap().unwrap();
        assert_eq!(profile(&named, dir.path()).unwrap().project_host, "c");
        assert!(matches!(profile("nowhere", dir.path()), Err(Error::NoProfile { .. })));
    }
}
