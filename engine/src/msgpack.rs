//! Reads MessagePack as the log and its snapshots hold it: what rmp-serde writes, into whatever type is asked for.
//!
//! It takes what rmp-serde's own decoder takes of that, and is built once: a type adds the calls for the shapes it can have. Theirs is
//! built anew for each of the several hundred types that an event and a state are made of, which was two fifths of what this
//! crate had to compile.

use std::fmt;

use rmp::Marker;
use serde::Deserializer;
use serde::de::{self, DeserializeSeed, Expected, MapAccess, SeqAccess, Unexpected, Visitor};

/// How deep values may lie in one another.
const DEPTH_MAX: u32 = 128;

/// What does not fit, in words.
#[derive(Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Error {
        Error(message.to_string())
    }
}

/// Reads one value that takes up all of `bytes`.
pub fn from_slice<'de, T: de::Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Error> {
    let mut reader = Reader { rest: bytes, depth: 0 };
    let value = T::deserialize(&mut reader)?;
    if reader.rest.is_empty() { Ok(value) } else { Err(Error("bytes follow its last field".into())) }
}

/// What is still to be read.
struct Reader<'de> {
    rest: &'de [u8],
    depth: u32,
}

/// A value, or the head of one that has parts.
enum Token<'de> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'de str),
    Bytes(&'de [u8]),
    Array(u32),
    Map(u32),
}

impl<'de> Reader<'de> {
    fn bytes(&mut self, n: usize) -> Result<&'de [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or_else(|| Error("it ends too early".into()))?;
        self.rest = rest;
        Ok(taken)
    }

    /// A big-endian number of so many bytes.
    fn number(&mut self, bytes: usize) -> Result<u64, Error> {
        Ok(self.bytes(bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn text(&mut self, n: usize) -> Result<Token<'de>, Error> {
        let text = std::str::from_utf8(self.bytes(n)?);
        text.map(Token::Text).map_err(|error| Error(format!("a text is not UTF-8: {error}")))
    }

    fn token(&mut self) -> Result<Token<'de>, Error> {
        let marker = Marker::from_u8(self.bytes(1)?[0]);
        Ok(match marker {
            Marker::Null => Token::Nil,
            Marker::False => Token::Bool(false),
            Marker::True => Token::Bool(true),
            Marker::FixPos(n) => Token::Unsigned(u64::from(n)),
            Marker::U8 => Token::Unsigned(self.number(1)?),
            Marker::U16 => Token::Unsigned(self.number(2)?),
            Marker::U32 => Token::Unsigned(self.number(4)?),
            Marker::U64 => Token::Unsigned(self.number(8)?),
            Marker::FixNeg(n) => Token::Signed(i64::from(n)),
            Marker::I8 => Token::Signed(i64::from(self.number(1)? as i8)),
            Marker::I16 => Token::Signed(i64::from(self.number(2)? as i16)),
            Marker::I32 => Token::Signed(i64::from(self.number(4)? as i32)),
            Marker::I64 => Token::Signed(self.number(8)? as i64),
            Marker::F32 => Token::Float(f64::from(f32::from_bits(self.number(4)? as u32))),
            Marker::F64 => Token::Float(f64::from_bits(self.number(8)?)),
            Marker::FixStr(n) => self.text(usize::from(n))?,
            Marker::Str8 | Marker::Str16 | Marker::Str32 => {
                let n = self.number(width(marker))?;
                self.text(n as usize)?
            }
            Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => {
                let n = self.number(width(marker))?;
                Token::Bytes(self.bytes(n as usize)?)
            }
            Marker::FixArray(n) => Token::Array(u32::from(n)),
            Marker::Array16 | Marker::Array32 => Token::Array(self.number(width(marker))? as u32),
            Marker::FixMap(n) => Token::Map(u32::from(n)),
            Marker::Map16 | Marker::Map32 => Token::Map(self.number(width(marker))? as u32),
            marker => return Err(Error(format!("a value has the marker {marker:?}, which is never stored"))),
        })
    }

    /// The parts of a value; [`Parts::leave`] when they have been read.
    fn enter(&mut self, n: u32) -> Result<Parts<'_, 'de>, Error> {
        if self.depth == DEPTH_MAX {
            return Err(Error(format!("it is more than {DEPTH_MAX} values deep")));
        }
        self.depth += 1;
        Ok(Parts { reader: self, left: n })
    }
}

