//! Colours: Grafana's for series and thresholds, and the scale of heatmaps.

/// What series are drawn in, one after another.
const SERIES: [&str; 10] =
    ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#a352cc", "#37872d", "#fade2a"];

pub(crate) const fn series(number: usize) -> &'static str {
    SERIES[number % SERIES.len()]
}

/// A colour that a threshold names.
pub(crate) fn named(name: &str) -> &'static str {
    match name {
        "green" => "#73bf69",
        "orange" => "#ff9830",
        "red" => "#f2495c",
        _ => "#e6e6ef",
    }
}

/// How many colours a heatmap has.
pub(crate) const LEVELS: u32 = 32;

/// The scale Spectral of d3, from few to many as Grafana has it where the ground is dark.
const SPECTRAL: [[u8; 3]; 11] = [
    [94, 79, 162],
    [50, 136, 189],
    [102, 194, 165],
    [171, 221, 164],
    [230, 245, 152],
    [255, 255, 191],
    [254, 224, 139],
    [253, 174, 97],
    [244, 109, 67],
    [213, 62, 79],
    [158, 1, 66],
];

/// Which of [`LEVELS`] a count has beside the highest: exponential with this exponent, as the panel says.
pub(crate) fn level(count: f64, highest: f64, exponent: f64) -> u32 {
    let share = if highest > 0.0 { (count / highest).clamp(0.0, 1.0).powf(exponent) } else { 0.0 };
    ((share * f64::from(LEVELS)) as u32).min(LEVELS - 1)
}

/// The colour of a level.
pub(crate) fn spectral(level: u32) -> String {
    let place = f64::from(level) / f64::from(LEVELS - 1) * (SPECTRAL.len() - 1) as f64;
    let below = (place as usize).min(SPECTRAL.len() - 2);
    let share = place - below as f64;
    let mix = |part: usize| {
        let (from, to) = (f64::from(SPECTRAL[below][part]), f64::from(SPECTRAL[below + 1][part]));
        (from + (to - from) * share).round() as u8
    };
    format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_follow_the_exponent() {
        assert_eq!(level(0.0, 16.0, 0.5), 0);
        assert_eq!(level(16.0, 16.0, 0.5), LEVELS - 1);
        // A quarter of the highest has half of the scale.
        assert_eq!(level(4.0, 16.0, 0.5), LEVELS / 2);
        assert_eq!(level(4.0, 16.0, 1.0), LEVELS / 4);
        assert_eq!(level(1.0, 0.0, 0.5), 0);
    }

    #[test]
    fn the_scale_has_both_its_ends() {
        assert_eq!(spectral(0), "#5e4fa2");
        assert_eq!(spectral(LEVELS - 1), "#9e0142");
    }
}
