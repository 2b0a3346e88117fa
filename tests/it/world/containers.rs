//! podman in a world, with the image that `tests/tools/setup` makes of the servers' own programs, and a
//! registry that it can be fetched from.

use super::{World, told};
use fs_err as fs;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use supa_safe::disk;

/// The image; it behaves as `supabase/postgres` does.
pub(crate) const IMAGE: &str = "localhost/supa-safe-test/postgres:17";

/// Limits that the machine would not let podman set.
const ULIMITS: [&str; 2] = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096"];

/// The image in the registry.
const REPOSITORY: &str = "supabase/postgres";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Where podman's settings stand.
pub(crate) fn podman() -> PathBuf {
    let dir = std::env::var_os("SUPA_SAFE_TEST_PODMAN").map(PathBuf::from);
    dir.unwrap_or_else(|| {
        panic!("podman needs root here: run tests/run as root, or without containers, SUPA_SAFE_TEST_CONTAINERS=no tests/run")
    })
}

fn cgroup() -> String {
    format!("--cgroup-parent=/{}", told("SUPA_SAFE_TEST_CGROUP"))
}

impl World {
    /// Lets rehearsals use containers of an image, as far as the policy's other words allow.
    pub(crate) fn with_containers(mut self, podman: &Path, image: &str, more: &str) -> Self {
        self.unset("SUPA_SAFE_REHEARSE_ENGINE");
        self.set("CONTAINERS_CONF", podman.join("containers.conf"));
        self.set("CONTAINERS_STORAGE_CONF", podman.join("storage.conf"));
        self.rehearses_in(image, &[], more);
        self
    }

    /// Writes into the policy what rehearsals run on.
    pub(crate) fn rehearses_in(&self, image: &str, args: &[&str], more: &str) {
        let cgroup = cgroup();
        let args = [&ULIMITS[..], &[cgroup.as_str()], args].concat();
        self.write(
            "supabase/supa-safe.toml",
            &format!("[rehearse]\nimage = \"{image}\"\ncontainer_args = {args:?}\n{more}"),
        );
    }

    /// The containers whose scratch stands where this world's does, by name.
    pub(crate) fn containers(&self) -> Vec<String> {
        let format = "{{.Names}} {{.Labels}}";
        let ran = self.podman(&["ps", "--all", "--format", format]);
        let tmp = self.variable("TMPDIR").display().to_string();
        let ours = ran.lines().filter(|line| line.contains(&tmp));
        ours.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    }

    /// A container as a rehearsal leaves it when the machine goes down.
    pub(crate) fn ended_container(&self, name: &str, boot: &str) -> String {
        let (name, boot) = (format!("--name={name}"), format!("--label=supa-safe.boot={boot}"));
        let labels = ["--label=supa-safe.scratch=/gone", &boot];
        let how = ["run", "--network=none", "--entrypoint=sh", &name];
        drop(self.podman(&[&how[..], &labels, &ULIMITS, &[&cgroup(), IMAGE, "-c", ":"]].concat()));
        name.replace("--name=", "")
    }

    /// The containers of everybody, by name.
    pub(crate) fn container_names(&self) -> Vec<String> {
        self.podman(&["ps", "--all", "--format", "{{.Names}}"]).lines().map(str::to_owned).collect()
    }

    /// What podman prints.
    pub(crate) fn podman(&self, args: &[&str]) -> String {
        self.finish(self.program("/usr/bin/podman").args(args)).exits(0).stdout
    }
}

/// A registry on loopback that has one image: [`IMAGE`], with another label, so that it is not here.
pub(crate) struct Registry {
    address: SocketAddr,
    fetched: Arc<AtomicU32>,
}

impl Registry {
    /// Starts one, and lets the world's podman speak to it without TLS.
    pub(crate) fn new(world: &mut World) -> Self {
        let dir = world.path("image");
        let to = dir.display().to_string();
        drop(world.podman(&["save", "--quiet", "--format", "docker-dir", "--output", &to, IMAGE]));
        let files = Arc::new(relabeled(&dir));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let fetched = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&fetched);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (files, count) = (Arc::clone(&files), Arc::clone(&count));
                std::thread::spawn(move || answer(&stream.unwrap(), &files, &count));
            }
        });
        let settings = world.path("registries.conf");
        let text = format!("[[registry]]\nlocation = \"{address}\"\ninsecure = true\n");
        disk::write(&settings, text.as_bytes()).unwrap();
        world.set("CONTAINERS_REGISTRIES_CONF", settings);
        Self { address, fetched }
    }

    /// The name of its image.
    pub(crate) fn image(&self) -> String {
        format!("{}/{REPOSITORY}:17", self.address)
    }

    /// How often it was asked for the image.
    pub(crate) fn fetched(&self) -> u32 {
        self.fetched.load(Ordering::SeqCst)
    }
}

/// What the registry answers, by path: the files of a saved image, with another configuration.
fn relabeled(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let mut manifest = parse(&read("manifest.json"));
    let hex = |descriptor: &Value| descriptor["digest"].as_str().unwrap().replace("sha256:", "");
    let mut config = parse(&read(&hex(&manifest["config"])));
    config["config"]["Labels"] = json!({ "from": dir.display().to_string() });
    let config = serde_json::to_vec(&config).unwrap();
    let digest = format!("sha256:{}", disk::sha256(&config));
    manifest["config"]["digest"] = json!(digest);
    manifest["config"]["size"] = json!(config.len());
    let blob = |digest: &str| format!("/v2/{REPOSITORY}/blobs/{digest}");
    let layers = manifest["layers"].as_array().unwrap().iter();
    let mut files: BTreeMap<String, Vec<u8>> =
        layers.map(|layer| (blob(layer["digest"].as_str().unwrap()), read(&hex(layer)))).collect();
    files.insert(blob(&digest), config);
    files.insert(format!("/v2/{REPOSITORY}/manifests/17"), serde_json::to_vec(&manifest).unwrap());
    files.insert("/v2/".to_owned(), b"{}".to_vec());
    files
}

/// Answers one request; what is not known is not found.
fn answer(mut stream: &TcpStream, files: &BTreeMap<String, Vec<u8>>, count: &AtomicU32) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let is_manifest = path.contains("/manifests/");
    if is_manifest && request.starts_with("GET ") {
        count.fetch_add(1, Ordering::SeqCst);
    }
    let (status, body) =
        files.get(&path).map_or(("404 Not Found", &[][..]), |body| ("200 OK", body.as_slice()));
    let kind = if is_manifest { MANIFEST } else { "application/octet-stream" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let body = if request.starts_with("HEAD ") { &[][..] } else { body };
    // Whoever does not want the rest goes.
    drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)));
}
