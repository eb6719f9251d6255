//! What is wrong with a configuration: all of it, each with its place and its remedy.

use std::fmt;

/// One thing to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file as named on the command line or found by `include`; `environment` for a variable.
    pub file: String,
    /// Counted from 1; 0 where there is no line, as for a file that cannot be read.
    pub line: usize,
    /// Dotted, for instance `backends.weather.endpoints[0]`; empty for a fault of the whole file.
    pub key: String,
    /// What is wrong. Quotes values as written: what a variable holds is shown in paths of files only.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {} ({})", self.problem, self.remedy)
    }
}

/// Every fault of a configuration, in the order of its files and lines; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// See [`Fault`].
    pub faults: Vec<Fault>,
}

impl From<Fault> for ConfigError {
    fn from(fault: Fault) -> Self {
        Self { faults: vec![fault] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(line: usize, key: &str) -> Fault {
        Fault { file: "a.toml".into(), line, key: key.into(), problem: "is odd".into(), remedy: "make it even".into() }
    }

    #[test]
    fn one_line_for_each_fault() {
        let error = ConfigError { faults: vec![fault(3, "server.workers"), fault(0, "")] };
        assert_eq!(error.to_string(), "a.toml:3: server.workers: is odd (make it even)\na.toml: is odd (make it even)");
    }
}
