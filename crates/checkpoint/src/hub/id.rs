//! Names of model repositories on the Hub.
use std::fmt;

/// `owner/name` or `name`, at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HubId {
    pub(super) repository: String,
    /// Branch, tag or commit; `main` if none was given.
    pub(super) revision: String,
}

impl HubId {
    /// Parses `repository` or `repository@revision`; none if it cannot be the name of a repository.
    ///
    /// The rules of the Hub: at most one slash; components of letters, digits, `-`, `_` and `.`, at most 96 long, that do not
    /// start or end with `-` or `.`, without `--` and `..`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
        let components: Vec<&str> = repository.split('/').collect();
        let valid = components.len() <= 2
            && components
                .iter()
                .all(|component| valid_component(component));
        // A revision becomes a path in the cache.
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        let revision_valid = revision.split('/').all(plain)
            && revision
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
        (valid && revision_valid).then(|| HubId {
            repository: repository.to_owned(),
            revision: revision.to_owned(),
        })
    }
}

fn valid_component(text: &str) -> bool {
    (1..=96).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !text.starts_with(['-', '.'])
        && !text.ends_with(['-', '.'])
        && !text.contains("--")
        && !text.contains("..")
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if self.revision != "main" {
            write!(f, "@{}", self.revision)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::HubId;

    #[test]
    fn names_and_revisions() {
        let parse = |text| HubId::parse(text).map(|id| (id.repository, id.revision));
        let id =
            |repository: &str, revision: &str| Some((repository.to_owned(), revision.to_owned()));
        assert_eq!(parse("bert-base-uncased"), id("bert-base-uncased", "main"));
        assert_eq!(
            parse("sentence-transformers/all-MiniLM-L6-v2"),
            id("sentence-transformers/all-MiniLM-L6-v2", "main")
        );
        assert_eq!(parse("a/b@refs/pr/1"), id("a/b", "refs/pr/1"));
        for text in [
            "", "/tmp/x", "./model", "../model", "a/b/c", "a/", "a b", "a/b@", "a/b@../x",
            "a/b@x y", "-a", "a--b", "~/model", "C:\\x",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(HubId::parse("a/b@v1").unwrap().to_string(), "a/b@v1");
        assert_eq!(HubId::parse("a/b").unwrap().to_string(), "a/b");
    }
}
