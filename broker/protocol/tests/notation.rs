//! Mistakes in a schema file are found where they are.

#[allow(dead_code)]
#[path = "../build/notation.rs"]
mod notation;

use std::path::Path;

use notation::{Kind, Type, Versions, parse};

#[track_caller]
fn mistake(text: &str, expected: &str) {
    let found = parse(Path::new("schema/x.api"), text).err().map(|m| m.to_string());
    assert_eq!(found.as_deref(), Some(expected));
}

#[test]
fn a_table_is_read() {
    let text = "api 7 Thing on broker controller # a comment\n\nrequest 1-4 flexible 3+ unstable 4\n  struct Shared\n    \
                Id uuid\n  Names []string? 2+ = null\n  Items []Item\n    At Shared 3+ tag 0 ignorable\n    N i32 = -1\n";
    let file = parse(Path::new("x"), text).unwrap();
    let api = file.api.unwrap();
    assert_eq!((api.key, api.name.as_str(), api.listeners.len()), (7, "Thing", 2));
    let [request] = file.messages.as_slice() else { panic!("one message expected") };
    assert_eq!((request.kind.clone(), request.name.as_str()), (Kind::Request(7), "ThingRequest"));
    assert_eq!((request.versions, request.flexible, request.stable), (Versions { min: 1, max: 4 }, Some(3), 3));
    let names: Vec<_> = request.structs.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["Shared", "Item", "ThingRequest"]);
    let [at, n] = request.structs[1].fields.as_slice() else { panic!("two fields expected") };
    assert_eq!((&at.ty, at.tag, at.ignorable), (&Type::Struct("Shared".into()), Some(0), true));
    assert_eq!((n.default.as_deref(), n.line), (Some("-1"), 9));
    assert_eq!(request.structs[2].fields[0].versions, Versions { min: 2, max: 4 });
}

#[test]
fn mistakes_name_file_and_line() {
    mistake("request 0", "schema/x.api:1: `api` line must come first");
    mistake("api x A on broker", "schema/x.api:1: key is not a number");
    mistake("data A 0\n   B i32", "schema/x.api:2: indent by two spaces");
    mistake("data A 0\n  B int32", "schema/x.api:2: no type int32");
    mistake("data A 0\n\n  B C", "schema/x.api:3: no type C");
    mistake("data A 0\n  B i32\n    C i32", "schema/x.api:3: only structs have fields");
    mistake("data A 0\n  B i32\n  B i32", "schema/x.api:3: field B is there twice");
    mistake("data A 0-3\n  B i32 4+", "schema/x.api:2: versions outside of the enclosing block");
    mistake("data A 0-3\n  B i32 soon", "schema/x.api:2: `soon` is not understood");
    mistake("data A 0\n  B i32 tag 0", "schema/x.api:2: tagged fields need flexible versions");
    mistake("data A 0 flexible 0+\n  B i32 tag 1", "schema/x.api:1: tags must count up from 0, our own from 10000");
    mistake(
        "data A 0 flexible 0+\n  B i32 tag 0\n  C i32 tag 10001",
        "schema/x.api:1: tags must count up from 0, our own from 10000",
    );
    mistake("data A 0\n  B i32 = null", "schema/x.api:2: a default of null needs a nullable type");
    mistake("data A zero", "schema/x.api:1: expected `VERSIONS [flexible N+] [unstable N]`");
    mistake("data A 0\n  B []C\n    D i32\n  E []C\n    F i32", "schema/x.api:4: struct C is there twice");
}
