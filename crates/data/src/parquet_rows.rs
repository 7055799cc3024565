//! The rows of a Parquet file: strings, numbers, and lists of integers.
//!
//! A column is read in chunks of [`CHUNK`] rows, page by page, so that neither the file nor a row group is ever in memory as a whole.
//! Lists are put together from repetition and definition levels (Melnik et al., "Dremel", 2010): a repetition level of 0 starts a row, and a
//! definition level says how far the path of a value is there.

use std::fs::File;

use fewbit_panics::contain;
use parquet::basic::{Compression, LogicalType, Type as PhysicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use crate::data_file::DataFile;
use crate::lines::{LONGEST, not_read, too_long};
use crate::row::{Place, column_place};
use crate::{Cell, Column, ColumnKind, DataError, Row};

/// The word for a column in messages about Parquet.
const WORD: &str = "column";
/// Rows that are decoded at once.
const CHUNK: usize = 256;

/// Calls `take` with each row.
pub(crate) fn for_each_row(
    file: &DataFile,
    columns: &[Column],
    take: &mut dyn FnMut(&Row<'_>) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let reader = open(file)?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let leaves: Vec<Option<usize>> = columns
        .iter()
        .map(|column| leaf(file, schema, column))
        .collect::<Result<_, _>>()?;
    let mut number = 0;
    for group in 0..reader.num_row_groups() {
        let group_place = format!("{}: row group {}", file.name(), group + 1);
        let row_group = contained(&group_place, || reader.get_row_group(group))?;
        let mut left = usize::try_from(row_group.metadata().num_rows()).unwrap_or(0);
        let mut chunks: Vec<Option<Chunks>> = Vec::new();
        for (leaf, column) in leaves.iter().zip(columns) {
            chunks.push(match *leaf {
                None => None,
                Some(leaf) => {
                    let place = column_place(&group_place, WORD, &column.name);
                    let codec = row_group.metadata().column(leaf).compression();
                    check_codec(&place, codec)?;
                    let reader = contained(&place, || row_group.get_column_reader(leaf))?;
                    Some(Chunks::new(reader, &schema.column(leaf), place))
                }
            });
        }
        while left > 0 {
            let rows = left.min(CHUNK);
            let mut cells = Vec::new();
            for chunks in &mut chunks {
                cells.push(match chunks {
                    Some(chunks) => Some(chunks.read(rows)?.into_iter()),
                    None => None,
                });
            }
            for _ in 0..rows {
                number += 1;
                let place = Place {
                    file: file.name(),
                    row_word: "row",
                    number,
                };
                let row = columns
                    .iter()
                    .zip(&mut cells)
                    .map(|(column, cells)| match cells {
                        None => Ok(Cell::Absent),
                        Some(cells) => cell(file, place, column, cells.next()),
                    })
                    .collect::<Result<_, _>>()?;
                take(&Row {
                    place,
                    word: Some(WORD),
                    columns,
                    cells: row,
                    remark: None,
                })?;
            }
            left -= rows;
        }
    }
    Ok(())
}

/// Compressions that this build of the parquet crate has.
const CODECS: &str = "none, snappy, gzip and zstd";

fn check_codec(place: &str, codec: Compression) -> Result<(), DataError> {
    let name = match codec {
        Compression::UNCOMPRESSED
        | Compression::SNAPPY
        | Compression::GZIP(_)
        | Compression::ZSTD(_) => return Ok(()),
        Compression::BROTLI(_) => "brotli",
        Compression::LZ4 => "lz4",
        Compression::LZ4_RAW => "lz4_raw",
        Compression::LZO => "lzo",
    };
    Err(DataError::content(
        format!("{place}: compression"),
        format!("one that is supported ({CODECS})"),
        format!("{name}, which is not supported"),
        "write the file again with another, for instance compression=\"zstd\" of pyarrow",
    ))
}

/// The names of the schema.
pub(crate) fn names(file: &DataFile) -> Result<Vec<String>, DataError> {
    let reader = open(file)?;
    Ok(names_of(reader.metadata().file_metadata().schema_descr()))
}

fn names_of(schema: &SchemaDescriptor) -> Vec<String> {
    let fields = schema.root_schema().get_fields();
    fields.iter().map(|field| field.name().to_owned()).collect()
}

/// The error of what comes through a pipe.
pub(crate) fn not_a_file(file: &DataFile) -> DataError {
    DataError::content(
        file.name(),
        "lines, JSON, CSV or TSV",
        "Parquet, whose table of contents stands at its end",
        "name the file instead of piping it",
    )
}

fn open(file: &DataFile) -> Result<SerializedFileReader<File>, DataError> {
    let Some(path) = file.path() else {
        return Err(not_a_file(file));
    };
    let bytes = File::open(path).map_err(|error| file.io(error))?;
    if bytes.metadata().map_err(|error| file.io(error))?.is_dir() {
        return Err(DataError::content(
            file.name(),
            "a Parquet file",
            "a folder",
            "name one file of the data set",
        ));
    }
    contained(file.name(), || SerializedFileReader::new(bytes))
}

/// The column of the schema that holds what `column` asks for; none if it is optional and not there.
fn leaf(
    file: &DataFile,
    schema: &SchemaDescriptor,
    column: &Column,
) -> Result<Option<usize>, DataError> {
    let leaves: Vec<usize> = (0..schema.num_columns())
        .filter(|&leaf| schema.get_column_root(leaf).name() == column.name)
        .collect();
    let Some(&first) = leaves.first() else {
        return if column.optional {
            Ok(None)
        } else {
            Err(column.missing(file.name().to_owned(), WORD, &names_of(schema)))
        };
    };
    let found = schema.column(first);
    let is_single = found.max_rep_level() == 0 && found.path().parts().len() == 1;
    let is_decimal = matches!(found.logical_type_ref(), Some(LogicalType::Decimal(_)));
    let is_text = is_single && found.physical_type() == PhysicalType::BYTE_ARRAY;
    let is_integer = matches!(
        found.physical_type(),
        PhysicalType::INT32 | PhysicalType::INT64
    );
    let is_float = matches!(
        found.physical_type(),
        PhysicalType::FLOAT | PhysicalType::DOUBLE
    );
    let fits = leaves.len() == 1
        && match column.kind {
            ColumnKind::Text => is_text,
            ColumnKind::Number => is_single && !is_decimal && (is_integer || is_float),
            ColumnKind::Label => is_text || (is_single && !is_decimal && is_integer),
            ColumnKind::Integers => is_integer && found.max_rep_level() == 1,
        };
    if fits {
        return Ok(Some(first));
    }
    let kind = match column.kind {
        ColumnKind::Text => "strings",
        ColumnKind::Number => "numbers",
        ColumnKind::Label => "strings or whole numbers",
        ColumnKind::Integers => "lists of integers",
    };
    Err(DataError::content(
        column_place(file.name(), WORD, &column.name),
        kind,
        described(&found, leaves.len()),
        format!("name a column of {kind}"),
    ))
}

/// A column's type in words.
fn described(column: &ColumnDescriptor, leaves: usize) -> String {
    if leaves > 1 {
        return "structures of several columns".to_owned();
    }
    let values = match column.physical_type() {
        PhysicalType::BYTE_ARRAY => "strings",
        PhysicalType::BOOLEAN => "booleans",
        PhysicalType::INT32 | PhysicalType::INT64 => "integers",
        PhysicalType::FLOAT | PhysicalType::DOUBLE => "floating-point numbers",
        PhysicalType::INT96 | PhysicalType::FIXED_LEN_BYTE_ARRAY => "values of a fixed size",
    };
    let lists = "lists of ".repeat(usize::try_from(column.max_rep_level()).unwrap_or(0));
    format!("{lists}{values}")
}

/// A value as the file stores it, in one row of a column.
enum Stored {
    Null,
    Text(Vec<u8>),
    Number(f64),
    Integers(Vec<i64>),
    /// A list with null at this position, from 1.
    NullAt(usize),
}

fn cell(
    file: &DataFile,
    place: Place<'_>,
    column: &Column,
    stored: Option<Stored>,
) -> Result<Cell, DataError> {
    let found = match stored {
        Some(Stored::Null) | None if column.optional => return Ok(Cell::Absent),
        Some(Stored::Integers(values)) => return Ok(Cell::Integers(values)),
        Some(Stored::Number(number)) if column.kind == ColumnKind::Label => {
            return Ok(Cell::Text(number.to_string()));
        }
        Some(Stored::Number(number)) if number.is_finite() => return Ok(Cell::Number(number)),
        Some(Stored::Number(number)) => number.to_string(),
        Some(Stored::Text(bytes)) if bytes.len() > LONGEST => {
            return Err(not_read(file, place, too_long()));
        }
        Some(Stored::Text(bytes)) => match String::from_utf8(bytes) {
            Ok(text) => return Ok(Cell::Text(text)),
            Err(error) => format!(
                "bytes that are no UTF-8 from byte {}",
                error.utf8_error().valid_up_to() + 1
            ),
        },
        Some(Stored::NullAt(position)) => format!("null at position {position}"),
        Some(Stored::Null) | None => "null".to_owned(),
    };
    Err(DataError::content(
        column_place(place, WORD, &column.name),
        column.kind.value(),
        found,
        "remove the row, or name another column",
    ))
}

/// One column of a row group, in chunks of rows.
struct Chunks {
    values: Values,
    /// Whether a row holds a list, and not one value.
    has_lists: bool,
    /// Definition level of a value that is there.
    full: i16,
    /// Definition level from which on a list has an element.
    element: i16,
    definition: Vec<i16>,
    repetition: Vec<i16>,
    place: String,
}

enum Values {
    Texts(ColumnReaderImpl<ByteArrayType>),
    Signed32(ColumnReaderImpl<Int32Type>),
    /// Unsigned numbers are stored as the signed ones of the same bits.
    Unsigned32(ColumnReaderImpl<Int32Type>),
    Integers64(ColumnReaderImpl<Int64Type>),
    Floats32(ColumnReaderImpl<FloatType>),
    Floats64(ColumnReaderImpl<DoubleType>),
    /// Refused by [`leaf`] before.
    Other,
}

impl Chunks {
    fn new(reader: ColumnReader, column: &ColumnDescriptor, place: String) -> Self {
        let unsigned = matches!(
            column.logical_type_ref(),
            Some(LogicalType::Integer(integer)) if !integer.is_signed
        );
        let values = match reader {
            ColumnReader::ByteArrayColumnReader(reader) => Values::Texts(reader),
            ColumnReader::Int32ColumnReader(reader) if unsigned => Values::Unsigned32(reader),
            ColumnReader::Int32ColumnReader(reader) => Values::Signed32(reader),
            ColumnReader::Int64ColumnReader(reader) => Values::Integers64(reader),
            ColumnReader::FloatColumnReader(reader) => Values::Floats32(reader),
            ColumnReader::DoubleColumnReader(reader) => Values::Floats64(reader),
            _ => Values::Other,
        };
        Self {
            values,
            has_lists: column.max_rep_level() > 0,
            full: column.max_def_level(),
            element: column.repeated_ancestor_def_level(),
            definition: Vec::new(),
            repetition: Vec::new(),
            place,
        }
    }

    /// The next `rows` rows.
    fn read(&mut self, rows: usize) -> Result<Vec<Stored>, DataError> {
        self.definition.clear();
        self.repetition.clear();
        let place = self.place.clone();
        let stored = contained(&place, || self.decoded(rows))?;
        if stored.len() == rows {
            return Ok(stored);
        }
        Err(damaged(
            &place,
            format!("{} rows where {rows} should be", stored.len()),
        ))
    }

    fn decoded(&mut self, rows: usize) -> Result<Vec<Stored>, ParquetError> {
        let (definition, repetition) = (&mut self.definition, &mut self.repetition);
        Ok(match &mut self.values {
            Values::Texts(reader) => {
                let texts = values(reader, rows, definition, repetition)?;
                let stored = texts.iter().map(|text| Stored::Text(text.data().to_vec()));
                self.single(rows, stored)
            }
            Values::Floats32(reader) => {
                let numbers = values(reader, rows, definition, repetition)?;
                let stored = numbers
                    .into_iter()
                    .map(|number| Stored::Number(number.into()));
                self.single(rows, stored)
            }
            Values::Floats64(reader) => {
                let numbers = values(reader, rows, definition, repetition)?;
                self.single(rows, numbers.into_iter().map(Stored::Number))
            }
            Values::Signed32(reader) => {
                let integers = values(reader, rows, definition, repetition)?;
                self.integers(rows, integers.into_iter().map(i64::from))
            }
            Values::Unsigned32(reader) => {
                let integers = values(reader, rows, definition, repetition)?;
                let unsigned = |bits: i32| i64::from(bits.cast_unsigned());
                self.integers(rows, integers.into_iter().map(unsigned))
            }
            Values::Integers64(reader) => {
                let integers = values(reader, rows, definition, repetition)?;
                self.integers(rows, integers.into_iter())
            }
            Values::Other => Vec::new(),
        })
    }

    fn integers(&self, rows: usize, integers: impl Iterator<Item = i64>) -> Vec<Stored> {
        match self.has_lists {
            true => self.lists(integers),
            false => self.single(rows, integers.map(|number| Stored::Number(number as f64))),
        }
    }

    /// One value a level; columns that are never null have no levels.
    fn single(&self, rows: usize, mut values: impl Iterator<Item = Stored>) -> Vec<Stored> {
        if self.full == 0 {
            return values.collect();
        }
        let stored = |&level: &i16| {
            if level == self.full {
                values.next().unwrap_or(Stored::Null)
            } else {
                Stored::Null
            }
        };
        self.definition.iter().take(rows).map(stored).collect()
    }

    fn lists(&self, mut integers: impl Iterator<Item = i64>) -> Vec<Stored> {
        let mut rows: Vec<Stored> = Vec::new();
        for (&repetition, &definition) in self.repetition.iter().zip(&self.definition) {
            if repetition == 0 {
                rows.push(if definition == 0 && self.element > 1 {
                    Stored::Null
                } else {
                    Stored::Integers(Vec::new())
                });
            }
            let value = (definition == self.full).then(|| integers.next()).flatten();
            match (rows.last_mut(), value) {
                (Some(Stored::Integers(list)), Some(value)) => list.push(value),
                (Some(row @ Stored::Integers(_)), None) if definition >= self.element => {
                    let Stored::Integers(list) = &*row else {
                        continue;
                    };
                    *row = Stored::NullAt(list.len() + 1);
                }
                _ => {}
            }
        }
        rows
    }
}

/// The values of the next `rows` rows and their levels.
fn values<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    rows: usize,
    definition: &mut Vec<i16>,
    repetition: &mut Vec<i16>,
) -> Result<Vec<T::T>, ParquetError> {
    let mut values = Vec::new();
    reader.read_records(rows, Some(definition), Some(repetition), &mut values)?;
    Ok(values)
}

/// Runs calls into the parquet crate. It trusts some fields of a file and panics where they are damaged: that is an error here, too, and
/// nothing that `run` was changing is used after it.
fn contained<T>(
    place: &str,
    run: impl FnOnce() -> Result<T, ParquetError>,
) -> Result<T, DataError> {
    match contain(run) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(
            ParquetError::General(text) | ParquetError::NYI(text) | ParquetError::EOF(text),
        )) => Err(damaged(place, text)),
        Ok(Err(other)) => Err(damaged(place, other.to_string())),
        Err(_) => Err(damaged(
            place,
            "a page that contradicts the file's table of contents".to_owned(),
        )),
    }
}

fn damaged(place: &str, found: String) -> DataError {
    DataError::content(
        place,
        "Parquet, uncompressed or compressed with snappy, gzip or zstd",
        found,
        "the file is damaged or written as something else: write it again",
    )
}
