//! Imports point one way, and nothing pure touches the world.
//!
//! Reads every path in `src`, `engine/src` and `store/src` (in `use` trees and in the code), comments, strings and unit tests left
//! out, and names the ones out of place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module may name itself and whatever stands before it in this list. `sim` and `shell` perform the
/// same effects in two ways and must not know each other, so neither order between them would do. That the engine knows
/// neither `clock` nor `log` is Cargo's business.
const LAYERS: [&[&str]; 14] = [
    &["msgpack"],
    &["core"],
    &["windows"],
    &["wire"],
    &["runner"],
    &["replay"],
    &["evidence_trace"],
    &["view"],
    &["invariants"],
    &["clock", "os_sync"],
    &["log"],
    &["sim", "shell"],
    &["cli"],
    &["main"],
];

/// The rooms of the core, each above those before it; what stands in one line does not know each other.
const ROOMS: [&[&str]; 8] = [
    &["ids", "time", "text", "rules"],
    &["policy", "telemetry"],
    &["evidence"],
    &["event"],
    &["words"],
    &["state"],
    &["decide"],
    &["invariants"],
];

/// The half whose results depend on their arguments alone. That it can depend on no crate that touches the world is
/// `engine/Cargo.toml`'s business; this is about the standard library.
const PURE: &str = "engine/src";
const SOURCES: [&str; 3] = [PURE, "store/src", "src"];

/// What would let the world into a pure module: clock, I/O, async, logging, randomness, hash order.
/// An address (`std::net::SocketAddr`) is a plain value.
const WORLD: [&str; 15] = [
    "std::collections::HashMap",
    "std::collections::HashSet",
    "std::collections::hash_map",
    "std::collections::hash_set",
    "std::env",
    "std::fs",
    "std::hash::RandomState",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

#[test]
fn imports_point_one_way_and_nothing_pure_touches_the_world() {
    let mut misplaced = Vec::new();
    let mut files = 0;
    let mut folders = SOURCES.map(PathBuf::from).to_vec();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).expect("list the sources") {
            let path = folder.join(entry.expect("an entry of the sources").file_name());
            if root.join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(root.join(&path)).expect("read a source file");
                misplaced.extend(check(&path.display().to_string(), &text));
                files += 1;
            }
        }
    }
    assert!(files > 10, "found only {files} files");
    misplaced.sort();
    assert!(misplaced.is_empty(), "out of place:\n{}", misplaced.join("\n"));
}

/// A source file: its path below its half, its module, and its code.
struct Source {
    file: String,
    module: Vec<&'static str>,
    code: String,
}

/// The sources of one half; neither its root nor what is compiled for tests alone.
fn sources(half: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(half);
    let (mut sources, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("list the sources") {
            let path = entry.expect("an entry of the sources").path();
            let name = path.strip_prefix(&root).expect("below it").display().to_string();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".rs")
                && !["lib.rs", "main.rs"].contains(&&*name)
                && !name.contains("tests")
            {
                let name: &'static str = name.leak();
                let module = name.trim_end_matches(".rs").split('/').filter(|part| *part != "mod").collect();
                let code = code_only(&fs::read_to_string(&path).expect("read a source file"));
                sources.push(Source { file: name.to_owned(), module, code });
            }
        }
    }
    sources
}

