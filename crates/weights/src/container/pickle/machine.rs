//! The pickle machine: it builds values and never calls anything.
//!
//! Python's `pickletools.py` defines the operations; protocols 0 to 4 are read. A call (`REDUCE`, `NEWOBJ` and their older
//! forms) is looked up in [`super::torch::call`] and refused by name when it is not there, while a mere reference to a
//! class (`GLOBAL`) is a value like any other: training frameworks use their own classes as keys of dictionaries.

use std::collections::HashMap;
use std::io::BufRead;

use super::error::PickleProblem;
use super::reader::PickleReader;
use super::torch;
use super::value::{Arena, Id, Value};

/// How many values a pickle may hold; a checkpoint with the state of its optimiser has about a hundred thousand.
const MAX_VALUES: usize = 2 << 20;

/// How much memory they may take.
const MAX_ARENA_BYTES: usize = 256 << 20;

const EMPTY: PickleProblem = PickleProblem::Malformed("an operation finds nothing to work on");

/// Reads one pickle from its first operation to `STOP`, and gives its value's number.
pub(super) fn load<R: BufRead>(reader: &mut PickleReader<R>, arena: &mut Arena) -> Result<Id, PickleProblem> {
    let mut machine = Machine {
        arena,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    loop {
        let operation = reader.byte()?;
        if operation == b'.' {
            return machine.pop();
        }
        machine.operate(operation, reader)?;
        let counts = [machine.arena.len(), machine.stack.len(), machine.memo.len()];
        if counts.into_iter().any(|count| count > MAX_VALUES) {
            return Err(PickleProblem::TooMany { limit: MAX_VALUES });
        }
        if machine.arena.bytes() > MAX_ARENA_BYTES {
            return Err(PickleProblem::TooLarge {
                limit: MAX_ARENA_BYTES as u64,
            });
        }
    }
}

struct Machine<'a> {
    arena: &'a mut Arena,
    stack: Vec<Id>,
    /// How long the stack was at each mark.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl Machine<'_> {
    fn operate<R: BufRead>(
        &mut self,
        operation: u8,
        reader: &mut PickleReader<R>,
    ) -> Result<(), PickleProblem> {
        match operation {
            // The protocol's number and frames say nothing that is needed.
            0x80 => drop(reader.byte()?),
            0x95 => drop(reader.array::<8>()?),
            b'0' | b'1' | b'2' | b'(' => self.rearrange(operation)?,
            b'p' | b'q' | b'r' | b'g' | b'h' | b'j' | 0x94 => self.remember(operation, reader)?,
            b'c' | 0x93 | b'R' | 0x81 | 0x92 | b'i' | b'o' | b'b' | b'P' | b'Q' => {
                self.construct(operation, reader)?
            }
            b't'
            | b')'
            | 0x85..=0x87
            | b'l'
            | b']'
            | b'd'
            | b'}'
            | b'a'
            | b'e'
            | b's'
            | b'u'
            | 0x8f..=0x91 => {
                self.collect(operation)?;
            }
            _ => {
                let value = scalar(operation, reader)?;
                self.push(value);
            }
        }
        Ok(())
    }

    fn push(&mut self, value: Value) {
        let id = self.arena.add(value);
        self.stack.push(id);
    }

    /// The topmost value, which must lie above the last mark.
    fn pop(&mut self) -> Result<Id, PickleProblem> {
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return Err(EMPTY);
        }
        self.stack.pop().ok_or(EMPTY)
    }

    fn top(&self) -> Result<Id, PickleProblem> {
        self.stack.last().copied().ok_or(EMPTY)
    }

    /// Everything above the last mark.
    fn pop_to_mark(&mut self) -> Result<Vec<Id>, PickleProblem> {
        let mark = self.marks.pop().ok_or(EMPTY)?;
        if mark > self.stack.len() {
            return Err(EMPTY);
        }
        Ok(self.stack.split_off(mark))
    }

    fn rearrange(&mut self, operation: u8) -> Result<(), PickleProblem> {
        match operation {
            b'(' => self.marks.push(self.stack.len()),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            // POP takes a mark away where one is on top.
            _ if self.marks.last() == Some(&self.stack.len()) => drop(self.marks.pop()),
            _ => drop(self.pop()?),
        }
        if self.marks.len() > MAX_VALUES {
            return Err(PickleProblem::TooMany { limit: MAX_VALUES });
        }
        Ok(())
    }

    fn remember<R: BufRead>(
        &mut self,
        operation: u8,
        reader: &mut PickleReader<R>,
    ) -> Result<(), PickleProblem> {
        let number = match operation {
            b'p' | b'g' => {
                let line = reader.line()?;
                line.trim()
                    .parse()
                    .map_err(|_| PickleProblem::Malformed("a memo's number is none"))?
            }
            b'q' | b'h' => u64::from(reader.byte()?),
            b'r' | b'j' => u64::from(u32::from_le_bytes(reader.array()?)),
            _ => self.memo.len() as u64,
        };
        if matches!(operation, b'g' | b'h' | b'j') {
            let found = self.memo.get(&number).copied();
            self.stack
                .push(found.ok_or(PickleProblem::Malformed("it uses a memo that it has not made"))?);
        } else {
            let top = self.top()?;
            self.memo.insert(number, top);
        }
        Ok(())
    }

    fn construct<R: BufRead>(
        &mut self,
        operation: u8,
        reader: &mut PickleReader<R>,
    ) -> Result<(), PickleProblem> {
        match operation {
            b'c' => {
                let (module, name) = (reader.line()?, reader.line()?);
                self.push(global(&module, &name)?);
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Some(name), Some(module)) = (self.arena.text(name), self.arena.text(module)) else {
                    return Err(PickleProblem::Malformed("a class has no name"));
                };
                let global = global(module, name)?;
                self.push(global);
            }
            b'R' | 0x81 => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                self.call(callee, arguments)?;
            }
            0x92 => {
                let (_named, arguments, callee) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(callee, arguments)?;
            }
            b'i' => {
                let (module, name) = (reader.line()?, reader.line()?);
                let arguments = self.pop_to_mark()?;
                let arguments = self.arena.add(Value::Tuple(arguments));
                let callee = self.arena.add(global(&module, &name)?);
                self.call(callee, arguments)?;
            }
            b'o' => {
                let mut arguments = self.pop_to_mark()?;
                if arguments.is_empty() {
                    return Err(EMPTY);
                }
                let callee = arguments.remove(0);
                let arguments = self.arena.add(Value::Tuple(arguments));
                self.call(callee, arguments)?;
            }
            b'b' => {
                let (state, object) = (self.pop()?, self.top()?);
                // What a dictionary or a tensor carries as attributes is of no interest.
                if let Value::Object(of) = self.arena.get_mut(object) {
                    *of = Some(state);
                }
            }
            b'P' => {
                let line = reader.line()?;
                let id = self.arena.add(Value::Text(line));
                self.persistent(id)?;
            }
            _ => {
                let id = self.pop()?;
                self.persistent(id)?;
            }
        }
        Ok(())
    }

    fn call(&mut self, callee: Id, arguments: Id) -> Result<(), PickleProblem> {
        let result = torch::call(self.arena, callee, arguments)?;
        self.stack.push(result);
        Ok(())
    }

    fn persistent(&mut self, id: Id) -> Result<(), PickleProblem> {
        let found = torch::persistent(self.arena, id)?;
        self.stack.push(found);
        Ok(())
    }

    fn collect(&mut self, operation: u8) -> Result<(), PickleProblem> {
        match operation {
            b')' => self.push(Value::Tuple(Vec::new())),
            b']' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            0x8f => self.push(Value::Opaque),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items));
            }
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x85..=operation {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push(Value::Tuple(items));
            }
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Value::List(items));
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Dict(pairs(&items)?));
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(&[item])?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.update(&[key, value])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.extend(&items)?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.update(&items)?;
            }
            // ADDITEMS to a set, and FROZENSET.
            0x90 => drop(self.pop_to_mark()?),
            _ => {
                self.pop_to_mark()?;
                self.push(Value::Opaque);
            }
        }
        Ok(())
    }

    fn extend(&mut self, items: &[Id]) -> Result<(), PickleProblem> {
        let list = self.top()?;
        let list = self.arena.get_mut(list);
        if let Value::List(list) = list {
            list.extend_from_slice(items);
            Ok(())
        } else if matches!(list, Value::Object(_) | Value::Opaque) {
            Ok(())
        } else {
            Err(PickleProblem::Malformed("it appends to what is no list"))
        }
    }

    fn update(&mut self, items: &[Id]) -> Result<(), PickleProblem> {
        let pairs = pairs(items)?;
        let dict = self.top()?;
        let dict = self.arena.get_mut(dict);
        if let Value::Dict(dict) = dict {
            dict.extend(pairs);
            Ok(())
        } else if matches!(dict, Value::Object(_) | Value::Opaque) {
            Ok(())
        } else {
            Err(PickleProblem::Malformed("it sets members of what is no dict"))
        }
    }
}

