//! What Git knows of a file that is to be rolled out: asked of the `git` program, in the checkout that holds the file.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::CliError;

/// A file of a checkout, as it was last committed.
pub struct Kept {
    /// The file's name and the commit that last changed it: the same text is the same version.
    pub version: String,
    /// As an intent says it.
    pub body: Value,
}

/// Digits of a commit that a version carries.
const SHORT: usize = 12;

/// The file that `to` names. `None`: it names none, so it is a version.
///
/// Errors: Git does not keep the file, or not as it is now.
pub fn kept(to: &str) -> Result<Option<Kept>, CliError> {
    let file = Path::new(to);
    if !file.is_file() {
        return Ok(None);
    }
    let (Some(name), Ok(whole)) = (file.file_name().and_then(|name| name.to_str()), file.canonicalize())
    else {
        return Ok(None);
    };
    let folder = whole.parent().expect("a file is in a folder");
    let git = |args: &[&str]| git(folder, args);
    let not_kept = || {
        CliError::usage(format!("{to} is a file, and Git does not keep it"))
            .help("commit it, or name a version that is no file")
    };
    let Some(root) = git(&["rev-parse", "--show-toplevel"])? else { return Err(not_kept()) };
    let commit = git(&["log", "-1", "--format=%H", "--", name])?.filter(|commit| !commit.is_empty());
    let Some(commit) = commit else { return Err(not_kept()) };
    if git(&["status", "--porcelain", "--", name])?.is_none_or(|changes| !changes.is_empty()) {
        let message =
            format!("{to} has changes that are not committed; what is rolled out must be what Git keeps");
        return Err(CliError::usage(message).help(format!("git commit {to}")));
    }
    let path = git(&["ls-files", "--full-name", "--", name])?.filter(|path| !path.is_empty());
    let Some(path) = path else { return Err(not_kept()) };
    let origin = git(&["remote", "get-url", "origin"])?.map(|url| without_user(&url));
    let folder_name = || Path::new(&root).file_name().map(|name| name.to_string_lossy().into_owned());
    let repository = origin.or_else(folder_name).unwrap_or(root);
    let stem = name.split_once('.').map_or(name, |(stem, _)| stem);
    let stem: String = stem.chars().map(|c| if c.is_ascii_graphic() { c } else { '-' }).collect();
    let version = format!("{stem}@{}", &commit[..SHORT.min(commit.len())]);
    Ok(Some(Kept { version, body: json!({"repository": repository, "path": path, "commit": commit}) }))
}

/// What `git` prints; `None` when it refuses.
fn git(folder: &Path, args: &[&str]) -> Result<Option<String>, CliError> {
    let output = Command::new("git").arg("-C").arg(folder).args(args).output();
    let output = output.map_err(|error| CliError::file("running git", &error))?;
    let said = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    Ok(output.status.success().then_some(said))
}

/// A user or a password in an address is nobody's business; `git@host:path` names no secret and stays.
fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}/{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_no_password() {
        assert_eq!(without_user("https://me:secret@host/a/b.git"), "https://host/a/b.git");
        assert_eq!(without_user("git@host:a/b.git"), "git@host:a/b.git");
    }
}
