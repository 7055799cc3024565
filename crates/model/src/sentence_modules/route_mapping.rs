//! The pairs of a task and a modality that choose a route of a Router. The keys of `route_mappings` are pairs as Python prints them.

/// The modality of every input that fewbit has.
const TEXT: &str = "text";

/// A route for a task and a modality, where none stands for any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RouteMapping<'a> {
    task: Option<&'a str>,
    modality: Modality,
    route: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Modality {
    Any,
    Text,
    /// Another one, or several together.
    Other,
}

impl<'a> RouteMapping<'a> {
    /// Reads a key such as `('query', 'text')`, `(None, 'image')` or `(None, ('image', 'text'))`.
    pub(super) fn parse(key: &'a str, route: &'a str) -> Option<Self> {
        let pair = key.trim().strip_prefix('(')?.strip_suffix(')')?;
        let (task, modality) = pair.split_once(',')?;
        let modality = modality.trim();
        let several = modality.starts_with('(') && modality.ends_with(')');
        Some(Self {
            task: name_or_none(task.trim())?,
            modality: if several {
                Modality::Other
            } else {
                match name_or_none(modality)? {
                    None => Modality::Any,
                    Some(TEXT) => Modality::Text,
                    Some(_) => Modality::Other,
                }
            },
            route,
        })
    }

    /// The task that it is for, if it is for one.
    pub(super) fn task(&self) -> Option<&'a str> {
        self.task
    }
}

/// `None`, or a name in quotation marks. (A name with an escape sequence is none that fewbit reads.)
fn name_or_none(text: &str) -> Option<Option<&str>> {
    if text == "None" {
        return Some(None);
    }
    let quoted = ['\'', '"']
        .into_iter()
        .find_map(|mark| text.strip_prefix(mark)?.strip_suffix(mark))?;
    (!quoted.contains(['\'', '"', '\\', ','])).then_some(Some(quoted))
}

/// The route of texts for `task`, the closest pair first.
pub(super) fn route_of<'a>(mappings: &[RouteMapping<'a>], task: Option<&str>) -> Option<&'a str> {
    let order = [
        (task, Modality::Text),
        (task, Modality::Any),
        (None, Modality::Text),
        (None, Modality::Any),
    ];
    order.into_iter().find_map(|(task, modality)| {
        // Of pairs that are spelled differently and mean the same, the last counts, as in a dictionary.
        let mut mappings = mappings.iter().rev();
        let found = mappings.find(|one| one.task == task && one.modality == modality);
        found.map(|mapping| mapping.route)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_as_python_prints_them() {
        let parsed = |key| RouteMapping::parse(key, "r").map(|one| (one.task, one.modality));
        assert_eq!(
            parsed("('query', 'text')"),
            Some((Some("query"), Modality::Text))
        );
        assert_eq!(
            parsed("(\"query\", None)"),
            Some((Some("query"), Modality::Any))
        );
        assert_eq!(parsed("(None, 'image')"), Some((None, Modality::Other)));
        assert_eq!(
            parsed("(None, ('image', 'text'))"),
            Some((None, Modality::Other))
        );
        for key in ["query", "('query')", "(query, None)", "", "('a\\'b', None)"] {
            assert_eq!(parsed(key), None, "{key}");
        }
    }

    #[test]
    fn the_closest_pair_wins() {
        let mappings = [
            RouteMapping::parse("(None, None)", "any").unwrap(),
            RouteMapping::parse("(None, 'text')", "text").unwrap(),
            RouteMapping::parse("('query', None)", "query").unwrap(),
            RouteMapping::parse("('document', 'text')", "document").unwrap(),
            RouteMapping::parse("('document', None)", "wrong").unwrap(),
        ];
        assert_eq!(route_of(&mappings, Some("query")), Some("query"));
        assert_eq!(route_of(&mappings, Some("document")), Some("document"));
        assert_eq!(route_of(&mappings, Some("other")), Some("text"));
        assert_eq!(route_of(&mappings, None), Some("text"));
        assert_eq!(route_of(&mappings[..1], None), Some("any"));
        assert_eq!(route_of(&mappings[2..], None), None);
    }
}
