//! What all wire types share: the macro that declares them, and Go's notions of zero and null.
use std::fmt;
use std::ops::Deref;

use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Declares a wire struct with public fields; every field may be missing or `null` on input.
///
/// `name: T` is always written; `name?: T` is an `Option<T>` left out when `None`; `name!: T` is
/// left out when it is `T`'s zero value (Go's `omitempty`); the fields of `flatten name: T` lie at
/// the same level. `pub struct` renames fields to
/// PascalCase, `pub snake struct` keeps them as they are.
macro_rules! wire {
    ($(#[$m:meta])* pub struct $n:ident { $($body:tt)* }) => {
        wire!(@ [$(#[$m])* #[serde(rename_all = "PascalCase")]] $n [] $($body)*);
    };
    ($(#[$m:meta])* pub snake struct $n:ident { $($body:tt)* }) => {
        wire!(@ [$(#[$m])*] $n [] $($body)*);
    };
    (@ [$($m:tt)*] $n:ident [$($out:tt)*]) => {
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        $($m)*
        pub struct $n { $($out)* }
    };
    (@ $m:tt $n:ident [$($out:tt)*] $(#[$f:meta])* flatten $field:ident : $ty:ty, $($rest:tt)*) => {
        wire!(@ $m $n [$($out)* $(#[$f])* #[serde(flatten)] pub $field: $ty,] $($rest)*);
    };
    (@ $m:tt $n:ident [$($out:tt)*] $(#[$f:meta])* $field:ident ?: $ty:ty, $($rest:tt)*) => {
        wire!(@ $m $n [$($out)* $(#[$f])*
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub $field: Option<$ty>,] $($rest)*);
    };
    (@ $m:tt $n:ident [$($out:tt)*] $(#[$f:meta])* $field:ident !: $ty:ty, $($rest:tt)*) => {
        wire!(@ $m $n [$($out)* $(#[$f])*
            #[serde(default, deserialize_with = "crate::wire::null_is_zero",
                    skip_serializing_if = "crate::wire::is_zero")]
            pub $field: $ty,] $($rest)*);
    };
    (@ $m:tt $n:ident [$($out:tt)*] $(#[$f:meta])* $field:ident : $ty:ty, $($rest:tt)*) => {
        wire!(@ $m $n [$($out)* $(#[$f])*
            #[serde(default, deserialize_with = "crate::wire::null_is_zero")]
            pub $field: $ty,] $($rest)*);
    };
}

/// Reads `null` as the zero value.
pub(crate) fn null_is_zero<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Whether a field is left out under `omitempty`.
pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Go's `struct{}`: the value of a set's members, written `{}`, read from anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Empty {}

impl<'de> Deserialize<'de> for Empty {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer)?;
        Ok(Self {})
    }
}

/// A list of strings that may be written as one string (`Cmd`, `Entrypoint`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct StrSlice(pub Vec<String>);

impl Deref for StrSlice {
    type Target = Vec<String>;

    fn deref(&self) -> &Vec<String> {
        &self.0
    }
}

impl From<Vec<String>> for StrSlice {
    fn from(list: Vec<String>) -> Self {
        Self(list)
    }
}

impl From<StrSlice> for Vec<String> {
    fn from(list: StrSlice) -> Self {
        list.0
    }
}

impl<'de> Deserialize<'de> for StrSlice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringOrList;
        impl<'de> Visitor<'de> for StringOrList {
            type Value = StrSlice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E>(self, one: &str) -> Result<StrSlice, E> {
                Ok(StrSlice(vec![one.to_owned()]))
            }

            fn visit_unit<E>(self) -> Result<StrSlice, E> {
                Ok(StrSlice::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<StrSlice, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element::<String>()? {
                    list.push(item);
                }
                Ok(StrSlice(list))
            }
        }
        deserializer.deserialize_any(StringOrList)
    }
}
