"""What errors mean: bodies as OpenAI, Azure, Anthropic, OpenRouter, vLLM, SGLang and proxies send them."""

from typing import Any

import pytest

from gristmill.engines.endpoint.faults import Fault, message_of, response_fault, retry_after


def openai(message: str, code: str | None = None, kind: str = "invalid_request_error", param: str | None = None) -> Any:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


TABLE = [
    (401, openai("Incorrect API key provided: sk-ab***.", "invalid_api_key"), "run", "the key is not accepted"),
    (403, {"error": {"message": "Your account does not have access"}}, "run", "access is refused"),
    (400, {"error": {"message": "API key not valid. Please pass a valid API key.", "status": "INVALID"}}, "run", "key"),
    (404, openai("The model `gpt-9` does not exist or you lack access.", "model_not_found"), "run", "model"),
    (404, {"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError"}, "run", "model"),
    (400, {"error": {"message": "nope/nope is not a valid model ID", "code": 400}}, "run", "model"),
    (404, "<html><title>404 Not Found</title></html>", "run", "path"),
    (405, {"detail": "Method Not Allowed"}, "run", "path"),
    (429, openai("You exceeded your current quota, please check your plan", "insufficient_quota"), "run", "quota"),
    (402, {"error": {"message": "Insufficient credits", "code": 402}}, "run", "quota"),
    (400, {"error": {"message": "Your credit balance is too low to access the API"}}, "run", "quota"),
    (429, openai("Rate limit reached for requests", "rate_limit_exceeded", "requests"), "busy", "too many calls"),
    (503, {"error": "Model is overloaded"}, "busy", "overloaded"),
    (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "busy", "overloaded"),
    (500, openai("The server had an error", None, "server_error"), "broken", "server error"),
    (502, "<html><head><title>502 Bad Gateway</title></head></html>", "broken", "server error"),
    (504, "upstream request timeout", "broken", "server error"),
    (400, openai("maximum context length is 8192", "context_length_exceeded"), "ask", "context_length"),
    (400, {"message": "Please reduce the length of the input messages."}, "ask", "context_length"),
    (400, {"error": {"message": "prompt is too long: 210000 tokens > 200000 maximum"}}, "ask", "context_length"),
    (400, {"error": {"message": "600 tokens is longer than the model's context length"}}, "ask", "context_length"),
    (413, "Request Entity Too Large", "ask", "context_length"),
    (400, openai("Filtered", "content_filter"), "ask", "content_filter"),
    (403, {"error": {"code": 403, "message": "Input flagged by moderation"}}, "ask", "content_filter"),
    (400, openai("Invalid value: 'robot'"), "ask", "engine_refused"),
    (422, {"detail": [{"loc": ["body", "messages"], "msg": "field required"}]}, "ask", "engine_refused"),
    (418, "I'm a teapot", "run", "unexpected response"),
    (302, "", "run", "unexpected response"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind", "reason"), TABLE)
def test_an_error_means(status: int, body: Any, kind: str, reason: str) -> None:
    fault = response_fault(status, body, {})
    assert fault.kind == kind, fault.words
    assert reason in fault.reason
    assert "\n" not in fault.words
    assert len(fault.words) < 300


LACKING = [
    ("Unrecognized request argument supplied: seed", None, "seed"),
    ("Unsupported parameter: 'max_tokens' is not supported with this model.", "max_tokens", "max_tokens"),
    ("[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not permitted'}]", None, "seed"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "param", "parameter"), LACKING)
def test_a_parameter_that_a_server_lacks(message: str, param: str | None, parameter: str) -> None:
    fault = response_fault(400, openai(message, param=param), {}, ("seed", "max_tokens"))
    assert (fault.kind, fault.parameter) == ("parameter", parameter)


def test_a_wrong_value_is_no_lacking_parameter() -> None:
    body = openai(
        "Unsupported value: 'temperature' does not support 0.0 with this model.",
        "unsupported_value",
        param="temperature",
    )
    assert response_fault(400, body, {}, ("seed", "max_tokens")).kind == "ask"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "nonsense"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "99999999"}, 600.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({}, 0.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(headers) == seconds


def test_a_message_has_no_secret_and_no_control_character() -> None:
    message = message_of({"error": {"message": "key sk-proj-abcdefghijklmnop1234567890\x1b[2J refused\nsecond line"}})
    assert "abcdefghijklmnop" not in message
    assert "\x1b" not in message
    assert "\n" not in message


def test_a_fault_without_an_answer_in_time_weighs_more() -> None:
    weights = [
        Fault(kind, reason).weight
        for kind, reason in (("busy", "x"), ("broken", "server error"), ("broken", "time-out"))
    ]  # type: ignore[arg-type]
    assert weights == [0, 1, 2]
