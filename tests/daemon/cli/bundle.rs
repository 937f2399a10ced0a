//! What a version is made of: prompts that are kept in Git, and bundles.

use std::path::Path;

use super::daemon::Ui;
use super::*;

fn git(folder: &Path, args: &[&str]) -> String {
    let identity =
        ["-c", "user.name=maya", "-c", "user.email=maya@example.org", "-c", "init.defaultBranch=main"];
    let output =
        Command::new("git").arg("-C").arg(folder).args(identity).args(args).output().expect("run git");
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

/// Writes the prompt, commits it, and returns the commit.
fn commit(checkout: &Path, text: &str) -> String {
    std::fs::create_dir_all(checkout.join("prompts")).unwrap();
    std::fs::write(checkout.join("prompts/refund.md"), text).unwrap();
    git(checkout, &["add", "."]);
    git(checkout, &["commit", "-q", "-m", text]);
    git(checkout, &["rev-parse", "HEAD"])
}

#[test]
fn a_prompt_in_a_checkout_carries_repository_path_and_commit() {
    let ui = Ui::start();
    let folder = tempfile::tempdir().unwrap();
    let checkout = folder.path();
    git(checkout, &["init", "-q"]);
    git(checkout, &["remote", "add", "origin", "https://maya:secret@example.org/prompts.git"]);
    let first = commit(checkout, "be kind");
    let deploy = |args: &[&str]| {
        let all =
            [&["deploy", "bot", "prompts/refund.md", "--policy", "quick", "--reason", "r"], args].concat();
        ui.command(&all).current_dir(checkout).output().expect("run sluice")
    };
    ok(&deploy(&["--from", "refund@0"]));
    let version = format!("refund@{}", &first[..12]);
    let page = ok(&ui.run(&["status", "1"]));
    assert!(page.starts_with(&format!("bot-1   prompt refund@0 → {version}")), "{page}");
    let line = format!("git: https://example.org/prompts.git prompts/refund.md {}\n", &first[..12]);
    assert!(page.contains(&line), "{page}");
    assert!(!ok(&ui.run(&["log", "tail", "--from", "1", "--until-end", "-o", "jsonl"])).contains("secret"));

    std::fs::write(checkout.join("prompts/refund.md"), "be kind, and rich").unwrap();
    refused(&deploy(&[]), 2, "error[E4002]: prompts/refund.md has changes that are not committed");
    std::fs::write(checkout.join("new.md"), "x").unwrap();
    let new = ["deploy", "bot", "new.md", "--policy", "quick", "--reason", "r"];
    let output = ui.command(&new).current_dir(checkout).output().unwrap();
    refused(&output, 2, "error[E4002]: new.md is a file, and Git does not keep it");
}

#[test]
fn a_bundle_is_rolled_out_under_its_fingerprint_one_part_at_a_time() {
    let ui = Ui::start();
    let deploy = ["deploy", "bot", "--kind", "model", "--policy", "quick", "--reason", "r"];
    let from = ["--from-bundle", "model=m@1", "--from-bundle", "prompt=p@1"];
    let both = [&deploy[..], &from, &["--bundle", "model=m@2", "--bundle", "prompt=p@2"]].concat();
    let several = "error[E1036]: 2 parts would change at once: model m@1 -> m@2, prompt p@1 -> p@2";
    refused(&ui.run(&both), 4, several);
    let one = [&deploy[..], &from, &["--bundle", "model=m@2", "--bundle", "prompt=p@1"]].concat();
    ok(&ui.run(&one));
    let page = ok(&ui.run(&["status", "1"]));
    assert!(page.contains("bundle: model m@2, prompt p@1\nchanges: model m@1 -> m@2\n"), "{page}");
    let unknown = [&deploy[..], &["--bundle", "modell=m@2"]].concat();
    let said = text(&ui.run(&unknown).stderr);
    assert!(said.contains("no part modell; known: model, prompt, parameters, index, cache, judge"), "{said}");
}
