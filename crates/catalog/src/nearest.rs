//! Names that look like a wrong one, so that the refusal of a typing mistake shows the way out.

/// A caller's name is compared up to this many characters; longer ones are never a typing mistake.
const LONGEST: usize = 200;

/// Up to three of `names` that look like `wanted`, best first; none when nothing is near.
///
/// Near means: an edit distance of at most a third of the longer name, or one contains the other; case is ignored.
pub(crate) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let wanted: String = wanted
        .chars()
        .take(LONGEST + 1)
        .collect::<String>()
        .to_lowercase();
    let length = wanted.chars().count();
    if length == 0 || length > LONGEST {
        return Vec::new();
    }
    let mut scored: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let longer = length.max(lower.chars().count());
            let distance = strsim::osa_distance(&wanted, &lower);
            let contains =
                length >= 3 && lower.len() >= 3 && (lower.contains(&wanted) || wanted.contains(&lower));
            (contains || distance * 3 <= longer).then_some((distance, name))
        })
        .collect();
    scored.sort();
    scored.dedup();
    scored
        .into_iter()
        .take(3)
        .map(|(_, name)| name.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_typing_mistake_finds_its_name_and_nonsense_finds_nothing() {
        let names = ["dreamshaper-8", "realistic-vision-51", "demo"];
        let find = |wanted: &str| nearest(wanted, names.into_iter());
        assert_eq!(find("dreamshapr-8"), ["dreamshaper-8"]);
        assert_eq!(find("DreamShaper-8"), ["dreamshaper-8"]);
        assert_eq!(find("realistic-vision"), ["realistic-vision-51"]);
        assert_eq!(find("dmeo"), ["demo"]);
        assert!(find("something else entirely").is_empty());
        assert!(find("").is_empty());
        assert!(find(&"demo".repeat(1024)).is_empty());
    }
}
