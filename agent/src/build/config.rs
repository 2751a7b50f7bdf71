//! Configuration text: what is put over the base, and what kconfig made of it.

use kulprit_common::job::{ConfigBase, KernelBuild};
use std::collections::BTreeMap;
use std::path::Path;

/// Key and certificate that kernels which sign modules embed. Each object tree would make its
/// own otherwise, and no two kernels were equal. It protects nothing and is no secret.
pub(super) const SIGNING_KEY: &str = include_str!("signing_key.pem");

/// Put last, for reproducible builds.
const LAST_WORD: &str = "# CONFIG_LOCALVERSION_AUTO is not set
CONFIG_LOCALVERSION=\"\"
CONFIG_MODULE_SIG_KEY=\"/kulprit/signing_key.pem\"
";

/// Everything put over the base, in order; kconfig takes the last word on a symbol.
pub(super) fn fragments(kernel: &KernelBuild) -> String {
    let mut text = String::new();
    for fragment in &kernel.fragments {
        text.push('\n');
        text.push_str(&fragment.text);
    }
    text.push('\n');
    text.push_str(LAST_WORD);
    text
}

/// A line for each symbol that the job asked for and that the configuration below `root` has
/// otherwise: kconfig drops what has unmet dependencies without a word.
pub(super) fn lost_symbols(kernel: &KernelBuild, root: &Path) -> Vec<String> {
    let path = root.join(".config");
    let fits = |meta: std::fs::Metadata| meta.is_file() && meta.len() <= super::outputs::CONFIG_BYTES_MAX;
    let plain = std::fs::symlink_metadata(&path).is_ok_and(fits);
    let Some(config) = plain.then(|| std::fs::read_to_string(path).ok()).flatten() else { return Vec::new() };
    let fragments: String = kernel.fragments.iter().map(|fragment| fragment.text.clone() + "\n").collect();
    lost(&fragments, base(&kernel.config), &config)
}

fn base(config: &ConfigBase) -> &str {
    match config {
        ConfigBase::File(text) => text,
        ConfigBase::Target(_) => "",
    }
}

/// Fragments are asked for symbol by symbol; a whole `.config` from another release naturally
/// has many that are gone, so of these only a count is given.
fn lost(fragments: &str, base: &str, config: &str) -> Vec<String> {
    let (asked, made) = (symbols(fragments), symbols(config));
    let value = |symbol: &str| made.get(symbol).copied().unwrap_or("n");
    let differs = |(symbol, wanted): &(&&str, &&str)| value(symbol) != **wanted;
    let mut lines: Vec<String> = asked
        .iter()
        .filter(differs)
        .map(|(symbol, wanted)| {
            format!("warning: {symbol}={wanted} was asked for, kconfig made it {}", value(symbol))
        })
        .collect();
    let base = symbols(base);
    let gone = base.iter().filter(|(symbol, _)| !asked.contains_key(**symbol)).filter(differs).count();
    if gone > 0 {
        lines.push(format!(
            "note: {gone} symbols of the configuration file have another value in this revision"
        ));
    }
    lines
}

/// The last value of each symbol; "is not set" is `n`.
fn symbols(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(parse).collect()
}

fn parse(line: &str) -> Option<(&str, &str)> {
    if let Some(symbol) = line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set")) {
        return symbol.starts_with("CONFIG_").then_some((symbol, "n"));
    }
    line.split_once('=')
        .filter(|(symbol, _)| symbol.starts_with("CONFIG_"))
        .map(|(s, value)| (s, value.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_that_did_not_survive_is_named() {
        let fragments = "CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\nCONFIG_B=n\nCONFIG_D=\"x\"\n";
        let made = "CONFIG_C=y\nCONFIG_D=\"x\"\n# CONFIG_E is not set\n";
        let lines = lost(fragments, "CONFIG_E=y\nCONFIG_A=n\n", made);
        assert_eq!(
            lines,
            [
                "warning: CONFIG_A=y was asked for, kconfig made it n",
                "warning: CONFIG_C=n was asked for, kconfig made it y",
                "note: 1 symbols of the configuration file have another value in this revision",
            ]
        );
    }
}
