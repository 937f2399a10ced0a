//! A YAML file as a tree: each value with its place, each scalar as it is written. Types are read from it.
//!
//! Two steps, because a YAML reader's own code, there once for every type of a grammar, was a fifth of all that the engine is
//! compiled to. Here it is there once, for [`File`].
//! Not here: what a file may contain as YAML, and the words for what is wrong (`yaml`).

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::slice::Iter;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::StrDeserializer;
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_saphyr::Spanned;

/// A place in a file: line and column from 1, both 0 where there is none; length in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub line: usize,
    pub column: usize,
    pub length: usize,
}

impl From<serde_saphyr::Location> for Place {
    fn from(at: serde_saphyr::Location) -> Place {
        let length = usize::try_from(at.span().len()).unwrap_or(1).max(1);
        Place { line: at.line() as usize, column: at.column() as usize, length }
    }
}

/// What a file without a single key is refused with.
pub const EMPTY: &str = "no keys";

/// A whole file: a map.
pub struct File(Tree);

struct Tree {
    place: Place,
    shape: Shape,
}

enum Shape {
    Nothing,
    Text(String),
    /// A number or a truth value: its bytes in the file, for `0x10` and `1.50` are to stay what they are.
    Written(Range<usize>),
    List(Vec<Tree>),
    Map(Vec<(Spanned<String>, Tree)>),
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<File, D::Error> {
        let shape = input.deserialize_map(AnyShape)?;
        // The reader takes nothing at all for a map without keys. Refused, it says so, and where.
        if matches!(&shape, Shape::Map(entries) if entries.is_empty()) {
            return Err(de::Error::custom(EMPTY));
        }
        Ok(File(Tree { place: Place { line: 1, column: 1, length: 1 }, shape }))
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Tree, D::Error> {
        let Spanned { value, referenced, defined } = Spanned::deserialize(input)?;
        let shape = match value {
            Shape::Written(_) => {
                let byte = |n: Option<u64>| usize::try_from(n?).ok();
                let range = byte(defined.span().byte_offset()).zip(byte(defined.span().byte_len()));
                let (from, length) = range.ok_or_else(|| de::Error::custom("a scalar without a place"))?;
                Shape::Written(from..from + length)
            }
            shape => shape,
        };
        Ok(Tree { place: referenced.into(), shape })
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Shape, D::Error> {
        input.deserialize_any(AnyShape)
    }
}

struct AnyShape;

impl<'de> Visitor<'de> for AnyShape {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Nothing)
    }

    fn visit_str<E>(self, text: &str) -> Result<Shape, E> {
        Ok(Shape::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Written(0..0))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Written(0..0))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Written(0..0))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Written(0..0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shape, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Shape::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Shape, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Shape::Map(map))
    }
}

/// Why a tree is not what a type describes, and where.
#[derive(Debug)]
pub struct Misfit {
    /// Nowhere until the map or item is left in which it was found.
    pub place: Place,
    pub why: Why,
}

#[derive(Debug)]
pub enum Why {
    Unknown { key: String, known: &'static [&'static str] },
    Missing(&'static str),
    Other(String),
}

impl Misfit {
    fn new(place: Place, why: &str) -> Misfit {
        Misfit { place, why: Why::Other(why.to_owned()) }
    }

    fn at(self, place: Place) -> Misfit {
        if self.place == Place::default() { Misfit { place, ..self } } else { self }
    }
}

impl std::error::Error for Misfit {}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.why)
    }
}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(why: T) -> Misfit {
        Misfit { place: Place::default(), why: Why::Other(why.to_string()) }
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Misfit {
        Misfit { place: Place::default(), why: Why::Unknown { key: key.to_owned(), known } }
    }

    fn missing_field(key: &'static str) -> Misfit {
        Misfit { place: Place::default(), why: Why::Missing(key) }
    }
}

