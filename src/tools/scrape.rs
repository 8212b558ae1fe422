//! What `/metrics` says, read back.

use std::collections::BTreeMap;

/// Values of every metric, by its labels as they stand.
#[derive(Clone, Debug, Default)]
pub(super) struct Scrape(BTreeMap<String, Vec<(String, f64)>>);

impl Scrape {
    /// Lines that are not understood are left out: another version may have written them.
    pub(super) fn read(text: &str) -> Self {
        let mut all = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let Ok(value) = value.parse() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}');
            let values = all.0.entry(name.to_owned()).or_default();
            values.push((labels.to_owned(), value));
        }
        all
    }

    /// Each series of a metric: the value of a label, and its own.
    pub(super) fn by<'a>(
        &'a self,
        name: &str,
        label: &'a str,
    ) -> impl Iterator<Item = (&'a str, f64)> {
        let values = self.0.get(name).into_iter().flatten();
        values.map(move |(labels, value)| (member(labels, label).unwrap_or_default(), *value))
    }

    /// The value of a metric with this label; of one without labels where the label is empty.
    pub(super) fn of(&self, name: &str, label: &str, value: &str) -> Option<f64> {
        let mut all = self.by(name, label);
        all.find(|(found, _)| *found == value).map(|(_, own)| own)
    }

    /// The sum over all series; `None` where there is no such metric.
    pub(super) fn sum(&self, name: &str) -> Option<f64> {
        let values = self.0.get(name)?;
        Some(values.iter().map(|(_, value)| value).sum())
    }

    /// The bound below which this part of all observations of a histogram lies.
    pub(super) fn quantile(&self, name: &str, part: f64) -> Option<f64> {
        let mut bounds: Vec<(f64, f64)> = Vec::new();
        for (bound, count) in self.by(&format!("{name}_bucket"), "le") {
            let bound = match bound {
                "+Inf" => f64::INFINITY,
                bound => bound.parse().ok()?,
            };
            match bounds.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, sum)) => *sum += count,
                None => bounds.push((bound, count)),
            }
        }
        bounds.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let (_, all) = *bounds.last()?;
        let below = |(_, count): &&(f64, f64)| all > 0.0 && *count >= all * part;
        bounds.iter().find(below).map(|(bound, _)| *bound)
    }
}

fn member<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let rest = labels
        .split("\",")
        .find_map(|one| one.strip_prefix(name)?.strip_prefix("=\""))?;
    Some(rest.trim_end_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a b\nup 1\nc{shard=\"0\"} 2\nc{shard=\"1\"} 3\n\
        h_bucket{shard=\"0\",le=\"0.1\"} 98\nh_bucket{shard=\"0\",le=\"0.5\"} 99\nh_bucket{shard=\"0\",le=\"+Inf\"} 100\n\
        h_bucket{shard=\"1\",le=\"0.1\"} 100\nh_bucket{shard=\"1\",le=\"0.5\"} 100\nh_bucket{shard=\"1\",le=\"+Inf\"} 100\nnonsense\n";

    #[test]
    fn series_are_read_by_name_and_label() {
        let scrape = Scrape::read(TEXT);
        assert_eq!(scrape.of("up", "", ""), Some(1.0));
        assert_eq!(scrape.of("c", "shard", "1"), Some(3.0));
        assert_eq!(scrape.sum("c"), Some(5.0));
        assert_eq!(scrape.sum("absent"), None);
        let shards: Vec<_> = scrape.by("c", "shard").collect();
        assert_eq!(shards, [("0", 2.0), ("1", 3.0)]);
    }

    #[test]
    fn quantile_is_the_bound_over_all_shards() {
        let scrape = Scrape::read(TEXT);
        assert_eq!(scrape.quantile("h", 0.99), Some(0.1));
        assert_eq!(scrape.quantile("h", 0.995), Some(0.5));
        assert_eq!(scrape.quantile("h", 1.0), Some(f64::INFINITY));
        assert_eq!(scrape.quantile("absent", 0.5), None);
    }
}
