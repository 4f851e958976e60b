//! The Dockerfile's last stages: images of exactly these files are what pods of this suite run.
//!
//! For the pods nothing is built from the Dockerfile. What it says of its last stages is read, every line of it, and made an
//! image of; the binaries come from where cargo put them instead of the stage that builds. That a builder makes the same
//! of them has a test of its own.

use std::path::PathBuf;

use klamm_tests::{Tool, assert_contains, paths};

use crate::kubernetes::image::{Image, static_binary};

/// A last stage.
#[derive(Debug, Default, PartialEq)]
struct Stage {
    labels: Vec<(String, String)>,
    /// Names of the binaries, and where they go.
    files: Vec<(String, String)>,
    user: String,
    entrypoint: Vec<String>,
}

fn root() -> PathBuf {
    paths::tests_dir().join("..")
}

/// Reads a target. Whatever a line says that is not understood here would be missing in the pods: it fails.
fn stage(text: &str, target: &str) -> Stage {
    let begin = format!("FROM scratch AS {target}");
    let mut lines =
        text.lines().skip_while(|line| *line != begin).skip(1).take_while(|line| !line.starts_with("FROM "));
    let mut stage = Stage::default();
    let unquoted = |text: &str| text.trim_matches('"').to_owned();
    for line in lines.by_ref().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "LABEL" => {
                let (key, value) = rest.split_once('=').expect("key=value");
                stage.labels.push((key.to_owned(), unquoted(value)));
            }
            "COPY" => {
                let parts: Vec<&str> = rest.split_whitespace().collect();
                let [from, file, to] = parts.as_slice() else { panic!("{line}") };
                assert_eq!(*from, "--from=build", "{line}");
                stage.files.push((file.strip_prefix("/out/").expect(line).to_owned(), (*to).to_owned()));
            }
            "USER" => rest.clone_into(&mut stage.user),
            "ENTRYPOINT" => stage.entrypoint = serde_json::from_str(rest).expect(line),
            // For people: it opens nothing.
            "EXPOSE" => {}
            _ => panic!("not known here: {line}"),
        }
    }
    assert!(!stage.files.is_empty() && !stage.entrypoint.is_empty(), "no target {target}");
    stage
}

fn read(target: &str) -> Stage {
    stage(&std::fs::read_to_string(root().join("Dockerfile")).expect("the Dockerfile"), target)
}

/// The image of a target, under a name.
#[track_caller]
pub fn image(target: &str, name: &str) -> Image {
    let stage = read(target);
    let command: Vec<&str> = stage.entrypoint.iter().map(String::as_str).collect();
    let image = Image::new(name, &command).user(&stage.user);
    stage.files.iter().fold(image, |image, (binary, to)| image.file(static_binary(binary), to))
}

#[test]
fn images_hold_one_static_binary_that_anybody_may_run() {
    let version = env!("CARGO_PKG_VERSION");
    let text = std::fs::read_to_string(root().join("Dockerfile")).expect("the Dockerfile");
    let toolchain = std::fs::read_to_string(root().join("rust-toolchain.toml")).expect("the toolchain's file");
    let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = \"")).expect("a channel");
    let channel = channel.trim_end_matches('"');
    assert_contains(&text, &format!("FROM rust:{channel}-alpine AS build"));
    assert_contains(&text, &format!("RUSTUP_TOOLCHAIN={channel}"));
    for (target, binary, most) in [("broker", "klamm", 25.0), ("operator", "klamm-operator", 25.0)] {
        let stage = read(target);
        assert_eq!(stage.files, [(binary.to_owned(), format!("/{binary}"))], "{target}");
        assert_eq!(stage.entrypoint, [format!("/{binary}")]);
        // A number: a name could not be checked against runAsNonRoot.
        assert_eq!(stage.user, "65532:65532");
        let about = |key: &str| stage.labels.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str());
        assert_eq!(about("org.opencontainers.image.version"), Some(version), "{target}");
        assert_eq!(about("org.opencontainers.image.licenses"), Some("Apache-2.0"));
        assert!(about("org.opencontainers.image.title").is_some());

        let file = static_binary(binary);
        // Answers 1, "not a dynamic executable", or names a library.
        let libraries = Tool::new("ldd").arg(&file).run();
        assert!(!libraries.out.contains("=>"), "{libraries}");
        let archive = paths::scratch_dir("size").join("image.tar");
        image(target, "klamm.test/size:1").write(&archive);
        let size = std::fs::metadata(&archive).expect("the image").len() as f64 / 1e6;
        println!("figures image {target}: {size:.1} MB");
        assert!(size <= most, "{size} MB");
        std::fs::remove_file(archive).expect("removed");
    }
}

