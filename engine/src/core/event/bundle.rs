//! What a version is made of: the parts of a bundle, and the commit it comes from.
//!
//! A bundle has no name of its own: its fingerprint is its version, so that the same parts are the same version wherever
//! they are promoted, taken back or tried again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::ids::{Digest, Version};

/// One thing that answers depend on.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    Model,
    Prompt,
    Parameters,
    Index,
    Cache,
    /// What grades the answers.
    Judge,
}

impl Part {
    pub const ALL: [Part; 6] =
        [Part::Model, Part::Prompt, Part::Parameters, Part::Index, Part::Cache, Part::Judge];

    pub fn as_str(self) -> &'static str {
        match self {
            Part::Model => "model",
            Part::Prompt => "prompt",
            Part::Parameters => "parameters",
            Part::Index => "index",
            Part::Cache => "cache",
            Part::Judge => "judge",
        }
    }
}

/// Versions of the parts of one bundle.
pub type Parts = BTreeMap<Part, Version>;

/// Where in a Git repository a version comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// As its users address it, without credentials.
    pub repository: String,
    /// Of the file, from the root of the repository.
    pub path: String,
    /// In full, hexadecimal.
    pub commit: String,
}

/// What is known of how a version is made. Empty where nobody said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Composition {
    pub parts: Parts,
    pub git: Option<Commit>,
}

impl Composition {
    pub fn is_empty(&self) -> bool {
        *self == Composition::default()
    }
}

/// The version of a bundle: `bundle-` and 96 bits of BLAKE3 over its parts, one `part=version` a line, in the order of
/// [`Part`].
pub fn fingerprint(parts: &Parts) -> Version {
    let lines: String =
        parts.iter().map(|(part, version)| format!("{}={version}\n", part.as_str())).collect();
    Version(format!("bundle-{}", &Digest::of(lines.as_bytes()).to_string()[..24]))
}

/// A part in which two bundles differ; `None`: it has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartChange {
    pub part: Part,
    pub from: Option<Version>,
    pub to: Option<Version>,
}

impl std::fmt::Display for PartChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [from, to] =
            [&self.from, &self.to].map(|version| version.as_ref().map_or("none", |version| version.as_str()));
        write!(f, "{} {from} -> {to}", self.part.as_str())
    }
}

/// The parts in which two bundles differ: `model opus-4.6 -> opus-4.7`.
pub fn changed(from: &Parts, to: &Parts) -> Vec<PartChange> {
    let differ = Part::ALL.into_iter().filter(|part| from.get(part) != to.get(part));
    differ
        .map(|part| PartChange { part, from: from.get(&part).cloned(), to: to.get(&part).cloned() })
        .collect()
}

/// The commits that lie between two versions of one file: `1a2b3c..4d5e6f`, the first left out where it is not known or
/// of another file.
pub fn range(from: Option<&Commit>, to: &Commit) -> String {
    let short = |commit: &Commit| commit.commit.chars().take(12).collect::<String>();
    match from.filter(|from| from.repository == to.repository && from.path == to.path) {
        Some(from) => format!("{}..{}", short(from), short(to)),
        None => short(to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(of: &[(Part, &str)]) -> Parts {
        of.iter().map(|(part, version)| (*part, Version::from(*version))).collect()
    }

    #[test]
    fn a_fingerprint_is_of_the_parts_and_of_nothing_else() {
        let one = parts(&[(Part::Prompt, "p@12"), (Part::Model, "opus-4.7")]);
        assert_eq!(fingerprint(&one).as_str(), "bundle-246b4cb51da9520cc715a16a");
        let moved = parts(&[(Part::Prompt, "opus-4.7"), (Part::Model, "p@12")]);
        assert_ne!(fingerprint(&one), fingerprint(&moved));
    }

    #[test]
    fn what_changed_names_parts_that_come_and_go() {
        let from = parts(&[(Part::Model, "m@1"), (Part::Cache, "c@1")]);
        let to = parts(&[(Part::Model, "m@2"), (Part::Index, "i@1")]);
        let changes: Vec<String> = changed(&from, &to).iter().map(PartChange::to_string).collect();
        assert_eq!(changes, ["model m@1 -> m@2", "index none -> i@1", "cache c@1 -> none"]);
        assert!(changed(&to, &to).is_empty());
    }

    #[test]
    fn a_range_is_of_one_file() {
        let commit = |path: &str, commit: &str| Commit {
            repository: "r".into(),
            path: path.into(),
            commit: commit.into(),
        };
        let (old, new) = (commit("a.md", &"1".repeat(40)), commit("a.md", &"2".repeat(40)));
        assert_eq!(range(Some(&old), &new), "111111111111..222222222222");
        assert_eq!(range(Some(&commit("b.md", "3")), &new), "222222222222");
    }
}
