//! MLflow's search grammar: comparisons joined by AND, and ORDER BY terms.

use crate::{RegistryError, Result};

/// `field comparison operand`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clause {
    pub(crate) field: Field,
    pub(crate) comparison: Comparison,
    pub(crate) operand: Operand,
}

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Field {
    Attribute(String),
    Tag(String),
}

/// How it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Case-sensitive, with `%` and `_`.
    Like,
    /// The same without regard to case.
    ILike,
    In,
    NotIn,
}

/// What it is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operand {
    Text(String),
    Number(i64),
    List(Vec<String>),
}

/// The direction of an ORDER BY term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Ascending,
    Descending,
}

/// The most comparisons in one filter.
const MAX_CLAUSES: usize = 64;

/// Parses a filter; an empty one has no clauses and matches everything.
pub(crate) fn parse_filter(text: &str) -> Result<Vec<Clause>> {
    let mut tokens = Tokens { text, all: tokenize(text)?.into_iter().peekable() };
    let mut clauses = Vec::new();
    if tokens.all.peek().is_none() {
        return Ok(clauses);
    }
    loop {
        clauses.push(tokens.clause()?);
        if clauses.len() > MAX_CLAUSES {
            return Err(invalid(text, "it has more than 64 comparisons"));
        }
        match tokens.all.next() {
            None => return Ok(clauses),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("and") => {}
            Some(_) => return Err(invalid(text, "comparisons are joined by AND")),
        }
    }
}

/// Parses `key`, `key ASC` or `key DESC`.
pub(crate) fn parse_order(text: &str) -> Result<(String, Direction)> {
    let refuse = || RegistryError::InvalidArgument(format!("Invalid order_by clause '{text}'"));
    let mut words = text.split_whitespace();
    let key = words.next().ok_or_else(refuse)?;
    let direction = match words.next() {
        None => Direction::Ascending,
        Some(word) if word.eq_ignore_ascii_case("asc") => Direction::Ascending,
        Some(word) if word.eq_ignore_ascii_case("desc") => Direction::Descending,
        Some(_) => return Err(refuse()),
    };
    if words.next().is_some() {
        return Err(refuse());
    }
    let key = key.trim_matches(['`', '"']);
    let key = key.strip_prefix("attribute.").unwrap_or(key);
    Ok((key.into(), direction))
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// Letters, digits, `_`, `.` and `-`: a key, a keyword or a number.
    Word(String),
    /// A text in single, double or back quotes.
    Quoted(char, String),
    Operator(Comparison),
    Open,
    Comma,
    Close,
}

struct Tokens<'a> {
    text: &'a str,
    all: std::iter::Peekable<std::vec::IntoIter<Token>>,
}

impl Tokens<'_> {
    fn clause(&mut self) -> Result<Clause> {
        let field = self.field()?;
        let comparison = self.comparison()?;
        let operand = match comparison {
            Comparison::In | Comparison::NotIn => self.list()?,
            _ => self.operand()?,
        };
        Ok(Clause { field, comparison, operand })
    }

    fn field(&mut self) -> Result<Field> {
        let (entity, key) = match self.all.next() {
            Some(Token::Quoted('`' | '"', key)) => (String::new(), key),
            Some(Token::Word(word)) => self.qualified(word)?,
            _ => return Err(invalid(self.text, "a comparison starts with a key")),
        };
        match entity.as_str() {
            "" | "attribute" => Ok(Field::Attribute(key)),
            "tag" | "tags" => Ok(Field::Tag(key)),
            _ => Err(invalid(self.text, "only attribute and tag can be searched by")),
        }
    }

    /// `entity.key`, where the key may be a quoted token of its own.
    fn qualified(&mut self, word: String) -> Result<(String, String)> {
        let Some((entity, key)) = word.split_once('.') else { return Ok((String::new(), word)) };
        if !key.is_empty() {
            return Ok((entity.into(), key.into()));
        }
        match self.all.next() {
            Some(Token::Quoted('`' | '"', key)) => Ok((entity.into(), key)),
            _ => Err(invalid(self.text, "a key is missing after the dot")),
        }
    }

    fn comparison(&mut self) -> Result<Comparison> {
        match self.all.next() {
            Some(Token::Operator(comparison)) => Ok(comparison),
            Some(Token::Word(word)) => match word.to_ascii_uppercase().as_str() {
                "LIKE" => Ok(Comparison::Like),
                "ILIKE" => Ok(Comparison::ILike),
                "IN" => Ok(Comparison::In),
                "NOT" if self.keyword("in") => Ok(Comparison::NotIn),
                _ => Err(invalid(self.text, "its operator is unknown")),
            },
            _ => Err(invalid(self.text, "an operator is missing")),
        }
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        matches!(self.all.next(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword))
    }

    fn operand(&mut self) -> Result<Operand> {
        match self.all.next() {
            Some(Token::Quoted('\'' | '"', text)) => Ok(Operand::Text(text)),
            Some(Token::Word(word)) => match word.parse() {
                Ok(number) => Ok(Operand::Number(number)),
                Err(_) => Err(invalid(self.text, "a text must be in quotes")),
            },
            _ => Err(invalid(self.text, "a value is missing")),
        }
    }

    fn list(&mut self) -> Result<Operand> {
        let refuse = |text| Err(invalid(text, "IN takes a list of quoted texts in parentheses"));
        if self.all.next() != Some(Token::Open) {
            return refuse(self.text);
        }
        let mut texts = Vec::new();
        loop {
            match self.all.next() {
                Some(Token::Quoted('\'' | '"', text)) => texts.push(text),
                _ => return refuse(self.text),
            }
            match self.all.next() {
                Some(Token::Comma) => {}
                Some(Token::Close) => return Ok(Operand::List(texts)),
                _ => return refuse(self.text),
            }
        }
    }
}

