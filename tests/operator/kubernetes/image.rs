//! Container images of plain files, made without a builder and given to the nodes without a registry.
//!
//! An image is one layer and what to run, in the layout that OCI specifies; the same files make the same image.

use std::path::{Path, PathBuf};

use klamm_tests::{Tool, paths};
use serde_json::{Value, json};

use super::NODES;
use super::machine::{HOME, Machine};

/// What an image is made of.
#[derive(Debug)]
pub struct Image {
    name: String,
    files: Vec<(PathBuf, String)>,
    links: Vec<(String, String)>,
    command: Vec<String>,
    user: String,
}

impl Image {
    /// An image that runs `command`, or what the pod says; files it has none yet.
    pub fn new(name: &str, command: &[&str]) -> Image {
        let command = command.iter().map(|&part| part.to_owned()).collect();
        Image { name: name.to_owned(), files: Vec::new(), links: Vec::new(), command, user: "0".to_owned() }
    }

    /// Puts a file of this machine into it.
    pub fn file(mut self, from: impl Into<PathBuf>, to: &str) -> Image {
        self.files.push((from.into(), to.to_owned()));
        self
    }

    /// Puts a symbolic link into it.
    pub fn link(mut self, target: &str, at: &str) -> Image {
        self.links.push((target.to_owned(), at.to_owned()));
        self
    }

    /// Who runs the command, as `user:group`.
    pub fn user(mut self, user: &str) -> Image {
        self.user = user.to_owned();
        self
    }

    /// Writes the image as a tar file.
    #[track_caller]
    pub fn write(&self, to: &Path) {
        let work = paths::scratch_dir("image");
        let layer = self.layer(&work);
        let config = json!({
            "architecture": match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other },
            "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
            "config": { "Entrypoint": self.command, "User": self.user, "WorkingDir": "/", "Env": ["PATH=/bin"] },
        });
        let config = blob(&work, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer] });
        let mut manifest = blob(&work, kind, manifest.to_string().as_bytes());
        manifest["annotations"] = json!({ "io.containerd.image.name": self.name });
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        std::fs::write(work.join("index.json"), index.to_string()).expect("written");
        std::fs::write(work.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
        archive(&work, to, &["oci-layout", "index.json", "blobs"]);
        std::fs::remove_dir_all(work).expect("removed");
    }

    fn layer(&self, work: &Path) -> Value {
        let root = work.join("root");
        let place = |path: &str| {
            let path = root.join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            path
        };
        for (from, to) in &self.files {
            std::fs::copy(from, place(to)).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        }
        for (target, at) in &self.links {
            std::os::unix::fs::symlink(target, place(at)).expect("a link");
        }
        let tar = work.join("layer.tar");
        archive(&root, &tar, &["."]);
        let bytes = std::fs::read(&tar).expect("the layer");
        std::fs::remove_file(&tar).and_then(|()| std::fs::remove_dir_all(&root)).expect("removed");
        blob(work, "application/vnd.oci.image.layer.v1.tar", &bytes)
    }
}

/// A tar file that depends on the files' contents only.
fn archive(dir: &Path, to: &Path, members: &[&str]) {
    let fixed = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu", "--create"];
    Tool::new("tar").args(fixed).arg("--file").arg(to).arg("--directory").arg(dir).args(members).ok();
}

/// Stores a part of the image under its digest and describes it.
fn blob(work: &Path, kind: &str, bytes: &[u8]) -> Value {
    let dir = work.join("blobs/sha256");
    std::fs::create_dir_all(&dir).expect("a folder");
    let file = dir.join("next");
    std::fs::write(&file, bytes).expect("written");
    let digest = Tool::new("sha256sum").arg(&file).ok().out;
    let digest = digest.split_whitespace().next().expect("a digest");
    std::fs::rename(&file, dir.join(digest)).expect("renamed");
    json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len() })
}

/// The image of every pod's first container, which only waits.
pub const PAUSE: &str = "klamm.test/pause:1";
/// An image with a shell and small tools.
pub const SHELL: &str = "klamm.test/shell:1";

/// Writes the images that every node needs into the machine; their files, as seen from inside.
pub fn basic(machine: &Machine) -> Vec<String> {
    let applets = [
        "cat", "date", "dd", "df", "echo", "env", "false", "grep", "head", "hostname", "httpd", "id", "ls", "mkdir",
        "nc", "nslookup", "ps", "rm", "sh", "sleep", "stat", "sync", "tail", "test", "touch", "true", "wget",
    ];
    // A day is more than any test takes; as the first process it gets no signals but the last.
    let pause = Image::new(PAUSE, &["/bin/sleep", "86400"]).file("/bin/busybox", "/bin/sleep");
    let shell = Image::new(SHELL, &[]).file("/bin/busybox", "/bin/busybox");
    let shell = applets.iter().fold(shell, |image, name| image.link("busybox", &format!("/bin/{name}")));
    [(pause, "pause.tar"), (shell, "shell.tar")]
        .into_iter()
        .map(|(image, file)| {
            image.write(&machine.path(file));
            format!("{HOME}/{file}")
        })
        .collect()
}

/// `ctr` for the containers of a node; to be run inside.
pub fn containers(tool: Tool, node: usize) -> Tool {
    tool.args(["--address", &format!("{HOME}/node{node}/containerd.sock"), "--namespace", "k8s.io"])
}

/// Gives an image to every node; inside only.
#[track_caller]
pub fn load(image: &Image) {
    let file = paths::scratch_dir("image").join("image.tar");
    image.write(&file);
    for node in 1..=NODES {
        containers(Tool::new("ctr"), node).args(["images", "import"]).arg(&file).ok();
    }
    std::fs::remove_file(file).expect("removed");
}

/// The static binary of `name` under test: `KLAMM_STATIC` names its folder, else it is where cargo builds it.
#[track_caller]
pub fn static_binary(name: &str) -> PathBuf {
    let triple = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let default = || super::target().join(triple).join("release");
    let file = std::env::var_os("KLAMM_STATIC").map_or_else(default, PathBuf::from).join(name);
    assert!(file.is_file(), "{} is missing: run `tests/run build`", file.display());
    file
}
