//! What the CLI tells of a project through the Management API: functions, secrets, backups, and the
//! project's own configuration. It only reads.
//!
//! Each call is pinned to the project twice, by flag and by `SUPABASE_PROJECT_ID`, and runs in an
//! empty folder with a scratch workdir: the CLI writes `supabase/.temp` into its workdir, and an
//! application's `.env` beside the working directory would lead it to another project.

use super::{Supabase, clean_env};
use crate::disk;
use crate::proc::{self, Cmd, Output};
use crate::secret::Secret;
use crate::target::is_project_ref;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The variable that holds the access token.
const TOKEN_VARIABLE: &str = "SUPABASE_ACCESS_TOKEN";
/// A call repeats itself five times before it gives up; measured, that takes about 6 s.
const TIMEOUT: Duration = Duration::from_mins(3);
/// How deep a scratch workdir lies in its own folder, so that a file which climbs out of the one is
/// still seen in the other.
const DEPTH: &str = "1/2/3/4/5/6/7/8";

/// Why the CLI told nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not a project ref.
    #[error("`{0}` is not a project ref (twenty lowercase letters)")]
    NotARef(String),
    /// There is no token, or it is not accepted.
    #[error("supabase is not signed in: {0}")]
    NotSignedIn(String),
    /// The token may not do this.
    #[error("the access token has no right to {doing} of project `{project_ref}`")]
    Forbidden {
        /// What was asked.
        doing: String,
        /// The project.
        project_ref: String,
    },
    /// The API knows no such project.
    #[error("the access token sees no project `{0}`")]
    UnknownProject(String),
    /// The API does not answer.
    #[error("the Management API does not answer: {0}")]
    Network(String),
    /// A file of a function wants to stand elsewhere.
    #[error("the file `{}` of function `{slug}` leaves the folder of the functions", .part.escape_debug())]
    Leaves {
        /// The function.
        slug: String,
        /// The file's path in the bundle.
        part: String,
    },
    /// The CLI refused for another reason.
    #[error("supabase cannot {doing} of project `{project_ref}`: {message}")]
    Refused {
        /// What was asked.
        doing: String,
        /// The project.
        project_ref: String,
        /// The CLI's name for the reason.
        code: String,
        /// The CLI's words.
        message: String,
    },
    /// The CLI's answer cannot be read.
    #[error("supabase was asked to {0} and did not print the JSON that was expected")]
    Unreadable(String),
    /// The answer is about another project.
    #[error("supabase was asked about project `{asked}` and answered about `{answered}`")]
    OtherProject {
        /// The one that was meant.
        asked: String,
        /// The one that it told of.
        answered: String,
    },
    /// The CLI could not be run.
    #[error(transparent)]
    Program(#[from] proc::Error),
    /// The scratch folder could not be made.
    #[error("cannot make a scratch folder for supabase")]
    Io(#[from] io::Error),
}

/// A project, seen through the CLI.
#[derive(Clone, Debug)]
pub struct Cloud {
    cli: Supabase,
    project_ref: String,
}

/// Where a call runs: a folder of its own, which the caller makes and removes.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Prepares an empty folder.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = Self { root: root.into() };
        disk::make_private_dir(&folder.workdir())?;
        disk::make_private_dir(&folder.empty())?;
        Ok(folder)
    }

    /// The workdir of the CLI.
    pub fn workdir(&self) -> PathBuf {
        self.root.join(DEPTH).join("work")
    }

    fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }

    /// Everything in it, below the folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// An Edge Function as the list has it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Function {
    /// Its name in URLs.
    pub slug: String,
    /// Counts deployments.
    pub version: Option<u64>,
    /// When it was deployed; milliseconds.
    pub updated_at: Option<Value>,
    /// Digest of the bundle.
    pub ezbr_sha256: Option<String>,
}

