//! Numbers with Grafana's units.

/// What a number is divided by, and what is then written behind it.
struct Scaled(f64, String);

const SI: [(f64, &str); 8] =
    [(1e-9, "n"), (1e-6, "µ"), (1e-3, "m"), (1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T")];

/// The greatest of these factors that is not above the number.
fn factor<'a>(value: f64, factors: &[(f64, &'a str)]) -> (f64, &'a str) {
    let found = factors.iter().rev().find(|(factor, _)| value.abs() >= factor * 0.999_999);
    *found.unwrap_or(&factors[0])
}

fn scaled(value: f64, unit: &str) -> Scaled {
    let above_one = &SI[3..];
    match unit {
        "s" if value == 0.0 => Scaled(1.0, " s".to_owned()),
        "s" => {
            let (factor, prefix) = factor(value, &SI[..4]);
            Scaled(factor, format!(" {prefix}s"))
        }
        "percentunit" => Scaled(0.01, "%".to_owned()),
        "bytes" => {
            let power = |exponent: i32| 1024f64.powi(exponent);
            let (factor, name) = factor(
                value,
                &[(1.0, "B"), (power(1), "KiB"), (power(2), "MiB"), (power(3), "GiB"), (power(4), "TiB")],
            );
            Scaled(factor, format!(" {name}"))
        }
        "Bps" => {
            let (factor, prefix) = factor(value, above_one);
            Scaled(factor, format!(" {prefix}B/s"))
        }
        other => {
            let (factor, prefix) = factor(value, above_one);
            let prefix = if prefix == "k" { "K" } else { prefix };
            let name = match other {
                "short" => String::new(),
                "reqps" => " req/s".to_owned(),
                "iops" => " io/s".to_owned(),
                other => other.strip_prefix("suffix:").unwrap_or(other).to_owned(),
            };
            let gap = if prefix.is_empty() { "" } else { " " };
            Scaled(factor, format!("{gap}{prefix}{name}"))
        }
    }
}

/// With three digits that count.
pub(crate) fn format(value: f64, unit: &str) -> String {
    let Scaled(factor, name) = scaled(value, unit);
    let number = value / factor;
    let decimals = match number.abs() {
        size if size == 0.0 || size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{number:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{name}")
}

/// Steps of an axis from 0 that are round in this unit: about `count` of them, the last not below `most`.
pub(crate) fn ticks(most: f64, unit: &str, count: f64) -> Vec<f64> {
    if most <= 0.0 || !most.is_finite() {
        return vec![0.0, 1.0];
    }
    // Round in KiB or MiB is not so in bytes.
    let base = if unit == "bytes" { scaled(most, unit).0 } else { 1.0 };
    let rough = most / base / count;
    let magnitude = 10f64.powf(rough.log10().floor());
    let round = [1.0, 2.0, 5.0, 10.0].into_iter().find(|round| round * magnitude >= rough * 0.999_999).unwrap_or(10.0);
    let step = round * magnitude * base;
    let last = (most / step * 0.999_999).ceil() as u32;
    (0..=last).map(|tick| f64::from(tick) * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_units() {
        let expected = [
            (0.0149, "s", "14.9 ms"),
            (1.5e-5, "s", "15 µs"),
            (2.0, "s", "2 s"),
            (0.0, "s", "0 s"),
            (14.4, "reqps", "14.4 req/s"),
            (0.0312, "percentunit", "3.12%"),
            (25.0 * 1048576.0, "bytes", "25 MiB"),
            (83_900_000.0, "Bps", "83.9 MB/s"),
            (1234.0, "suffix: tokens/s", "1.23 K tokens/s"),
            (519.0, "suffix: tokens/s", "519 tokens/s"),
            (22.0, "short", "22"),
        ];
        for (value, unit, text) in expected {
            assert_eq!(format(value, unit), text);
        }
    }

    #[test]
    fn ticks_are_round_and_hold_all() {
        assert_eq!(ticks(0.47, "s", 4.0), [0.0, 0.2, 0.4, 0.6000000000000001]);
        assert_eq!(ticks(1.0, "percentunit", 4.0), [0.0, 0.5, 1.0]);
        assert_eq!(ticks(4.0, "short", 4.0), [0.0, 1.0, 2.0, 3.0, 4.0]);
        let mebibyte = 1048576.0;
        assert_eq!(ticks(31.0 * mebibyte, "bytes", 4.0), [0.0, 10.0, 20.0, 30.0, 40.0].map(|tick| tick * mebibyte));
        assert_eq!(ticks(0.0, "short", 4.0), [0.0, 1.0]);
    }
}
