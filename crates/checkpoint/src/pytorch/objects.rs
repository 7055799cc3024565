//! What a pickle makes: values, and the objects that they refer to.
//!
//! Objects lie in a table and refer to one another by their numbers, as a pickle may make an object contain itself: nothing here or
//! in whoever reads the result follows such references further than a state dict goes.
use super::globals::Global;
use fewbit_numerics::dtype::DType;

/// A value of Python, as far as state dicts have it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float,
    Str(&'a str),
    Global(Global),
    /// In the table.
    Object(u32),
}

/// A value that holds others.
#[derive(Debug)]
pub(super) enum Object<'a> {
    Tuple(Vec<Value<'a>>),
    List(Vec<Value<'a>>),
    /// In the order of the pickle, equal keys kept.
    Dict(Vec<(Value<'a>, Value<'a>)>),
    Storage(Storage<'a>),
    Tensor(Box<Tensor<'a>>),
}

/// What a pickle says of the bytes of one or more tensors, which lie outside of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub(super) dtype: DType,
    pub(super) key: &'a str,
    pub(super) elements: i64,
    /// Elements of the part that is meant, where the older form names one: first, number.
    pub(super) part: Option<(i64, i64)>,
}

/// A tensor as the pickle says it, unchecked.
#[derive(Debug, Clone)]
pub(super) struct Tensor<'a> {
    pub(super) storage: Storage<'a>,
    pub(super) dtype: DType,
    pub(super) offset: i64,
    pub(super) shape: Vec<i64>,
    pub(super) strides: Vec<i64>,
}

/// The objects of one pickle.
#[derive(Debug, Default)]
pub(super) struct Objects<'a>(Vec<Object<'a>>);

impl<'a> Objects<'a> {
    /// Adds an object, and gives the value that refers to it.
    pub(super) fn add(&mut self, object: Object<'a>) -> Value<'a> {
        let at = self.0.len() as u32;
        self.0.push(object);
        Value::Object(at)
    }

    /// The object that `value` is, to change it.
    pub(super) fn object_mut(&mut self, value: Value<'a>) -> Option<&mut Object<'a>> {
        match value {
            Value::Object(at) => self.0.get_mut(at as usize),
            _ => None,
        }
    }

    /// The object that `value` is, if it is one.
    pub(super) fn object(&self, value: Value<'a>) -> Option<&Object<'a>> {
        match value {
            Value::Object(at) => self.0.get(at as usize),
            _ => None,
        }
    }

    /// Every storage that the pickle names.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage<'a>> {
        self.0.iter().filter_map(|object| match object {
            Object::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    /// The items of a tuple.
    pub(super) fn tuple(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match self.object(value)? {
            Object::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// What a message calls `value`.
    pub(super) fn describe(&self, value: Value<'a>) -> &'static str {
        match value {
            Value::None => "None",
            Value::Bool(_) => "a bool",
            Value::Int(_) => "an integer",
            Value::Float => "a float",
            Value::Str(_) => "a string",
            Value::Global(_) => "a function or type",
            Value::Object(at) => match self.0.get(at as usize) {
                Some(Object::Tuple(_)) => "a tuple",
                Some(Object::List(_)) => "a list",
                Some(Object::Dict(_)) => "a dict",
                Some(Object::Storage(_)) => "a storage",
                Some(Object::Tensor(_)) => "a tensor",
                None => "nothing",
            },
        }
    }

    /// The numbers of a tuple of nothing else.
    pub(super) fn integers(&self, value: Value<'a>) -> Option<Vec<i64>> {
        self.tuple(value)?
            .iter()
            .map(|&item| match item {
                Value::Int(number) => Some(number),
                _ => None,
            })
            .collect()
    }
}
