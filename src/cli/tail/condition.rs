//! What `--where` takes: a condition in SQL's words, checked when the command begins.

use std::str::FromStr;

use bigdecimal::BigDecimal;
use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, InTarget, UnaryOperator,
    Value,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::refused::{OPS, Refused};

/// Longest condition in bytes; a chain of `or` is as deep as it is long.
pub(super) const BYTES_MAX: usize = 4_096;

/// A condition on a change, as SQL has it: what is null or unknown makes neither it nor its opposite true.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Condition {
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
    Compare(Operand, Comparison, Operand),
    /// `is not distinct from`: null equals null.
    Same(Operand, Operand),
    Null(Operand),
    /// `is true`, `is false`, `is unknown`: never unknown itself.
    Is(Box<Self>, Option<bool>),
    Like {
        operand: Operand,
        pattern: Operand,
        ignores_case: bool,
    },
    /// A boolean by itself.
    Holds(Operand),
    /// `changed('column')`.
    Changed(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What is compared.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Literal(Literal),
    Field(Field),
    Column(Side, String),
    /// `->` and `->>`: a member of a JSON document; `->>` is its text without quotes.
    Member {
        of: Box<Self>,
        step: Step,
        as_text: bool,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Number(BigDecimal),
    Text(String),
}

/// A row of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    After,
    Key,
}

/// Where a member lies in its JSON document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Name(String),
    /// From 0; from the end when negative.
    Index(i64),
}

/// What a change has beside its rows, by the name that it has in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Id,
    Schema,
    Table,
    Op,
    Tx,
    Lsn,
    CommitTsMs,
    Topic,
    Partition,
    Offset,
}

pub(super) const FIELDS: [(&str, Field); 10] = [
    ("id", Field::Id),
    ("schema", Field::Schema),
    ("table", Field::Table),
    ("op", Field::Op),
    ("tx", Field::Tx),
    ("lsn", Field::Lsn),
    ("commit_ts_ms", Field::CommitTsMs),
    ("topic", Field::Topic),
    ("partition", Field::Partition),
    ("offset", Field::Offset),
];

impl FromStr for Condition {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        if text.trim().is_empty() {
            return Err(Refused::Empty);
        }
        if text.len() > BYTES_MAX {
            return Err(Refused::Long);
        }
        let syntax = |error: sqlparser::parser::ParserError| {
            let said = error.to_string();
            let said = said.split_once(": ").map_or(said.as_str(), |(_, said)| said);
            Refused::Syntax(said.to_owned())
        };
        let dialect = PostgreSqlDialect {};
        let mut parser = Parser::new(&dialect).try_with_sql(text).map_err(syntax)?;
        let parsed = parser.parse_expr().map_err(syntax)?;
        match parser.peek_token().token {
            Token::EOF => condition(&parsed),
            rest => Err(Refused::Rest(rest.to_string())),
        }
    }
}

fn condition(expr: &Expr) -> Result<Condition, Refused> {
    let boxed = |expr: &Expr| condition(expr).map(Box::new);
    let is = |expr: &Expr, what: Option<bool>| Ok(Condition::Is(boxed(expr)?, what));
    match expr {
        Expr::Nested(inner) => condition(inner),
        Expr::UnaryOp {
            op: UnaryOperator::Not,
            expr,
        } => Ok(Condition::Not(boxed(expr)?)),
        Expr::BinaryOp { left, op, right } => match op {
            BinaryOperator::And => Ok(Condition::And(boxed(left)?, boxed(right)?)),
            BinaryOperator::Or => Ok(Condition::Or(boxed(left)?, boxed(right)?)),
            op => match comparison(op) {
                Some(comparison) => compared(operand(left)?, comparison, operand(right)?),
                None => holds(expr),
            },
        },
        Expr::IsTrue(expr) => is(expr, Some(true)),
        Expr::IsNotTrue(expr) => Ok(not(is(expr, Some(true))?)),
        Expr::IsFalse(expr) => is(expr, Some(false)),
        Expr::IsNotFalse(expr) => Ok(not(is(expr, Some(false))?)),
        Expr::IsUnknown(expr) => is(expr, None),
        Expr::IsNotUnknown(expr) => Ok(not(is(expr, None)?)),
        Expr::IsNull(expr) => Ok(Condition::Null(operand(expr)?)),
        Expr::IsNotNull(expr) => Ok(not(Condition::Null(operand(expr)?))),
        Expr::IsNotDistinctFrom(left, right) => Ok(Condition::Same(operand(left)?, operand(right)?)),
        Expr::IsDistinctFrom(left, right) => Ok(not(Condition::Same(operand(left)?, operand(right)?))),
        Expr::In {
            expr,
            target: InTarget::List(items),
            negated,
            global: false,
        } => Ok(negated_if(*negated, one_of(&operand(expr)?, items)?)),
        Expr::Between {
            expr,
            negated,
            low,
            high,
        } => {
            let least = compared(operand(expr)?, Comparison::GreaterOrEqual, operand(low)?)?;
            let most = compared(operand(expr)?, Comparison::LessOrEqual, operand(high)?)?;
            Ok(negated_if(*negated, Condition::And(Box::new(least), Box::new(most))))
        }
        Expr::Like {
            negated,
            any: false,
            expr,
            pattern,
            escape_char: None,
        } => like(*negated, expr, pattern, false),
        Expr::ILike {
            negated,
            any: false,
            expr,
            pattern,
            escape_char: None,
        } => like(*negated, expr, pattern, true),
        Expr::Function(function) => changed(function),
        _ => holds(expr),
    }
}

