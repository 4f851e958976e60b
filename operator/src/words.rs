//! An error as a person at a terminal reads it: one line, without where in the code it came from, and of a length that is read.

/// All that led to it, each said once.
pub fn in_a_line(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain() {
        let kube = cause.downcast_ref::<kube::Error>();
        let text = kube.map_or_else(|| cause.to_string(), crate::api::said);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if !text.is_empty() && !said.contains(&text) {
            let colon = if said.is_empty() { "" } else { ": " };
            said = format!("{said}{colon}{text}");
        }
        // It has said what it comes from.
        if kube.is_some() {
            break;
        }
    }
    said
}

/// The beginning of what may quote a part of a resource, of any length; in bytes.
pub fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn whatever_went_wrong_is_said_in_a_line() {
        let error = anyhow::anyhow!("line 3,\n  column 7").context("new.yaml is no Cluster");
        assert_eq!(in_a_line(&error), "new.yaml is no Cluster: line 3, column 7");
        // What an error says of its cause already is not said again.
        let error = anyhow::anyhow!("refused").context("cannot connect: refused");
        assert_eq!(in_a_line(&error), "cannot connect: refused");
        let status = kube::core::Status::failure("clusters.klamm.dev is forbidden", "Forbidden").with_code(403);
        let error = Err::<(), _>(kube::Error::Api(Box::new(status))).context("the Cluster").unwrap_err();
        assert_eq!(in_a_line(&error), "the Cluster: clusters.klamm.dev is forbidden (Forbidden, 403)");
    }

    #[test]
    fn what_is_too_long_is_cut() {
        assert_eq!(cut("abc".into(), 3), "abc");
        assert_eq!(cut("abé".into(), 3), "ab…");
    }
}
