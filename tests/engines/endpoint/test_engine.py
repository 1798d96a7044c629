"""The engine against a scripted server: faults are overcome, refusals are named, nothing is counted twice."""

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from gristmill.engines.contract import FREE_TEXT, AnswerForm, Reply
from gristmill.engines.endpoint.engine import EndpointEngine
from gristmill.engines.endpoint.faults import EndpointDown
from gristmill.engines.endpoint.repeats import Repeats
from gristmill.engines.endpoint.spec import EndpointSpec
from gristmill.engines.errors import AskRefused
from gristmill.engines.user_turn import USER_TURN
from gristmill.generators.endpoint import Endpoint, EndpointTeacherSpec
from gristmill.generators.text.registry import method_class
from gristmill.records.errors import UserError
from gristmill.records.spec import build
from gristmill.testing.generators import check_generator
from tests.engines.endpoint.proxy import FAULTS, KEY, MODEL, Proxy, answer_of

OTHER_NAME = "max_completion_tokens"
SAMPLING = {"max_tokens": 16, "temperature": 0.7}


def spec_of(server: Proxy, **keys: Any) -> EndpointSpec:
    return build(EndpointSpec, {"base_url": server.url, "model": MODEL, "timeout_s": 100.0, **keys}, "generator")


def ask(
    spec: EndpointSpec,
    prompts: list[Any],
    sampling: Mapping[str, Any] = SAMPLING,
    form: AnswerForm = FREE_TEXT,
    then: Callable[[EndpointEngine], None] = lambda engine: None,
) -> list[Reply | BaseException]:
    """The replies to prompts, all at once; the seed of each is its place."""

    async def all_of() -> list[Reply | BaseException]:
        engine = spec.open_engine(dict(sampling), form)
        try:
            calls = [engine.chat(prompt, sampling, seed, form) for seed, prompt in enumerate(prompts)]
            replies = await asyncio.gather(*calls, return_exceptions=True)
            then(engine)
            return replies
        finally:
            engine.close()
            await asyncio.sleep(0)

    return asyncio.run(all_of())


def expected(prompt: str, seed: int) -> str:
    return answer_of({"messages": [{"role": "user", "content": prompt}], "seed": seed, "temperature": 0.7})


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_a_call_and_no_answer(fault: str) -> None:
    prompts = [f"ask {number}" for number in range(24)]
    with Proxy(script=lambda number, body: fault if number % 6 == 5 else None) as server:
        replies = ask(spec_of(server, timeout_s=2.0 if fault == "hang" else 100.0), prompts)
    assert [reply.text for reply in replies if isinstance(reply, Reply)] == [
        expected(p, n) for n, p in enumerate(prompts)
    ]
    assert server.faults[fault] >= 4
    num_lost = len(server.bodies) - len(prompts) - server.faults[fault]
    assert num_lost == 0 or (fault == "hang" and num_lost > 0)  # a busy machine may be late as well
    assert sum(reply.tokens_out for reply in replies if isinstance(reply, Reply)) == 4 * len(prompts)


