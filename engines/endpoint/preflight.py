"""The first requests to an endpoint: its models, one token, and whether it follows a structure. Before any ask."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from gristmill.engines.contract import FREE_TEXT, AnswerForm, Reply
from gristmill.engines.endpoint.answer import read_answer
from gristmill.engines.endpoint.client import blocking_client, fault_of
from gristmill.engines.endpoint.faults import NO_PATH, EndpointDown, Fault
from gristmill.engines.endpoint.repeats import Repeats
from gristmill.engines.endpoint.request import RequestWriter
from gristmill.engines.endpoint.settings import EndpointSettings
from gristmill.engines.endpoint.structure import DIALECTS, PROBE_ANSWER, PROBE_PROMPT, PROBE_TOKENS, probe_form
from gristmill.records.errors import UserError
from gristmill.records.spec import nearest

T = TypeVar("T")
NUM_TRIES, WAIT_S = 5, 1.0  # a server that is just starting or busy gets some seconds
TIMEOUT_S = 120.0
LENGTH_KEYS = ("min_tokens", "ignore_eos")  # of sampling, that contradict an answer of one token
NUM_MODELS = 100  # of a list, that a message compares


def check_endpoint(
    spec: EndpointSettings,
    writer: RequestWriter,
    sampling: Mapping[str, Any],
    form: AnswerForm,
    secrets: Mapping[str, str],
    repeats: Repeats,
) -> dict[str, Any]:
    """Facts of the endpoint. Raises UserError if it would refuse every call.

    Teaches `writer` what its server lacks, and `repeats` the ids of its first answers.
    """
    with blocking_client(replace(spec, timeout_s=min(spec.timeout_s, TIMEOUT_S)), secrets) as client:
        return Preflight(spec, writer, client, repeats).facts(sampling, form)


class Preflight:
    """The first requests, one after another."""

    def __init__(
        self, spec: EndpointSettings, writer: RequestWriter, client: Any, repeats: Repeats | None = None
    ) -> None:
        self.spec, self.writer, self.client = spec, writer, client
        self.repeats = Repeats() if repeats is None else repeats

    def facts(self, sampling: Mapping[str, Any], form: AnswerForm) -> dict[str, Any]:
        models = self._models()
        if form.is_structured and not form.json_schema:
            self._learn_dialect(form)
        try:
            data = self._first_answer(sampling, form)
        except Fault as fault:
            if fault.kind == "run" and models and self.spec.model not in models:
                raise EndpointDown(f"{self.spec.words}: {fault.words}{nearest(self.spec.model, models)}") from None
            raise self._down(fault) from None
        if self.spec.batch_api:
            self._check_batches()
        if not isinstance(data.get("usage"), Mapping):
            self.writer.notes.append("it states no usage: tokens and cost are estimates from characters")
        names = ("model", "system_fingerprint")
        return {f"served_{name}": data[name] for name in names if isinstance(data.get(name), str)}

    def _first_answer(self, sampling: Mapping[str, Any], form: AnswerForm) -> dict[str, Any]:
        """The JSON of an answer of one token. Raises Fault."""
        probe = {key: value for key, value in sampling.items() if key not in LENGTH_KEYS}
        try:
            return self._answer({**probe, "max_tokens": 1}, form)[0]
        except Fault as fault:
            # Models that always think refuse so few tokens. So the whole of a call decides.
            if fault.kind != "ask" or fault.reason != "engine_refused" or sampling.get("max_tokens") == 1:
                raise
            return self._answer(sampling, form)[0]

    def _models(self) -> list[str]:
        """Names of the models; empty where the server does not list them. Raises UserError for a wrong key."""
        try:
            data: Any = self._request(lambda: self.client.get("/models", cast_to=object))
            return [str(model["id"]) for model in data["data"][:NUM_MODELS]]
        except Fault as fault:
            if fault.kind == "run" and "key" not in fault.reason and "quota" not in fault.reason:
                return []  # the server does not list its models, or not to everybody
            raise self._down(fault) from None
        except (KeyError, TypeError):
            return []

    def _check_batches(self) -> None:
        try:
            self._request(lambda: self.client.get("/batches", cast_to=object))
        except Fault as fault:
            if fault.reason == NO_PATH:
                raise UserError(f"{self.spec.words} has no Batch API: leave batch_api out") from None
            raise self._down(fault) from None

    def _learn_dialect(self, form: AnswerForm) -> None:
        probe = probe_form(form)
        for dialect in DIALECTS:
            self.writer.dialect = dialect
            try:
                _, reply = self._answer({"max_tokens": PROBE_TOKENS, "temperature": 0.0}, probe)
            except Fault as fault:
                if fault.kind in ("ask", "parameter"):
                    continue
                raise self._down(fault) from None
            if reply.text.strip() == PROBE_ANSWER:
                return
        (name,) = probe.literals()
        raise UserError(
            f"{self.spec.words} does not follow '{name}': leave it out, or use json_schema or another server"
        )

    def _answer(self, sampling: Mapping[str, Any], form: AnswerForm = FREE_TEXT) -> tuple[dict[str, Any], Reply]:
        """An answer to a short prompt, as JSON and as a reply. Raises Fault."""

        def send() -> tuple[dict[str, Any], Reply]:
            body = self.writer.body(PROBE_PROMPT, sampling, 0, form)
            data: Any = self.client.post(self.writer.path, cast_to=object, body=body)
            reply = read_answer(data, self.spec, len(PROBE_PROMPT))
            self.repeats.is_repeat(data)  # it may be: only the id counts here
            return data, reply

        while True:
            try:
                return self._request(send)
            except Fault as fault:
                if fault.kind != "parameter" or not self.writer.adapt(fault.parameter):
                    raise

    def _request(self, send: Callable[[], T]) -> T:
        """What `send` returns, after some tries. Raises Fault."""
        for num_tries in range(1, NUM_TRIES + 1):
            try:
                return send()
            except Fault as error:
                fault = error
            except Exception as error:  # noqa: BLE001 - the client raises errors of several libraries
                fault = fault_of(error, self.writer.adaptable)
            if fault.kind not in ("busy", "broken") or num_tries == NUM_TRIES:
                raise fault
            time.sleep(max(WAIT_S * num_tries, min(fault.retry_after_s, 60.0)))
        raise AssertionError("unreachable")

    def _down(self, fault: Fault) -> EndpointDown:
        hint = {"no connection": "; start the server, or correct base_url"}.get(fault.reason, "")
        if fault.kind == "ask":
            hint = "; change sampling, extra_body or the form of the answers"
        if fault.reason == "the key is not accepted":
            hint = f"; check the variable {self.spec.api_key_env}" if self.spec.api_key_env else "; set api_key_env"
        return EndpointDown(f"{self.spec.words}: {fault.words}{hint}")
