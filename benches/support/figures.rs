//! Figures as they are told: medians, and tables that take the place of the ones in `benches/README.md`.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// How a bench was asked to run.
pub(crate) struct Wanted {
    /// Not so, it only has to work (`cargo test --benches`).
    pub(crate) measures: bool,
    /// A sixth of the time, for trying things out.
    pub(crate) is_short: bool,
    /// Whether tables and plots of the repository are replaced.
    pub(crate) writes: bool,
    /// Parts whose name has one of these; all where there is none.
    pub(crate) named: Vec<String>,
}

impl Wanted {
    pub(crate) fn from_arguments() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let has = |name: &str| arguments.iter().any(|argument| argument == name);
        let (measures, is_short, writes) = (has("--bench"), has("--short"), has("--write"));
        let named = arguments.into_iter().filter(|argument| !argument.starts_with('-')).collect();
        Self { measures, is_short, writes, named }
    }

    pub(crate) fn includes(&self, name: &str) -> bool {
        self.named.is_empty() || self.named.iter().any(|named| named == name)
    }

    /// So much for a measurement, less for a short one, and `once` where nothing is measured.
    pub(crate) fn of<T>(&self, whole: T, short: T, once: T) -> T {
        match (self.measures, self.is_short) {
            (false, _) => once,
            (true, true) => short,
            (true, false) => whole,
        }
    }

    /// Prints lines of Markdown, and puts them where `benches/README.md` has that part, if that is wanted.
    pub(crate) fn tell(&self, part: &str, text: &str) {
        println!("\n{text}");
        if !self.writes || !self.measures {
            return;
        }
        let (path, begin, end) =
            (folder().join("README.md"), format!("<!-- {part} -->\n"), format!("<!-- end of {part} -->"));
        let readme = fs::read_to_string(&path).unwrap();
        let (before, rest) = readme.split_once(&begin).unwrap_or_else(|| panic!("README.md has no part {part}"));
        let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("README.md has no end of {part}"));
        let noted = if self.is_short { ", of a short run" } else { "" };
        let said = format!("{before}{begin}{}{noted}.\n\n{text}\n{end}{after}", machine());
        fs::write(path, said).unwrap();
    }

    /// Puts a drawing beside them.
    pub(crate) fn draw(&self, name: &str, svg: &str) {
        if self.writes && self.measures {
            fs::write(folder().join("plots").join(name), svg).unwrap();
        }
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches")
}

/// On what, and when.
fn machine() -> String {
    let said = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = said.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']).trim();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let day = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let day = day.split('T').next().unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').nth(2).unwrap_or_default();
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    format!("Of {day}: {cores} cores of {model}, Linux {kernel}, load of the last quarter of an hour {load}")
}

/// A table in Markdown.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        writeln!(text, "| {} |", row.join(" | ")).unwrap();
    }
    text
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What so many of a hundred took no longer than, of times in any order.
pub(crate) fn within(took: &mut [Duration], hundredths: f64) -> Duration {
    took.sort();
    let index = (took.len() as f64 * hundredths / 100.0) as usize;
    took.get(index.min(took.len().saturating_sub(1))).copied().unwrap_or_default()
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