/// Bytes of the length that follows a marker.
fn width(marker: Marker) -> usize {
    match marker {
        Marker::Str8 | Marker::Bin8 => 1,
        Marker::Str16 | Marker::Bin16 | Marker::Array16 | Marker::Map16 => 2,
        _ => 4,
    }
}

#[cold]
fn mismatch(found: Token, expected: &dyn Expected) -> Error {
    let found = match found {
        Token::Nil => Unexpected::Unit,
        Token::Bool(value) => Unexpected::Bool(value),
        Token::Unsigned(value) => Unexpected::Unsigned(value),
        Token::Signed(value) => Unexpected::Signed(value),
        Token::Float(value) => Unexpected::Float(value),
        Token::Text(value) => Unexpected::Str(value),
        Token::Bytes(value) => Unexpected::Bytes(value),
        Token::Array(_) => Unexpected::Seq,
        Token::Map(_) => Unexpected::Map,
    };
    de::Error::invalid_type(found, expected)
}

/// Hands the visitor the shapes that are listed, and refuses the others.
macro_rules! takes {
    ($($method:ident($($name:ident: $of:ty),*): $($shape:ident)+;)*) => {
        $(fn $method<V: Visitor<'de>>(self, $($name: $of,)* visitor: V) -> Result<V::Value, Error> {
            match self.token()? {
                $(takes!(@pattern $shape value) => takes!(@visit $shape self visitor value),)+
                #[allow(unreachable_patterns)]
                other => Err(mismatch(other, &visitor)),
            }
        })*
    };
    (@pattern Nil $value:ident) => { Token::Nil };
    (@pattern $shape:ident $value:ident) => { Token::$shape($value) };
    (@visit Nil $reader:ident $visitor:ident $value:ident) => { $visitor.visit_unit() };
    (@visit Bool $reader:ident $visitor:ident $value:ident) => { $visitor.visit_bool($value) };
    (@visit Unsigned $reader:ident $visitor:ident $value:ident) => { $visitor.visit_u64($value) };
    (@visit Signed $reader:ident $visitor:ident $value:ident) => { $visitor.visit_i64($value) };
    (@visit Float $reader:ident $visitor:ident $value:ident) => { $visitor.visit_f64($value) };
    (@visit Text $reader:ident $visitor:ident $value:ident) => { $visitor.visit_borrowed_str($value) };
    (@visit Bytes $reader:ident $visitor:ident $value:ident) => { $visitor.visit_borrowed_bytes($value) };
    (@visit Array $reader:ident $visitor:ident $value:ident) => {
        takes!(@parts $reader $visitor $value visit_seq)
    };
    (@visit Map $reader:ident $visitor:ident $value:ident) => {
        takes!(@parts $reader $visitor $value visit_map)
    };
    (@parts $reader:ident $visitor:ident $value:ident $visit:ident) => {{
        let mut parts = $reader.enter($value)?;
        let value = $visitor.$visit(&mut parts)?;
        parts.leave().map(|()| value)
    }};
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    fn is_human_readable(&self) -> bool {
        false
    }

    takes! {
        deserialize_any(): Nil Bool Unsigned Signed Float Text Bytes Array Map;
        deserialize_ignored_any(): Nil Bool Unsigned Signed Float Text Bytes Array Map;
        deserialize_bool(): Bool;
        deserialize_i8(): Unsigned Signed;
        deserialize_i16(): Unsigned Signed;
        deserialize_i32(): Unsigned Signed;
        deserialize_i64(): Unsigned Signed;
        deserialize_u8(): Unsigned Signed;
        deserialize_u16(): Unsigned Signed;
        deserialize_u32(): Unsigned Signed;
        deserialize_u64(): Unsigned Signed;
        deserialize_f32(): Float Unsigned Signed;
        deserialize_f64(): Float Unsigned Signed;
        deserialize_char(): Text;
        deserialize_str(): Text;
        deserialize_string(): Text;
        deserialize_identifier(): Text;
        deserialize_bytes(): Bytes Array;
        deserialize_byte_buf(): Bytes Array;
        deserialize_unit(): Nil;
        deserialize_seq(): Array;
        deserialize_tuple(_len: usize): Array;
        deserialize_tuple_struct(_name: &'static str, _len: usize): Array;
        deserialize_map(): Map;
        deserialize_struct(_name: &'static str, _fields: &'static [&'static str]): Map Array;
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.rest.first() == Some(&Marker::Null.to_u8()) {
            self.rest = &self.rest[1..];
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    /// Of a type without fields: written as an array of nothing.
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.token()? {
            Token::Nil | Token::Array(0) => visitor.visit_unit(),
            other => Err(mismatch(other, &visitor)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    /// The name of a case, or a map of its name to what it holds.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let before = self.rest;
        match self.token()? {
            Token::Text(_) => {
                self.rest = before;
                visitor.visit_enum(Case { reader: self, holds: false })
            }
            Token::Map(1) => visitor.visit_enum(Case { reader: self, holds: true }),
            other => Err(mismatch(other, &"the case of a choice")),
        }
    }
}

/// The parts of an array or a map that are still to be read.
struct Parts<'a, 'de> {
    reader: &'a mut Reader<'de>,
    left: u32,
}

impl Parts<'_, '_> {
    /// All of them have been read, or it is another value than was asked for.
    fn leave(self) -> Result<(), Error> {
        self.reader.depth -= 1;
        match self.left {
            0 => Ok(()),
            left => Err(Error(format!("{left} of its parts belong to nothing"))),
        }
    }

    /// More than there are bytes are never made room for.
    fn hint(&self) -> Option<usize> {
        Some((self.left as usize).min(self.reader.rest.len()))
    }
}

impl<'de> SeqAccess<'de> for &mut Parts<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'de> MapAccess<'de> for &mut Parts<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

/// A case of a choice, and whether it holds something.
struct Case<'a, 'de> {
    reader: &'a mut Reader<'de>,
    holds: bool,
}

impl<'a, 'de> de::EnumAccess<'de> for Case<'a, 'de> {
    type Error = Error;
    type Variant = Case<'a, 'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Case<'a, 'de>), Error> {
        let name = seed.deserialize(&mut *self.reader)?;
        Ok((name, self))
    }
}

impl<'a, 'de> Case<'a, 'de> {
    fn held(self) -> Result<&'a mut Reader<'de>, Error> {
        if self.holds {
            Ok(self.reader)
        } else {
            Err(Error("a case that holds something stands alone".into()))
        }
    }
}

impl<'de> de::VariantAccess<'de> for Case<'_, 'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.holds {
            true => de::Deserialize::deserialize(self.reader),
            false => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.held()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.held()?.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.held()?.deserialize_struct("", fields, visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Unit;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Id(String);

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Case {
        Alone,
        Holds(i32),
        Pair(u8, Option<Id>),
        Fields { a: bool, b: Vec<f64> },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    enum Tagged {
        One { n: u64 },
        Two,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct All {
        numbers: Vec<i64>,
        large: u64,
        text: String,
        none: Option<u8>,
        some: Option<Option<u8>>,
        map: BTreeMap<Id, (u16, char)>,
        cases: Vec<Case>,
        tagged: Vec<Tagged>,
        unit: Unit,
        nothing: (),
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        float: f64,
    }

    impl PartialOrd for Id {
        fn partial_cmp(&self, other: &Id) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }
    impl Eq for Id {}
    impl Ord for Id {
        fn cmp(&self, other: &Id) -> std::cmp::Ordering {
            self.0.cmp(&other.0)
        }
    }

    fn all() -> All {
        let edges = [0, 1, 127, 128, 255, 256, 65_535, 65_536, 1 << 31, (1 << 32) - 1, 1 << 32, i64::MAX];
        All {
            numbers: edges.iter().flat_map(|n| [*n, -*n, -*n - 1]).collect(),
            large: u64::MAX,
            text: "ä".repeat(40_000),
            none: None,
            some: Some(Some(7)),
            map: (0..20_u16).map(|i| (Id(format!("k{i}")), (i, 'ß'))).collect(),
            cases: vec![
                Case::Alone,
                Case::Holds(-9),
                Case::Pair(1, None),
                Case::Pair(2, Some(Id("x".into()))),
                Case::Fields { a: true, b: vec![0.1, -0.0, f64::MAX] },
            ],
            tagged: vec![Tagged::One { n: 5 }, Tagged::Two],
            unit: Unit,
            nothing: (),
            bytes: (0..=255).cycle().take(70_000).collect(),
            float: 1e-300,
        }
    }

    #[test]
    fn what_is_written_is_read_as_rmp_serde_reads_it() {
        let all = all();
        for written in [rmp_serde::to_vec_named(&all).unwrap(), rmp_serde::to_vec(&all).unwrap()] {
            assert_eq!(from_slice::<All>(&written).unwrap(), all);
            assert_eq!(rmp_serde::from_slice::<All>(&written).unwrap(), all);
        }
    }

    /// Cut off anywhere, with bytes after it, or with another one among them: an error or another value, never a panic.
    #[test]
    fn what_is_damaged_is_refused() {
        let written = rmp_serde::to_vec_named(&Case::Fields { a: false, b: vec![1.5, 2.5] }).unwrap();
        for end in 0..written.len() {
            assert!(from_slice::<Case>(&written[..end]).is_err(), "{end}");
        }
        let longer = [&written[..], &[0xc0]].concat();
        assert_eq!(from_slice::<Case>(&longer).unwrap_err().to_string(), "bytes follow its last field");
        for (i, byte) in (0..written.len()).flat_map(|i| (0..=255).map(move |byte| (i, byte))) {
            let mut changed = written.clone();
            changed[i] = byte;
            let _ = from_slice::<Case>(&changed);
        }
        // Heads that promise more than follows.
        for head in
            [&[0xdd, 0xff, 0xff, 0xff, 0xff][..], &[0xdb, 0xff, 0xff, 0xff, 0xff], &[0xc6, 0x7f, 0, 0, 0]]
        {
            assert!(from_slice::<Vec<u64>>(head).is_err() && from_slice::<String>(head).is_err());
        }
    }

    #[test]
    fn what_is_too_deep_is_refused() {
        let nested = |n: usize| [vec![0x91; n], vec![0xc0]].concat();
        assert!(from_slice::<de::IgnoredAny>(&nested(128)).is_ok());
        let error = from_slice::<de::IgnoredAny>(&nested(129)).unwrap_err().to_string();
        assert_eq!(error, "it is more than 128 values deep");
        let beside = [&[0xdc, 1, 0][..], &[0x90; 256]].concat();
        assert!(from_slice::<de::IgnoredAny>(&beside).is_ok());
    }

    #[test]
    fn what_has_another_shape_is_named() {
        let said = |bytes: &[u8]| from_slice::<BTreeMap<String, u8>>(bytes).unwrap_err().to_string();
        assert_eq!(said(&[0x91, 0x01]), "invalid type: sequence, expected a map");
        assert_eq!(said(&[0x81, 0xa1, b'a', 0xcd, 1, 0]), "invalid value: integer `256`, expected u8");
        let pair = from_slice::<(u8, u8)>(&[0x93, 1, 2, 3]).unwrap_err().to_string();
        assert_eq!(pair, "1 of its parts belong to nothing");
        assert_eq!(said(&[0xc1]), "a value has the marker Reserved, which is never stored");
    }
}
