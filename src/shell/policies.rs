//! Policies on their way into the log: the shipped ones and a folder of files, each stored once by digest.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::clock;
use crate::core::event::Event;
use crate::core::ids::Digest;
use crate::core::policy::Policy;
use crate::core::state::State;
use crate::wire::policy_file;
use crate::wire::yaml::{FILE_MAX, FileError};

/// Why the policies cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum PoliciesError {
    #[error("cannot read policies from {}: {cause}", .path.display())]
    Read { path: std::path::PathBuf, cause: std::io::Error },
    #[error(transparent)]
    Policy(#[from] FileError),
    #[error("policy {name} is in both {first} and {second}; a name stands for one policy")]
    Twice { name: String, first: String, second: String },
}

/// A policy with its source text and where it came from.
pub struct Loaded {
    pub policy: Policy,
    pub source: String,
    pub file: String,
}

/// The shipped policies, replaced by name by those in `folder` (files ending in `.yaml` or `.yml`).
pub fn load(folder: Option<&Path>) -> Result<Vec<Loaded>, PoliciesError> {
    let mut own: Vec<Loaded> = Vec::new();
    if let Some(folder) = folder {
        let failed = |cause| PoliciesError::Read { path: folder.to_owned(), cause };
        let entries = std::fs::read_dir(folder).map_err(failed)?;
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml") {
                paths.push(path);
            }
        }
        paths.sort();
        for path in paths {
            let loaded = read(&path)?;
            if let Some(same) = own.iter().find(|known| known.policy.name == loaded.policy.name) {
                let (first, second) = (same.file.clone(), loaded.file);
                return Err(PoliciesError::Twice { name: loaded.policy.name, first, second });
            }
            own.push(loaded);
        }
    }
    let mut all = Vec::new();
    for (file, source) in policy_file::shipped() {
        let policy = policy_file::parse_policy(source, file)?;
        if !own.iter().any(|mine| mine.policy.name == policy.name) {
            all.push(Loaded { policy, source: source.to_owned(), file: file.to_owned() });
        }
    }
    all.append(&mut own);
    Ok(all)
}

/// One policy file as it should be today: windows that do not open within a year are a mistake.
pub fn check(path: &Path) -> Result<Loaded, PoliciesError> {
    let loaded = read(path)?;
    policy_file::check_policy(&loaded.source, &loaded.file, clock::now())?;
    Ok(loaded)
}

/// One policy file.
pub fn read(path: &Path) -> Result<Loaded, PoliciesError> {
    let source = text(path).map_err(|cause| PoliciesError::Read { path: path.to_owned(), cause })?;
    let file = path.display().to_string();
    let policy = policy_file::parse_policy(&source, &file)?;
    Ok(Loaded { policy, source, file })
}

/// The text of a file that people write. Of one that is too large only so much that this shows: it may be endless.
pub fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > FILE_MAX {
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

/// The facts that bring the log up to date with `policies`.
pub fn to_store(state: &State, policies: Vec<Loaded>) -> Vec<Event> {
    let new = policies.into_iter().filter_map(|Loaded { policy, source, .. }| {
        let digest = Digest::of(source.as_bytes());
        let known = state.policy_names.get(&policy.name) == Some(&digest);
        (!known).then_some(Event::PolicyStored { digest, policy, source })
    });
    new.collect()
}
