//! The first real rollout of the README, word for word.

use super::*;
use crate::support::Daemon;

const README: &str = include_str!("../../../README.md");

/// The text between two marks of the README.
fn between<'a>(from: &str, to: &str) -> &'a str {
    let (_, rest) = README.split_once(from).expect(from);
    rest.split_once(to).expect(to).0
}

/// A line without what is different each time: when it was, and the id of a command.
fn told(line: &str) -> String {
    let words = line.split_whitespace().filter(|word| {
        let id = word.len() == 8 && word.chars().all(|c| c.is_ascii_hexdigit());
        !id && !word.ends_with('Z')
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn its_first_rollout_goes_as_it_says() {
    let section = between("## A first real rollout", "With NATS");
    let commands =
        section.split_once("```bash\n").expect("commands").1.split_once("```").expect("their end").0;
    let shown = section.split("```\n").nth(2).expect("what is printed");
    let daemon = Daemon::start(None, None);
    let dir = tempfile::tempdir().unwrap();
    let mut printed = String::new();
    let program = Path::new(env!("CARGO_BIN_EXE_sluice")).parent().expect("its folder");
    let path = format!("{}:{}", program.display(), std::env::var("PATH").expect("a path"));
    let mut id = String::new();
    for line in commands.lines().filter(|line| !line.starts_with("sluice serve")) {
        let mut bash = Command::new("bash");
        bash.args(["-c", &line.replace(" ID ", &format!(" {id} "))]).current_dir(dir.path());
        let output = bash
            .env("PATH", &path)
            .env("SLUICE_SERVER", daemon.url(""))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = ok(&output);
        if let Some((_, rest)) = said.split_once("! command ") {
            id = rest.split_whitespace().next().expect("an id").to_owned();
        }
        printed += &said;
    }
    let told: Vec<String> = printed.lines().map(told).collect();
    for line in shown.lines().filter(|line| *line != "...") {
        assert!(
            told.contains(&self::told(line)),
            "the README shows\n{line}\nand this was printed:\n{printed}"
        );
    }
}
