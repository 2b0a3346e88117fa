//! The CLI's own temporary role, read from the dry run of a dump: it needs an access token, no
//! Docker, and no password (facts 4.2).

use super::{Answer, Supabase, answer, clean_env};
use crate::disk;
use crate::proc::{self, Cmd};
use crate::secret::Secret;
use crate::target::ProjectRef;
use std::ffi::OsStr;
use std::io;
use std::time::Duration;

/// A call repeats itself before it gives up.
const TIMEOUT: Duration = Duration::from_mins(3);
/// What the platform's temporary roles are called.
const PREFIX: &str = "cli_login_";

/// Why there is no temporary role.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// There is no token, or it is not accepted.
    #[error("supabase is not signed in, so it cannot lend a temporary role: {0}")]
    NotSignedIn(String),
    /// The CLI refused for another reason.
    #[error("supabase lends no temporary role for `{project_ref}`: {message}")]
    Refused {
        /// The project.
        project_ref: ProjectRef,
        /// The CLI's words.
        message: String,
    },
    /// What it printed holds no role. It is not shown, because it may hold a password.
    #[error("supabase was asked for a temporary role for `{0}`, and what it printed holds none")]
    Unreadable(ProjectRef),
    /// The CLI could not be run.
    #[error(transparent)]
    Program(#[from] proc::Error),
    /// The scratch folder could not be made.
    #[error("cannot make a scratch folder for supabase")]
    Io(#[from] io::Error),
}

/// A role that lives for minutes.
#[derive(Clone, Debug)]
pub struct Login {
    /// Its name, without what a pooler wants behind it.
    pub role: String,
    /// Its password.
    pub password: Secret,
}

impl Supabase {
    /// Lets the platform make or renew the temporary role of a project; `pooler_url` is what the
    /// link says, for a network without IPv6.
    pub async fn login_role(
        &self,
        project_ref: &ProjectRef,
        pooler_url: Option<&str>,
    ) -> Result<Login, LoginError> {
        let folder = tempfile::tempdir()?;
        let workdir = folder.path().join("project");
        let temp = workdir.join("supabase/.temp");
        disk::make_private_dir(&temp)?;
        disk::write(&workdir.join("supabase/config.toml"), b"project_id = \"login\"\n")?;
        disk::write(&temp.join("project-ref"), project_ref.as_str().as_bytes())?;
        if let Some(url) = pooler_url {
            disk::write(&temp.join("pooler-url"), url.as_bytes())?;
        }
        let empty = folder.path().join("empty");
        disk::make_private_dir(&empty)?;
        let target =
            if self.version.major >= 3 { format!("--remote={project_ref}") } else { "--linked".to_owned() };
        let mut cmd = Cmd::new(&self.program)
            .args(["db", "dump", "--dry-run", &target])
            .args(["--output-format", "json", "--agent", "no", "--workdir"])
            .arg(&workdir)
            .env_base(&clean_env(&self.env, &[]))
            .env("SUPABASE_NO_UPDATE_NOTIFIER", "1")
            .env("SUPABASE_PROJECT_ID", project_ref.as_str())
            .dir(&empty)
            .timeout(TIMEOUT);
        if let Some(token) =
            self.env.get(OsStr::new("SUPABASE_ACCESS_TOKEN")).and_then(|token| token.to_str())
        {
            cmd = cmd.masking(&Secret::new(token));
        }
        let output = cmd.run_unchecked().await?;
        if let Some(login) = read_script(&output.stdout, project_ref) {
            return Ok(login);
        }
        match answer(&output.stdout) {
            Ok(Answer::Stopped(problem)) if problem.message.contains("ccess token") => {
                Err(LoginError::NotSignedIn(problem.message))
            }
            Ok(Answer::Stopped(problem)) => {
                Err(LoginError::Refused { project_ref: project_ref.clone(), message: problem.message })
            }
            Ok(Answer::Done(_)) | Err(_) => Err(LoginError::Unreadable(project_ref.clone())),
        }
    }
}

/// Reads `export PGUSER="…"` and `export PGPASSWORD="…"`. In a value only quotes are escaped, and
/// everything else stands as it is, so this is no text for a shell.
fn read_script(script: &str, project_ref: &ProjectRef) -> Option<Login> {
    let value = |name: &str| {
        let begin = format!("export {name}=\"");
        let rest = script.lines().find_map(|line| line.strip_prefix(begin.as_str()))?;
        let (value, _) = rest.rsplit_once('"')?;
        Some(value.replace("\\\"", "\""))
    };
    let (user, password) = (value("PGUSER")?, value("PGPASSWORD")?);
    let suffix = format!(".{project_ref}");
    let role = user.strip_suffix(suffix.as_str()).unwrap_or(&user);
    let is_fine = role.starts_with(PREFIX) && !password.is_empty();
    is_fine.then(|| Login { role: role.to_owned(), password: Secret::new(password) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_is_read_and_nothing_is_run() {
        let project_ref: ProjectRef = "abcdefghijklmnopqrst".parse().unwrap();
        let script = |user: &str| {
            format!(
                "#!/usr/bin/env bash\nexport PGHOST=\"h\"\nexport PGPORT=\"5432\"\nexport PGUSER=\"{user}\"\n\
                 export PGPASSWORD=\"a\\\"b$c`d\\e'f #g!h%i\"\nexport PGDATABASE=\"postgres\"\nexport PGPASSWORD=\"no\"\n"
            )
        };
        for user in ["cli_login_postgres", "cli_login_postgres.abcdefghijklmnopqrst"] {
            let login = read_script(&script(user), &project_ref).unwrap();
            assert_eq!(login.role, "cli_login_postgres");
            assert_eq!(login.password.expose(), "a\"b$c`d\\e'f #g!h%i");
            assert!(!format!("{login:?}").contains("#g!h"));
        }
        assert!(read_script(&script("postgres"), &project_ref).is_none());
        assert!(read_script("{\"_tag\":\"Error\"}", &project_ref).is_none());
    }
}
