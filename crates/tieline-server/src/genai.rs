//! The words of OpenTelemetry's conventions for generative AI: metrics and spans say the same.

/// Who answers, whatever model does.
pub(crate) const PROVIDER: &str = "tieline";

/// The conventions' name of an operation; ours where they have none.
pub(crate) fn operation(ours: &str) -> &str {
    match ours {
        "completion" | "generate" | "infill" => "text_completion",
        "embedding" | "embed" => "embeddings",
        "responses" | "messages" => "chat",
        other => other,
    }
}
