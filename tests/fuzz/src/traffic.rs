//! Pieces of real traffic, so that a fuzzer need not find HTTP by chance.

/// What clients send. An `#` stands for a digit that counts requests.
pub const REQUESTS: [&str; 22] = [
    "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-request-id: ####\r\ncontent-length: 45\r\n\r\n",
    r#"{"model":"asked","messages":[],"stream":true}"#,
    "POST /v1/completions HTTP/1.1\r\nx-request-id: ####\r\ncontent-length: 17\r\n\r\n{\"model\":\"asked\"}",
    "POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
    "9\r\n{\"model\":\r\n",
    "8\r\n\"asked\"}\r\n",
    "0\r\n\r\n",
    "GET /health HTTP/1.1\r\n\r\n",
    "POST /v1/completions HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n",
    "{}",
    "POST /v1/completions HTTP/1.1\r\n\r\n",
    "P",
    "OST /v1/completions HTTP/1.1\r\n\r\n",
    "CONNECT a:1 HTTP/1.1\r\n\r\n",
    "HEAD /v1/completions HTTP/1.1\r\n\r\n",
    "\u{16}\u{3}\u{1}",
    "POST /v1/completions HTTP/1.1\r\ncontent-encoding: gzip\r\ncontent-length: 100000\r\n\r\n",
    "GET /v1/realtime HTTP/1.1\r\nupgrade: websocket\r\n\r\n",
    "POST /api/chat HTTP/1.1\r\ncontent-length: 13\r\n\r\n{\"model\":\"m\"}",
    "POST /generate HTTP/1.1\r\ncontent-length: 12\r\n\r\n{\"text\":\"x\"}",
    "POST /v1/responses HTTP/1.1\r\ncontent-length: 13\r\n\r\n{\"input\":\"x\"}",
    "POST /v1/messages HTTP/1.1\r\ncontent-length: 16\r\n\r\n{\"max_tokens\":1}",
];

/// What servers send.
pub const RESPONSES: [&str; 36] = [
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    "3e\r\ndata: {\"model\":\"served\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n",
    "2\r\n\n\n\r\n",
    "40\r\ndata: {\"model\":\"served\",\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\n\n\r\n",
    "42\r\ndata: {\"model\":\"served\",\"choices\":[{\"delta\":{\"reasoning\":\"c\"}}]}\n\n\r\n",
    "2e\r\ndata: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n\r\n",
    "42\r\ndata: {\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4},\"x\":\"yy\"}\r\n",
    "e\r\ndata: [DONE]\n\n\r\n",
    "0\r\n\r\n",
    "8\r\n: ping\n\n\r\n",
    "1c\r\nevent: error\ndata: {\"a\":1}\n\n\r\n",
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
    "data: {\"choices\":[{\"text\":\"a\"}]}\n\n",
    "data: {\"error\":{}}\n\n",
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 96\r\n\r\n",
    "{\"model\":\"served\",\"choices\":[{\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3},\"xxxxxxxx\":1}",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n",
    "HTTP/1.1 2",
    "00 OK\r\n\r\n",
    "data: x",
    "\n\n",
    "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n",
    "{\"model\":\"m\",\"message\":{\"content\":\"a\"},\"done\":false}\n",
    "{\"done\":true,\"done_reason\":\"stop\",\"eval_count\":3}\n",
    "data: {\"text\":\"a a\",\"meta_info\":{\"completion_tokens\":2},\"index\":0}\n\n",
    "data: {\"text\":\"a a a\",\"meta_info\":{\"completion_tokens\":3},\"index\":1}\n\n",
    "data: {\"type\":\"response.output_text.delta\",\"sequence_number\":0,\"delta\":\"a\"}\n\n",
    "data: {\"type\":\"response.output_text.delta\",\"sequence_number\":2,\"delta\":\"b\"}\n\n",
    "data: {\"type\":\"content_block_delta\",\"delta\":{\"thinking\":\"a\"}}\n\n",
    "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"x\"},\"usage\":{\"output_tokens\":3}}\n\n",
    "event: error\ndata: {\"type\":\"error\"}\n\n",
];

/// A piece with its `#`s replaced by the last digits of `serial`.
pub fn numbered(piece: &str, serial: u32) -> Vec<u8> {
    let mut bytes = piece.as_bytes().to_vec();
    let mut rest = serial;
    for byte in bytes.iter_mut().rev().filter(|byte| **byte == b'#') {
        *byte = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    bytes
}
