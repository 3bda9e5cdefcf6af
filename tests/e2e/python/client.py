"""Asks a server through openai-python: client.py BASE_URL REQUESTS, where REQUESTS is a JSON list of objects with
`id`, `chat`, `stream`, `model` and `sample`. Prints one JSON object per request: what the client itself saw."""

import json
import sys

from openai import OpenAI


def ask(client: OpenAI, wanted: dict) -> dict:
    further = {
        "model": wanted["model"],
        "stream": wanted["stream"],
        "extra_body": {"sample": wanted["sample"]},
        "extra_headers": {"x-request-id": wanted["id"]},
    }
    if wanted["stream"]:
        further["stream_options"] = {"include_usage": True}
    if wanted["chat"]:
        answer = client.chat.completions.create(messages=[{"role": "user", "content": "hello"}], **further)
    else:
        answer = client.completions.create(prompt="hello", **further)
    if not wanted["stream"]:
        return {"id": wanted["id"], "events": None, "output": answer.usage.completion_tokens}
    events, output = 0, None
    for part in answer:
        if part.usage is not None:
            output = part.usage.completion_tokens
        for choice in part.choices:
            events += bool(choice.delta.content if wanted["chat"] else choice.text)
    return {"id": wanted["id"], "events": events, "output": output}


def main() -> None:
    client = OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=30)
    for wanted in json.loads(sys.argv[2]):
        print(json.dumps(ask(client, wanted)), flush=True)


if __name__ == "__main__":
    main()
