//! docker and podman: their commands, what they print, and which image fits a server.

use crate::proc::Cmd;
use crate::secret::Secret;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The programs that are tried, in this order.
pub const PROGRAMS: [&str; 2] = ["docker", "podman"];
/// The repository that the Supabase CLI takes its images from.
pub const REPOSITORY: &str = "public.ecr.aws/supabase/postgres";
/// The same images elsewhere.
const MIRRORS: [&str; 4] =
    [REPOSITORY, "supabase/postgres", "docker.io/supabase/postgres", "ghcr.io/supabase/postgres"];

/// How long a question to an engine may take; an engine that hangs is one that does not answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the end of a container may take.
const REMOVAL: Duration = Duration::from_secs(15);

/// On every container of ours, with the folder of its scratch, for people who look.
const LABEL: &str = "supa-safe.scratch";
/// The same, with the process of the keeper.
const KEEPER_LABEL: &str = "supa-safe.keeper";
/// The same, with what the kernel calls the time since the machine came up.
const BOOT_LABEL: &str = "supa-safe.boot";

/// Where the socket and the access rules stand, inside.
pub const INSIDE: &str = "/run/supa-safe";
/// Where the official entrypoint looks for scripts that fill a new server.
const INIT_SCRIPTS: &str = "/docker-entrypoint-initdb.d";

/// Where a rehearsal runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preference {
    /// In a container where one can be had, else with the programs of this machine.
    #[default]
    Auto,
    /// In a container, or not at all.
    Container,
    /// With the programs of this machine.
    Local,
    /// On a server that the person gives; its URL says it.
    #[serde(skip)]
    Staging,
}

/// Whether an image that is not here may be fetched: it is more than a gigabyte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pull {
    /// Never.
    Never,
    /// When nothing else can run the rehearsal.
    #[default]
    Needed,
    /// Whenever it is not here.
    Missing,
}

/// What the person wants of the rehearsal's server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Where it runs.
    pub preference: Preference,
    /// An image of the person's own.
    pub image: Option<String>,
    /// Whether an image may be fetched.
    pub pull: Pull,
    /// More arguments for `run`.
    pub args: Vec<String>,
    /// The version of the project's image, as `supabase link` wrote it down.
    pub linked_version: Option<String>,
}

impl Wish {
    /// The image by name, when it is known.
    pub fn name(&self) -> Option<String> {
        let linked = || Some(format!("{REPOSITORY}:{}", self.linked_version.as_ref()?));
        self.image.clone().or_else(linked)
    }

    /// Whether the image may be fetched when it is not here; `is_local` says whether the programs of this
    /// machine would do.
    pub fn may_fetch(&self, is_local: bool) -> bool {
        match self.pull {
            Pull::Never => false,
            Pull::Needed => !is_local || self.preference == Preference::Container,
            Pull::Missing => true,
        }
    }

    /// The image to use among those that are here: the one by name, else any of the server's major
    /// version, those of its very version first and the newest first.
    pub fn pick(&self, version: &str, listed: &[String]) -> Option<String> {
        if let Some(image) = &self.image {
            return Some(image.clone());
        }
        let major = version.split('.').next().unwrap_or_default();
        let rank = |name: &String| {
            let (repository, tag) = name.rsplit_once(':')?;
            let is_of = |version: &str| tag.strip_prefix(version).is_some_and(|rest| rest.starts_with('.'));
            if !MIRRORS.contains(&repository) || !is_of(major) {
                return None;
            }
            let is_exact = self.linked_version.as_deref() == Some(tag);
            let numbers: Vec<u32> = tag.split(['.', '-']).map_while(|part| part.parse().ok()).collect();
            Some((is_exact, is_of(version) || tag == version, numbers))
        };
        listed.iter().filter_map(|name| Some((rank(name)?, name))).max().map(|(_, name)| name.clone())
    }
}

/// An image that is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// As it is called.
    pub name: String,
    /// Its digest.
    pub id: String,
    /// What it runs by itself.
    pub command: Vec<String>,
}

/// One of the two programs, and the environment that it needs: its settings stand there.
#[derive(Clone, PartialEq, Eq)]
pub struct Engine {
    /// Its path.
    pub program: PathBuf,
    /// The environment.
    pub env: BTreeMap<OsString, OsString>,
}