impl File {
    /// What this is as a `T`. `file` is the text it was read from.
    pub fn read<T: de::DeserializeOwned>(&self, file: &str) -> Result<T, Misfit> {
        T::deserialize(Reader { tree: &self.0, file })
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    tree: &'a Tree,
    file: &'a str,
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let Reader { tree: Tree { place, shape }, file } = self;
        match shape {
            Shape::Nothing => visitor.visit_unit(),
            Shape::Text(text) => visitor.visit_str(text),
            Shape::Written(bytes) => visitor.visit_str(&file[bytes.clone()]),
            Shape::List(items) => visitor.visit_seq(Items { items: items.iter(), file }),
            Shape::Map(entries) => {
                let mut entries = Entries { entries: entries.iter(), value: None, file, place: *place };
                visitor.visit_map(&mut entries).map_err(|misfit| misfit.at(entries.place))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.tree.shape {
            Shape::Nothing => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.tree.shape {
            Shape::Text(_) | Shape::Written(_) => self.deserialize_any(visitor),
            Shape::Nothing => Err(Misfit::new(self.tree.place, "the value is missing")),
            Shape::List(_) | Shape::Map(_) => {
                Err(Misfit::new(self.tree.place, "expected a single value, not a list or map"))
            }
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_string(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.tree.shape {
            Shape::List(_) => self.deserialize_any(visitor),
            _ => Err(Misfit::new(self.tree.place, "expected a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.tree.shape {
            Shape::Map(_) => self.deserialize_any(visitor),
            _ => Err(Misfit::new(self.tree.place, "expected a map of keys and values")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.deserialize_map(visitor)
    }

    /// Asked for by [`At`] alone.
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let Place { line, column, length } = self.tree.place;
        visitor.visit_seq(PlaceFirst { place: [line, column, length].iter(), value: Some(self) })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf
        unit unit_struct tuple tuple_struct enum identifier ignored_any
    }
}

struct Items<'a> {
    items: Iter<'a, Tree>,
    file: &'a str,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misfit> {
        let Some(tree) = self.items.next() else { return Ok(None) };
        seed.deserialize(Reader { tree, file: self.file }).map(Some).map_err(|misfit| misfit.at(tree.place))
    }
}

struct Entries<'a> {
    entries: Iter<'a, (Spanned<String>, Tree)>,
    /// Of the key that was handed out last.
    value: Option<&'a Tree>,
    file: &'a str,
    /// Of that key, at first the map's: what is wrong and has no place of its own is shown there.
    place: Place,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misfit> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        self.place = key.referenced.into();
        let name: StrDeserializer<'_, Misfit> = key.value.as_str().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        let tree = self.value.take().expect("a value is asked for after its key");
        seed.deserialize(Reader { tree, file: self.file })
    }
}

/// A value, and where it is. Read from a [`File`] only.
pub struct At<T> {
    pub value: T,
    pub place: Place,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<At<T>, D::Error> {
        struct Parts<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Parts<T> {
            type Value = At<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value of a tree")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<At<T>, A::Error> {
                let mut number = || parts.next_element()?.ok_or_else(|| de::Error::custom("no place"));
                let place = Place { line: number()?, column: number()?, length: number()? };
                let value = parts.next_element()?.ok_or_else(|| de::Error::custom("no value"))?;
                Ok(At { value, place })
            }
        }
        input.deserialize_newtype_struct("At", Parts(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Line, column and length, and then the value itself.
struct PlaceFirst<'a, 'p> {
    place: Iter<'p, usize>,
    value: Option<Reader<'a>>,
}

impl<'de> SeqAccess<'de> for PlaceFirst<'_, '_> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misfit> {
        if let Some(number) = self.place.next() {
            return seed.deserialize(number.into_deserializer()).map(Some);
        }
        self.value.take().map(|value| seed.deserialize(value)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_scalar_is_what_was_written_and_stands_where_it_is_used() {
        let text = "a: &x 1.50\nb: *x\nc: '7'\nd: 0x10\ne: &y [true]\nf: *y\n";
        let file: File = serde_saphyr::from_str(text).unwrap();
        let read: BTreeMap<String, At<serde_json::Value>> = file.read(text).unwrap();
        let said = read.values().map(|at| format!("{}:{} {}", at.place.line, at.place.column, at.value));
        let expected =
            ["1:7 \"1.50\"", "2:4 \"1.50\"", "3:4 \"7\"", "4:4 \"0x10\"", "5:7 [\"true\"]", "6:4 [\"true\"]"];
        assert_eq!(said.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_file_without_a_key_is_empty_however_it_says_so() {
        for text in ["{}", "", "# nothing\n"] {
            let refused = serde_saphyr::from_str::<File>(text).err().expect("refused").to_string();
            assert!(refused.contains(EMPTY) || refused.contains("end of"), "{text:?}: {refused}");
        }
    }
}
