//! Bytes in JSON: as text if they are UTF-8, and in base64 otherwise.
//!
//! `#[serde(with = "crate::wire")]` is for fields that are such bytes, a list of them, or optional
//! ones.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Bytes as they are written: text, or an object with base64.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum Bytes {
    Text(String),
    Base64 { base64: String },
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Base64 {
                base64: STANDARD.encode(error.as_bytes()),
            },
        }
    }
}

impl TryFrom<Bytes> for Vec<u8> {
    type Error = base64::DecodeError;

    fn try_from(bytes: Bytes) -> Result<Self, Self::Error> {
        match bytes {
            Bytes::Text(text) => Ok(text.into_bytes()),
            Bytes::Base64 { base64 } => STANDARD.decode(base64),
        }
    }
}

/// A value that is bytes or contains bytes, and its form in JSON.
pub trait Wire: Sized {
    type Form: Serialize + DeserializeOwned;

    fn form(self) -> Self::Form;
    fn of(form: Self::Form) -> Result<Self, base64::DecodeError>;
}

impl Wire for Vec<u8> {
    type Form = Bytes;

    fn form(self) -> Bytes {
        self.into()
    }

    fn of(form: Bytes) -> Result<Self, base64::DecodeError> {
        form.try_into()
    }
}

impl Wire for OsString {
    type Form = Bytes;

    fn form(self) -> Bytes {
        self.into_vec().into()
    }

    fn of(form: Bytes) -> Result<Self, base64::DecodeError> {
        form.try_into().map(Self::from_vec)
    }
}

impl Wire for PathBuf {
    type Form = Bytes;

    fn form(self) -> Bytes {
        self.into_os_string().form()
    }

    fn of(form: Bytes) -> Result<Self, base64::DecodeError> {
        OsString::of(form).map(Self::from)
    }
}

impl<T: Wire> Wire for Option<T> {
    type Form = Option<T::Form>;

    fn form(self) -> Self::Form {
        self.map(T::form)
    }

    fn of(form: Self::Form) -> Result<Self, base64::DecodeError> {
        form.map(T::of).transpose()
    }
}

impl<T: Wire> Wire for Vec<T> {
    type Form = Vec<T::Form>;

    fn form(self) -> Self::Form {
        self.into_iter().map(T::form).collect()
    }

    fn of(form: Self::Form) -> Result<Self, base64::DecodeError> {
        form.into_iter().map(T::of).collect()
    }
}

pub fn serialize<T: Wire + Clone, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value.clone().form().serialize(serializer)
}

pub fn deserialize<'de, T: Wire, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::of(T::Form::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Values {
        #[serde(with = "super")]
        one: Vec<u8>,
        #[serde(with = "super")]
        more: Vec<OsString>,
        #[serde(with = "super")]
        maybe: Option<PathBuf>,
    }

    #[test]
    fn text_stays_readable_and_other_bytes_are_in_base64() {
        let values = Values {
            one: b"text".into(),
            more: vec![OsString::from_vec(b"\xff".into())],
            maybe: None,
        };
        let json = r#"{"one":"text","more":[{"base64":"/w=="}],"maybe":null}"#;
        assert_eq!(serde_json::to_string(&values).unwrap(), json);
        assert_eq!(serde_json::from_str::<Values>(json).unwrap(), values);
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(one: Vec<u8>, more: Vec<Vec<u8>>, maybe: Option<Vec<u8>>) {
            let values = Values {
                one,
                more: more.into_iter().map(OsString::from_vec).collect(),
                maybe: maybe.map(|bytes| OsString::from_vec(bytes).into()),
            };
            let json = serde_json::to_string(&values).unwrap();
            prop_assert_eq!(serde_json::from_str::<Values>(&json).unwrap(), values);
        }
    }
}