fn not(condition: Condition) -> Condition {
    Condition::Not(Box::new(condition))
}

fn negated_if(negated: bool, condition: Condition) -> Condition {
    if negated { not(condition) } else { condition }
}

fn like(negated: bool, expr: &Expr, pattern: &Expr, ignores_case: bool) -> Result<Condition, Refused> {
    let like = Condition::Like {
        operand: operand(expr)?,
        pattern: operand(pattern)?,
        ignores_case,
    };
    Ok(negated_if(negated, like))
}

fn one_of(operand: &Operand, items: &[Expr]) -> Result<Condition, Refused> {
    let mut any: Option<Condition> = None;
    for item in items {
        let equal = compared(operand.clone(), Comparison::Equal, self::operand(item)?)?;
        any = Some(match any {
            Some(any) => Condition::Or(Box::new(any), Box::new(equal)),
            None => equal,
        });
    }
    any.ok_or_else(|| Refused::Unsupported {
        found: "in ()".to_owned(),
    })
}

/// A comparison; one that can never hold is a slip.
fn compared(left: Operand, comparison: Comparison, right: Operand) -> Result<Condition, Refused> {
    if let (Operand::Field(Field::Op), Operand::Literal(Literal::Text(found)))
    | (Operand::Literal(Literal::Text(found)), Operand::Field(Field::Op)) = (&left, &right)
        && !OPS.contains(&found.as_str())
    {
        return Err(Refused::Op { found: found.clone() });
    }
    Ok(Condition::Compare(left, comparison, right))
}

fn comparison(op: &BinaryOperator) -> Option<Comparison> {
    Some(match op {
        BinaryOperator::Eq => Comparison::Equal,
        BinaryOperator::NotEq => Comparison::NotEqual,
        BinaryOperator::Lt => Comparison::Less,
        BinaryOperator::LtEq => Comparison::LessOrEqual,
        BinaryOperator::Gt => Comparison::Greater,
        BinaryOperator::GtEq => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

/// A boolean that stands by itself: a literal, or a column, of which only an event tells whether it is one.
fn holds(expr: &Expr) -> Result<Condition, Refused> {
    match operand(expr)? {
        Operand::Literal(Literal::Number(_) | Literal::Text(_)) | Operand::Field(_) => Err(Refused::NoCondition {
            found: expr.to_string(),
        }),
        operand => Ok(Condition::Holds(operand)),
    }
}

fn changed(function: &Function) -> Result<Condition, Refused> {
    if let FunctionArguments::List(list) = &function.args
        && function.name.to_string().eq_ignore_ascii_case("changed")
        && function.over.is_none()
        && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(column)))] = &*list.args
        && let Value::SingleQuotedString(column) = &column.value
    {
        return Ok(Condition::Changed(column.clone()));
    }
    Err(Refused::Unsupported {
        found: function.to_string(),
    })
}

fn operand(expr: &Expr) -> Result<Operand, Refused> {
    match expr {
        Expr::Nested(inner) => operand(inner),
        Expr::Value(value) => literal(&value.value).map(Operand::Literal),
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr: inner,
        } => match operand(inner)? {
            Operand::Literal(Literal::Number(number)) => Ok(Operand::Literal(Literal::Number(-number))),
            _ => Err(Refused::Unsupported {
                found: expr.to_string(),
            }),
        },
        Expr::Identifier(name) => field(name),
        Expr::CompoundIdentifier(names) => match &**names {
            [side, column] => Ok(Operand::Column(self::side(side, expr)?, folded(column))),
            _ => Err(Refused::Side { name: expr.to_string() }),
        },
        Expr::BinaryOp { left, op, right } => match op {
            BinaryOperator::Arrow | BinaryOperator::LongArrow => Ok(Operand::Member {
                of: Box::new(operand(left)?),
                step: step(right)?,
                as_text: *op == BinaryOperator::LongArrow,
            }),
            _ => Err(Refused::Unsupported {
                found: format!("the operator {op}"),
            }),
        },
        _ => Err(Refused::Unsupported {
            found: expr.to_string(),
        }),
    }
}

/// A name as Postgres reads it: in small letters, unless it stands in double quotes.
fn folded(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    }
}

fn field(name: &Ident) -> Result<Operand, Refused> {
    let name = folded(name);
    let field = FIELDS.iter().find(|(known, _)| *known == name);
    field
        .map(|(_, field)| Operand::Field(*field))
        .ok_or(Refused::Name { name })
}

