//! A strict reader of the text formats for metrics: what a page may not have, and what its samples are.
//!
//! From the OpenMetrics specification 1.0 and Prometheus' exposition format 0.0.4: a family is described before its
//! samples, its samples stand together, no series stands twice, and a histogram's buckets are cumulative up to its count.

use std::collections::{BTreeMap, HashMap, HashSet};

/// One line with a value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// A page that has kept the rules.
#[derive(Debug)]
pub(crate) struct Exposition {
    pub(crate) samples: Vec<Sample>,
    /// Names of the families.
    pub(crate) families: HashSet<String>,
}

impl Exposition {
    /// Reads a page of OpenMetrics (which has an end) or of Prometheus' own format.
    pub(crate) fn read(text: &str, is_open_metrics: bool) -> Result<Self, String> {
        let mut page = Self {
            samples: Vec::new(),
            families: HashSet::new(),
        };
        let mut kinds: HashMap<String, String> = HashMap::new();
        let mut series = HashSet::new();
        let (mut current, mut ended) = (String::new(), false);
        if !text.ends_with('\n') {
            return Err("the last line has no end".to_owned());
        }
        for line in text.lines() {
            let wrong = |what: &str| Err(format!("{what}: {line}"));
            if ended {
                return wrong("a line after the end");
            }
            if line == "# EOF" {
                ended = true;
                continue;
            }
            if let Some(rest) = line.strip_prefix("# ") {
                let mut words = rest.splitn(3, ' ');
                let (word, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
                if !is_name(name) {
                    return wrong("not a name");
                }
                if current != name && !page.families.insert(name.to_owned()) {
                    return wrong("a family in two places");
                }
                current = name.to_owned();
                match word {
                    "HELP" | "UNIT" => {}
                    "TYPE" => {
                        let kind = words.next().unwrap_or("").to_owned();
                        if kinds.insert(name.to_owned(), kind).is_some() {
                            return wrong("a type twice");
                        }
                    }
                    _ => return wrong("an unknown comment"),
                }
                continue;
            }
            let sample = read_sample(line)?;
            let kind = kinds.get(&current).cloned().unwrap_or_default();
            if !belongs(&sample.name, &current, &kind) {
                return wrong("a sample outside its family");
            }
            if kind == "counter" && sample.value < 0.0 {
                return wrong("a counter below zero");
            }
            if !series.insert(format!("{} {:?}", sample.name, sample.labels)) {
                return wrong("a series twice");
            }
            page.samples.push(sample);
        }
        if ended != is_open_metrics {
            return Err("OpenMetrics, and nothing else, ends with # EOF".to_owned());
        }
        page.check_histograms(&kinds)?;
        Ok(page)
    }

    fn check_histograms(&self, kinds: &HashMap<String, String>) -> Result<(), String> {
        for (family, _) in kinds.iter().filter(|(_, kind)| *kind == "histogram") {
            let (bucket, count) = (format!("{family}_bucket"), format!("{family}_count"));
            for total in self.samples.iter().filter(|sample| sample.name == count) {
                let of_series = |sample: &&Sample| {
                    let mut labels = sample.labels.clone();
                    labels.remove("le");
                    sample.name == bucket && labels == total.labels
                };
                let buckets: Vec<&Sample> = self.samples.iter().filter(of_series).collect();
                let last = buckets.last().ok_or(format!("{family} has no buckets"))?;
                let rising = buckets.windows(2).all(|pair| pair[0].value <= pair[1].value);
                if !rising || last.labels["le"] != "+Inf" || last.value != total.value {
                    return Err(format!("the buckets of {family} do not add up: {buckets:?}"));
                }
            }
        }
        Ok(())
    }

    /// The value of the one series of this name that has these labels among its own.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |sample: &&Sample| {
            labels
                .iter()
                .all(|(label, value)| sample.labels.get(*label).is_some_and(|found| found == value))
        };
        let mut found = self
            .samples
            .iter()
            .filter(|sample| sample.name == name)
            .filter(has);
        let first = found.next()?;
        assert!(found.next().is_none(), "{name} {labels:?} is not one series");
        Some(first.value)
    }
}

fn belongs(name: &str, family: &str, kind: &str) -> bool {
    let Some(suffix) = name.strip_prefix(family) else {
        return false;
    };
    match kind {
        // Prometheus' own format writes the suffix into the family's name.
        "counter" => suffix == "_total" || (suffix.is_empty() && family.ends_with("_total")),
        "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
        "info" => suffix == "_info",
        "gauge" => suffix.is_empty(),
        _ => false,
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))
}

fn read_sample(line: &str) -> Result<Sample, String> {
    let wrong = || format!("not a sample: {line}");
    let end = line.find(['{', ' ']).ok_or_else(wrong)?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name) {
        return Err(wrong());
    }
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").ok_or_else(wrong)?;
            let (value, after) = read_text(after).ok_or_else(wrong)?;
            if !is_name(label) || labels.insert(label.to_owned(), value).is_some() {
                return Err(wrong());
            }
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').ok_or_else(wrong)?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        value => value.parse().map_err(|_| wrong())?,
    };
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// A text up to its quotation mark, and what follows.
fn read_text(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match letters.next()?.1 {
                'n' => '\n',
                other @ ('\\' | '"') => other,
                _ => return None,
            }),
            other => value.push(other),
        }
    }
    None
}

#[test]
fn pages_that_break_a_rule_are_refused() {
    let good = "# HELP a What.\n# TYPE a counter\na_total{b=\"c\\\"\\\\\"} 1\n# EOF\n";
    let page = Exposition::read(good, true).expect("it keeps the rules");
    assert_eq!(page.value("a_total", &[("b", "c\"\\")]), Some(1.0));
    for bad in [
        "# TYPE a counter\na_total 1\n",
        "# TYPE a counter\na 1\n# EOF\n",
        "# TYPE a gauge\na 1\na 2\n# EOF\n",
        "# TYPE a gauge\na{b=\"c} 1\n# EOF\n",
        "# TYPE a gauge\nb 1\n# EOF\n",
        "# TYPE a gauge\n# TYPE b gauge\n# TYPE a gauge\na 1\n# EOF\n",
        "# TYPE a histogram\na_bucket{le=\"1.0\"} 2\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 1\n# EOF\n",
        "# TYPE a gauge\na x\n# EOF\n",
        "# EOF\n\n",
    ] {
        assert!(Exposition::read(bad, true).is_err(), "{bad}");
    }
}
