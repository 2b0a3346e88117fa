//! Captures the Edge Functions: the list as the platform has it, and the source of each.
//!
//! Each function is downloaded into a folder of its own: two that were deployed with different
//! versions of a shared file would overwrite one another in one tree. What has not changed since the
//! last snapshot is taken from there, when it still has its digests.

use crate::context::Context;
use crate::disk;
use crate::manifest::{Component, ComponentName, ComponentState};
use crate::store::{self, Draft, Snapshot};
use crate::tools::supabase::cloud::{self, Cloud, Folder, Function, Functions};
use fs_err as fs;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::io;
use std::path::{Path, PathBuf};

/// The folder of the component, and the list beside it.
const DIR: &str = "functions";
const LIST: &str = "functions.json";
/// Downloads at once; each is a process of the CLI, which takes a second of computing time.
const AT_ONCE: usize = 3;

/// Why the functions could not be captured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The platform did not tell.
    #[error("cannot capture the functions")]
    Cloud(#[from] cloud::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A file could not be read or written.
    #[error("cannot write the functions")]
    Io(#[from] io::Error),
}

/// Captures the functions into a draft.
pub async fn capture(cloud: &Cloud, context: &Context, draft: &Draft) -> Result<Component, Error> {
    let folder = |name: &str| Folder::new(draft.scratch(&format!("functions/{name}")));
    let listed = match cloud.functions(&folder("_list")?).await {
        Ok(listed) => listed,
        Err(error @ cloud::Error::Forbidden { .. }) => return Ok(not_captured(&error)),
        Err(error) => return Err(error.into()),
    };
    disk::write_json(&draft.dir.join(LIST), &listed.raw)?;
    let before = Before::find(context)?;
    let capture = Capture { cloud, draft, before: before.as_ref() };
    let fates: Vec<Fate> = stream::iter(&listed.functions)
        .map(|function| capture.function(function))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let mut missing: Vec<String> = fates.iter().filter_map(Fate::missing).collect();
    if fates.iter().any(|fate| matches!(fate, Fate::Fetched)) {
        let after = cloud.functions(&folder("_again")?).await?;
        missing.extend(moved(&listed, &after));
    }
    let kept = fates.iter().filter(|fate| matches!(fate, Fate::Kept)).count();
    Ok(Component {
        name: ComponentName::Functions,
        state: if missing.is_empty() { ComponentState::Complete } else { ComponentState::Incomplete },
        summary: summary(&listed.functions, kept),
        missing,
    })
}

fn not_captured(error: &cloud::Error) -> Component {
    Component {
        name: ComponentName::Functions,
        state: ComponentState::Incomplete,
        summary: String::new(),
        missing: vec![format!("the functions: {error}")],
    }
}

fn summary(functions: &[Function], kept: usize) -> String {
    let name = |function: &Function| {
        let version = function.version.map(|version| format!(" version {version}")).unwrap_or_default();
        format!("{}{version}", function.slug)
    };
    let names: Vec<String> = functions.iter().map(name).collect();
    let count = match functions.len() {
        0 => return "no functions".to_owned(),
        1 => "1 function".to_owned(),
        many => format!("{many} functions"),
    };
    let unchanged = if kept == 0 { String::new() } else { format!(", {kept} unchanged") };
    format!("{count}{unchanged}: {}", names.join(", "))
}

/// Functions that were deployed or deleted while the others were downloaded.
fn moved(before: &Functions, after: &Functions) -> Vec<String> {
    let still = |function: &&Function| !after.functions.contains(function);
    let changed = before.functions.iter().filter(still).map(|function| &function.slug);
    let known = |function: &&Function| before.functions.iter().all(|one| one.slug != function.slug);
    let added = after.functions.iter().filter(known).map(|function| &function.slug);
    let text = |slug: &String| format!("function `{slug}`: it was deployed or deleted while it was captured");
    changed.chain(added).map(text).collect()
}

/// What became of one function.
enum Fate {
    /// Downloaded.
    Fetched,
    /// Taken from the last snapshot.
    Kept,
    /// Not there, and why.
    Missing(String),
}

impl Fate {
    fn missing(&self) -> Option<String> {
        match self {
            Self::Missing(why) => Some(why.clone()),
            Self::Fetched | Self::Kept => None,
        }
    }
}

struct Capture<'a> {
    cloud: &'a Cloud,
    draft: &'a Draft,
    before: Option<&'a Before>,
}

impl Capture<'_> {
    async fn function(&self, function: &Function) -> Result<Fate, Error> {
        let slug = &function.slug;
        if !function.has_good_slug() {
            return Ok(Fate::Missing(format!(
                "function {slug:?}: its name is not one that a function can have"
            )));
        }
        let into = self.draft.dir.join(DIR).join(slug);
        if let Some(before) = self.before
            && before.give(function, &into)?
        {
            return Ok(Fate::Kept);
        }
        let folder = Folder::new(self.draft.scratch(&format!("functions/{slug}")))?;
        let functions_dir = match self.cloud.download(slug, &folder).await {
            Ok(functions_dir) => functions_dir,
            Err(
                error @ (cloud::Error::Leaves { .. }
                | cloud::Error::Forbidden { .. }
                | cloud::Error::Refused { .. }),
            ) => return Ok(Fate::Missing(format!("function `{slug}`: {error}"))),
            Err(error) => return Err(error.into()),
        };
        let files = match accept(&folder, &functions_dir)? {
            Ok(files) if files.is_empty() => {
                return Ok(Fate::Missing(format!("function `{slug}`: supabase downloaded no file of it")));
            }
            Ok(files) => files,
            Err(why) => return Ok(Fate::Missing(format!("function `{slug}`: {why}"))),
        };
        for file in files {
            disk::copy_file(&functions_dir.join(&file), &into.join(&file))?;
        }
        fs::remove_dir_all(folder.root())?;
        Ok(Fate::Fetched)
    }
}