impl Function {
    /// Whether the slug is one that the platform accepts, and nothing else: it becomes an argument
    /// and a folder. (Management API, `POST /v1/projects/{ref}/functions`.)
    pub fn has_good_slug(&self) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        self.slug.starts_with(|c: char| c.is_ascii_alphabetic()) && self.slug.chars().all(plain)
    }

    /// Whether this is certainly the same deployment as another one.
    pub fn is_same(&self, other: &Self) -> bool {
        self.slug == other.slug
            && self.ezbr_sha256.is_some()
            && self.ezbr_sha256 == other.ezbr_sha256
            && self.updated_at == other.updated_at
    }
}

/// A list of functions, and the same as the CLI printed it.
#[derive(Clone, Debug, PartialEq)]
pub struct Functions {
    /// What is known of each.
    pub functions: Vec<Function>,
    /// All that was printed of each.
    pub raw: Vec<Value>,
}

/// A secret as the platform shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SecretDigest {
    /// Its name.
    pub name: String,
    /// SHA-256 of its value, which the API calls its value.
    #[serde(rename = "value")]
    pub digest: String,
    /// When it was set.
    pub updated_at: Option<String>,
}

/// A project of the account.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ListedProject {
    /// Its ref.
    #[serde(rename = "ref")]
    pub project_ref: String,
    /// Its name.
    pub name: String,
    /// Where it runs.
    pub region: Option<String>,
}

/// A branch of a project, which is a project itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ListedBranch {
    /// Its name.
    pub name: String,
    /// Its own ref.
    pub project_ref: String,
}

/// A key of the data API.
#[derive(Clone, Debug, Deserialize)]
pub struct ApiKey {
    /// Such as `service_role`.
    pub name: String,
    /// The key itself, when it was revealed.
    #[serde(rename = "api_key", default, deserialize_with = "secret")]
    pub secret: Option<Secret>,
}

impl Cloud {
    /// A project by its ref.
    pub fn new(cli: Supabase, project_ref: &str) -> Result<Self, Error> {
        if !is_project_ref(project_ref) {
            return Err(Error::NotARef(project_ref.to_owned()));
        }
        Ok(Self { cli, project_ref: project_ref.to_owned() })
    }

    /// The CLI that is asked.
    pub fn cli(&self) -> &Supabase {
        &self.cli
    }

    /// The project's ref.
    pub fn project_ref(&self) -> &str {
        &self.project_ref
    }

    /// The functions that are deployed.
    pub async fn functions(&self, folder: &Folder) -> Result<Functions, Error> {
        let doing = "list the functions";
        let raw: Vec<Value> =
            list(doing, &self.ask(doing, &["functions", "list"], folder).await?, "functions")?;
        let functions = raw.iter().map(|one| Function::deserialize(one).map_err(|_| unreadable(doing)));
        Ok(Functions { functions: functions.collect::<Result<_, _>>()?, raw })
    }

    /// Downloads the source of a function into the workdir of a folder of its own; returns where the
    /// `functions` folder stands.
    ///
    /// Unbundled by the server (`--use-api`): through Docker, shared files were missing (cli#5086).
    pub async fn download(&self, slug: &str, folder: &Folder) -> Result<PathBuf, Error> {
        let doing = format!("download function `{slug}`");
        let outcome = self.ask(&doing, &["functions", "download", slug, "--use-api"], folder).await;
        if let Err(Error::Refused { code, message, .. }) = &outcome
            && code == "UnsafeFunctionDownloadPathError"
        {
            // `refusing to extract Function file outside <folder>: <part>`
            let part = message.rsplit_once(": ").map_or(message.as_str(), |(_, part)| part);
            return Err(Error::Leaves { slug: slug.to_owned(), part: part.to_owned() });
        }
        outcome?;
        Ok(folder.workdir().join("supabase/functions"))
    }

    /// Names and digests of the secrets.
    pub async fn secrets(&self, folder: &Folder) -> Result<Vec<SecretDigest>, Error> {
        let doing = "list the secrets";
        list(doing, &self.ask(doing, &["secrets", "list"], folder).await?, "secrets")
    }

    /// The native backups, as the CLI prints them.
    pub async fn backups(&self, folder: &Folder) -> Result<Value, Error> {
        let doing = "list the backups";
        let mut answer = self.ask(doing, &["backups", "list"], folder).await?;
        if let Some(fields) = answer.as_object_mut() {
            fields.retain(|name, _| name != "message" && name != "target");
        }
        Ok(answer)
    }

