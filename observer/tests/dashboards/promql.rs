//! As much of PromQL as it takes to tell which families a query names, with which labels, and what is done to them.
//! Whether it is valid is for Prometheus to say.

/// A family that is selected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) name: String,
    /// Label, operator and value of each matcher.
    pub(crate) matchers: Vec<(String, String, String)>,
    /// What stands in brackets.
    pub(crate) range: Option<String>,
    /// The function around it.
    pub(crate) function: Option<String>,
}

/// What was found in a query.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pub(crate) selectors: Vec<Selector>,
    /// Labels of each `by (…)`, in order of their beginning.
    pub(crate) by: Vec<Vec<String>>,
    /// Labels of `on`, `ignoring` and the like.
    pub(crate) matched: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Range(String),
    Other(String),
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(first) = rest.next() {
        let mut taken = String::from(first);
        match first {
            '"' => {
                taken.clear();
                while let Some(character) = rest.next().filter(|character| *character != '"') {
                    taken.push(character);
                    if character == '\\' {
                        taken.extend(rest.next());
                    }
                }
                tokens.push(Token::Text(taken));
            }
            '[' => {
                taken.clear();
                taken.extend(std::iter::from_fn(|| rest.next_if(|character| *character != ']')));
                rest.next();
                tokens.push(Token::Range(taken));
            }
            _ if first.is_whitespace() => {}
            _ if first.is_alphanumeric() || "_$:.".contains(first) => {
                let in_word = |character: &char| character.is_alphanumeric() || "_:.".contains(*character);
                taken.extend(std::iter::from_fn(|| rest.next_if(in_word)));
                tokens.push(Token::Word(taken));
            }
            '=' | '!' | '<' | '>' => {
                taken.extend(rest.next_if(|character| "=~".contains(*character)));
                tokens.push(Token::Other(taken));
            }
            _ => tokens.push(Token::Other(taken)),
        }
    }
    tokens
}

fn is(token: Option<&Token>, wanted: &str) -> bool {
    token == Some(&Token::Other(wanted.to_owned()))
}

/// Finds what a query names.
///
/// # Panics
/// If its parentheses do not match, or a matcher has no value.
pub(crate) fn parse(text: &str) -> Query {
    let tokens = tokens(text);
    let mut query = Query::default();
    // Names before the parentheses that are open.
    let mut open: Vec<String> = Vec::new();
    let mut pending = String::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        let next = tokens.get(at);
        match token {
            Token::Word(word) => match word.as_str() {
                "by" | "without" | "on" | "ignoring" | "group_left" | "group_right" => {
                    if !is(next, "(") {
                        continue;
                    }
                    let end = tokens[at..].iter().position(|token| is(Some(token), ")")).expect("a list has an end");
                    let labels = tokens[at..at + end].iter().filter_map(|token| match token {
                        Token::Word(label) => Some(label.clone()),
                        _ => None,
                    });
                    if word == "by" {
                        query.by.push(labels.collect());
                    } else {
                        query.matched.extend(labels);
                    }
                    at += end + 1;
                }
                "and" | "or" | "unless" | "bool" | "offset" => {}
                word if word.starts_with(|first: char| first.is_numeric() || first == '$' || first == '.') => {}
                word if is(next, "(") || matches!(next, Some(Token::Word(by)) if by == "by" || by == "without") => {
                    pending = word.to_owned();
                }
                word => {
                    let matchers = if is(next, "{") { matchers(&tokens, &mut at) } else { Vec::new() };
                    let range = match tokens.get(at) {
                        Some(Token::Range(range)) => Some(range.clone()),
                        _ => None,
                    };
                    query.selectors.push(Selector {
                        name: word.to_owned(),
                        matchers,
                        range,
                        function: open.last().filter(|name| !name.is_empty()).cloned(),
                    });
                }
            },
            Token::Other(sign) if sign == "(" => open.push(std::mem::take(&mut pending)),
            Token::Other(sign) if sign == ")" => drop(open.pop().expect("it was opened")),
            _ => {}
        }
    }
    assert!(open.is_empty(), "{} parentheses stay open: {text}", open.len());
    query
}

/// Those from the brace at `at` on, which is then past its end.
fn matchers(tokens: &[Token], at: &mut usize) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    *at += 1;
    loop {
        match &tokens[*at..] {
            [Token::Other(end), ..] if end == "}" => break,
            [Token::Other(comma), ..] if comma == "," => *at += 1,
            [Token::Word(label), Token::Other(operator), Token::Text(value), ..] => {
                found.push((label.clone(), operator.clone(), value.clone()));
                *at += 3;
            }
            other => panic!("no matcher: {:?}", &other[..other.len().min(3)]),
        }
    }
    *at += 1;
    found
}

#[test]
fn what_a_query_names() {
    let query = parse(
        "histogram_quantile(0.5, sum by (le, job) (rate(a_bucket{x=~\"(y|\\\"z)\", w!=\"\"}[$__rate_interval]))) > 14.4 * $objective\n\
         / on (job) group_left () max by (job) (b) or vector(1)",
    );
    let names: Vec<_> = query.selectors.iter().map(|found| (&*found.name, found.function.as_deref())).collect();
    assert_eq!(names, [("a_bucket", Some("rate")), ("b", Some("max"))]);
    assert_eq!(query.selectors[0].range.as_deref(), Some("$__rate_interval"));
    let matcher = |label: &str, operator: &str, value: &str| (label.to_owned(), operator.to_owned(), value.to_owned());
    assert_eq!(query.selectors[0].matchers, [matcher("x", "=~", "(y|\\\"z)"), matcher("w", "!=", "")]);
    assert_eq!(query.by, [vec!["le", "job"], vec!["job"]]);
    assert_eq!(query.matched, ["job"]);
}
