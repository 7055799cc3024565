//! Where the Hub is, where its cache is, and whether to use the network.
use std::env;
use std::fmt;
use std::fs;
use std::path::PathBuf;

/// How to reach the Hub.
#[derive(Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// Address without a slash at its end.
    pub endpoint: String,
    /// The directory that holds `models--OWNER--NAME` directories; none where the environment names no home, so that nothing can be
    /// downloaded.
    pub cache_directory: Option<PathBuf>,
    /// Sent as `Authorization: Bearer …` to the endpoint. Never shown.
    pub token: Option<String>,
    /// Read the cache only.
    pub offline: bool,
    /// Show progress bars while downloading, if standard error is a terminal.
    pub progress: bool,
}

// Not derived: a token does not belong in a log.
impl fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSettings")
            .field("endpoint", &self.endpoint)
            .field("cache_directory", &self.cache_directory)
            .field("token", &self.token.as_ref().map(|_| "(hidden)"))
            .field("offline", &self.offline)
            .field("progress", &self.progress)
            .finish()
    }
}

impl HubSettings {
    /// The settings that all Hugging Face tools read from the environment:
    ///
    /// | variable | meaning |
    /// |---|---|
    /// | `HF_ENDPOINT` | address of the Hub or a mirror; `https://huggingface.co` |
    /// | `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE` | the cache; `$HF_HOME/hub` |
    /// | `HF_HOME` | `$XDG_CACHE_HOME/huggingface` or `~/.cache/huggingface` |
    /// | `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN` | the token; the content of the file `HF_TOKEN_PATH` or `$HF_HOME/token` |
    /// | `HF_HUB_DISABLE_IMPLICIT_TOKEN` | 1: send no token |
    /// | `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE` | 1: no network |
    /// | `HF_HUB_DISABLE_PROGRESS_BARS` | 1: no progress bars |
    pub fn from_environment() -> Self {
        Self::from_variables(|name| env::var(name).ok())
    }

    /// [`HubSettings::from_environment`] with another source of variables. Empty variables count as unset.
    pub(super) fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&str]| {
            names.iter().find_map(|name| {
                variable(name)
                    .map(|value| value.trim().to_owned())
                    .filter(|value| !value.is_empty())
            })
        };
        let flag = |names: &[&str]| first(names).is_some_and(|value| is_true(&value));
        let home = first(&["HF_HOME"]).map(PathBuf::from).or_else(|| {
            let cache = first(&["XDG_CACHE_HOME"]).map(PathBuf::from);
            let user = || first(&["HOME", "USERPROFILE"]).map(PathBuf::from);
            cache
                .or_else(|| Some(user()?.join(".cache")))
                .map(|cache| cache.join("huggingface"))
        });
        let token = if flag(&["HF_HUB_DISABLE_IMPLICIT_TOKEN"]) {
            None
        } else {
            first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).or_else(|| {
                let path = first(&["HF_TOKEN_PATH"]).map(PathBuf::from);
                let file = path.or_else(|| Some(home.as_ref()?.join("token")))?;
                let token = fs::read_to_string(file).ok()?.trim().to_owned();
                (!token.is_empty()).then_some(token)
            })
        };
        let endpoint =
            first(&["HF_ENDPOINT"]).unwrap_or_else(|| "https://huggingface.co".to_owned());
        HubSettings {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache_directory: first(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
                .map(PathBuf::from)
                .or_else(|| Some(home?.join("hub"))),
            token,
            offline: flag(&["HF_HUB_OFFLINE"]) || flag(&["TRANSFORMERS_OFFLINE"]),
            progress: !flag(&["HF_HUB_DISABLE_PROGRESS_BARS"]),
        }
    }
}

/// What huggingface_hub takes for true.
fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> HubSettings {
        let find = |name: &str| {
            variables
                .iter()
                .find(|(other, _)| *other == name)
                .map(|(_, value)| (*value).to_owned())
        };
        HubSettings::from_variables(find)
    }

    #[test]
    fn defaults() {
        let settings = settings(&[("HOME", "/home/somebody")]);
        assert_eq!(settings.endpoint, "https://huggingface.co");
        assert_eq!(
            settings.cache_directory,
            Some(PathBuf::from("/home/somebody/.cache/huggingface/hub"))
        );
        assert_eq!(
            (settings.token, settings.offline, settings.progress),
            (None, false, true)
        );
    }

    #[test]
    fn every_variable() {
        let all = settings(&[
            ("HF_HOME", "/hf"),
            ("HF_ENDPOINT", "http://mirror/"),
            ("HF_TOKEN", " secret\n"),
            ("HF_HUB_OFFLINE", "True"),
            ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ]);
        assert_eq!(all.endpoint, "http://mirror");
        assert_eq!(all.cache_directory, Some(PathBuf::from("/hf/hub")));
        assert_eq!(all.token.as_deref(), Some("secret"));
        assert!(all.offline && !all.progress);
        assert!(!format!("{all:?}").contains("secret"));
        assert_eq!(
            settings(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]).cache_directory,
            Some(PathBuf::from("/c"))
        );
        assert_eq!(
            settings(&[("XDG_CACHE_HOME", "/x")]).cache_directory,
            Some(PathBuf::from("/x/huggingface/hub"))
        );
        assert!(settings(&[("TRANSFORMERS_OFFLINE", "1")]).offline);
        assert!(!settings(&[("HF_HUB_OFFLINE", "0")]).offline);
        assert_eq!(
            settings(&[
                ("HF_TOKEN", "secret"),
                ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
            ])
            .token,
            None
        );
    }

    #[test]
    fn without_a_home_there_is_no_cache() {
        let settings = settings(&[("HOME", " ")]);
        assert_eq!((settings.cache_directory, settings.token), (None, None));
    }

    #[test]
    fn token_file() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "from file\n").unwrap();
        let home = home.path().to_str().unwrap();
        assert_eq!(
            settings(&[("HF_HOME", home)]).token.as_deref(),
            Some("from file")
        );
        assert_eq!(
            settings(&[("HF_HOME", home), ("HF_TOKEN", "")])
                .token
                .as_deref(),
            Some("from file")
        );
        assert_eq!(
            settings(&[("HF_HOME", home), ("HF_TOKEN", "variable")])
                .token
                .as_deref(),
            Some("variable")
        );
    }
}