/// The files of a download, or why it is not accepted: a function's bundle is made by whoever deployed
/// it, and older versions of the CLI wrote its files wherever it said (facts of 2.99.0).
fn accept(folder: &Folder, functions_dir: &Path) -> io::Result<Result<Vec<PathBuf>, String>> {
    let own_notes = folder.workdir().join("supabase/.temp");
    let mut files = Vec::new();
    for file in disk::files_below(folder.root())? {
        let path = folder.root().join(&file);
        if path.starts_with(&own_notes) {
            continue;
        }
        let Ok(inside) = path.strip_prefix(functions_dir) else {
            return Ok(Err(format!("its file `{}` left the folder of the functions", file.display())));
        };
        if !fs::symlink_metadata(&path)?.is_file() {
            return Ok(Err(format!("`{}` is not a plain file", inside.display())));
        }
        let odd = |c: char| c.is_control() || c == '\\';
        if inside.to_str().is_none_or(|name| name.contains(odd)) {
            let name = inside.as_os_str().as_encoded_bytes().escape_ascii();
            return Ok(Err(format!("the name of its file `{name}` is not accepted")));
        }
        files.push(inside.to_owned());
    }
    Ok(Ok(files))
}

/// The functions of the newest snapshot that has any.
struct Before {
    snapshot: Snapshot,
    functions: Vec<Function>,
}

impl Before {
    fn find(context: &Context) -> Result<Option<Self>, Error> {
        for id in context.store.ids()? {
            // A snapshot that cannot be read has nothing to give.
            let Ok(snapshot) = context.store.load(&id) else { continue };
            let Ok(list) = fs::read(snapshot.dir.join(LIST)) else { continue };
            let Ok(functions) = serde_json::from_slice(&list) else { continue };
            return Ok(Some(Self { snapshot, functions }));
        }
        Ok(None)
    }

    /// Copies a function's files when the function is the same and each file still has its digest.
    fn give(&self, function: &Function, into: &Path) -> io::Result<bool> {
        let slug = &function.slug;
        if !self.functions.iter().any(|one| one.is_same(function)) {
            return Ok(false);
        }
        let prefix = format!("{DIR}/{slug}/");
        let recorded = self.snapshot.manifest.files.iter().filter_map(|file| {
            let inside = file.path.strip_prefix(&prefix)?;
            Some((file, inside))
        });
        let mut given = false;
        for (file, inside) in recorded {
            let to = into.join(inside);
            let from = self.snapshot.dir.join(&file.path);
            let copied = disk::copy_file(&from, &to).and_then(|()| disk::sha256_file(&to));
            if copied.is_ok_and(|(sha256, _)| sha256 == file.sha256) {
                given = true;
                continue;
            }
            fs::remove_dir_all(into)?;
            return Ok(false);
        }
        Ok(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// What a careless unpacking would have left.
    fn judged(make: impl Fn(&Path, &Path)) -> Result<Vec<PathBuf>, String> {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path()).unwrap();
        let functions_dir = folder.workdir().join("supabase/functions");
        let write = |path: &Path| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            disk::write(path, b"x").unwrap();
        };
        write(&functions_dir.join("hello/index.ts"));
        write(&folder.workdir().join("supabase/.temp/linked-project.json"));
        make(&functions_dir, dir.path());
        accept(&folder, &functions_dir).unwrap()
    }

    fn write(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        disk::write(path, b"x").unwrap();
    }

    #[test]
    fn only_plain_files_below_the_functions_are_accepted() {
        assert_eq!(judged(|_, _| ()), Ok(vec!["hello/index.ts".into()]));
        let refused = |make: &dyn Fn(&Path, &Path)| judged(make).unwrap_err();
        assert_eq!(
            refused(&|functions, _| write(&functions.join("../config.toml"))),
            "its file `1/2/3/4/5/6/7/8/work/supabase/config.toml` left the folder of the functions"
        );
        assert_eq!(
            refused(&|_, root| write(&root.join("1/2/evil.ts"))),
            "its file `1/2/evil.ts` left the folder of the functions"
        );
        assert_eq!(
            refused(&|functions, _| symlink("/etc/passwd", functions.join("hello/x")).unwrap()),
            "`hello/x` is not a plain file"
        );
        assert_eq!(
            refused(&|functions, _| symlink("/etc", functions.join("hello/etc")).unwrap()),
            "`hello/etc` is not a plain file"
        );
        assert_eq!(
            refused(&|functions, _| write(&functions.join("hello/a\n\u{1b}[2Jb"))),
            "the name of its file `hello/a\\n\\x1b[2Jb` is not accepted"
        );
    }
}
