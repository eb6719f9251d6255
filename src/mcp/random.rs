//! A generator for tests: the same numbers in every run.

use serde_json::Value;

pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// splitmix64.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// One of them.
    pub(crate) fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// A JSON value, nested `depth` deep at most.
pub(super) fn value(random: &mut Random, depth: usize) -> Value {
    match random.below(if depth == 0 { 6 } else { 9 }) {
        0 => Value::Null,
        1 => Value::Bool(random.once_in(2)),
        2 => Value::from(random.next() as i64 >> random.below(64)),
        3 => Value::from(random.below(1000) as f64 / 8.0 + 0.0625),
        4 | 5 => Value::from(string(random)),
        6 => (0..random.below(4)).map(|_| value(random, depth - 1)).collect(),
        _ => Value::Object((0..random.below(5)).map(|_| (string(random), value(random, depth - 1))).collect()),
    }
}

fn string(random: &mut Random) -> String {
    let pieces =
        ["id", "name", "_meta", "a", "\"", "\\", "/", "é", "\u{1f600}", "\n", "\u{1}", "{", "[", "]}", " ", "0"];
    (0..random.below(4)).map(|_| *random.of(&pieces)).collect()
}

/// One of the many ways to write a value: white space and escapes wherever they may be.
pub(super) fn json_text(random: &mut Random, value: &Value) -> String {
    let space = |random: &mut Random| if random.once_in(4) { *random.of(&[" ", "\n", "\t", "\r\n"]) } else { "" };
    let text = match value {
        Value::Object(members) => {
            let members: Vec<_> = members
                .iter()
                .map(|(key, value)| format!("{}:{}", quoted(random, key), json_text(random, value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(|value| json_text(random, value)).collect();
            format!("[{}]", values.join(","))
        }
        Value::String(text) => quoted(random, text),
        other => other.to_string(),
    };
    format!("{}{text}{}", space(random), space(random))
}

fn quoted(random: &mut Random, text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        if random.once_in(8) {
            let mut units = [0; 2];
            out.extend(character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            let plain = Value::from(character.to_string()).to_string();
            out.push_str(&plain[1..plain.len() - 1]);
        }
    }
    out.push('"');
    out
}