def test_every_second_call_fails_and_nothing_is_lost() -> None:
    """The proxy's count: the calls are those that the asks need and those that failed, and no other."""
    kinds = [fault for fault in FAULTS if fault != "hang"]
    faults = {number: kinds[number // 2 % len(kinds)] for number in range(0, 80, 2)}
    prompts = [f"ask {number}" for number in range(100)]
    with Proxy(script=lambda number, body: faults.get(number)) as server:
        replies = ask(spec_of(server), prompts)
    assert [reply.text for reply in replies if isinstance(reply, Reply)] == [
        expected(p, n) for n, p in enumerate(prompts)
    ]
    assert len(server.bodies) == len(prompts) + sum(server.faults.values())


REFUSALS = [
    ((400, {"error": {"message": "maximum context length is 8", "code": "context_length_exceeded"}}), "context_length"),
    ((400, {"error": {"message": "filtered", "code": "content_filter"}}), "content_filter"),
    ((422, {"detail": [{"msg": "field required"}]}), "engine_refused"),
]


@pytest.mark.parametrize(("refusal", "reason"), REFUSALS)
def test_a_refusal_concerns_its_ask_only(refusal: Any, reason: str) -> None:
    prompts = ["good", "bad", "good too"]
    with Proxy(script=lambda number, body: refusal if "bad" in str(body) else None) as server:
        replies = ask(spec_of(server), prompts)
    assert [type(reply) for reply in replies] == [Reply, AskRefused, Reply]
    assert isinstance(replies[1], AskRefused)
    assert replies[1].reason == reason
    assert len(server.bodies) == 3  # it is not sent again


STOPS = [
    (
        {"api_key_env": "GM_TEST_KEY"},
        "wrong-key-0123456789abcdef",
        "the key is not accepted.*check the variable GM_TEST_KEY",
    ),
    ({}, "", "the key is not accepted.*set api_key_env"),
    ({"api_key_env": "GM_TEST_KEY", "model": "tinny-1"}, KEY, "it has no such model.*did you mean 'tiny-1'"),
]


@pytest.mark.parametrize(("keys", "secret", "message"), STOPS)
def test_the_preflight_stops_a_run_with_one_line(
    keys: dict[str, str], secret: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GM_TEST_KEY", secret)
    with Proxy(key=KEY) as server, pytest.raises(UserError, match=message) as raised:
        ask(spec_of(server, **keys), ["ask"])
    assert not server.bodies
    assert "\n" not in str(raised.value)
    assert not secret or secret not in str(raised.value)


def test_no_error_holds_a_key(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The server quotes the key in its errors, as some do."""
    monkeypatch.setenv("GM_TEST_KEY", KEY)
    monkeypatch.setenv("GM_OTHER", "other-secret-0123456789\n")  # as `echo` leaves it
    quote = (400, {"error": {"message": f"bad request with {KEY} and other-secret-0123456789"}})
    with Proxy(script=lambda number, body: quote, key=KEY) as server:
        keys = {"api_key_env": "GM_TEST_KEY", "headers_env": {"X-Team": "GM_OTHER"}}
        (refused,) = ask(spec_of(server, **keys), ["ask"])
        assert "other-secret-0123456789" in server.headers[-1].values()
    assert isinstance(refused, AskRefused)
    words = [refused.detail, repr(refused), str(refused.__cause__), str(refused.__context__), caplog.text]
    assert not any(KEY in text or "other-secret-0123456789" in text for text in words)


def test_keys_of_the_environment_go_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-7")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Other: {KEY}")
    with Proxy() as server:
        ask(spec_of(server), ["ask"])
    assert not any(KEY in str(headers) or "org-7" in str(headers) for headers in server.headers)


def test_no_quota_stops_the_run_at_the_call() -> None:
    fault = (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}})
    with Proxy(script=lambda number, body: fault) as server:
        (stopped,) = ask(spec_of(server), ["ask"])
    assert isinstance(stopped, EndpointDown)
    assert "no quota is left" in str(stopped)
    assert len(server.bodies) == 1


def test_a_server_that_stays_down_stops_the_run() -> None:
    with Proxy(script=lambda number, body: "503" if number >= 6 else None, counts_probes=True) as server:
        replies = ask(spec_of(server, retry_s=0.5), [f"ask {number}" for number in range(12)])
    down = [reply for reply in replies if isinstance(reply, EndpointDown)]
    assert len(down) == 7
    assert f"endpoint {server.url} (model 'tiny-1'): no answer for" in str(down[0])
    assert "HTTP 503" in str(down[0])


def test_a_model_that_is_away_for_a_moment_does_not_stop_the_run() -> None:
    away = (404, {"error": {"message": "The model `tiny-1` does not exist."}})
    with Proxy(script=lambda number, body: away if 10 <= number < 20 else None) as server:
        replies = ask(spec_of(server, max_in_flight=4), [f"ask {number}" for number in range(30)])
    assert all(isinstance(reply, Reply) for reply in replies)


def test_an_outage_is_outlived() -> None:
    """For half a second there is no server at all; every ask gets its answer afterwards."""
    with Proxy(script=lambda number, body: "drop" if number < 60 else None) as server:
        replies = ask(spec_of(server, retry_s=30.0), [f"ask {number}" for number in range(20)])
    assert all(isinstance(reply, Reply) for reply in replies)


def test_an_ask_that_alone_fails_is_rejected_not_the_run() -> None:
    prompts = [f"ask {number}" for number in range(200)]

    async def scenario(server: Proxy) -> list[Any]:
        engine = spec_of(server).open_engine(dict(SAMPLING))

        async def slow(number: int, prompt: str) -> Reply:
            await asyncio.sleep(number * 0.005)  # so that others are answered while one fails
            return await engine.chat(prompt, SAMPLING, number)

        return await asyncio.gather(*(slow(n, p) for n, p in enumerate(prompts)), return_exceptions=True)

    with Proxy(script=lambda number, body: "500" if "ask 7'" in str(body) else None) as server:
        replies = asyncio.run(scenario(server))
    assert [number for number, reply in enumerate(replies) if not isinstance(reply, Reply)] == [7]
    assert replies[7].reason == "endpoint_failed"


@pytest.mark.parametrize("fault", ["500", "hang", (429, {"error": "slow down"})])
def test_an_ask_that_fails_alone_is_rejected_where_the_server_answers_a_probe(fault: Any) -> None:
    """No other ask is open: neither the run nor its resumes may stop for it."""
    with Proxy(script=lambda number, body: fault) as server:
        keys = {"timeout_s": 0.3, "retry_s": 1.0} if fault != "500" else {}
        (refused,) = ask(spec_of(server, price_out=1e6, **keys), ["ask"])
    assert isinstance(refused, AskRefused), refused
    assert refused.reason == "endpoint_failed"
    assert refused.cost >= 4.0  # of the probe
    assert len(server.probes) >= 2  # one of the preflight


REFUSALS_OF_ONE = [
    (403, {"error": {"message": "Request blocked by WAF"}}),
    (400, {"error": {"message": "This model does not support the language: it is not available"}}),
]


@pytest.mark.parametrize("refusal", REFUSALS_OF_ONE)
def test_a_refusal_in_words_alone_concerns_its_ask_once_the_start_was_answered(refusal: Any) -> None:
    with Proxy(script=lambda number, body: refusal if "bad" in str(body) else None) as server:
        replies = ask(spec_of(server, max_in_flight=1), ["good", "bad", "good too"])
        assert [type(reply) for reply in replies] == [Reply, AskRefused, Reply]
        assert isinstance(replies[1], AskRefused) and replies[1].reason == "engine_refused"
        stopped = ask(spec_of(server, max_in_flight=1), ["bad"] * 20)  # also where it comes first
        assert isinstance(stopped[0], AskRefused)
    assert any(isinstance(reply, EndpointDown) for reply in stopped)  # not for ever


def test_a_refused_answer_is_paid() -> None:
    def change(data: dict[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
        if "bad" in str(body):
            data["choices"][0] |= {"message": {"content": None}, "finish_reason": "content_filter"}
        if "worse" in str(body):
            data["choices"][0]["message"] = {"content": None, "refusal": "no"}
        return {**data, "usage": {"prompt_tokens": 100, "completion_tokens": 10}}

    with Proxy(change=change) as server:
        replies = ask(spec_of(server, price_in=1e6, price_out=1e6), ["bad", "worse"])
    assert [(r.reason, r.cost) for r in replies if isinstance(r, AskRefused)] == [
        ("content_filter", 110.0),
        ("model_refused", 110.0),
    ]


def test_answers_of_no_use_are_paid_with_the_answer_that_follows() -> None:
    def change(data: dict[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
        broken = {"choices": [{"message": {"content": 7}}]} if len(server.bodies) == 2 else {}
        return {**data, "usage": {"prompt_tokens": 100, "completion_tokens": 10}, **broken}

    with Proxy(script=lambda number, body: "repeat" if number == 3 else None, change=change) as server:
        replies = ask(spec_of(server, price_in=1e6, price_out=1e6, max_in_flight=1), ["one", "two", "three"])
    assert sum(reply.cost for reply in replies if isinstance(reply, Reply)) == 5 * 110.0


def test_wrong_json_on_the_first_call_is_tried_again() -> None:
    with Proxy(script=lambda number, body: "empty" if number < 2 else None, counts_probes=True) as server:
        (reply,) = ask(spec_of(server), ["ask"])
    assert isinstance(reply, Reply)
    assert len(server.bodies) == 4


def test_the_probe_leaves_a_least_length_out() -> None:
    with Proxy() as server:
        ask(spec_of(server), ["ask"], {**SAMPLING, "min_tokens": 9, "ignore_eos": True})
    assert not {"min_tokens", "ignore_eos"} & set(server.probes[0])
    assert server.bodies[0]["min_tokens"] == 9


def test_a_model_that_needs_more_tokens_than_one_is_asked_a_whole_call() -> None:
    class Thinker(Proxy):
        async def _respond(self, request: Any, number: int, body: dict[str, Any], fault: Any) -> Any:
            words = {"error": {"message": "Could not finish the message because max_tokens was reached."}}
            return await super()._respond(request, number, body, (400, words) if body["max_tokens"] == 1 else fault)

    with Thinker() as server:
        (reply,) = ask(spec_of(server), ["ask"])
    assert isinstance(reply, Reply)


def test_half_a_surrogate_pair_concerns_its_ask() -> None:
    with Proxy() as server:
        replies = ask(spec_of(server), ["good", "bad \ud800"])
    assert [type(reply) for reply in replies] == [Reply, AskRefused]


def test_completions_keep_max_tokens() -> None:
    words = f"Unsupported parameter: 'max_tokens' is not supported. Use '{OTHER_NAME}' instead."
    fault = (400, {"error": {"message": words, "param": "max_tokens"}})
    with Proxy(script=lambda number, body: fault if number == 0 else None) as server:
        replies = ask(spec_of(server, chat=False, max_in_flight=1), ["one", "two"])
    assert any(isinstance(reply, Reply) for reply in replies)
    assert all("max_tokens" in body for body in server.bodies)


# (id, content) of answers in their order, and which of them are repeats
IDS = [
    ([("a", 1), ("b", 2), ("c", 3), ("c", 3), ("c", 3), ("d", 4), ("a", 1)], [3, 4, 6]),
    ([("7", 1), ("8", 2), ("7", 3), ("7", 4), ("8", 5)], []),  # drawn from a few
    ([("0", 1), ("0", 2), ("0", 2), ("0", 2)], []),  # a constant
    ([("0", 1), ("0", 1), ("0", 1), ("0", 1)], [1]),  # a constant, with equal answers
    ([("a", 1), ("a", 1), ("a", 1), ("b", 2), ("b", 2), ("a", 1)], [1, 4, 5]),  # constant only until a second comes
    ([("", 1), ("", 1), (None, 1), (None, 1)], []),
]


@pytest.mark.parametrize(("answers", "expected_repeats"), IDS)
def test_repeats(answers: list[tuple[Any, int]], expected_repeats: list[int], caplog: pytest.LogCaptureFixture) -> None:
    repeats = Repeats()
    are_repeats = [repeats.is_repeat({"id": name, "choices": content}) for name, content in answers]
    assert [number for number, is_repeat in enumerate(are_repeats) if is_repeat] == expected_repeats
    assert caplog.text.count("the same id") == (len({name for name, _ in answers[:3] if name}) == 1)


def test_two_repeats_in_a_row_give_no_row_the_text_of_another() -> None:
    prompts = [f"ask {number}" for number in range(8)]
    with Proxy(script=lambda number, body: "repeat" if number in (2, 3, 4, 7) else None) as server:
        replies = ask(spec_of(server, max_in_flight=1), prompts)
    assert [r.text for r in replies if isinstance(r, Reply)] == [expected(p, n) for n, p in enumerate(prompts)]


def test_a_server_with_constant_ids_is_believed() -> None:
    with Proxy(change=lambda data, body: {**data, "id": "0"}) as server:
        replies = ask(spec_of(server), [f"ask {number}" for number in range(9)])
    assert all(isinstance(reply, Reply) for reply in replies)
    assert len(server.bodies) <= 11


@pytest.mark.parametrize(
    "message",
    [
        "Unrecognized request argument supplied: seed",
        f"Unsupported parameter: 'max_tokens' is not supported with this model. Use '{OTHER_NAME}' instead.",
    ],
)
def test_what_a_server_lacks_is_left_out_or_renamed(message: str) -> None:
    name = "seed" if "seed" in message else "max_tokens"

    class Older(Proxy):
        async def _respond(self, request: Any, number: int, body: dict[str, Any], fault: Any) -> Any:
            fault = (400, {"error": {"message": message, "param": None}}) if name in body else fault
            return await super()._respond(request, number, body, fault)

    with Older() as server:
        notes: list[str] = []
        replies = ask(spec_of(server), ["one", "two"], then=lambda engine: notes.extend(engine.writer.notes))
    assert all(isinstance(reply, Reply) for reply in replies)
    assert len(server.bodies) == 2  # the preflight has learned it
    assert all(name not in body for body in server.bodies)
    assert (OTHER_NAME in server.bodies[0]) == (name == "max_tokens")
    assert ("takes no seed" in str(notes)) == (name == "seed")


def test_a_request_has_everything_in_its_place() -> None:
    sampling = {"max_tokens": 9, "temperature": 0.5, "top_k": 40, "min_p": 0.1, "stop": ["\n"]}
    with Proxy() as server:
        ask(spec_of(server, extra_body={"reasoning_effort": "low"}), ["hello"], sampling)
    body = {key: value for key, value in server.bodies[0].items() if key != "messages"}
    assert body == {"model": MODEL, "reasoning_effort": "low", "seed": 0, **sampling}
    assert server.bodies[0]["messages"] == [{"role": "user", "content": "hello"}]


def test_completions() -> None:
    with Proxy() as server:
        (reply,) = ask(
            spec_of(server, chat=False), [[{"role": "user", "content": "once"}, {"role": "user", "content": "upon"}]]
        )
    assert isinstance(reply, Reply)
    assert server.bodies[0]["prompt"] == "once\n\nupon"
    assert "messages" not in server.bodies[0]


def test_usage_and_cost() -> None:
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "prompt_tokens_details": {"cached_tokens": 400},
        "completion_tokens_details": {"reasoning_tokens": 300},
    }

    def change(data: dict[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
        data["choices"][0]["message"]["reasoning_content"] = "hm"
        return {**data, "usage": usage}

    with Proxy(change=change) as server:
        (reply,) = ask(spec_of(server, price_in=3.0, price_cached=0.3, price_out=15.0), ["ask"])
    assert isinstance(reply, Reply)
    assert (reply.tokens_in, reply.tokens_cached, reply.tokens_out, reply.tokens_reasoning) == (1000, 400, 500, 300)
    assert reply.reasoning == "hm"
    assert reply.cost == pytest.approx((600 * 3.0 + 400 * 0.3 + 500 * 15.0) / 1e6)


def test_tokens_are_estimated_where_no_usage_is_stated() -> None:
    notes: list[str] = []
    with Proxy(change=lambda data, body: {**data, "usage": None}) as server:
        prompts = ["a question of forty characters, or so..."]
        (reply,) = ask(spec_of(server), prompts, then=lambda engine: notes.extend(engine.writer.notes))
    assert isinstance(reply, Reply)
    assert (reply.tokens_in, reply.tokens_out) == (10, 4)
    assert "states no usage" in str(notes)


def test_tools() -> None:
    call = {"id": "call-1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1'}}

    def change(data: dict[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
        data["choices"][0] |= {"message": {"role": "assistant", "content": None, "tool_calls": [call]}}
        data["choices"][0]["finish_reason"] = "tool_calls"
        return data

    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    earlier = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "add", "arguments": {"a": 1}}}]},
        {"role": "tool", "tool_call_id": "c", "content": "2"},
    ]
    with Proxy(change=change) as server:
        (reply,) = ask(spec_of(server), [earlier], form=AnswerForm(tools=(tool,)))
    assert isinstance(reply, Reply)
    assert (reply.text, reply.finish) == ("", "tool_calls")
    assert [(each.id, each.name, each.arguments) for each in reply.tool_calls] == [("call-1", "add", '{"a": 1')]
    assert server.bodies[0]["tools"] == [tool]
    assert server.bodies[0]["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'


@pytest.mark.parametrize(
    ("tokens", "details"),
    [
        ("xxxx", {"reasoning_tokens": 2}),
        (["h", "m", "a", " b"], {"reasoning_tokens": 0}),  # as servers state that part it without counting it
        (["h", "m", "a", " b"], None),
    ],
)
def test_logprobs_of_the_reasoning_do_not_count(tokens: list[str], details: dict[str, int] | None) -> None:
    values = (-9.0, -9.0, -0.5, -1.5)
    content = [{"token": token, "logprob": value, "top_logprobs": []} for token, value in zip(tokens, values)]

    def change(data: dict[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
        data["choices"][0]["message"] |= {"content": "a b", "reasoning_content": "hm"}
        if body.get("logprobs"):
            data["choices"][0]["logprobs"] = {"content": content}
        usage = {"prompt_tokens": 3, "completion_tokens": 4, "completion_tokens_details": details}
        return {**data, "usage": usage}

    with Proxy(change=change) as server:
        (reply,) = ask(spec_of(server), ["ask"], form=AnswerForm(logprobs=True, reasoning=True))
        (plain,) = ask(spec_of(server), ["ask"], form=AnswerForm(reasoning=True))
    assert isinstance(reply, Reply) and reply.reasoning == "hm" and reply.logprobs is not None
    assert (reply.logprobs.mean, reply.logprobs.min) == (-1.0, -1.5) and math.isnan(reply.logprobs.entropy)
    assert isinstance(plain, Reply) and reply.tokens_reasoning == plain.tokens_reasoning == 2


def test_logprobs() -> None:
    candidates = [{"token": "a", "logprob": -0.6931471805599453}, {"token": "b", "logprob": -0.6931471805599453}]
    content = [
        {"token": "a", "logprob": -0.5, "top_logprobs": candidates},
        {"token": "b", "logprob": -1.5, "top_logprobs": []},
    ]

    def change(data: dict[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
        data["choices"][0]["logprobs"] = {"content": content}
        return data

    with Proxy(change=change) as server:
        (reply,) = ask(spec_of(server), ["ask"], form=AnswerForm(logprobs=True))
    assert isinstance(reply, Reply)
    assert reply.logprobs is not None
    assert (reply.logprobs.mean, reply.logprobs.min) == (-1.0, -1.5)
    assert reply.logprobs.entropy == pytest.approx(0.6931471805599453)  # over the places with candidates
    assert server.bodies[0]["logprobs"] is True


FORMS = [
    (AnswerForm(choice=("yes", "no")), "structured_outputs", {"choice": ["yes", "no"]}),
    (AnswerForm(regex="[ab]+"), "guided_regex", "[ab]+"),
    (AnswerForm(grammar='root ::= "x"'), "ebnf", 'root ::= "x"'),
    (AnswerForm(choice=("a.b", "c")), "regex", r"(a\.b)|(c)"),
]


@pytest.mark.parametrize(("form", "key", "value"), FORMS)
def test_structures_in_the_dialect_of_the_server(form: AnswerForm, key: str, value: Any) -> None:
    def change(data: dict[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
        if key in body:
            data["choices"][0]["message"]["content"] = "gm-7"
        return data

    with Proxy(change=change) as server:
        ask(spec_of(server), ["ask"], form=form)
    assert server.bodies[0][key] == value


def test_a_structure_that_the_server_ignores_is_refused() -> None:
    with Proxy() as server, pytest.raises(UserError, match="does not follow 'regex': leave it out"):
        ask(spec_of(server), ["ask"], form=AnswerForm(regex="[ab]+"))


def test_a_schema_is_strict_where_it_may_be() -> None:
    loose = {"type": "object", "properties": {"a": {"type": "string"}}}
    with Proxy() as server:
        ask(spec_of(server), ["ask"], form=AnswerForm(json_schema=loose))
        ask(spec_of(server), ["ask"], form=AnswerForm({**loose, "required": ["a"], "additionalProperties": False}))
    formats = [body["response_format"]["json_schema"] for body in server.bodies]
    assert [each["strict"] for each in formats] == [False, True]
    assert formats[0]["schema"] == loose


def test_the_model_cannot_write_the_user() -> None:
    with Proxy() as server:
        (refused,) = ask(spec_of(server), [[USER_TURN]])
    assert isinstance(refused, AskRefused)
    assert not server.bodies


def test_calls_at_once_never_exceed_the_bound_and_adapt() -> None:
    limits: list[int] = []
    with Proxy(latency_s=lambda in_flight: 0.005) as server:
        replies = ask(
            spec_of(server, max_in_flight=100),
            [f"ask {number}" for number in range(1500)],
            then=lambda engine: limits.append(engine.num_slots),
        )
    assert all(isinstance(reply, Reply) for reply in replies)
    assert server.most_in_flight <= 100
    assert limits[0] <= 100


def test_the_generator_keeps_the_laws_of_generators() -> None:
    """The server answers by prompt and seed, so that even the laws on repeated answers can be checked."""
    kind = method_class("prompt")
    method = kind(build(kind.Spec, {"template": "{text}"}, "method"))
    with Proxy() as server:
        spec = build(EndpointTeacherSpec, {"base_url": server.url, "model": MODEL, "timeout_s": 100.0}, "generator")
        check_generator(lambda: Endpoint(spec, method))
