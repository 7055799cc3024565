//! A pickle machine that executes nothing: it knows the opcodes that state dicts need, and refuses every name that is not in
//! [`Global`] when it is named, called or not.
use super::globals::{self, Global};
use super::objects::{Object, Objects, Storage, Tensor, Value};
use super::{malformed, unsupported};
use crate::CheckpointError;
use fewbit_numerics::dtype::DType;
use std::collections::HashMap;

/// Values and objects that a pickle may make: a state dict makes about 30 for a tensor.
const MAX_VALUES: usize = 2_000_000;

/// Reads the pickle at the beginning of `bytes`: its objects, its value, and the number of bytes that it has.
pub(super) fn read(bytes: &[u8]) -> Result<(Objects<'_>, Value<'_>, usize), CheckpointError> {
    let mut machine = Machine {
        bytes,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        objects: Objects::default(),
        values: 0,
    };
    loop {
        let at = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(value)) => return Ok((machine.objects, value, machine.at)),
            Err(error) => return Err(error.within(&format!("byte {at} of the pickle"))),
        }
    }
}

/// The state between two opcodes.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack: what lies below the last one is out of reach.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    objects: Objects<'a>,
    /// Made so far.
    values: usize,
}

impl<'a> Machine<'a> {
    /// Executes one opcode; the value of the pickle if that was the last one.
    fn step(&mut self) -> Result<Option<Value<'a>>, CheckpointError> {
        let opcode = self.byte()?;
        match opcode {
            b'.' => return Ok(Some(self.pop()?)),
            // PROTO and FRAME: what follows says itself what it is.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(i64::from(number)))?;
            }
            b'K' => {
                let number = self.byte()?;
                self.push(Value::Int(i64::from(number)))?;
            }
            b'M' => {
                let number = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(i64::from(number)))?;
            }
            0x8a => {
                let number = self.long()?;
                self.push(Value::Int(number))?;
            }
            b'G' => {
                self.take(8)?;
                self.push(Value::Float)?;
            }
            b'X' => {
                let length = u32::from_le_bytes(self.array()?);
                self.string(length as usize)?;
            }
            // SHORT_BINUNICODE, and SHORT_BINSTRING, which Python 2 wrote.
            0x8c | b'U' => {
                let length = self.byte()?;
                self.string(usize::from(length))?;
            }
            b'(' => {
                self.count()?;
                self.marks.push(self.stack.len());
            }
            b')' => self.push_object(Object::Tuple(Vec::new()))?,
            b']' => self.push_object(Object::List(Vec::new()))?,
            b'}' => self.push_object(Object::Dict(Vec::new()))?,
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let items = self.pop_mark()?;
                self.push_object(Object::Tuple(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend_list(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.extend_dict(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.extend_dict(&items)?;
            }
            b'q' => {
                let index = self.byte()?;
                self.remember(u32::from(index))?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.array()?);
                self.remember(index)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let index = self.byte()?;
                self.recall(u32::from(index))?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.array()?);
                self.recall(index)?;
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.push(Value::Global(Global::find(module, name)?))?;
            }
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                let (Value::Str(module), Value::Str(name)) = (module, name) else {
                    return Err(malformed(
                        "expected the names of a module and of what it has as strings, found others",
                    ));
                };
                self.push(Value::Global(Global::find(module, name)?))?;
            }
            // INST would call what it names.
            b'i' => {
                let module = self.line()?;
                let name = self.line()?;
                return Err(globals::refused(module, name));
            }
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            b'Q' => self.persistent()?,
            other => {
                return Err(unsupported(format!(
                    "expected an opcode that state dicts need, found 0x{other:02x}{}",
                    if other.is_ascii_graphic() {
                        format!(" (`{}`)", char::from(other))
                    } else {
                        String::new()
                    }
                )));
            }
        }
        Ok(None)
    }

    fn truncated(&self, expected: usize) -> CheckpointError {
        malformed(format!(
            "truncated: expected {expected} more bytes, found {}",
            self.bytes.len() - self.at
        ))
        .hint(super::DOWNLOAD_AGAIN)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], CheckpointError> {
        let bytes = self.bytes;
        let taken = bytes[self.at..]
            .get(..count)
            .ok_or_else(|| self.truncated(count))?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CheckpointError> {
        Ok(self.take(N)?.try_into().expect("as many bytes"))
    }

    fn byte(&mut self) -> Result<u8, CheckpointError> {
        Ok(self.array::<1>()?[0])
    }

    /// Up to the next newline, which is passed over.
    fn line(&mut self) -> Result<&'a str, CheckpointError> {
        let rest = &self.bytes[self.at..];
        let length = rest
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or_else(|| self.truncated(rest.len() + 1))?;
        let line = self.take(length + 1)?;
        text(&line[..length])
    }

    fn string(&mut self, length: usize) -> Result<(), CheckpointError> {
        let string = text(self.take(length)?)?;
        self.push(Value::Str(string))
    }

    /// LONG1, whose two's complement has any number of bytes.
    fn long(&mut self) -> Result<i64, CheckpointError> {
        let length = usize::from(self.byte()?);
        let digits = self.take(length)?;
        if length > 8 {
            return Err(malformed(format!(
                "expected an integer of at most 8 bytes, found {length}"
            )));
        }
        let negative = digits.last().is_some_and(|&last| last & 0x80 != 0);
        let mut bytes = [if negative { 0xff } else { 0 }; 8];
        bytes[..length].copy_from_slice(digits);
        Ok(i64::from_le_bytes(bytes))
    }

    fn count(&mut self) -> Result<(), CheckpointError> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(malformed(format!(
                "expected a pickle of at most {MAX_VALUES} values, found more"
            )));
        }
        Ok(())
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), CheckpointError> {
        self.count()?;
        self.stack.push(value);
        Ok(())
    }

    fn push_object(&mut self, object: Object<'a>) -> Result<(), CheckpointError> {
        let value = self.objects.add(object);
        self.push(value)
    }

    fn pop(&mut self) -> Result<Value<'a>, CheckpointError> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn top(&self) -> Result<Value<'a>, CheckpointError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack[floor..]
            .last()
            .copied()
            .ok_or_else(|| malformed("expected a value on the stack, found none"))
    }

    /// The values since the last mark, which is taken away.
    fn pop_mark(&mut self) -> Result<Vec<Value<'a>>, CheckpointError> {
        let mark = self
            .marks
            .pop()
            .ok_or_else(|| malformed("expected a mark on the stack, found none"))?;
        Ok(self.stack.split_off(mark))
    }

    fn tuple(&mut self, count: usize) -> Result<(), CheckpointError> {
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push_object(Object::Tuple(items))
    }

    /// The object on top of the stack, to change it.
    fn top_object(&mut self) -> Result<Option<&mut Object<'a>>, CheckpointError> {
        let top = self.top()?;
        Ok(self.objects.object_mut(top))
    }

    fn extend_list(&mut self, items: Vec<Value<'a>>) -> Result<(), CheckpointError> {
        match self.top_object()? {
            Some(Object::List(list)) => {
                list.extend(items);
                Ok(())
            }
            _ => Err(malformed(
                "expected a list to append to, found another value",
            )),
        }
    }

    fn extend_dict(&mut self, items: &[Value<'a>]) -> Result<(), CheckpointError> {
        let pairs = items.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return Err(malformed(
                "expected keys and values in pairs, found a key alone",
            ));
        }
        match self.top_object()? {
            Some(Object::Dict(dict)) => {
                dict.extend(pairs.map(|pair| (pair[0], pair[1])));
                Ok(())
            }
            _ => Err(malformed(
                "expected a dict to set items of, found another value",
            )),
        }
    }

    fn remember(&mut self, index: u32) -> Result<(), CheckpointError> {
        self.count()?;
        let value = self.top()?;
        self.memo.insert(index, value);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), CheckpointError> {
        let value = self.memo.get(&index).copied().ok_or_else(|| {
            malformed(format!(
                "expected a value under the number {index} of the memo, found none"
            ))
        })?;
        self.push(value)
    }

    /// REDUCE: the call of a function of [`Global`].
    fn reduce(&mut self) -> Result<(), CheckpointError> {
        let arguments = self.pop()?;
        let function = self.pop()?;
        let (Value::Global(function), Some(arguments)) = (function, self.objects.tuple(arguments))
        else {
            return Err(malformed(
                "expected a function and a tuple of its arguments, found other values",
            ));
        };
        match (function, arguments) {
            (Global::OrderedDict, []) => self.push_object(Object::Dict(Vec::new())),
            (Global::Size, &[size]) if self.objects.tuple(size).is_some() => self.push(size),
            // A parameter is its data here; a state holds attributes of Python.
            (Global::RebuildParameter, &[data, _, _])
            | (Global::RebuildParameterWithState, &[data, _, _, _]) => self.push(data),
            (
                Global::RebuildTensorV2,
                &[storage, offset, shape, strides, _, _, ref metadata @ ..],
            ) if metadata.len() <= 1 => {
                self.expect_no_metadata(metadata.first())?;
                self.rebuild_tensor(storage, offset, shape, strides, None)
            }
            (
                Global::RebuildTensorV3,
                &[
                    storage,
                    offset,
                    shape,
                    strides,
                    _,
                    _,
                    Value::Global(Global::DType(dtype)),
                    ref metadata @ ..,
                ],
            ) if metadata.len() <= 1 => {
                self.expect_no_metadata(metadata.first())?;
                self.rebuild_tensor(storage, offset, shape, strides, Some(dtype))
            }
            (function, arguments) => Err(unsupported(format!(
                "expected a call as state dicts have it, found one of {function:?} with {} arguments",
                arguments.len()
            ))),
        }
    }

    /// The metadata of a tensor say that its values are to be negated or conjugated. There are none where neither is so.
    fn expect_no_metadata(&self, metadata: Option<&Value<'a>>) -> Result<(), CheckpointError> {
        let nothing = match metadata.and_then(|&metadata| self.objects.object(metadata)) {
            Some(Object::Dict(entries)) => entries.is_empty(),
            _ => matches!(metadata, None | Some(Value::None)),
        };
        if nothing {
            return Ok(());
        }
        Err(unsupported(
            "expected a tensor as it is stored, found one that is to be negated or conjugated",
        ))
    }

    fn rebuild_tensor(
        &mut self,
        storage: Value<'a>,
        offset: Value<'a>,
        shape: Value<'a>,
        strides: Value<'a>,
        dtype: Option<DType>,
    ) -> Result<(), CheckpointError> {
        let (Some(&Object::Storage(storage)), Value::Int(offset), Some(shape), Some(strides)) = (
            self.objects.object(storage),
            offset,
            self.objects.integers(shape),
            self.objects.integers(strides),
        ) else {
            return Err(malformed(
                "expected a tensor of a storage, an offset, sizes and strides, found other values",
            ));
        };
        // Sizes are copied: one tuple could be that of many tensors.
        for _ in 0..shape.len() + strides.len() {
            self.count()?;
        }
        let tensor = Tensor {
            storage,
            dtype: dtype.unwrap_or(storage.dtype),
            offset,
            shape,
            strides,
        };
        self.push_object(Object::Tensor(Box::new(tensor)))
    }

    /// BUILD sets attributes, which are of no use here (`_metadata` of state dicts has the versions of modules).
    fn build(&mut self) -> Result<(), CheckpointError> {
        self.pop()?;
        match self.top_object()? {
            Some(Object::Dict(_)) => Ok(()),
            _ => Err(unsupported(
                "expected attributes of a dict, found those of another value",
            )),
        }
    }

    /// BINPERSID: a storage, by `("storage", type, key, location, number of elements)`, in the older form with a part of it.
    fn persistent(&mut self) -> Result<(), CheckpointError> {
        let id = self.pop()?;
        let parts = self.objects.tuple(id).unwrap_or_default();
        let (&[kind, dtype, key, _, elements], rest) = parts
            .split_first_chunk()
            .unwrap_or((&[Value::None; 5], &[]));
        let (
            Value::Str("storage"),
            Value::Global(Global::Storage(dtype)),
            Value::Str(key),
            Value::Int(elements),
        ) = (kind, dtype, key, elements)
        else {
            return Err(unsupported(
                "expected a storage of tensors outside the pickle, found a reference to something else",
            ));
        };
        let part = match *rest {
            [] | [Value::None] => None,
            [view] => match self.objects.tuple(view) {
                Some(&[Value::Str(_), Value::Int(first), Value::Int(count)]) => {
                    Some((first, count))
                }
                _ => {
                    return Err(malformed(
                        "expected a part of a storage, found another value",
                    ));
                }
            },
            _ => return Err(malformed("expected one part of a storage, found more")),
        };
        let storage = Storage {
            dtype,
            key,
            elements,
            part,
        };
        self.push_object(Object::Storage(storage))
    }
}

fn text(bytes: &[u8]) -> Result<&str, CheckpointError> {
    std::str::from_utf8(bytes).map_err(|error| {
        malformed(format!(
            "expected text in UTF-8, found other bytes: {error}"
        ))
    })
}