    /// The project's own configuration in the form of `config.toml`: only what differs from the
    /// CLI's defaults. `config pull` asks the API and writes into its workdir, which is scratch.
    pub async fn config(&self, folder: &Folder) -> Result<String, Error> {
        let doing = "read the configuration";
        let dir = folder.workdir().join("supabase");
        let file = dir.join("config.toml");
        disk::make_private_dir(&dir)?;
        disk::write(&file, b"project_id = \"supa-safe\"\n")?;
        self.ask(doing, &["config", "pull", "--yes"], folder).await?;
        Ok(fs_err::read_to_string(file)?)
    }

    /// The session pooler's URL, as `supabase link` writes it down. Its workdir is scratch, and nothing
    /// is changed on the platform.
    pub async fn pooler_url(&self, folder: &Folder) -> Result<Option<String>, Error> {
        let doing = "find the session pooler";
        let dir = folder.workdir().join("supabase");
        disk::make_private_dir(&dir)?;
        disk::write(&dir.join("config.toml"), b"project_id = \"supa-safe\"\n")?;
        let words = ["link", "--project-ref", self.project_ref.as_str()];
        let output = self.cmd(&words, folder).run_unchecked().await?;
        let told = fs_err::read_to_string(dir.join(".temp/pooler-url")).ok();
        let told = told.map(|url| url.trim().to_owned()).filter(|url| !url.is_empty());
        if told.is_none() {
            self.read(doing, &output)?;
        }
        Ok(told)
    }

    /// The projects that the token sees.
    pub async fn projects(&self, folder: &Folder) -> Result<Vec<ListedProject>, Error> {
        let doing = "list the projects";
        let output = self.cmd(&["projects", "list"], folder).run_unchecked().await?;
        list(doing, &self.read(doing, &output)?, "projects")
    }

    /// The keys of the data API. Secret ones are revealed: never log the answer.
    pub async fn api_keys(&self, folder: &Folder) -> Result<Vec<ApiKey>, Error> {
        let doing = "list the API keys";
        list(doing, &self.ask(doing, &["projects", "api-keys", "--reveal"], folder).await?, "keys")
    }

    /// The project's branches.
    pub async fn branches(&self, folder: &Folder) -> Result<Vec<ListedBranch>, Error> {
        let doing = "list the branches";
        list(doing, &self.ask(doing, &["branches", "list"], folder).await?, "branches")
    }

    async fn ask(&self, doing: &str, words: &[&str], folder: &Folder) -> Result<Value, Error> {
        let output = self.cmd(words, folder).arg(self.pin()).run_unchecked().await?;
        let answer = self.read(doing, &output)?;
        match answer.pointer("/target/project_ref").and_then(Value::as_str) {
            Some(answered) if answered != self.project_ref => {
                Err(Error::OtherProject { asked: self.project_ref.clone(), answered: answered.to_owned() })
            }
            _ => Ok(answer),
        }
    }

    /// Major 2 knows only the one flag, and major 3 is about to lose it.
    fn pin(&self) -> String {
        let flag = if self.cli.version.major >= 3 { "--remote" } else { "--project-ref" };
        format!("{flag}={}", self.project_ref)
    }

    fn cmd(&self, words: &[&str], folder: &Folder) -> Cmd {
        let cmd = Cmd::new(&self.cli.program)
            .args(words)
            .args(["--output-format", "json", "--agent", "no", "--workdir"])
            .arg(folder.workdir())
            .env_base(&clean_env(&self.cli.env, &[]))
            .env("SUPABASE_NO_UPDATE_NOTIFIER", "1")
            .env("SUPABASE_PROJECT_ID", &self.project_ref)
            .dir(folder.empty())
            .timeout(TIMEOUT);
        match self.cli.env.get(OsStr::new(TOKEN_VARIABLE)).and_then(|token| token.to_str()) {
            Some(token) => cmd.masking(&Secret::new(token)),
            None => cmd,
        }
    }

