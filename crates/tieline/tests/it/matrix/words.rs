//! What vendors read in a request, by the members of their protocols.

use serde_json::{Value, json};

use super::town::{Backend, Speech};

/// A request as a vendor reads it.
pub(crate) struct Words<'a> {
    backend: &'a Backend,
    body: &'a Value,
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Arguments that are an object, or its text.
fn object(value: &Value) -> Value {
    match value {
        Value::String(text) => serde_json::from_str(text).unwrap(),
        other => other.clone(),
    }
}

impl<'a> Words<'a> {
    pub(crate) fn new(backend: &'a Backend, body: &'a Value) -> Self {
        Self { backend, body }
    }

    fn turns(&self) -> &'a [Value] {
        match self.backend.speech {
            Speech::OpenAi | Speech::Anthropic | Speech::Ollama => list(&self.body["messages"]),
            Speech::Responses => list(&self.body["input"]),
            Speech::Gemini => list(&self.body["contents"]),
        }
    }

    /// The instructions.
    pub(crate) fn system(&self) -> String {
        match self.backend.speech {
            Speech::OpenAi | Speech::Ollama => {
                let mut turns = self.turns().iter();
                turns
                    .find(|turn| turn["role"] == "system")
                    .map_or_else(String::new, |turn| string(&turn["content"]))
            }
            Speech::Responses => string(&self.body["instructions"]),
            Speech::Anthropic => string(&self.body["system"][0]["text"]),
            Speech::Gemini => string(&self.body["systemInstruction"]["parts"][0]["text"]),
        }
    }

    /// What the person says first.
    pub(crate) fn question(&self) -> String {
        if let Value::String(prompt) = &self.body["prompt"] {
            return prompt.clone();
        }
        let turn = self.turns().iter().find(|turn| turn["role"] == "user").unwrap();
        match (&turn["content"], self.backend.speech) {
            (_, Speech::Gemini) => {
                let mut parts = list(&turn["parts"]).iter();
                string(&parts.find(|part| part["text"].is_string()).unwrap()["text"])
            }
            (Value::String(text), _) => text.clone(),
            (blocks, _) => {
                let mut texts = list(blocks).iter();
                string(&texts.find(|block| block["text"].is_string()).unwrap()["text"])
            }
        }
    }

    /// The pictures, in the vendor's words: each as one URL, and which tool's result it is in.
    pub(crate) fn pictures(&self) -> Vec<String> {
        let inline =
            |kind: &Value, data: &Value| format!("data:{};base64,{}", string(kind), string(data));
        let picture = |part: &Value| match self.backend.speech {
            Speech::OpenAi => part["image_url"]["url"].as_str().map(str::to_owned),
            Speech::Responses => part["image_url"].as_str().map(str::to_owned),
            Speech::Anthropic => {
                let source = &part["source"];
                match source["type"].as_str()? {
                    "url" => Some(string(&source["url"])),
                    _ => Some(inline(&source["media_type"], &source["data"])),
                }
            }
            Speech::Gemini => {
                let data = part.get("inlineData")?;
                Some(inline(&data["mimeType"], &data["data"]))
            }
            Speech::Ollama => part.as_str().map(|data| inline(&json!("image/png"), &json!(data))),
        };
        let members = match self.backend.speech {
            Speech::Gemini => ["parts", "parts"],
            Speech::Ollama => ["images", "images"],
            Speech::Responses => ["content", "output"],
            Speech::OpenAi | Speech::Anthropic => ["content", "content"],
        };
        let mut all = Vec::new();
        for turn in self.turns() {
            let member =
                if turn["type"] == "function_call_output" { members[1] } else { members[0] };
            for part in list(&turn[member]) {
                all.extend(picture(part));
                // A result among other blocks.
                all.extend(list(&part["content"]).iter().filter_map(picture));
            }
        }
        all
    }

    /// The tools' names and the schemas of their arguments.
    pub(crate) fn tools(&self) -> Vec<(String, Value)> {
        let tools = &self.body["tools"];
        let told = match self.backend.speech {
            Speech::Gemini => list(&tools[0]["functionDeclarations"]),
            _ => list(tools),
        };
        let told = told.iter().map(|tool| match self.backend.speech {
            Speech::OpenAi | Speech::Ollama => {
                (string(&tool["function"]["name"]), tool["function"]["parameters"].clone())
            }
            Speech::Responses => (string(&tool["name"]), tool["parameters"].clone()),
            Speech::Anthropic => (string(&tool["name"]), tool["input_schema"].clone()),
            Speech::Gemini => (string(&tool["name"]), tool["parametersJsonSchema"].clone()),
        });
        told.collect()
    }

    /// Earlier calls and what came of each: the names, the arguments and the results, as they belong together.
    pub(crate) fn calls(&self) -> Vec<(String, Value, String)> {
        match self.backend.speech {
            Speech::OpenAi | Speech::Ollama => self.chat_calls(),
            Speech::Responses => self.items(),
            Speech::Anthropic => self.blocks(),
            Speech::Gemini => self.parts(),
        }
    }

    fn chat_calls(&self) -> Vec<(String, Value, String)> {
        let calls = self.turns().iter().flat_map(|turn| list(&turn["tool_calls"]));
        let result = |id: &Value| {
            let mut turns = self.turns().iter();
            let found = turns.find(|turn| turn["role"] == "tool" && turn["tool_call_id"] == *id);
            string(&found.unwrap()["content"])
        };
        let told = calls.map(|call| {
            let function = &call["function"];
            (string(&function["name"]), object(&function["arguments"]), result(&call["id"]))
        });
        told.collect()
    }

    fn items(&self) -> Vec<(String, Value, String)> {
        let of = |kind: &'static str| self.turns().iter().filter(move |item| item["type"] == kind);
        let result = |id: &Value| {
            let found = of("function_call_output").find(|item| item["call_id"] == *id);
            string(&found.unwrap()["output"])
        };
        let told = of("function_call").map(|call| {
            (string(&call["name"]), object(&call["arguments"]), result(&call["call_id"]))
        });
        told.collect()
    }

    fn blocks(&self) -> Vec<(String, Value, String)> {
        let blocks = || self.turns().iter().flat_map(|turn| list(&turn["content"]));
        let result = |id: &Value| {
            let found = blocks().find(|block| block["tool_use_id"] == *id);
            string(&found.unwrap()["content"])
        };
        let calls = blocks().filter(|block| block["type"] == "tool_use");
        let told =
            calls.map(|call| (string(&call["name"]), call["input"].clone(), result(&call["id"])));
        told.collect()
    }

    /// By order, as this vendor reads them.
    fn parts(&self) -> Vec<(String, Value, String)> {
        let of = |kind: &'static str| {
            let parts = self.turns().iter().flat_map(|turn| list(&turn["parts"]));
            parts.map(move |part| &part[kind]).filter(|part| part.is_object())
        };
        let told = of("functionCall").zip(of("functionResponse")).map(|(call, result)| {
            assert_eq!((&call["name"], &call["id"]), (&result["name"], &result["id"]));
            let output = string(&result["response"]["output"]);
            (string(&call["name"]), call["args"].clone(), output)
        });
        told.collect()
    }

    /// The schema of the answer.
    pub(crate) fn schema(&self) -> Value {
        match self.backend.speech {
            Speech::OpenAi => self.body["response_format"]["json_schema"]["schema"].clone(),
            Speech::Responses => self.body["text"]["format"]["schema"].clone(),
            Speech::Anthropic => self.body["output_config"]["format"]["schema"].clone(),
            Speech::Gemini => self.body["generationConfig"]["responseJsonSchema"].clone(),
            Speech::Ollama => self.body["format"].clone(),
        }
    }

    /// The stop texts.
    pub(crate) fn stops(&self) -> Value {
        match self.backend.speech {
            Speech::OpenAi | Speech::Responses => self.body["stop"].clone(),
            Speech::Anthropic => self.body["stop_sequences"].clone(),
            Speech::Gemini => self.body["generationConfig"]["stopSequences"].clone(),
            Speech::Ollama => self.body["options"]["stop"].clone(),
        }
    }

    /// Whether it is to think; `None`: nothing is said of it.
    pub(crate) fn thinks(&self) -> Option<bool> {
        let body = self.body;
        let words = [
            &body["reasoning_effort"],
            &body["reasoning"]["enabled"],
            &body["reasoning"]["effort"],
            &body["thinking"]["type"],
            &body["chat_template_kwargs"]["enable_thinking"],
            &body["think"],
            &body["generationConfig"]["thinkingConfig"]["includeThoughts"],
            &body["generationConfig"]["thinkingConfig"]["thinkingBudget"],
        ];
        let said = words.into_iter().find(|word| !word.is_null())?;
        Some(![json!(false), json!("none"), json!("disabled"), json!(0)].contains(said))
    }
}
