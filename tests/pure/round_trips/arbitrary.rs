//! Any value of any type that serde can read, drawn from bytes: whatever is stored has such a type, so a new
//! kind, field or variant is tested as soon as it is there. When the bytes run out everything is empty or zero,
//! which ends recursion and lets proptest find short failures.
//!
//! What a type does not read is not drawn either: a field that only reading skips is for the tests with values
//! made by hand (`wire::events`, the real history here).

use std::fmt;

use serde::de::value::MapDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};

/// A value of `T`; `variant` chooses the outermost variant of an enum.
pub fn value<T: DeserializeOwned>(entropy: &[u8], variant: Option<usize>) -> T {
    T::deserialize(&mut Draw { entropy, variant }).expect("every type can be drawn")
}

struct Draw<'a> {
    entropy: &'a [u8],
    variant: Option<usize>,
}

#[derive(Debug)]
struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Error {
        Error(message.to_string())
    }
}

const TEXTS: [&str; 8] =
    ["", "a", "chat-1", "prompt@42", "\0\u{1b}]0;x\u{7}", "é\u{202e}ß", "𝛼,=\"'\\", "x.y_z"];

impl Draw<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.entropy.split_first().unwrap_or((&0, &[]));
        self.entropy = rest;
        *first
    }

    /// Below `n`.
    fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    /// Small, or at a border, or any.
    fn bits(&mut self) -> u64 {
        match self.below(4) {
            0 => u64::from(self.byte()),
            1 => u64::MAX >> self.below(64),
            2 => 1 << self.below(64),
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    fn float(&mut self) -> f64 {
        match self.below(4) {
            0 => f64::from(self.byte()) / 16.0,
            1 => -f64::from(self.byte()),
            2 => [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, f64::MIN_POSITIVE, 5e-324]
                [self.below(7)],
            _ => f64::from_bits(u64::from_le_bytes(std::array::from_fn(|_| self.byte()))),
        }
    }

    fn text(&mut self) -> String {
        match self.below(12) {
            11 => TEXTS[self.below(8)].repeat(self.below(40)),
            i => TEXTS[i % 8].to_owned(),
        }
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.bits() as $type)
        })*
    };
}

impl<'de> Deserializer<'de> for &mut Draw<'_> {
    type Error = Error;

    /// Only what is read by looking at a tag asks for anything: the reasons of a decision.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let (text, n) = (self.text(), self.bits());
        let forms = [
            ("guardrail", vec![("name", "g")]),
            ("samples", vec![("metric", "m"), ("have", ""), ("need", "")]),
            ("bake", vec![("left_ms", "")]),
            ("deadline", vec![("after_ms", "")]),
            ("approvals", vec![("have", "small"), ("need", "small")]),
            ("paused", vec![("by", "t")]),
            ("operator", vec![("by", "t"), ("reason", "t")]),
            ("actuator_rejected", vec![("actuator", "a"), ("why", "t")]),
            ("soak_over", vec![]),
            ("window", vec![("why", "t"), ("turns", "")]),
            ("frozen", vec![("service", "t"), ("by", "t"), ("reason", "t"), ("until", "")]),
            ("superseded", vec![("by", "t")]),
            ("segment", vec![("name", "t")]),
            ("not_applied", vec![("waiting", "as"), ("within_ms", "")]),
            ("condition", vec![("name", "t"), ("known", "bool")]),
            ("slice", vec![("name", "t")]),
            ("effective", vec![("to", "small"), ("canary", ""), ("requests", ""), ("shown", "yes")]),
            ("smoke", vec![("name", "t"), ("outcome", "none"), ("detail", "t"), ("within_ms", "")]),
        ];
        let (gate, fields) = &forms[self.below(forms.len())];
        let mut map = serde_json::Map::from_iter([("gate".to_owned(), (*gate).into())]);
        for (name, kind) in fields {
            let value = match *kind {
                "" => n.into(),
                "as" => serde_json::json!(["a"]),
                "bool" => (n % 2 == 1).into(),
                "yes" => (n % 2 == 1).into(),
                "none" => serde_json::Value::Null,
                "small" => (n % 256).into(),
                _ => serde_json::Value::from(text.clone()),
            };
            map.insert((*name).to_owned(), value);
        }
        let map = MapDeserializer::new(map.into_iter());
        visitor.visit_map(map).map_err(|error: serde_json::Error| Error(error.to_string()))
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    numbers! {
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u128(u128::from(self.bits()) << 64 | u128::from(self.bits()))
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_i128((u128::from(self.bits()) << 64 | u128::from(self.bits())) as i128)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.below(2) == 1)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_f32(self.float() as f32)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_f64(self.float())
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_char(self.text().chars().next().unwrap_or('x'))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.text())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.text())
    }

    /// A UUID asks for bytes, 16 of them.
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let bytes: [u8; 16] = std::array::from_fn(|_| self.byte());
        visitor.visit_bytes(&bytes)
    }

    /// A digest asks for a buffer, 32 bytes long; columns take any.
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_byte_buf((0..32).map(|_| self.byte()).collect())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.below(3) > 0 { visitor.visit_some(self) } else { visitor.visit_none() }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.below(4);
        visitor.visit_seq(Items { draw: self, left })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, left: usize, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { draw: self, left })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { draw: self, left })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.below(4);
        visitor.visit_map(Items { draw: self, left })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { draw: self, left: fields.len() })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let variant = self.variant.take().unwrap_or_else(|| self.below(variants.len()));
        visitor.visit_enum(Variant { draw: self, variant })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error("a name is never drawn".into()))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}

struct Items<'a, 'b> {
    draw: &'a mut Draw<'b>,
    left: usize,
}

impl Items<'_, '_> {
    fn next(&mut self) -> bool {
        let more = self.left > 0;
        self.left -= usize::from(more);
        more
    }
}

impl<'de> de::SeqAccess<'de> for Items<'_, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.next() { seed.deserialize(&mut *self.draw).map(Some) } else { Ok(None) }
    }
}

impl<'de> de::MapAccess<'de> for Items<'_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if self.next() { seed.deserialize(&mut *self.draw).map(Some) } else { Ok(None) }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(&mut *self.draw)
    }
}

struct Variant<'a, 'b> {
    draw: &'a mut Draw<'b>,
    variant: usize,
}

impl<'de> de::EnumAccess<'de> for Variant<'_, '_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let index = (self.variant as u32).into_deserializer();
        Ok((seed.deserialize::<de::value::U32Deserializer<Error>>(index)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, '_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.draw)
    }

    fn tuple_variant<V: Visitor<'de>>(self, left: usize, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { draw: self.draw, left })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { draw: self.draw, left: fields.len() })
    }
}
