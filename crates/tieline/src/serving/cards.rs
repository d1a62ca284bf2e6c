//! What models are: the store's facts, and those of their files' headers, which are read once.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value as Json;
use tieline_store::gguf::Value;
use tieline_store::{Gguf, Model, Store};
use tieline_types::{Abilities, BackendError, Digest, ErrorKind, ModelCard, ModelDetails};

use super::{abilities, errors};
use crate::composed::Found;

/// The template is told apart from the other entries.
const TEMPLATE: &str = "tokenizer.chat_template";

/// Pairs of models and adapters that are remembered.
const REMEMBERED: usize = 4096;

/// What a file's header says.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) abilities: Abilities,
    embedding_length: Option<u32>,
    template: Option<String>,
    metadata: Vec<(String, String)>,
}

/// Headers by what files hold: a file that holds something else is another.
#[derive(Debug)]
pub(super) struct Cards {
    store: Store,
    headers: Arc<Mutex<HashMap<Digest, Arc<Header>>>>,
    /// Models and adapters that were found to go together.
    fitting: Arc<Mutex<HashSet<(Digest, Digest)>>>,
}

impl Clone for Cards {
    /// Another hand on the same headers.
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            headers: Arc::clone(&self.headers),
            fitting: Arc::clone(&self.fitting),
        }
    }
}

impl Cards {
    pub(super) fn new(store: Store) -> Self {
        Self { store, headers: Arc::default(), fitting: Arc::default() }
    }

    /// Those of all models whose file can be used. Reads files.
    pub(super) fn all(&self) -> Result<Vec<ModelCard>, BackendError> {
        let models = self.store.list().map_err(errors::db)?;
        self.headers().retain(|digest, _| models.iter().any(|model| model.digest == *digest));
        // Who asks for a model asks for none that answers nothing.
        let here = models.iter().filter(|model| !model.missing && !model.is_adapter);
        // One that is damaged hides no other.
        Ok(here.filter_map(|model| Some(card(model, &*self.header(model).ok()?))).collect())
    }

    /// Whether adapters go with their model. Reads the files' headers the first time.
    pub(super) fn fit(&self, found: &Found) -> Result<(), BackendError> {
        let pairs = || found.adapters.iter().map(|(one, _)| (found.base.digest, one.digest));
        let fitting = || self.fitting.lock().unwrap_or_else(PoisonError::into_inner);
        if pairs().all(|pair| fitting().contains(&pair)) {
            return Ok(());
        }
        found.check(&self.store).map_err(errors::composed)?;
        let mut known = fitting();
        if known.len() > REMEMBERED {
            known.clear();
        }
        known.extend(pairs());
        Ok(())
    }

    /// One in detail. Reads its file.
    pub(super) fn details(&self, model: &Model) -> Result<ModelDetails, BackendError> {
        let header = self.header(model)?;
        Ok(ModelDetails {
            card: card(model, &header),
            template: header.template.clone(),
            metadata: header.metadata.clone(),
        })
    }

    /// What a model's file says of it. Reads it the first time.
    pub(super) fn header(&self, model: &Model) -> Result<Arc<Header>, BackendError> {
        let known = self.headers().get(&model.digest).cloned();
        if let Some(header) = known {
            return Ok(header);
        }
        let header = Arc::new(self.read(model)?);
        self.headers().insert(model.digest, Arc::clone(&header));
        Ok(header)
    }

    fn read(&self, model: &Model) -> Result<Header, BackendError> {
        let path = self.store.open_model(model).map_err(errors::file)?.path;
        let unreadable = |why: String| {
            let text = format!("cannot read the header of {}: {why}", model.name);
            BackendError::new(ErrorKind::BadModel, text)
        };
        let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
        let gguf = Gguf::read(file).map_err(|error| unreadable(error.to_string()))?;
        Ok(Header::from(&gguf))
    }

    fn headers(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Header>>> {
        self.headers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<&Gguf> for Header {
    fn from(gguf: &Gguf) -> Self {
        let length = gguf.architecture().map(|name| format!("{name}.embedding_length"));
        let length = length.and_then(|key| gguf.metadata.get(&key)?.as_u64());
        let entries = gguf.metadata.iter().filter(|(key, _)| *key != TEMPLATE);
        let texts = entries.filter_map(|(key, value)| Some((key.to_owned(), json(value)?)));
        Self {
            abilities: abilities::abilities(gguf),
            embedding_length: length.and_then(|length| u32::try_from(length).ok()),
            template: gguf.chat_template().map(str::to_owned),
            metadata: texts.map(|(key, value)| (key, value.to_string())).collect(),
        }
    }
}

fn card(model: &Model, header: &Header) -> ModelCard {
    ModelCard {
        name: model.name.clone(),
        digest: model.digest,
        size: model.size,
        source: model.source.clone(),
        licence: model.licence.clone(),
        architecture: model.architecture.clone(),
        quantisation: model.quantisation.clone(),
        parameters: model.parameters,
        context_length: model.context_length,
        embedding_length: header.embedding_length,
        created_at_unix_s: model.pulled_at_unix_s,
        abilities: header.abilities,
    }
}

/// A value as JSON; `None` for a long list, and for a number that JSON has no word for.
fn json(value: &Value) -> Option<Json> {
    let json = match value {
        Value::U8(number) => (*number).into(),
        Value::I8(number) => (*number).into(),
        Value::U16(number) => (*number).into(),
        Value::I16(number) => (*number).into(),
        Value::U32(number) => (*number).into(),
        Value::I32(number) => (*number).into(),
        Value::U64(number) => (*number).into(),
        Value::I64(number) => (*number).into(),
        // By its shortest text: 0.1 is not to become 0.10000000149011612.
        Value::F32(number) => serde_json::from_str(&number.to_string()).ok()?,
        Value::F64(number) => serde_json::Number::from_f64(*number)?.into(),
        Value::Bool(yes) => (*yes).into(),
        Value::String(text) => text.as_str().into(),
        Value::Array(values) => values.iter().map(json).collect::<Option<Vec<Json>>>()?.into(),
        _ => return None,
    };
    Some(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_json_where_json_has_a_word_for_them() {
        let text = |value| json(&value).map(|json| json.to_string());
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(text(Value::F32(0.1)), some("0.1"));
        assert_eq!(text(Value::F32(1e-6)), some("1e-6"));
        assert_eq!(text(Value::F32(f32::NAN)), None);
        assert_eq!(text(Value::F64(f64::INFINITY)), None);
        assert_eq!(text(Value::String("a\"b".to_owned())), some(r#""a\"b""#));
        let list = Value::Array(vec![Value::Bool(true), Value::I8(-1)]);
        assert_eq!(text(list), some("[true,-1]"));
        let long = Value::Skipped { element: tieline_store::gguf::ValueType::U8, length: 9 };
        assert_eq!(text(long.clone()), None);
        assert_eq!(text(Value::Array(vec![long])), None);
    }
}
