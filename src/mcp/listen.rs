//! The end of a subscription.

/// The event that ends the stream of a `subscriptions/listen` in good order, given the request's id
/// (2026-07-28, "Subscriptions"): its response, whose subscription is the request.
#[must_use]
pub fn listen_end(id: &[u8]) -> Vec<u8> {
    let mut event = b"event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":".to_vec();
    event.extend_from_slice(id);
    event.extend_from_slice(
        b",\"result\":{\"resultType\":\"complete\",\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":",
    );
    event.extend_from_slice(id);
    event.extend_from_slice(b"}}}\n\n");
    event
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn p_081_the_last_event_is_the_response() {
        for id in ["1", "\"a\\nb\"", "99999999999999999999"] {
            let event = String::from_utf8(listen_end(id.as_bytes())).expect("UTF-8");
            let data = event.strip_prefix("event: message\ndata: ").and_then(|rest| rest.strip_suffix("\n\n"));
            let id: Value = serde_json::from_str(id).expect("JSON");
            let expected = json!({"jsonrpc": "2.0", "id": id, "result": {"resultType": "complete",
                "_meta": {"io.modelcontextprotocol/subscriptionId": id}}});
            assert_eq!(serde_json::from_str::<Value>(data.expect("an event")).expect("JSON"), expected);
        }
    }
}
