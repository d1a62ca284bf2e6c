//! Rules of the answer that several dialects know.

use serde_json::Value;
use tieline_types::Constraint;

use crate::error::ApiError;

/// JSON of this schema; an empty schema, or one that says nothing but "object", is any JSON object.
pub(crate) fn schema(param: &str, schema: &Value) -> Result<Constraint, ApiError> {
    if !schema.is_object() {
        return Err(ApiError::invalid(
            param,
            format!("{param} is no JSON schema: expected an object"),
        ));
    }
    Ok(Constraint::JsonSchema(schema.to_string()))
}
