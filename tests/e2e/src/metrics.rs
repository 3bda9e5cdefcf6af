//! The text exposition format, read.

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its name, with `_bucket`, `_sum`, `_count`, … where it has one.
    pub name: String,
    /// Its labels, as written.
    pub labels: Vec<(String, String)>,
    /// Its value.
    pub value: f64,
}

/// All samples of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Vec<Sample>);

fn labels(text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        let (mut value, mut escaped, mut end) = (String::new(), false, None);
        for (index, character) in after.char_indices() {
            match (escaped, character) {
                (true, 'n') => value.push('\n'),
                (true, other) => value.push(other),
                (false, '\\') => {}
                (false, '"') => {
                    end = Some(index);
                    break;
                }
                (false, other) => value.push(other),
            }
            escaped = !escaped && character == '\\';
        }
        labels.push((name.to_owned(), value));
        rest = &after[end? + 1..];
    }
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    // What follows the value is a time or an exemplar.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

impl Metrics {
    /// Reads a scrape.
    ///
    /// # Panics
    /// On a line that is no sample and no comment.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(|line| sample(line).unwrap_or_else(|| panic!("not a sample: {line}"))).collect())
    }

    /// Samples of a name that carry all of these labels.
    #[must_use]
    pub fn select(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        let has = |sample: &Sample, (name, value): &(&str, &str)| {
            sample.labels.iter().any(|(own, its)| own == name && its == value)
        };
        let wanted = |sample: &&Sample| sample.name == name && labels.iter().all(|label| has(sample, label));
        self.0.iter().filter(wanted).collect()
    }

    /// Samples of all names that begin so.
    pub fn select_prefix(&self, prefix: &str) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| sample.name.starts_with(prefix))
    }

    /// Sum over the samples of a name that carry all of these labels; 0 where there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.select(name, labels).iter().map(|sample| sample.value).sum()
    }

    /// Whether any sample has this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|sample| sample.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_format() {
        let metrics = Metrics::parse(
            "# HELP a b\n# TYPE a counter\na 1\na{x=\"1\",y=\"q\\\"}\\\\\\n\"} 2.5\n\
             h_bucket{le=\"+Inf\"} 7 # {trace_id=\"ab\"} 0.5 1.0\nn NaN\n",
        );
        assert_eq!(metrics.sum("a", &[]), 3.5);
        assert_eq!(metrics.sum("a", &[("y", "q\"}\\\n")]), 2.5);
        assert_eq!(metrics.sum("h_bucket", &[("le", "+Inf")]), 7.0);
        assert!(metrics.has("n") && !metrics.has("m"));
    }
}
