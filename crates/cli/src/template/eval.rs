//! Runs a parsed template over a value.

use super::funcs::{self, Mode};
use super::parser::{Base, Node, Pipeline, Term};
use super::source::{command_text, label_title, pipeline_text, term_text};
use super::value::{Map, Value};
use super::{MissingKey, TemplateError};

/// Most bytes one template may print.
const MAX_OUTPUT: usize = 64 * 1024 * 1024;
/// Most steps one execution may take, so that nested ranges end.
const MAX_STEPS: usize = 10_000_000;
/// Largest count of `range N`.
const MAX_COUNT: i64 = 1_000_000;

/// How a list of nodes ended.
enum Flow {
    Next,
    Break,
    Continue,
}

/// State of one execution.
pub(super) struct Evaluator<'a> {
    root: &'a Value,
    variables: Vec<(String, Value)>,
    missing: MissingKey,
    mode: Mode,
    steps: usize,
    /// What has been printed.
    pub(super) out: String,
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(root: &'a Value, missing: MissingKey, mode: Mode) -> Self {
        Self {
            root,
            variables: vec![(String::new(), root.clone())],
            missing,
            mode,
            steps: 0,
            out: String::new(),
        }
    }

    pub(super) fn run(&mut self, nodes: &[Node]) -> Result<(), TemplateError> {
        let root = self.root;
        self.walk(nodes, root).map(|_| ())
    }

    fn step(&mut self) -> Result<(), TemplateError> {
        self.steps += 1;
        if self.steps > MAX_STEPS || self.out.len() > MAX_OUTPUT {
            return Err(TemplateError::Exec {
                line: 1,
                column: 0,
                at: String::new(),
                message: "template takes too many steps".to_owned(),
            });
        }
        Ok(())
    }

    fn walk(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        for node in nodes {
            self.step()?;
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.targets.is_empty() {
                        self.out.push_str(&value.display());
                    }
                }
                Node::If {
                    condition,
                    then,
                    otherwise,
                } => {
                    let mark = self.variables.len();
                    let chosen = if self.pipeline(condition, dot)?.truth() {
                        then
                    } else {
                        otherwise
                    };
                    let flow = self.walk(chosen, dot)?;
                    self.variables.truncate(mark);
                    if !matches!(flow, Flow::Next) {
                        return Ok(flow);
                    }
                }
                Node::With {
                    value,
                    then,
                    otherwise,
                } => {
                    let mark = self.variables.len();
                    let value = self.pipeline(value, dot)?;
                    let flow = if value.truth() {
                        self.walk(then, &value)?
                    } else {
                        self.walk(otherwise, dot)?
                    };
                    self.variables.truncate(mark);
                    if !matches!(flow, Flow::Next) {
                        return Ok(flow);
                    }
                }
                Node::Range {
                    over,
                    body,
                    otherwise,
                } => {
                    let flow = self.range(over, body, otherwise, dot)?;
                    if !matches!(flow, Flow::Next) {
                        return Ok(flow);
                    }
                }
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
            }
        }
        Ok(Flow::Next)
    }

    fn range(
        &mut self,
        over: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Flow, TemplateError> {
        let mark = self.variables.len();
        let subject = self.commands(over, dot)?;
        let items: Vec<(Value, Value)> = match subject {
            Value::List(items) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| (Value::Int(index as i64), item))
                .collect(),
            Value::Map(map) => map
                .sorted()
                .into_iter()
                .map(|(key, value)| (Value::from(key), value.clone()))
                .collect(),
            Value::Int(count) if count <= MAX_COUNT => (0..count)
                .map(|index| (Value::Int(index), Value::Int(index)))
                .collect(),
            Value::Nil | Value::Missing => Vec::new(),
            other => {
                return Err(self.fail(
                    over,
                    &pipeline_text(over),
                    format!("range can't iterate over {}", other.display()),
                ));
            }
        };
        if items.is_empty() {
            let flow = self.walk(otherwise, dot)?;
            self.variables.truncate(mark);
            return Ok(flow);
        }
        for (key, item) in items {
            self.step()?;
            if over.declare || over.targets.is_empty() {
                self.variables.truncate(mark);
            }
            match over.targets.as_slice() {
                [one] => self.set(over, one, item.clone())?,
                [first, second] => {
                    self.set(over, first, key)?;
                    self.set(over, second, item.clone())?;
                }
                _ => {}
            }
            let inner = self.variables.len();
            let flow = self.walk(body, &item)?;
            self.variables.truncate(inner);
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        self.variables.truncate(mark);
        Ok(Flow::Next)
    }

    /// Sets or declares a variable as the pipeline says.
    fn set(&mut self, pipeline: &Pipeline, name: &str, value: Value) -> Result<(), TemplateError> {
        if pipeline.declare {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        match self
            .variables
            .iter_mut()
            .rev()
            .find(|(known, _)| known == name)
        {
            Some((_, slot)) => {
                *slot = value;
                Ok(())
            }
            None => Err(TemplateError::parse(
                pipeline.line,
                format!("undefined variable \"${name}\""),
            )),
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let value = self.commands(pipeline, dot)?;
        for name in &pipeline.targets {
            self.set(pipeline, name, value.clone())?;
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let mut last: Option<Value> = None;
        for command in &pipeline.commands {
            last = Some(self.command(pipeline, command, dot, last.take())?);
        }
        Ok(last.unwrap_or(Value::Nil))
    }

    fn command(
        &mut self,
        pipeline: &Pipeline,
        command: &[Term],
        dot: &Value,
        piped: Option<Value>,
    ) -> Result<Value, TemplateError> {
        self.step()?;
        let Some((head, rest)) = command.split_first() else {
            return Ok(Value::Nil);
        };
        match &head.base {
            Base::Function(name) => {
                // `and` and `or` stop at the first argument that decides.
                if name == "and" || name == "or" {
                    return self.short_circuit(pipeline, name == "or", rest, dot, piped);
                }
                let mut arguments = Vec::with_capacity(rest.len() + 1);
                for term in rest {
                    arguments.push(self.term(pipeline, term, dot)?);
                }
                arguments.extend(piped);
                let result = funcs::call(name, &arguments, self.mode).map_err(|message| {
                    self.fail(
                        pipeline,
                        &command_text(command),
                        format!("error calling {name}: {message}"),
                    )
                })?;
                self.fields(pipeline, head, result, &head.fields)
            }
            _ if rest.is_empty() && piped.is_none() => self.term(pipeline, head, dot),
            _ => {
                // Only methods take arguments, and the only method is a context's Label.
                let Some((method, path)) = head.fields.split_last() else {
                    return Err(self.fail(
                        pipeline,
                        &term_text(head),
                        format!("can't give argument to non-function {}", term_text(head)),
                    ));
                };
                let receiver = self.base(pipeline, head, dot)?;
                let receiver = self.fields(pipeline, head, receiver, path)?;
                let mut arguments = Vec::new();
                for term in rest {
                    arguments.push(self.term(pipeline, term, dot)?);
                }
                arguments.extend(piped);
                match (&receiver, method.as_str(), arguments.as_slice()) {
                    (Value::Map(_), "Label", [Value::Str(name)]) if self.mode == Mode::Header => {
                        Ok(Value::Str(label_title(name)))
                    }
                    (Value::Map(map), "Label", [Value::Str(name)]) if map.type_name.is_some() => {
                        let label = map.labels.iter().find(|(key, _)| key == name);
                        Ok(Value::Str(
                            label.map(|(_, value)| value.clone()).unwrap_or_default(),
                        ))
                    }
                    _ => Err(self.fail(
                        pipeline,
                        &term_text(head),
                        format!("{method} is not a method but has arguments"),
                    )),
                }
            }
        }
    }

    fn short_circuit(
        &mut self,
        pipeline: &Pipeline,
        until: bool,
        terms: &[Term],
        dot: &Value,
        piped: Option<Value>,
    ) -> Result<Value, TemplateError> {
        let mut last = None;
        for term in terms {
            let value = self.term(pipeline, term, dot)?;
            if value.truth() == until {
                return Ok(value);
            }
            last = Some(value);
        }
        piped.or(last).ok_or_else(|| {
            let name = if until { "or" } else { "and" };
            self.fail(
                pipeline,
                name,
                format!("wrong number of args for {name}: want at least 1 got 0"),
            )
        })
    }

    fn term(
        &mut self,
        pipeline: &Pipeline,
        term: &Term,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        if let Base::Function(_) = term.base {
            let mut bare = term.clone();
            let fields = std::mem::take(&mut bare.fields);
            let value = self.command(pipeline, std::slice::from_ref(&bare), dot, None)?;
            return self.fields(pipeline, term, value, &fields);
        }
        let base = self.base(pipeline, term, dot)?;
        self.fields(pipeline, term, base, &term.fields)
    }

    fn base(
        &mut self,
        pipeline: &Pipeline,
        term: &Term,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        Ok(match &term.base {
            // Copying only the field that is asked for keeps `.A.B` over a large dot cheap.
            Base::Dot => match (dot, term.fields.first()) {
                (Value::Map(map), Some(field)) => {
                    let mut narrow = Map {
                        entries: Vec::new(),
                        optional: Vec::new(),
                        type_name: map.type_name,
                        labels: map.labels.clone(),
                    };
                    if let Some(value) = map.get(field) {
                        narrow.entries.push((field.clone(), value.clone()));
                    }
                    Value::Map(narrow)
                }
                _ => dot.clone(),
            },
            Base::Variable(name) => {
                match self.variables.iter().rev().find(|(known, _)| known == name) {
                    Some((_, value)) => value.clone(),
                    None => {
                        return Err(TemplateError::parse(
                            pipeline.line,
                            format!("undefined variable \"${name}\""),
                        ));
                    }
                }
            }
            Base::Str(text) => Value::Str(text.clone()),
            Base::Int(value) => Value::Int(*value),
            Base::Float(value) => Value::Float(*value),
            Base::Bool(value) => Value::Bool(*value),
            Base::Nil => Value::Nil,
            Base::Sub(inner) => self.pipeline(inner, dot)?,
            Base::Function(_) => Value::Nil,
        })
    }

    fn fields(
        &self,
        pipeline: &Pipeline,
        term: &Term,
        base: Value,
        fields: &[String],
    ) -> Result<Value, TemplateError> {
        let mut value = base;
        for field in fields {
            value = match value {
                Value::Map(map) => match (map.get(field), map.type_name, self.missing) {
                    (Some(found), _, _) => found.clone(),
                    (None, Some(type_name), _) => {
                        return Err(self.fail(
                            pipeline,
                            &term_text(term),
                            format!("can't evaluate field {field} in type {type_name}"),
                        ));
                    }
                    (None, None, MissingKey::Error) => {
                        return Err(self.fail(
                            pipeline,
                            &term_text(term),
                            format!("map has no entry for key \"{field}\""),
                        ));
                    }
                    (None, None, MissingKey::NoValue) => Value::Missing,
                },
                Value::Nil | Value::Missing => {
                    return Err(self.fail(
                        pipeline,
                        &term_text(term),
                        format!("nil pointer evaluating interface {{}}.{field}"),
                    ));
                }
                other => {
                    return Err(self.fail(
                        pipeline,
                        &term_text(term),
                        format!("can't evaluate field {field} in type {}", other.kind()),
                    ));
                }
            };
        }
        Ok(value)
    }

    fn fail(&self, pipeline: &Pipeline, at: &str, message: String) -> TemplateError {
        TemplateError::Exec {
            line: pipeline.line,
            column: pipeline.column,
            at: at.to_owned(),
            message,
        }
    }
}
