//! "Did you mean": the known name that is closest to an unknown one.

/// The name among `known` with the smallest edit distance to `name`, unless all are far off.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = name.chars().count().max(3) / 2 + 1;
    known
        .map(|candidate| (distance(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance: insertions, deletions and replacements of single characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_closest_name_is_found_and_a_far_one_is_not() {
        let known = ["round", "floor", "lag"];
        let check = |name: &str, expected| {
            assert_eq!(nearest(name, known.iter().copied()), expected, "{name}");
        };
        check("ruond", Some("round"));
        check("FLOR", Some("floor"));
        check("lagg", Some("lag"));
        check("completely_else", None);
    }
}
