//! Names from users and servers, checked before they become part of a path or a URL.

use std::fmt::Write as _;

use crate::shown::shown;

/// A name that breaks the rule for its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not a valid {kind}: {rule}")]
#[non_exhaustive]
pub struct NameError {
    /// The kind of name: repository, revision, file, commit or ETag.
    pub kind: &'static str,
    /// The refused value, cut and escaped for display.
    pub value: String,
    /// The rule that the value breaks.
    pub rule: &'static str,
}

impl NameError {
    fn new(kind: &'static str, value: &str, rule: &'static str) -> Self {
        Self { kind, value: shown(value), rule }
    }
}

/// A model repository: `owner/name`, or a bare `name` as the oldest repositories have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoId(String);

impl RepoId {
    /// Checks a repository's name.
    ///
    /// # Errors
    /// [`NameError`] unless the name is one or two parts of at most 96 ASCII letters, digits, `-`,
    /// `_` and `.` that neither begin nor end with `-` or `.` and contain neither `--` nor `..`.
    pub fn parse(value: &str) -> Result<Self, NameError> {
        let plain = |part: &str| {
            (1..=96).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                && !part.starts_with(['-', '.'])
                && !part.ends_with(['-', '.'])
                && !part.contains("--")
                && !part.contains("..")
        };
        let mut parts = value.split('/');
        let whole = parts.clone().count() <= 2 && parts.all(plain);
        let rule = "give owner/name in letters, digits, `-`, `_` and `.`";
        if whole { Ok(Self(value.to_owned())) } else { Err(NameError::new("repository", value, rule)) }
    }

    /// Returns the name as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the repository's folder in the cache. Distinct names have distinct folders, because
    /// no name contains `--`.
    pub(crate) fn folder(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }
}

/// A branch, a tag, a pull request (`refs/pr/1`) or a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision(String);

impl Revision {
    /// Checks a revision's name.
    ///
    /// # Errors
    /// [`NameError`] unless the name is at most 255 bytes: parts of ASCII letters, digits, `-`,
    /// `_`, `.`, `+`, `@` and `=` between slashes, none of which begins or ends with `.`, contains
    /// `..`, or ends with `.lock`.
    pub fn parse(value: &str) -> Result<Self, NameError> {
        let plain = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+@=".contains(&b))
                && !part.starts_with('.')
                && !part.ends_with('.')
                && !part.contains("..")
                && !part.ends_with(".lock")
        };
        let rule = "give a branch, a tag, refs/pr/N or a commit";
        let whole = value.len() <= 255 && value.split('/').all(plain);
        if whole { Ok(Self(value.to_owned())) } else { Err(NameError::new("revision", value, rule)) }
    }

    /// Returns the name as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the commit if the revision is one.
    pub(crate) fn as_commit(&self) -> Option<CommitHash> {
        CommitHash::parse(&self.0).ok()
    }

    /// Returns the revision as one segment of a URL, with `/` as `%2F`.
    pub(crate) fn encoded(&self) -> String {
        percent_encoded(&self.0)
    }
}

/// A commit: 40 lowercase hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommitHash(String);

impl CommitHash {
    pub(crate) fn parse(value: &str) -> Result<Self, NameError> {
        let whole = value.len() == 40 && value.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let rule = "a commit is 40 hexadecimal digits";
        if whole { Ok(Self(value.to_owned())) } else { Err(NameError::new("commit", value, rule)) }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The ETag of a file's content, which is also the name of its blob in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Etag(String);

impl Etag {
    /// Reads an ETag header. Quotes and the `W/` of a weak ETag are dropped.
    pub(crate) fn parse(header: &str) -> Result<Self, NameError> {
        let value = header.strip_prefix("W/").unwrap_or(header).trim_matches('"');
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        let whole = (1..=128).contains(&value.len()) && value.bytes().all(plain);
        let rule = "an ETag is at most 128 letters, digits, `-` and `_`; is HF_ENDPOINT a Hugging Face hub?";
        if whole { Ok(Self(value.to_owned())) } else { Err(NameError::new("ETag", header, rule)) }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A file of a repository, by its path from the repository's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileName(String);

impl FileName {
    pub(crate) fn parse(value: &str) -> Result<Self, NameError> {
        let plain = |part: &str| {
            (1..=255).contains(&part.len())
                && part != "."
                && part != ".."
                && !part.ends_with(['.', ' '])
                && !part.contains(|c: char| c.is_control() || "\\:*?\"<>|".contains(c))
        };
        let rule = "give a path inside the repository, without `..`";
        let whole = value.len() <= 1024 && value.split('/').all(plain);
        if whole { Ok(Self(value.to_owned())) } else { Err(NameError::new("file", value, rule)) }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the file's name has this extension.
    pub(crate) fn has_extension(&self, extension: &str) -> bool {
        self.0.rsplit_once('.').is_some_and(|(_, end)| end.eq_ignore_ascii_case(extension))
    }

    /// Returns the path as segments of a URL.
    pub(crate) fn encoded(&self) -> String {
        self.0.split('/').map(percent_encoded).collect::<Vec<_>>().join("/")
    }
}

/// Encodes all bytes but the unreserved ones of RFC 3986 as `%XX`.
fn percent_encoded(segment: &str) -> String {
    let mut encoded = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_cache_are_refused() {
        for outside in ["", "..", "../x", "a/../b", "/etc", "a//b", "a/", "a\\b", "a\0b", "a\nb", "."] {
            assert!(RepoId::parse(outside).is_err(), "repository {outside:?}");
            assert!(Revision::parse(outside).is_err(), "revision {outside:?}");
            assert!(FileName::parse(outside).is_err(), "file {outside:?}");
            assert!(CommitHash::parse(outside).is_err(), "commit {outside:?}");
            assert!(Etag::parse(outside).is_err(), "ETag {outside:?}");
        }
        assert!(RepoId::parse("a/b/c").is_err() && RepoId::parse("a--b/c").is_err());
        assert!(Etag::parse("\"abc.incomplete\"").is_err() && Etag::parse(&"a".repeat(129)).is_err());
        assert!(CommitHash::parse(&"A".repeat(40)).is_err());
    }

    #[test]
    fn valid_hub_names_are_accepted() {
        assert_eq!(RepoId::parse("EleutherAI/pythia-1.4b").unwrap().folder(), "models--EleutherAI--pythia-1.4b");
        assert_eq!(RepoId::parse("gpt2").unwrap().folder(), "models--gpt2");
        assert_eq!(Revision::parse("refs/pr/1").unwrap().encoded(), "refs%2Fpr%2F1");
        assert_eq!(FileName::parse("onnx/a b.json").unwrap().encoded(), "onnx/a%20b.json");
        assert_eq!(Etag::parse("W/\"5e9a-x\"").unwrap().as_str(), "5e9a-x");
        assert!(Revision::parse(&"0f".repeat(20)).unwrap().as_commit().is_some());
    }
}
