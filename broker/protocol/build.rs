//! Generates the messages from the tables in `schema/` (notation: `build/notation.rs`, output: `build/emit.rs`).

#[path = "build/emit.rs"]
mod emit;
#[path = "build/notation.rs"]
mod notation;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::exit,
};

use notation::{File, Kind, Message, Mistake};

fn main() {
    for path in ["build.rs", "build", "schema"] {
        println!("cargo::rerun-if-changed={path}");
    }
    if let Err(mistake) = run() {
        eprintln!("{mistake}");
        println!("cargo::error={mistake}");
        exit(1);
    }
}

fn run() -> Result<(), Mistake> {
    let mut paths = list(Path::new("schema"), "api")?;
    paths.extend(list(Path::new("schema/records"), "rec")?);
    let mut apis = Vec::new();
    let mut messages: Vec<Message> = Vec::new();
    let mut out = String::from(
        "mod prelude { pub(super) use bytes::Bytes; pub(super) use crate::{ApiKey, Records, Uuid, message::{Message, Record, Request}, \
         wire::{get_opt_struct, get_opt_tagged_struct, put_opt_struct, put_opt_tagged_struct, put_required, put_tag, unsupported, DecodeError, EncodeError, Reader, \
         Wire, WireOpt, Writer}}; #[cfg(any(test, feature = \"sample\"))] pub(super) use crate::sample::Sampler; }\n",
    );
    for path in paths {
        let text = fs::read_to_string(&path).map_err(|e| mistake(&path, e))?;
        let File { api, messages: found } = notation::parse(&path, &text)?;
        for message in &found {
            if messages.iter().any(|m| m.name == message.name) {
                return Err(mistake(&path, format!("message {} is there twice", message.name)));
            }
            emit::message(&mut out, message)
                .map_err(|(line, what)| Mistake { place: format!("{}:{line}", path.display()), what })?;
        }
        if let Some(api) = api {
            match found.as_slice() {
                [request, response]
                    if request.kind == Kind::Request(api.key) && response.kind == Kind::Response(api.key) =>
                {
                    apis.push((api, request.clone(), response.clone()));
                }
                _ => return Err(mistake(&path, "a request and a response are expected")),
            }
        }
        messages.extend(found);
    }
    apis.sort_by_key(|(api, ..)| api.key);
    emit::visitor(&mut out, &messages);
    let dir = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    for (name, text) in
        [("messages.rs", out), ("api_keys.rs", emit::api_keys(&apis)), ("records.rs", emit::families(&messages))]
    {
        let path = dir.join(name);
        fs::write(&path, text).map_err(|e| mistake(&path, e))?;
    }
    Ok(())
}

/// The files of `dir` with an extension, in order.
fn list(dir: &Path, extension: &str) -> Result<Vec<PathBuf>, Mistake> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| mistake(dir, e))? {
        let path = entry.map_err(|e| mistake(dir, e))?.path();
        if path.extension().is_some_and(|e| e == extension) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn mistake(path: &Path, what: impl std::fmt::Display) -> Mistake {
    Mistake { place: path.display().to_string(), what: what.to_string() }
}