/// A folder in place of the stage that compiles, whose image would come from a registry: with it nothing is fetched.
#[test]
fn a_builder_makes_the_same_of_the_last_stages() {
    let dir = paths::scratch_dir("buildah");
    let out = dir.join("stage/out");
    std::fs::create_dir_all(&out).expect("a folder");
    for binary in ["klamm", "klamm-operator"] {
        std::fs::copy(static_binary(binary), out.join(binary)).expect("a copy");
    }
    let policy = dir.join("policy.json");
    std::fs::write(&policy, r#"{ "default": [{ "type": "insecureAcceptAnything" }] }"#).expect("written");
    let at = |name: &str| dir.join(name).display().to_string();
    let buildah = |verb: &str| {
        Tool::new("buildah")
            .args(["--root", &at("root"), "--runroot", &at("run"), "--storage-driver", "vfs", verb])
            .args(["--signature-policy", &policy.display().to_string()])
            .limit(300)
    };
    for target in ["broker", "operator"] {
        let (stage, name, archive) =
            (read(target), format!("klamm.test/built-{target}:1"), at(&format!("{target}.tar")));
        buildah("build")
            .args(["--isolation", "chroot", "--pull-never", "--build-context", &format!("build={}", at("stage"))])
            .args(["--target", target, "--tag", &name, "--file"])
            .arg(root().join("Dockerfile"))
            .arg(root())
            .ok();
        buildah("push").args([&name, &format!("docker-archive:{archive}:{name}")]).ok();
        // An archive: a list of images, each with a configuration and layers.
        let unpacked = dir.join(target);
        std::fs::create_dir_all(&unpacked).expect("a folder");
        Tool::new("tar").args(["-C", &unpacked.display().to_string(), "-xf", &archive]).ok();
        let json = |file: &str| -> serde_json::Value {
            let text = std::fs::read_to_string(unpacked.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
            serde_json::from_str(&text).expect("JSON")
        };
        let images = json("manifest.json");
        let config = json(images[0]["Config"].as_str().expect("a configuration"));
        assert_eq!(config["config"]["User"], stage.user.as_str(), "{config:#}");
        assert_eq!(config["config"]["Entrypoint"], serde_json::json!(stage.entrypoint));
        for (key, value) in &stage.labels {
            assert_eq!(config["config"]["Labels"][key], value.as_str(), "{config:#}");
        }
        let layers = images[0]["Layers"].as_array().expect("layers");
        let files: Vec<String> = layers
            .iter()
            .flat_map(|layer| {
                let layer = unpacked.join(layer.as_str().expect("a name")).display().to_string();
                Tool::new("tar")
                    .args(["-C", &at("."), "-xvf", &layer])
                    .ok()
                    .lines()
                    .into_iter()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .filter(|file| !file.ends_with('/'))
            .collect();
        let [(binary, to)] = &stage.files[..] else { panic!("{stage:?}") };
        assert_eq!(files, [to.trim_start_matches('/')], "{target}");
        let built = dir.join(&files[0]);
        assert!(std::fs::read(&built).expect("the file") == std::fs::read(static_binary(binary)).expect("the binary"));
        // By a user without a name, as in the pods.
        let user = stage.user.replace(':', " --regid=");
        let run = format!("--clear-groups --reuid={user}");
        Tool::new("setpriv").args(run.split_whitespace()).arg(&built).arg("--version").ok().expect("klamm");
    }
    std::fs::remove_dir_all(dir).expect("removed");
}

#[test]
fn a_builder_makes_the_same_of_it() {
    // It fetches the compiler's image and everything from crates.io, so it has to be asked for.
    let Some(builder) = std::env::var_os("KLAMM_TEST_BUILDER") else {
        println!("figures dockerfile: not built, KLAMM_TEST_BUILDER=docker (or podman) would");
        return;
    };
    for target in ["broker", "operator"] {
        let (name, stage) = (format!("klamm.test/built-{target}:1"), read(target));
        let build = Tool::new(&builder).args(["build", "--target", target, "--tag", &name]).arg(root());
        build.limit(3600).ok();
        let shown = Tool::new(&builder).args(["image", "inspect", &name]).ok().out;
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        let config = &shown[0]["Config"];
        assert_eq!(config["User"], stage.user.as_str(), "{shown:#}");
        assert_eq!(config["Entrypoint"], serde_json::json!(stage.entrypoint));
        Tool::new(&builder).args(["run", "--rm", "--read-only", &name, "--version"]).ok().expect("klamm");
    }
}

#[test]
#[should_panic(expected = "not known here: RUN")]
fn a_line_that_is_not_understood_is_no_line_that_is_passed_over() {
    stage("FROM scratch AS broker\nCOPY --from=build /out/klamm /klamm\nRUN chmod +x /klamm\n", "broker");
}