/// A class or a function; the bound keeps a long name that is used again and again from filling the memory.
fn global(module: &str, name: &str) -> Result<Value, PickleProblem> {
    const MAX_NAME: usize = 512;
    if module.len() + name.len() > MAX_NAME {
        return Err(PickleProblem::Malformed("the name of a class is too long"));
    }
    Ok(Value::Global(format!("{module}.{name}")))
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, PickleProblem> {
    if items.len() % 2 == 1 {
        return Err(PickleProblem::Malformed("a dict has a key without a value"));
    }
    Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

/// A value that stands in the file itself.
fn scalar<R: BufRead>(operation: u8, reader: &mut PickleReader<R>) -> Result<Value, PickleProblem> {
    Ok(match operation {
        b'N' => Value::None,
        0x88 => Value::Bool(true),
        0x89 => Value::Bool(false),
        b'J' => Value::Int(i32::from_le_bytes(reader.array()?).into()),
        b'K' => Value::Int(reader.byte()?.into()),
        b'M' => Value::Int(u16::from_le_bytes(reader.array()?).into()),
        0x8a => {
            let length = reader.byte()?.into();
            whole(reader.bytes(length)?)
        }
        0x8b => {
            let length = u32::from_le_bytes(reader.array()?).into();
            whole(reader.bytes(length)?)
        }
        b'G' => Value::Float(f64::from_be_bytes(reader.array()?)),
        b'I' | b'L' | b'F' => number(operation, reader.line()?.trim())?,
        b'S' | b'V' => Value::Text(unquoted(operation, &reader.line()?)),
        b'U' | 0x8c => {
            let length = reader.byte()?.into();
            Value::Text(reader.text(length)?)
        }
        b'T' | b'X' => {
            let length = u32::from_le_bytes(reader.array()?).into();
            Value::Text(reader.text(length)?)
        }
        0x8d => {
            let length = u64::from_le_bytes(reader.array()?);
            Value::Text(reader.text(length)?)
        }
        b'C' => {
            let length = reader.byte()?.into();
            Value::Bytes(reader.bytes(length)?)
        }
        b'B' => {
            let length = u32::from_le_bytes(reader.array()?).into();
            Value::Bytes(reader.bytes(length)?)
        }
        0x8e => {
            let length = u64::from_le_bytes(reader.array()?);
            Value::Bytes(reader.bytes(length)?)
        }
        other => return Err(PickleProblem::Operation(other)),
    })
}

/// Two's complement, least significant byte first.
fn whole(bytes: Vec<u8>) -> Value {
    if bytes.len() > 8 {
        return Value::BigInt(bytes);
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(&bytes);
    Value::Int(i64::from_le_bytes(wide))
}

/// The numbers of protocol 0.
fn number(operation: u8, line: &str) -> Result<Value, PickleProblem> {
    let wrong = || PickleProblem::Malformed("a number is none");
    match (operation, line) {
        (b'I', "00") => Ok(Value::Bool(false)),
        (b'I', "01") => Ok(Value::Bool(true)),
        (b'F', _) => line.parse().map(Value::Float).map_err(|_| wrong()),
        _ => {
            let digits = line.trim_end_matches('L');
            digits.parse().map(Value::Int).map_err(|_| wrong())
        }
    }
}

/// The texts of protocol 0, of which nobody needs the escaped ones.
fn unquoted(operation: u8, line: &str) -> String {
    let quotes = ['\'', '"'];
    match operation {
        b'S' => line.trim().trim_matches(quotes).to_owned(),
        _ => line.to_owned(),
    }
}