/// The file that a path leads to, as its module. `module` is that of the file it stands in.
fn leads_to<'a>(path: &'a str, module: &[&'a str], known: &BTreeSet<Vec<&str>>) -> Option<Vec<&'a str>> {
    let parts: Vec<&str> = path.split("::").collect();
    let ups = parts.iter().take_while(|part| **part == "super").count();
    let mut whole = match parts[0] {
        "crate" => parts[1..].to_vec(),
        "super" if ups <= module.len() => [&module[..module.len() - ups], &parts[ups..]].concat(),
        _ => return None,
    };
    while !whole.is_empty() && !known.contains(&whole) {
        whole.pop();
    }
    (!whole.is_empty()).then_some(whole)
}

/// Files of one half that know each other, directly or by way of others. That the head of a folder names the files in it
/// (`use acts::act`) does not count: it shows what stands there.
fn circles(sources: &[Source]) -> Vec<String> {
    let files: BTreeSet<Vec<&str>> = sources.iter().map(|source| source.module.clone()).collect();
    let mut knows = BTreeMap::<Vec<&str>, BTreeSet<Vec<&str>>>::new();
    for source in sources {
        for (_, path) in paths(&source.code) {
            let path: &'static str = path.leak();
            let target = leads_to(path, &source.module, &files).filter(|target| *target != source.module);
            knows.entry(source.module.clone()).or_default().extend(target);
        }
    }
    // What leads nowhere, and what nothing leads to, is in no circle. What is left when no more of it goes, is in one or between two.
    loop {
        let before = knows.len();
        let left: BTreeSet<Vec<&str>> = knows.keys().cloned().collect();
        let known: BTreeSet<Vec<&str>> = knows.values().flatten().cloned().collect();
        knows.retain(|file, targets| {
            targets.retain(|target| left.contains(target));
            !targets.is_empty() && known.contains(file)
        });
        if knows.len() == before {
            break;
        }
    }
    let name = |module: &Vec<&str>| module.join("::");
    let told = |(file, targets): (&Vec<&str>, &BTreeSet<Vec<&str>>)| {
        format!("{} knows {}", name(file), targets.iter().map(name).collect::<Vec<_>>().join(", "))
    };
    knows.iter().map(told).collect()
}

#[test]
fn files_make_no_circle() {
    let found: Vec<String> = SOURCES.iter().flat_map(|half| circles(&sources(half))).collect();
    assert!(found.is_empty(), "in a circle:\n{}", found.join("\n"));
}

/// Rooms are known downward only. What checks the core from outside knows nothing but it.
#[test]
fn the_rooms_of_the_core_know_what_is_below_them() {
    let sources = sources(PURE);
    let known: BTreeSet<Vec<&str>> = sources.iter().map(|source| source.module.clone()).collect();
    let place = |room: &str| ROOMS.iter().position(|rooms| rooms.contains(&room));
    let mut wrong = Vec::new();
    for Source { file, module: own, code } in &sources {
        let room = match own[..] {
            ["core", room, ..] | [room @ "invariants", ..] => room,
            _ => continue,
        };
        let Some(level) = place(room) else {
            wrong.push(format!("{file}: `{room}` is no room; add it to ROOMS in tests/pure/layering.rs"));
            continue;
        };
        for (line, path) in paths(code) {
            let path: &'static str = path.leak();
            if room == "invariants"
                && path.starts_with("crate::")
                && top_module(path, own).is_none_or(|top| top != "core" && top != "invariants")
            {
                wrong.push(format!("{file}:{line}: `{path}`: invariants know the core, and nothing else"));
            }
            let target = leads_to(path, own, &known).unwrap_or_default();
            let ["core", target, ..] = target[..] else { continue };
            if target != room && place(target).is_none_or(|at| at >= level) {
                wrong.push(format!("{file}:{line}: `{path}`: `{room}` must not know `{target}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "out of place:\n{}", wrong.join("\n"));
}

/// What could make two builds, or two runs of one, decide differently: a feature, the environment, a value that changes.
const SWITCHES: [&str; 12] = [
    "cfg(feature",
    "cfg(not(feature",
    "cfg!(",
    "env!(",
    "thread_local!",
    "static mut",
    "Atomic",
    "Mutex",
    "RwLock",
    "unsafe",
    "std::env",
    "debug_assertions",
];

/// Rules differ by nothing but the engine that a log names, and `core/rules.rs` alone compares it; the decoder finds it.
#[test]
fn nothing_alters_a_rule() {
    let mut wrong = Vec::new();
    for Source { file, module, code } in sources(PURE) {
        let may_compare = matches!(module[..], ["core", "rules"] | ["wire", "events"]);
        let compares = |line: &str| {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let asks =
                [" == ", " != ", " < ", " > ", " <= ", " >= ", "match "].iter().any(|w| line.contains(w));
            asks && !line.contains("Rules::") && words.any(|word| word.eq_ignore_ascii_case("engine"))
        };
        for (number, line) in (1..).zip(code.lines()) {
            // The world in memory is one thread's, and has no rules.
            let switch = SWITCHES.iter().find(|switch| line.contains(**switch) && module[0] != "sim");
            wrong.extend(switch.map(|switch| format!("{file}:{number}: `{switch}` could alter a rule")));
            if compares(line) && !may_compare {
                wrong.push(format!("{file}:{number}: engines are compared in core/rules.rs"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The complaints about one file; `file` is its path.
fn check(file: &str, text: &str) -> Vec<String> {
    let inside = SOURCES.iter().find_map(|sources| file.strip_prefix(sources)).expect("of the sources");
    let inside = inside.trim_matches('/').trim_end_matches(".rs");
    let module: Vec<&str> = inside.split('/').filter(|part| *part != "mod").collect();
    let own = module[0];
    // lib.rs only names the modules; tests.rs is compiled for tests alone.
    if own == "lib" || module.last() == Some(&"tests") {
        return Vec::new();
    }
    let Some(own_layer) = layer(own) else {
        return vec![format!(
            "{file}: module `{own}` is in no layer; add it to LAYERS in tests/pure/layering.rs"
        )];
    };
    let mut complaints = Vec::new();
    for (line, path) in paths(&code_only(text)) {
        let at = format!("{file}:{line}: `{path}`");
        if let Some(target) = top_module(&path, &module) {
            match layer(&target) {
                Some(at_layer) if target == own || at_layer < own_layer => {}
                Some(_) => complaints.push(format!("{at}: `{own}` must not know `{target}`")),
                None if ["sluice::", "sluice_engine::", "sluice_store::", "crate::"]
                    .iter()
                    .any(|own| path.starts_with(own)) =>
                {
                    complaints.push(format!("{at}: module `{target}` is in no layer"))
                }
                None => {}
            }
        }
        let world = WORLD.iter().find(|w| path == **w || path.starts_with(&format!("{w}::")));
        if file.starts_with(PURE)
            && let Some(banned) = world
        {
            complaints.push(format!("{at}: `{own}` is pure, it must not use `{banned}`"));
        }
    }
    complaints
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|names| names.contains(&module))
}

/// The top-level module of this crate that a path leads to, if it leads to one.
fn top_module(path: &str, module: &[&str]) -> Option<String> {
    let mut parts = path.split("::").peekable();
    match *parts.peek()? {
        "crate" | "sluice" | "sluice_engine" | "sluice_store" => parts.nth(1).map(str::to_owned),
        "super" => {
            let ups = path.split("::").take_while(|part| *part == "super").count();
            if ups < module.len() { None } else { parts.nth(ups).map(str::to_owned) }
        }
        _ => None,
    }
}

/// The text with comments, strings and the unit tests at its end blanked; lines keep their numbers.
fn code_only(text: &str) -> String {
    let text = match text.find("#[cfg(test)]\nmod ") {
        Some(tests) => &text[..tests],
        None => text,
    };
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest[1..].find("'").map_or(rest.len(), |end| end + 2)
        } else if c == '"' {
            string_len(rest)
        } else {
            0
        };
        code.extend(rest[..skip].chars().filter(|c| *c == '\n'));
        if skip == 0 {
            code.push(c);
        }
        rest = &rest[skip.max(c.len_utf8()).min(rest.len())..];
    }
    code
}

/// Length of the string literal that `text` starts with, quotes included.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// Every path of two or more segments with its line, `use` trees spelled out:
/// `use std::{fs, io::{self, Read}}` gives `std::fs`, `std::io::self`, `std::io::Read`.
fn paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    // The prefixes of the open `use` groups, innermost last; braces in other code push an empty one.
    let mut groups: Vec<String> = Vec::new();
    let mut path = String::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            let word: usize =
                rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').map(char::len_utf8).sum();
            let mut step = c.len_utf8();
            if word > 0 {
                if !path.ends_with("::") {
                    path.clear();
                }
                path.push_str(&rest[..word]);
                step = word;
                let ends = !rest[word..].starts_with("::");
                let whole = format!("{}{path}", groups.last().map_or("", String::as_str));
                if ends && whole.contains("::") {
                    found.push((index + 1, whole));
                }
            } else if rest.starts_with("::") {
                path.push_str("::");
                step = 2;
            } else if c == '{' {
                let group = path.ends_with("::");
                let outer = groups.last().filter(|_| group).cloned().unwrap_or_default();
                groups.push(if group { outer + &path } else { String::new() });
                path.clear();
            } else if c == '}' {
                groups.pop();
                path.clear();
            } else if c == '*' && path.ends_with("::") {
                found.push((index + 1, format!("{}{path}*", groups.last().map_or("", String::as_str))));
                path.clear();
            } else if !c.is_whitespace() {
                path.clear();
            }
            rest = &rest[step..];
        }
    }
    found
}

#[test]
fn the_checker_names_what_is_out_of_place() {
    for (file, text, complaint) in [
        (
            "engine/src/core/time.rs",
            "use std::time::SystemTime;",
            "src/core/time.rs:1: `std::time::SystemTime`: `core` is pure",
        ),
        (
            "engine/src/core/a.rs",
            "\nuse std::{\n  fmt,\n  time::{Duration, Instant},\n};",
            "a.rs:4: `std::time::Instant`",
        ),
        (
            "engine/src/wire/keys.rs",
            "use std::collections::{BTreeMap, HashMap};",
            "std::collections::HashMap",
        ),
        ("engine/src/core/a.rs", "use crate::shell::log::Log;", "`core` must not know `shell`"),
        ("engine/src/core/a.rs", "use super::super::wire::keys;", "`core` must not know `wire`"),
        ("engine/src/runner.rs", "use super::shell;", "`runner` must not know `shell`"),
        ("engine/src/wire/a.rs", "use crate::{core::ids, runner::Runner};", "`wire` must not know `runner`"),
        ("engine/src/sim/mod.rs", "use crate::shell::*;", "`sim` must not know `shell`"),
        ("store/src/log/mod.rs", "use crate::shell::bus;", "`log` must not know `shell`"),
        ("src/shell/bus.rs", "fn f() { crate::cli::exit(1) }", "`shell` must not know `cli`"),
        ("engine/src/helpers.rs", "", "module `helpers` is in no layer"),
    ] {
        let complaints = check(file, text);
        assert!(
            complaints.iter().any(|c| c.contains(complaint)),
            "{file}: {text:?} gave {complaints:?}, not {complaint:?}"
        );
    }
}

#[test]
fn the_checker_lets_the_rest_pass() {
    for (file, text) in [
        (
            "engine/src/core/a.rs",
            "use std::collections::BTreeMap;\nuse super::ids::Metric;\nuse crate::core::time::Span;",
        ),
        ("engine/src/core/bets/inner.rs", "use super::super::time::Span;"),
        (
            "engine/src/core/a.rs",
            "//! Unlike `std::fs::read`.\nconst A: &str = \"std::fs \\\" std::env\"; /* std::net::X */",
        ),
        ("engine/src/core/a.rs", "fn f() {}\n#[cfg(test)]\nmod tests { use std::fs; }"),
        ("engine/src/core/bets/tests.rs", "use std::fs;"),
        ("store/src/clock.rs", "use std::time::SystemTime;\nuse crate::core::time::Timestamp;"),
        ("engine/src/runner.rs", "match x { A::B { c } => wire::x(), _ => d::e(c) }\nuse crate::wire::keys;"),
        ("src/main.rs", "use sluice::cli;\nfn main() { sluice::cli::run() }"),
    ] {
        assert_eq!(check(file, text), Vec::<String>::new(), "{file}: {text:?}");
    }
}