fn tokenize(text: &str) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '\'' | '"' | '`' => quoted(text, rest, first)?,
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '=' | '!' | '<' | '>' => operator(text, rest)?,
            _ => word(text, rest)?,
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

/// A quoted text; its quote doubled stands for itself.
fn quoted(whole: &str, rest: &str, quote: char) -> Result<(Token, usize)> {
    let mut text = String::new();
    let mut characters = rest.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character != quote {
            text.push(character);
        } else if characters.next_if(|(_, next)| *next == quote).is_some() {
            text.push(quote);
        } else {
            return Ok((Token::Quoted(quote, text), at + 1));
        }
    }
    Err(invalid(whole, "a quote is not closed"))
}

fn operator(whole: &str, rest: &str) -> Result<(Token, usize)> {
    for (sign, comparison) in [
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("=", Comparison::Equal),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ] {
        if rest.starts_with(sign) {
            return Ok((Token::Operator(comparison), sign.len()));
        }
    }
    Err(invalid(whole, "its operator is unknown"))
}

fn word(whole: &str, rest: &str) -> Result<(Token, usize)> {
    let inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-');
    let end = rest.find(|c| !inside(c)).unwrap_or(rest.len());
    if end == 0 {
        return Err(invalid(whole, "it holds a character that means nothing here"));
    }
    Ok((Token::Word(rest[..end].into()), end))
}

fn invalid(filter: &str, why: &str) -> RegistryError {
    let shown: String = filter.chars().take(300).collect();
    RegistryError::InvalidArgument(format!("Invalid filter '{shown}': {why}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Clause, Comparison, Direction, Field, Operand, parse_filter, parse_order};

    fn check(filter: &str, field: Field, comparison: Comparison, operand: Operand) {
        assert_eq!(
            parse_filter(filter).unwrap(),
            [Clause { field, comparison, operand }],
            "{filter}"
        );
    }

    fn text(text: &str) -> Operand {
        Operand::Text(text.into())
    }

    #[test]
    fn comparisons_are_read_as_mlflow_writes_them() {
        let name = || Field::Attribute("name".into());
        check("name = 'm'", name(), Comparison::Equal, text("m"));
        check("name=\"it's\"", name(), Comparison::Equal, text("it's"));
        check("`name` != 'a''b'", name(), Comparison::NotEqual, text("a'b"));
        check("attribute.name ILIKE '%M%'", name(), Comparison::ILike, text("%M%"));
        check(
            "name NOT IN ('a', 'b')",
            name(),
            Comparison::NotIn,
            Operand::List(vec!["a".into(), "b".into()]),
        );
        let prompt = Field::Tag("mlflow.prompt.is_prompt".into());
        check(
            "tag.`mlflow.prompt.is_prompt` != 'true'",
            prompt.clone(),
            Comparison::NotEqual,
            text("true"),
        );
        check("tags.mlflow.prompt.is_prompt = 'x'", prompt, Comparison::Equal, text("x"));
        check("tags.\"a b\" LIKE 'x'", Field::Tag("a b".into()), Comparison::Like, text("x"));
        check(
            "version_number >= 3",
            Field::Attribute("version_number".into()),
            Comparison::GreaterOrEqual,
            Operand::Number(3),
        );
        assert_eq!(parse_filter("name = 'a' AND tags.b = 'c' and run_id = ''").unwrap().len(), 3);
        assert!(parse_filter(" ").unwrap().is_empty());
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "name",
            "name =",
            "= 'a'",
            "name = a",
            "name = 'a",
            "name = 'a' OR name = 'b'",
            "(name = 'a')",
            "name IN 'a'",
            "name IN ('a',)",
            "name IN ()",
            "name ~ 'a'",
            "metrics.a > 1",
            "tags. = 'a'",
            "name = 'a' AND",
            "name NOT LIKE 'a'",
            "name = 'a'; DROP TABLE models",
            &vec!["name = 'a'"; 65].join(" AND "),
        ] {
            assert!(parse_filter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn order_terms_have_a_key_and_a_direction() {
        assert_eq!(parse_order("name").unwrap(), ("name".into(), Direction::Ascending));
        assert_eq!(
            parse_order("version_number desc").unwrap(),
            ("version_number".into(), Direction::Descending)
        );
        for bad in ["", "name up", "name ASC DESC"] {
            assert!(parse_order(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_filter_panics(filter in "\\PC{0,60}") {
            drop(parse_filter(&filter));
        }

        #[test]
        fn any_quoted_text_comes_back(value in "\\PC{0,30}") {
            let filter = format!("name = '{}'", value.replace('\'', "''"));
            prop_assert_eq!(&parse_filter(&filter).unwrap()[0].operand, &Operand::Text(value));
        }
    }
}
