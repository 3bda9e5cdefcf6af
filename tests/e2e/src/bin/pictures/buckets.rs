//! Cumulative buckets as counts of their own.

use crate::answers::Series;

/// One bucket of a histogram over time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bucket {
    /// Its upper bound, infinite in the last.
    pub(crate) bound: f64,
    /// What fell into this bucket and no lower one, for each column.
    pub(crate) counts: Vec<Option<f64>>,
}

/// Buckets from the lowest bound to the highest, each less what the one below it has.
pub(crate) fn apart(series: &[Series]) -> Vec<Bucket> {
    let bound = |series: &Series| match series.labels.get("le").map(String::as_str) {
        Some("+Inf") => Some(f64::INFINITY),
        other => other?.parse().ok(),
    };
    let mut cumulative: Vec<(f64, &Series)> =
        series.iter().filter_map(|series| Some((bound(series)?, series))).collect();
    cumulative.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let mut below: Option<&Series> = None;
    let mut buckets = Vec::with_capacity(cumulative.len());
    for (bound, series) in cumulative {
        let less = |column: usize| below.and_then(|below| below.values[column]).unwrap_or(0.0);
        // A rate is never exact to its last bit: what is below zero by that is zero.
        let count = |(column, value): (usize, &Option<f64>)| value.map(|value| (value - less(column)).max(0.0));
        buckets.push(Bucket { bound, counts: series.values.iter().enumerate().map(count).collect() });
        below = Some(series);
    }
    buckets
}

/// Without the buckets at both ends that are empty all the time, but for one.
pub(crate) fn trim(buckets: &[Bucket], least: f64) -> &[Bucket] {
    let used = |bucket: &Bucket| bucket.counts.iter().flatten().any(|count| *count > least);
    let (Some(first), Some(last)) = (buckets.iter().position(used), buckets.iter().rposition(used)) else { return &[] };
    &buckets[first.saturating_sub(1)..buckets.len().min(last + 2)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(le: &str, values: [Option<f64>; 3]) -> Series {
        Series { labels: [("le".to_owned(), le.to_owned())].into(), values: values.to_vec() }
    }

    #[test]
    fn each_bucket_has_its_own_count() {
        let all = [
            series("+Inf", [Some(10.0), Some(5.0), None]),
            series("0.5", [Some(9.0), Some(5.0), None]),
            series("0.25", [Some(4.0), Some(5.0 + 1e-12), None]),
        ];
        let bucket = |bound, counts: [Option<f64>; 3]| Bucket { bound, counts: counts.to_vec() };
        let expected = [
            bucket(0.25, [Some(4.0), Some(5.0 + 1e-12), None]),
            bucket(0.5, [Some(5.0), Some(0.0), None]),
            bucket(f64::INFINITY, [Some(1.0), Some(0.0), None]),
        ];
        assert_eq!(apart(&all), expected);
    }

    #[test]
    fn empty_ends_are_left_out_but_for_one() {
        let bucket = |bound, count| Bucket { bound, counts: vec![Some(count)] };
        let all: Vec<_> = [0.0, 0.0, 3.0, 0.0, 1.0, 0.0, 0.0]
            .iter()
            .zip(1..)
            .map(|(count, bound)| bucket(f64::from(bound), *count))
            .collect();
        let bounds: Vec<_> = trim(&all, 1e-9).iter().map(|bucket| bucket.bound).collect();
        assert_eq!(bounds, [2.0, 3.0, 4.0, 5.0, 6.0]);
        assert!(trim(&all[..2], 1e-9).is_empty());
    }
}