fn side(name: &Ident, whole: &Expr) -> Result<Side, Refused> {
    match &*folded(name) {
        "before" => Ok(Side::Before),
        "after" => Ok(Side::After),
        "key" => Ok(Side::Key),
        _ => Err(Refused::Side {
            name: whole.to_string(),
        }),
    }
}

fn step(expr: &Expr) -> Result<Step, Refused> {
    let unsupported = || Refused::Unsupported {
        found: format!("the member {expr}"),
    };
    match operand(expr)? {
        Operand::Literal(Literal::Text(name)) => Ok(Step::Name(name)),
        Operand::Literal(Literal::Number(number)) => {
            number.to_string().parse().map(Step::Index).map_err(|_| unsupported())
        }
        _ => Err(unsupported()),
    }
}

fn literal(value: &Value) -> Result<Literal, Refused> {
    match value {
        Value::Null => Ok(Literal::Null),
        Value::Boolean(value) => Ok(Literal::Bool(*value)),
        Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Ok(Literal::Text(text.clone())),
        Value::Number(number, _) => number_of(number)
            .map(Literal::Number)
            .ok_or_else(|| Refused::Exponent(number.clone())),
        _ => Err(Refused::Unsupported {
            found: value.to_string(),
        }),
    }
}

/// The number that a text is, written out. An exponent is none: `1e999999999` is short, and too large to compare.
pub(super) fn number_of(text: &str) -> Option<BigDecimal> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && digits.bytes().any(|byte| byte.is_ascii_digit());
    if !is_plain {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_asked_is_refused_when_the_command_begins() {
        for (text, expected) in [
            (
                " ",
                "it is empty; write a condition such as op = 'update' and after.status = 'active'",
            ),
            ("op =", "it is not SQL: Expected: an expression, found: EOF"),
            (
                "op = 'update' after.n = 1",
                "after is more than one condition; join them with and, or",
            ),
            (
                "status = 'x'",
                "status is neither a field of a change (id, schema, table, op, tx, lsn, commit_ts_ms, topic, partition, offset) nor a \
                 column: a column is after.status, before.status or key.status; a text stands in single quotes: 'status'",
            ),
            (
                "public.t.n = 1",
                "public.t.n is no column; write after.COLUMN, before.COLUMN or key.COLUMN",
            ),
            (
                "new.n = 1",
                "new.n is no column; write after.COLUMN, before.COLUMN or key.COLUMN",
            ),
            (
                "op = 'u'",
                "op is never u; it is one of insert, update, delete, read, truncate, message; did you mean 'update'?",
            ),
            (
                "op in ('insert', 'updat')",
                "op is never updat; it is one of insert, update, delete, read, truncate, message; did you mean 'update'?",
            ),
            ("op", "op cannot be true or false; compare it with something"),
            ("not 'x'", "'x' cannot be true or false; compare it with something"),
            (
                "after.n > 1e9",
                "the number 1e9 is written with an exponent; write it out",
            ),
        ] {
            let refused = text.parse::<Condition>().unwrap_err();
            assert_eq!(refused.to_string(), expected, "{text}");
        }
        for unsupported in [
            "after.n + 1 > 2",
            "lower(after.name) = 'x'",
            "changed(after.status)",
            "changed('a', 'b')",
            "after.n::text = '1'",
            "after.n in (select 1)",
            "exists (select 1)",
            "case when true then true end",
            "after.name ~ 'x'",
            "after.name like 'x' escape '#'",
            "-after.n < 1",
            "after.doc -> after.n = 1",
            "after.n = $1",
        ] {
            let refused = unsupported.parse::<Condition>().unwrap_err();
            assert!(
                matches!(refused, Refused::Unsupported { .. }),
                "{unsupported}: {refused}"
            );
        }
        assert_eq!("x".repeat(5_000).parse::<Condition>(), Err(Refused::Long));
    }

    #[test]
    fn the_longest_chain_and_the_deepest_nest_end() {
        let chain = vec!["op='read'"; 314].join(" or ");
        assert!(
            chain.len() <= BYTES_MAX && chain.len() > BYTES_MAX - 20,
            "{}",
            chain.len()
        );
        chain.parse::<Condition>().unwrap();
        let nest = format!("{}op='read'{}", "(".repeat(2_000), ")".repeat(2_000));
        assert!(matches!(nest.parse::<Condition>(), Err(Refused::Syntax(_))));
    }

    #[test]
    fn names_are_read_as_postgres_reads_them() {
        let column = |text: &str| match text.parse::<Condition>() {
            Ok(Condition::Holds(Operand::Column(side, name))) => (side, name),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(column("After.UserId"), (Side::After, "userid".to_owned()));
        assert_eq!(column("before.\"UserId\""), (Side::Before, "UserId".to_owned()));
        assert_eq!(column("(key.\"a b\")"), (Side::Key, "a b".to_owned()));
    }
}