    fn read(&self, doing: &str, output: &Output) -> Result<Value, Error> {
        let answer = json(&output.stdout).ok_or_else(|| unreadable(doing))?;
        match answer.get("error") {
            None => Ok(answer),
            Some(error) => Err(self.refusal(doing, error)),
        }
    }

    fn refusal(&self, doing: &str, error: &Value) -> Error {
        let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (code, message) = (text("code"), text("message"));
        let project_ref = self.project_ref.clone();
        let doing = doing.to_owned();
        match (code.as_str(), status(&message)) {
            ("AccessTokenRequiredError" | "InvalidAccessTokenError", _) => {
                Error::NotSignedIn(message.trim_end_matches('.').to_owned())
            }
            (_, Some(401)) => Error::NotSignedIn("the access token is not accepted".to_owned()),
            (_, Some(403)) => Error::Forbidden { doing, project_ref },
            // A function that vanished meanwhile answers so as well.
            (code, Some(404)) if !code.starts_with("FunctionsApi") => Error::UnknownProject(project_ref),
            (code, _) if code.ends_with("NetworkError") => Error::Network(message),
            _ => Error::Refused { doing, project_ref, code, message },
        }
    }
}

/// The HTTP status that the CLI names in `unexpected list functions status 403: {…}` and
/// `Error status 404: {…}`. It says so nowhere else.
fn status(message: &str) -> Option<u16> {
    let (_, rest) = message.split_once("status ")?;
    rest.split(':').next()?.parse().ok()
}

/// The JSON value of an answer, behind lines of talk.
fn json(stdout: &str) -> Option<Value> {
    let last = stdout.lines().rev().find(|line| line.starts_with(['{', '[']));
    serde_json::from_str(stdout).ok().or_else(|| serde_json::from_str(last?).ok())
}

/// A list, bare or below its name: both are printed, by version and flag.
fn list<T: DeserializeOwned>(doing: &str, answer: &Value, name: &str) -> Result<Vec<T>, Error> {
    let list = if answer.is_array() { Some(answer) } else { answer.get(name) };
    list.and_then(|list| Vec::deserialize(list).ok()).ok_or_else(|| unreadable(doing))
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Secret::new))
}

