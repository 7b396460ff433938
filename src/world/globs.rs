//! Patterns of gitignore as the globs of the crate `ignore`, which knows more and less: its braces are alternatives, its classes have
//! no escapes and no names.

/// The same pattern as a glob; a sentence if git takes it for one that matches nothing.
pub fn glob_of(line: &str) -> Result<String, &'static str> {
    if line.starts_with('#') {
        return Ok(line.to_owned());
    }
    let (mut glob, mut rest) = (String::with_capacity(line.len()), line.chars());
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next().ok_or("it ends in a backslash")? {
                ' ' => glob.push_str("[ ]"),
                escaped => glob.extend([c, escaped]),
            },
            // At the end of a line git leaves out plain spaces only, the crate all that is white.
            _ if c.is_whitespace() && c != ' ' => glob.extend(['[', c, ']']),
            '{' | '}' => glob.extend(['\\', c]),
            '[' => {
                let (class, behind) = class_of(rest.as_str())?;
                glob.push_str(&class);
                rest = behind.chars();
            }
            _ => glob.push(c),
        }
    }
    Ok(glob)
}

/// Characters that mean something at some place of a glob's class.
const SPECIAL: [char; 4] = [']', '^', '!', '-'];

/// What a class matches.
#[derive(Default)]
struct Class {
    is_negated: bool,
    ranges: Vec<(char, char)>,
}

impl Class {
    fn has(&self, c: char) -> bool {
        self.ranges.iter().any(|(from, to)| (*from..=*to).contains(&c))
    }

    fn glob(&self) -> Result<String, &'static str> {
        let is_plain = |c: &char| !SPECIAL.contains(c);
        // What is special goes where it is not; ranges begin and end with what is plain.
        let plain = self.ranges.iter().filter_map(|(from, to)| {
            let (from, to) = ((*from..=*to).find(is_plain)?, (*from..=*to).rev().find(is_plain)?);
            Some(if from == to { from.to_string() } else { format!("{from}-{to}") })
        });
        let plain: String = plain.collect();
        let special: Vec<char> = SPECIAL.into_iter().filter(|c| self.has(*c)).collect();
        if plain.is_empty() && !self.is_negated {
            let words: Vec<String> = special.iter().map(|c| format!("\\{c}")).collect();
            return match words.as_slice() {
                [] => Err("nothing is in its '[...]'"),
                [one] => Ok(one.clone()),
                several => Ok(format!("{{{}}}", several.join(","))),
            };
        }
        if plain.is_empty() && special.is_empty() {
            return Ok("?".to_owned());
        }
        let (first, last): (Vec<char>, Vec<char>) = special.into_iter().partition(|c| *c == ']');
        let (first, last): (String, String) = (first.into_iter().collect(), last.into_iter().collect());
        Ok(format!("[{}{first}{plain}{last}]", if self.is_negated { "!" } else { "" }))
    }
}

/// The class that begins behind a `[`, and what follows it.
fn class_of(text: &str) -> Result<(String, &str), &'static str> {
    const OPEN: &str = "its '[' has no ']'";
    let mut class = Class::default();
    let mut rest = text;
    if let Some(behind) = rest.strip_prefix(['!', '^']) {
        (class.is_negated, rest) = (true, behind);
    }
    let mut is_first = true;
    loop {
        if let Some(behind) = rest.strip_prefix(']').filter(|_| !is_first) {
            return Ok((class.glob()?, behind));
        }
        is_first = false;
        if let Some(name) = rest.strip_prefix("[:") {
            let (name, behind) = name.split_once(":]").ok_or(OPEN)?;
            class.ranges.extend_from_slice(named(name).ok_or("nothing has the name in its '[:...:]'")?);
            rest = behind;
            continue;
        }
        let (from, behind) = next_char(rest).ok_or(OPEN)?;
        rest = behind;
        let to = rest.strip_prefix('-').filter(|behind| !behind.starts_with(']')).and_then(next_char);
        let (to, behind) = to.unwrap_or((from, rest));
        class.ranges.push((from, to));
        rest = behind;
    }
}

/// The next character of a class, which may be escaped.
fn next_char(text: &str) -> Option<(char, &str)> {
    let text = text.strip_prefix('\\').unwrap_or(text);
    let mut chars = text.chars();
    chars.next().map(|c| (c, chars.as_str()))
}

/// The classes with names, of ASCII as in git.
fn named(name: &str) -> Option<&'static [(char, char)]> {
    Some(match name {
        "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
        "alpha" => &[('A', 'Z'), ('a', 'z')],
        "blank" => &[('\t', '\t'), (' ', ' ')],
        "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
        "digit" => &[('0', '9')],
        "graph" => &[('!', '~')],
        "lower" => &[('a', 'z')],
        "print" => &[(' ', '~')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "space" => &[('\t', '\r'), (' ', ' ')],
        "upper" => &[('A', 'Z')],
        "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_become_globs() {
        for (line, glob) in [
            ("# {a", "# {a"),
            ("!/a/*.o", "!/a/*.o"),
            ("{a,b}", "\\{a,b\\}"),
            ("\\{a\\}\\ ", "\\{a\\}[ ]"),
            ("a b\\  ", "a b[ ] "),
            ("a\t ", "a[\t] "),
            ("[ab]c", "[ab]c"),
            ("[!a-c]", "[!a-c]"),
            ("[^a-c]", "[!a-c]"),
            ("[]a]", "[]a]"),
            ("[a-]", "[a-]"),
            ("[a\\-z]", "[az-]"),
            ("[\\]]", "\\]"),
            ("[\\]x]", "[]x]"),
            ("[\\!^]", "{\\^,\\!}"),
            ("[!^]", "[!^]"),
            ("[^!]", "[!!]"),
            ("[[:digit:]a]", "[0-9a]"),
            ("[[:punct:]]", "[]\"-/:-@[-`{-~^!-]"),
            ("[!z-a]", "?"),
            ("[--0]", "[.-0-]"),
        ] {
            assert_eq!(glob_of(line).as_deref(), Ok(glob), "{line}");
        }
        for line in ["a\\", "[a", "[", "a[]", "[z-a]", "[[:no:]]", "[[:alpha:", "[\\"] {
            assert!(glob_of(line).is_err(), "{line}");
        }
    }
}
