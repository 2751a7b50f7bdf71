//! Configuration text as values of symbols.

use std::collections::{BTreeMap, BTreeSet};

/// The last value of each symbol; "is not set" is `n`.
#[derive(Clone, Debug, Default)]
pub(super) struct Symbols<'a>(BTreeMap<&'a str, &'a str>);

/// A symbol given another value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Change {
    pub symbol: String,
    pub value: String,
}

impl Change {
    pub fn line(&self) -> String {
        match self.value.as_str() {
            "n" => format!("# {} is not set\n", self.symbol),
            value => format!("{}={value}\n", self.symbol),
        }
    }
}

impl<'a> Symbols<'a> {
    pub fn read(texts: impl IntoIterator<Item = &'a str>) -> Symbols<'a> {
        Symbols(texts.into_iter().flat_map(str::lines).filter_map(parse).collect())
    }

    fn value(&self, symbol: &str) -> &'a str {
        self.0.get(symbol).copied().unwrap_or("n")
    }

    /// What switches off those of the symbols that are on.
    pub fn switched_on(&self, symbols: &[&str]) -> Vec<Change> {
        let on = symbols.iter().filter(|symbol| matches!(self.value(symbol), "y" | "m"));
        on.map(|symbol| Change { symbol: (*symbol).into(), value: "n".into() }).collect()
    }

    /// What makes these the baseline's. Where these are not the `whole` configuration, only the
    /// symbols that stand here are compared.
    pub fn changes_to(&self, baseline: &Symbols, whole: bool) -> Vec<Change> {
        let others = baseline.0.keys().filter(|_| whole);
        let symbols: BTreeSet<&str> = self.0.keys().chain(others).copied().collect();
        let differs = |symbol: &&str| {
            let (own, theirs) = (self.value(symbol), baseline.value(symbol));
            // A number or a text cannot be switched off; it goes with what it belongs to.
            own != theirs && is_switch(own) == is_switch(theirs)
        };
        let change = |symbol: &str| Change { symbol: symbol.into(), value: baseline.value(symbol).into() };
        symbols.into_iter().filter(differs).map(change).collect()
    }

    pub fn listed(&self) -> Vec<String> {
        self.0.iter().map(|(symbol, value)| format!("{symbol}={value}")).collect()
    }
}

fn is_switch(value: &str) -> bool {
    matches!(value, "y" | "m" | "n")
}

fn parse(line: &str) -> Option<(&str, &str)> {
    if let Some(symbol) = line.trim_end().strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set"))
    {
        return symbol.starts_with("CONFIG_").then_some((symbol, "n"));
    }
    let (symbol, value) = line.split_once('=')?;
    symbol.starts_with("CONFIG_").then_some((symbol, value.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_changed_is_a_change() {
        let own =
            Symbols::read(["CONFIG_A=y\nCONFIG_B=m\nCONFIG_N=3\nCONFIG_M=4\n", "# CONFIG_B is not set\r\n"]);
        let baseline = Symbols::read(["CONFIG_B=y\nCONFIG_C=y\nCONFIG_M=5\nCONFIG_S=\"x\"\n"]);
        let lines = |whole| own.changes_to(&baseline, whole).iter().map(Change::line).collect::<String>();
        assert_eq!(lines(true), "# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_C=y\nCONFIG_M=5\n");
        assert_eq!(lines(false), "# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_M=5\n");
    }
}
