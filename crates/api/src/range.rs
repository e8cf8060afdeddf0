//! The `Range` header, one range of bytes. More than one, or another unit, means the whole file, as RFC 9110 allows.

/// What a `Range` header asks of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it.
    Whole,
    /// The bytes from the first up to, and not including, the second.
    Part(u64, u64),
    /// Nothing that exists: 416.
    Beyond,
}

/// Reads the header for a file of `length` bytes.
pub(crate) fn wanted(header: Option<&str>, length: u64) -> Wanted {
    let Some(spec) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else {
        return Wanted::Whole;
    };
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Wanted::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    match (first.trim(), last.trim()) {
        ("", suffix) => match number(suffix) {
            None => Wanted::Whole,
            Some(0) => Wanted::Beyond,
            Some(count) => part(length.saturating_sub(count), length, length),
        },
        (first, "") => number(first).map_or(Wanted::Whole, |first| part(first, length, length)),
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => part(first, last.saturating_add(1), length),
            _ => Wanted::Whole,
        },
    }
}

fn part(first: u64, end: u64, length: u64) -> Wanted {
    if first >= length {
        return Wanted::Beyond;
    }
    Wanted::Part(first, end.min(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_served_and_the_rest_is_the_whole() {
        for (header, expected) in [
            ("bytes=0-0", Wanted::Part(0, 1)),
            ("bytes=2-5", Wanted::Part(2, 6)),
            ("bytes=2-500", Wanted::Part(2, 10)),
            ("bytes=9-", Wanted::Part(9, 10)),
            ("bytes=-3", Wanted::Part(7, 10)),
            ("bytes=-30", Wanted::Part(0, 10)),
            ("bytes=10-", Wanted::Beyond),
            ("bytes=10-12", Wanted::Beyond),
            ("bytes=-0", Wanted::Beyond),
            ("bytes=5-2", Wanted::Whole),
            ("bytes=0-1,4-5", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=18446744073709551616-", Wanted::Whole),
            ("bytes=0-18446744073709551615", Wanted::Part(0, 10)),
            ("bytes=", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
        ] {
            assert_eq!(wanted(Some(header), 10), expected, "{header}");
        }
        assert_eq!(wanted(None, 10), Wanted::Whole);
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Beyond);
    }
}
