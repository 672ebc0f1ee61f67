//! The identity of a run: everything that its results depend on.

use serde_json::{Value, json};

use crate::model::Source;
use crate::session::Session;

/// Returns the identity of a run of a command that generates its prompts. `settings` is an object
/// with the command's own arguments.
pub(crate) fn identity(command: &str, session: &Session, source: &Source, settings: Value) -> anyhow::Result<Value> {
    let mut run = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "command": command,
        "model": source.files.versions()?,
        "tokenizer": source.tokenizer_sha256()?,
        "bos": source.bos(),
        "processed weights": source.is_processed(),
        "device": session.device().to_string(),
    });
    if let (Value::Object(run), Value::Object(settings)) = (&mut run, settings) {
        run.extend(settings);
    }
    Ok(run)
}