/// What was printed is not shown: it may be an API key.
fn unreadable(doing: &str) -> Error {
    Error::Unreadable(doing.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::Ended;
    use crate::tools::supabase::Version;
    use std::collections::BTreeMap;

    const REF: &str = "abcdefghijklmnopqrst";

    fn cloud(major: u32) -> Cloud {
        let cli = Supabase {
            path: "/x/supabase".into(),
            version: Version { major, minor: 1, patch: 0 },
            sha256: String::new(),
            other_on_path: None,
            program: "/x/supabase".into(),
            env: BTreeMap::from([
                ("SUPABASE_PROJECT_ID".into(), "zzzzzzzzzzzzzzzzzzzz".into()),
                (TOKEN_VARIABLE.into(), "sbp_0102".into()),
            ]),
        };
        Cloud::new(cli, REF).unwrap()
    }

    fn read(stdout: &str) -> Result<Value, Error> {
        let output = Output { ended: Ended::Code(0), stdout: stdout.to_owned(), stderr: String::new() };
        cloud(3).read("list the functions", &output)
    }

    fn refusal(code: &str, message: &str) -> String {
        let error = serde_json::json!({"_tag": "Error", "error": {"code": code, "message": message}});
        let error = read(&error.to_string()).unwrap_err();
        let kind = match &error {
            Error::NotSignedIn(_) => "not signed in",
            Error::Forbidden { .. } => "forbidden",
            Error::UnknownProject(_) => "unknown project",
            Error::Network(_) => "network",
            Error::Refused { .. } => "refused",
            _ => "other",
        };
        format!("{kind}: {error}")
    }

    #[test]
    fn every_call_is_pinned_by_flag_and_variable() {
        let folder = Folder { root: "/scratch".into() };
        let shown = |major| {
            let cloud = cloud(major);
            cloud.cmd(&["secrets", "list"], &folder).arg(cloud.pin()).to_string()
        };
        let rest = "--output-format json --agent no --workdir /scratch/1/2/3/4/5/6/7/8/work";
        let begin =
            format!("SUPABASE_NO_UPDATE_NOTIFIER=1 SUPABASE_PROJECT_ID={REF} /x/supabase secrets list");
        assert_eq!(shown(2), format!("{begin} {rest} --project-ref={REF}"));
        assert_eq!(shown(3), format!("{begin} {rest} --remote={REF}"));
        assert!(matches!(Cloud::new(cloud(3).cli, "prod"), Err(Error::NotARef(_))));
    }

    #[test]
    fn answers_of_both_majors_are_read() {
        let named = r#"{"functions":[{"id":"1","slug":"hello","name":"hello","status":"ACTIVE","version":3,"created_at":1760000000000,"updated_at":1760000500000,"verify_jwt":true,"import_map":false,"entrypoint_path":"file:///src/index.ts","import_map_path":null,"ezbr_sha256":"ab"}],"message":"","target":{"kind":"linked","project_ref":"abcdefghijklmnopqrst","environment":"unverified"}}"#;
        let bare = "[\n  {\n    \"ezbr_sha256\": \"ab\",\n    \"slug\": \"hello\",\n    \"updated_at\": 1760000500000,\n    \"version\": 3\n  }\n]\n";
        let both = [format!("\u{25b2} a note\n{named}\n"), bare.to_owned()].map(|text| {
            let functions: Vec<Function> = list("x", &read(&text).unwrap(), "functions").unwrap();
            functions
        });
        assert_eq!(both[0], both[1]);
        assert!(both[0][0].is_same(&both[1][0]) && both[0][0].version == Some(3));
        let secrets: Vec<SecretDigest> = list(
            "x",
            &read(r#"{"secrets":[{"name":"STRIPE_KEY","value":"aa","updated_at":"2026-01-01T00:00:00.000Z"}],"message":""}"#).unwrap(),
            "secrets",
        )
        .unwrap();
        assert_eq!((secrets[0].name.as_str(), secrets[0].digest.as_str()), ("STRIPE_KEY", "aa"));
        assert!(list::<SecretDigest>("x", &read("{}").unwrap(), "secrets").is_err());
        assert!(read("Finished.").is_err() && read("").is_err());
    }

    #[test]
    fn refusals_are_told_apart() {
        let check = |code, message, expected: &str| assert_eq!(refusal(code, message), expected);
        check(
            "AccessTokenRequiredError",
            "Access token not provided. Supply an access token by running `supabase login`.",
            "not signed in: supabase is not signed in: Access token not provided. Supply an access token by running `supabase login`",
        );
        check(
            "FunctionsListUnexpectedStatusError",
            "unexpected list functions status 401: {\"message\": \"Unauthorized\"}",
            "not signed in: supabase is not signed in: the access token is not accepted",
        );
        check(
            "SecretsListUnexpectedStatusError",
            "unexpected list secrets status 403: {}",
            "forbidden: the access token has no right to list the functions of project `abcdefghijklmnopqrst`",
        );
        check(
            "BackupListUnexpectedStatusError",
            "unexpected list backup status 404: {}",
            "unknown project: the access token sees no project `abcdefghijklmnopqrst`",
        );
        check(
            "FunctionsListNetworkError",
            "failed to list functions: TransportError",
            "network: the Management API does not answer: failed to list functions: TransportError",
        );
        check(
            "FunctionsApiStatusError",
            "Error status 404: {}",
            "refused: supabase cannot list the functions of project `abcdefghijklmnopqrst`: Error status 404: {}",
        );
    }

    #[test]
    fn a_slug_that_is_a_path_or_a_flag_is_not_good() {
        let good = |slug: &str| {
            Function { slug: slug.to_owned(), version: None, updated_at: None, ezbr_sha256: None }
                .has_good_slug()
        };
        assert!(good("hello-world_2"));
        for bad in ["", "..", "a/b", "-x", "a b", "2x", "\u{e9}t\u{e9}", "a\n"] {
            assert!(!good(bad), "{bad:?}");
        }
    }
}
