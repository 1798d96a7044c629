"""What errors mean: bodies as OpenAI, Azure, Anthropic, OpenRouter, vLLM, SGLang and proxies send them."""

# ruff: noqa: E501 - the bodies are as servers send them
from typing import Any

import pytest

from gristmill.engines.endpoint.faults import Fault, message_of, response_fault, retry_after
from gristmill.engines.endpoint.request import RequestWriter


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


def google(status: int, message: str, name: str, reason: str | None = None) -> Any:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}] if reason else []
    return [{"error": {"code": status, "message": message, "status": name, "details": details}}]


def anthropic(kind: str, message: str) -> Any:
    return {"type": "error", "error": {"type": kind, "message": message}}


def vllm(status: int, message: str, kind: str = "BadRequestError") -> Any:
    return {"object": "error", "message": message, "type": kind, "param": None, "code": status}


SERVERS = [
    (400, google(400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT", "API_KEY_INVALID"), "run", "key"),
    (403, google(403, "The caller does not have permission", "PERMISSION_DENIED"), "run", "access"),
    (404, google(404, "models/gemini-9 is not found for API version v1main", "NOT_FOUND"), "run", "no such model"),
    (429, google(429, "You exceeded your current quota, please check your plan. Please retry in 20s.", "RESOURCE_EXHAUSTED"), "busy", "too many calls"),
    (503, google(503, "The model is overloaded. Please try again later.", "UNAVAILABLE"), "busy", "overloaded"),
    (400, google(400, "The input token count (1234567) exceeds the maximum number of tokens allowed (1048576).", "INVALID_ARGUMENT"), "ask", "context_length"),
    (400, vllm(400, "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (904 in the messages, 4096 in the completion)."), "ask", "context_length"),
    (400, vllm(400, "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context length is 4096 tokens and your request has 100 input tokens"), "ask", "context_length"),
    (404, vllm(404, "The model `x` does not exist.", "NotFoundError"), "run", "no such model"),
    (400, vllm(400, "[{'type': 'json_invalid', 'loc': ('body', 20), 'msg': 'JSON decode error', 'input': {'text': 'insufficient funds, unknown model'}}]"), "ask", "engine_refused"),
    (400, vllm(400, "The input (5000 tokens) is longer than the model's context length (4096 tokens)."), "ask", "context_length"),
    (400, vllm(400, "Requested token count exceeds the model's maximum context length of 4096 tokens."), "ask", "context_length"),
    (422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000", "error_type": "validation"}, "ask", "context_length"),
    (422, {"error": "Input validation error: `inputs` must have less than 4095 tokens. Given: 5000", "error_type": "validation"}, "ask", "context_length"),
    (429, {"error": "Model is overloaded", "error_type": "overloaded"}, "busy", "too many calls"),
    (424, {"error": "Request failed during generation: Server error: CUDA out of memory", "error_type": "generation"}, "broken", "server error"),
    (401, anthropic("authentication_error", "invalid x-api-key"), "run", "the key"),
    (403, anthropic("permission_error", "Your API key does not have permission to use the specified resource."), "run", "access"),
    (404, anthropic("not_found_error", "model: claude-9"), "run", "no such model"),
    (429, anthropic("rate_limit_error", "This request would exceed your organization's rate limit of 40,000 input tokens per minute"), "busy", "too many calls"),
    (400, anthropic("invalid_request_error", "Your credit balance is too low to access the API."), "run", "quota"),
    (413, anthropic("request_too_large", "Request exceeds the maximum size"), "ask", "context_length"),
    (429, openai("Your account is not active, please check your billing details.", "billing_not_active"), "run", "quota"),
    (429, openai("Rate limit reached for gpt-9 on tokens per min. Visit https://example.com/billing", "rate_limit_exceeded", "tokens"), "busy", "too many calls"),
    (400, {"error": {"message": "The response was filtered", "code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, "ask", "content_filter"),
    (400, {"detail": [{"msg": "string should be shorter", "input": "insufficient funds on the credit balance"}]}, "ask", "engine_refused"),
    (422, {"detail": [{"loc": ["body", "messages"], "msg": "too short", "input": "no such model, reduce the length"}]}, "ask", "engine_refused"),
    (429, "<html><head><title>429 Too Many Requests</title></head><body>billing_ credit balance</body></html>", "busy", "too many calls"),
    (403, "<html><head><title>403 Forbidden</title></head></html>", "run", "access"),
    (413, "<html><head><title>413 Request Entity Too Large</title></head></html>", "ask", "context_length"),
    (503, "<html><head><title>503 Service Temporarily Unavailable</title></head></html>", "busy", "overloaded"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind", "reason"), SERVERS)
def test_servers_say(status: int, body: Any, kind: str, reason: str) -> None:
    for each in (body, body["error"] if isinstance(body, dict) and isinstance(body.get("error"), dict) else body):
        fault = response_fault(status, each, {}, RequestWriter.adaptable)  # the client may unwrap the error
        assert (fault.kind, reason in fault.reason) == (kind, True), fault.words


def test_a_used_up_quota_that_comes_back_is_a_busy_server() -> None:
    body = openai("You exceeded your current quota", "insufficient_quota")
    assert [response_fault(429, body, headers).kind for headers in ({}, {"retry-after": "20"})] == ["run", "busy"]


# (body, whether a code or a status says it, so that the run stops even when others have been answered)
CERTAIN = [
    (403, {"error": {"message": "Request blocked by WAF"}}, False),
    (403, "<html><title>403 Forbidden</title></html>", False),
    (400, {"error": {"message": "This model does not support the language: it is not available"}}, False),
    (400, {"error": {"message": "insufficient credits in the text"}}, False),
    (418, "I'm a teapot", False),
    (403, anthropic("permission_error", "No access"), True),
    (400, google(400, "API key not valid", "INVALID_ARGUMENT", "API_KEY_INVALID"), True),
    (429, openai("Quota", "insufficient_quota"), True),
    (401, "", True),
    (402, "", True),
]


@pytest.mark.parametrize(("status", "body", "is_certain"), CERTAIN)
def test_a_code_is_certain_and_a_message_is_not(status: int, body: Any, is_certain: bool) -> None:
    fault = response_fault(status, body, {})
    assert (fault.kind, fault.is_certain) == ("run", is_certain)


FORBIDDEN = (
    "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not permitted', 'input': 1}]"
)
LACKING = [
    (openai("Unrecognized request argument supplied: seed"), "seed"),
    (openai("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", param="max_tokens"), "max_tokens"),
    (openai(FORBIDDEN), "seed"),
    ({"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, "seed"),
    (anthropic("invalid_request_error", "seed: Extra inputs are not permitted"), "seed"),
    (google(400, 'Invalid JSON payload received. Unknown name "seed": Cannot find field.', "INVALID_ARGUMENT"), "seed"),
    (openai("This model does not support the 'seed' parameter: unsupported"), "seed"),
    (openai("Invalid 'top_logprobs': integer above maximum value. Expected a value <= 5.", param="top_logprobs"), "top_logprobs"),
    (vllm(400, "Requested sample logprobs of 10, which is greater than max allowed: 5"), "top_logprobs"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "parameter"), LACKING)
def test_a_parameter_that_a_server_lacks(body: Any, parameter: str) -> None:
    fault = response_fault(400, body, {}, RequestWriter.adaptable)
    assert (fault.kind, fault.parameter) == ("parameter", parameter)


OF_THE_ASK = [
    openai("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", "invalid_request_error"),
    openai("Invalid 'messages[1].content': unsupported character near 'sow the seed in spring'"),
    openai("Unsupported parameter: 'max_tokens'", param="max_tokens"),  # no other name is offered
    openai("Unsupported value: 'seed'", param="messages"),
    {"detail": [{"msg": "unsupported text", "loc": ["body", "messages"], "input": "argument supplied: seed"}]},
]


@pytest.mark.parametrize("body", OF_THE_ASK)
def test_the_refusal_of_an_ask_changes_no_later_request(body: Any) -> None:
    assert response_fault(400, body, {}, RequestWriter.adaptable).kind == "ask"


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