/// Without the environment, which may hold secrets.
impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("program", &self.program).finish_non_exhaustive()
    }
}

/// A container to be.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is made of.
    pub image: &'a Image,
    /// The folder of the scratch, for its label.
    pub dir: &'a Path,
    /// What the kernel calls the time since the machine came up.
    pub boot: &'a str,
    /// The folder that is [`INSIDE`].
    pub shared: &'a Path,
    /// An empty folder, which takes the place of the image's scripts.
    pub nothing: &'a Path,
    /// Name of the bootstrap role.
    pub superuser: &'a str,
    /// Its password.
    pub password: &'a Secret,
    /// The person's own arguments.
    pub args: &'a [String],
    /// Settings of the server.
    pub settings: &'a [String],
}

impl Engine {
    /// The name of the program.
    pub fn name(&self) -> String {
        self.program.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    fn cmd(&self) -> Cmd {
        Cmd::new(&self.program).env_base(&self.env).dir("/")
    }

    /// The command that lists the images, and fails when the engine does not run.
    pub fn images(&self) -> Cmd {
        self.cmd().args(["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]).timeout(ANSWER)
    }

    /// The command that looks at an image, and fails when it is not here.
    pub fn inspect(&self, image: &str) -> Cmd {
        let format = "{{.Id}} {{json .Config.Cmd}}";
        self.cmd().args(["image", "inspect", "--format", format, image]).timeout(ANSWER)
    }

    /// The command that fetches an image.
    pub fn pull(&self, image: &str) -> Cmd {
        self.cmd().args(["pull", image])
    }

    /// The command that runs a container until it ends.
    ///
    /// It has no network: a copy must not talk to anybody. The official entrypoint makes the server and
    /// its bootstrap role; scripts of the image that would fill the server are hidden, since a snapshot
    /// is restored into it. SIGQUIT is the shutdown for data that are thrown away.
    pub fn run(&self, run: &Run<'_>) -> Cmd {
        let command = if run.image.command.is_empty() {
            &["postgres".to_owned()]
        } else {
            run.image.command.as_slice()
        };
        self.cmd()
            .args(["run", "--rm", "--pull=never", "--network=none", "--no-healthcheck"])
            .args(["--stop-signal=SIGQUIT", "--security-opt=label=disable"])
            .arg(format!("--name={}", run.name))
            .arg(format!("--label={LABEL}={}", run.dir.display()))
            .arg(format!("--label={KEEPER_LABEL}={}", std::process::id()))
            .arg(format!("--label={BOOT_LABEL}={}", run.boot))
            .arg(format!("--mount={}", bind(run.shared, INSIDE)))
            .arg(format!("--mount={},readonly", bind(run.nothing, INIT_SCRIPTS)))
            .arg("--env=POSTGRES_PASSWORD")
            .secret("POSTGRES_PASSWORD", run.password)
            .arg(format!("--env=POSTGRES_USER={}", run.superuser))
            .arg("--env=POSTGRES_DB=postgres")
            .arg("--env=POSTGRES_INITDB_ARGS=--locale=C.UTF-8 --encoding=UTF8 --no-sync")
            .args(run.args)
            .arg(&run.image.name)
            .args(command)
            .args(run.settings.iter().flat_map(|setting| ["-c", setting]))
    }

    /// The command that ends a container and removes it with its data.
    pub fn remove(&self, name: &str) -> Cmd {
        self.cmd().args(["rm", "--force", "--volumes", name]).timeout(REMOVAL)
    }

    /// The command that lists the containers of rehearsals, in whatever state: one that ran when the machine
    /// went down is none that has exited to podman.
    pub fn containers(&self) -> Cmd {
        let ours = format!("label={LABEL}");
        self.cmd().args(["ps", "--all", "--filter", ours.as_str(), "--format", "{{.Names}}"]).timeout(ANSWER)
    }

    /// The command that prints since when the machine of a container had been up.
    pub fn boot(&self, name: &str) -> Cmd {
        let format = format!("{{{{index .Config.Labels \"{BOOT_LABEL}\"}}}}");
        self.cmd().args(["container", "inspect", "--format", format.as_str(), name]).timeout(ANSWER)
    }

    /// The command that looks at a container, and fails when there is none.
    pub fn look(&self, name: &str) -> Cmd {
        self.cmd().args(["container", "inspect", "--format", "{{.Id}}", name]).timeout(ANSWER)
    }
}

/// The names that [`Engine::images`] and [`Engine::containers`] print.
pub fn listed(stdout: &str) -> Vec<String> {
    stdout.lines().map(|line| line.trim().to_owned()).collect()
}

/// What [`Engine::inspect`] prints.
pub fn inspected(name: &str, stdout: &str) -> Option<Image> {
    let (id, command) = stdout.trim().split_once(' ')?;
    let command: Option<Vec<String>> = serde_json::from_str(command).ok()?;
    let id = id.strip_prefix("sha256:").unwrap_or(id).to_owned();
    Some(Image { name: name.to_owned(), id, command: command.unwrap_or_default() })
}

/// The value of `--mount`, which is a line of comma-separated values.
fn bind(source: &Path, target: &str) -> String {
    let source = format!("source={}", source.display()).replace('"', "\"\"");
    format!("type=bind,\"{source}\",target={target}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(wish: &Wish, version: &str, listed: &[&str]) -> Option<String> {
        wish.pick(version, &listed.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_image_of_the_project_comes_first_then_its_version_then_the_newest() {
        let here = [
            "redis:7",
            "someone/postgres:17.6.1.100",
            "public.ecr.aws/supabase/postgres:15.8.1.100",
            "public.ecr.aws/supabase/postgres:17.4.1.100",
            "supabase/postgres:17.6.1.9",
            "public.ecr.aws/supabase/postgres:17.6.1.54",
            "public.ecr.aws/supabase/postgres:<none>",
        ];
        let wish = Wish::default();
        let found = pick(&wish, "17.6", &here);
        assert_eq!(found.as_deref(), Some("public.ecr.aws/supabase/postgres:17.6.1.54"));
        assert_eq!(pick(&wish, "17.10", &here), found);
        assert_eq!(
            pick(&wish, "15.1", &here).as_deref(),
            Some("public.ecr.aws/supabase/postgres:15.8.1.100")
        );
        assert_eq!(pick(&wish, "1.7", &here), None);
        let linked = Wish { linked_version: Some("17.4.1.100".to_owned()), ..Wish::default() };
        assert_eq!(
            pick(&linked, "17.6", &here).as_deref(),
            Some("public.ecr.aws/supabase/postgres:17.4.1.100")
        );
        assert_eq!(linked.name().as_deref(), Some("public.ecr.aws/supabase/postgres:17.4.1.100"));
        let own = Wish { image: Some("ours:1".to_owned()), ..linked };
        assert_eq!(
            (pick(&own, "17.6", &here), own.name()),
            (Some("ours:1".to_owned()), Some("ours:1".to_owned()))
        );
    }

    #[test]
    fn an_image_is_read_as_both_engines_show_it() {
        let docker = inspected("x", "sha256:ab [\"postgres\",\"-D\",\"/etc/postgresql\"]\n");
        let podman = inspected("x", "ab null\n").unwrap();
        assert_eq!(docker.unwrap().command, ["postgres", "-D", "/etc/postgresql"]);
        assert_eq!((podman.id.as_str(), podman.command.len()), ("ab", 0));
        assert_eq!(inspected("x", "[]"), None);
    }

    #[test]
    fn a_container_has_no_network_and_its_password_stands_nowhere() {
        let engine = Engine { program: "/usr/bin/podman".into(), env: BTreeMap::new() };
        let image = Image { name: "i:1".to_owned(), id: "ab".to_owned(), command: Vec::new() };
        let run = engine.run(&Run {
            name: "n",
            image: &image,
            dir: Path::new("/t/n"),
            boot: "b",
            shared: Path::new("/t/a,\"b"),
            nothing: Path::new("/t/nothing"),
            superuser: "supabase_admin",
            password: &Secret::new("hunter22"),
            args: &["--ulimit=nofile=1024".to_owned()],
            settings: &["jit=off".to_owned()],
        });
        let shown = run.to_string();
        assert!(
            shown.starts_with("POSTGRES_PASSWORD=**** /usr/bin/podman run --rm --pull=never --network=none")
        );
        assert!(shown.contains(" '--mount=type=bind,\"source=/t/a,\"\"b\",target=/run/supa-safe' "));
        assert!(shown.ends_with(" --ulimit=nofile=1024 i:1 postgres -c jit=off"));
    }
}
