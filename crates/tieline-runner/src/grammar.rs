//! The rules that requests ask for, for this model's vocabulary.

use std::sync::OnceLock;

use tieline_decode::rules::{CallMarks, Check, Rule, RuleError, Rules, TokenBytes, Vocabulary};
use tieline_decode::talk::Format;
use tieline_types::wire::{Failure, FailureKind};
use tieline_types::{Constraint, Request, ToolChoice};

use crate::llama::Model;
use crate::session::failure;

/// Made when the first rule is asked for: the vocabulary takes a tenth of a second.
#[derive(Debug, Default)]
pub(crate) struct Grammar(OnceLock<Result<Rules, String>>);

/// The rule of one answer.
#[derive(Debug)]
pub(crate) struct Ruled {
    pub(crate) rule: Rule,
    /// The last check of its text, where the caller wrote the rule.
    pub(crate) check: Option<Check>,
}

impl Grammar {
    /// The rule of a request's answer, where it has one. Where a call must be made there is no text that a
    /// rule could be for.
    pub(crate) fn rule(
        &self,
        model: &Model,
        request: &Request,
        format: Format,
    ) -> Result<Option<Ruled>, Failure> {
        let must_call = matches!(request.tool_choice, ToolChoice::Required | ToolChoice::Named(_));
        if request.constraint.is_none() && !must_call {
            return Ok(None);
        }
        let rules = self.0.get_or_init(|| rules(model).map_err(|error| error.to_string()));
        let rules = rules.as_ref().map_err(|error| {
            failure(FailureKind::Internal, format!("cannot make rules for this model: {error}"))
        })?;
        let calls = || rules.compile_calls(&request.tools, marks(format), &request.tool_choice);
        let ruled = match request.constraint.as_ref().filter(|_| !must_call) {
            Some(constraint) => written(rules, constraint),
            None => calls().map(|rule| Ruled { rule, check: None }),
        };
        ruled.map(Some).map_err(|error| refused(&error))
    }
}

fn written(rules: &Rules, constraint: &Constraint) -> Result<Ruled, RuleError> {
    let rule = rules.compile(constraint)?;
    Ok(Ruled { rule, check: Some(Check::new(constraint)?) })
}

fn refused(error: &RuleError) -> Failure {
    let kind = match error {
        RuleError::Internal { .. } => FailureKind::Internal,
        _ => FailureKind::InvalidRequest,
    };
    failure(kind, error.to_string())
}

fn rules(model: &Model) -> Result<Rules, RuleError> {
    let count = model.vocabulary();
    let mut ends: Vec<u32> = model.eos().into_iter().map(i32::cast_unsigned).collect();
    let others = (0..count).filter(|&token| model.is_end(token) && Some(token) != model.eos());
    ends.extend(others.map(i32::cast_unsigned));
    let bytes = |token: i32| {
        let text = model.piece(token, true);
        match model.is_control(token) {
            _ if text.is_empty() => TokenBytes::Unused,
            true => TokenBytes::Control(String::from_utf8_lossy(&text).into_owned()),
            false => TokenBytes::Text(text),
        }
    };
    Rules::new(&Vocabulary::new((0..count).map(bytes).collect(), &ends)?)
}

/// What stands around a call; the parser reads a bare object in every format where one is required.
fn marks(format: Format) -> CallMarks<'static> {
    let (begin, end, between) = match format {
        Format::Hermes => ("<tool_call>\n", "\n</tool_call>", "\n"),
        Format::Mistral => ("[TOOL_CALLS][", "]", ""),
        Format::Granite => ("<|tool_call|>[", "]", ""),
        _ => ("", "", "\n"),
    };
    CallMarks { begin, end, between }
}
