"""Responses that are made in the background: asked for until they are over, cancelled, and ended with the server."""

from __future__ import annotations

import time

import openai
import pytest
from openai.types.responses import Response

from mlx_manager.backends.scripted import Pause, script_of
from mlx_manager.errors import GenerationFailed
from mlx_manager.ir import PartDelta, PartStart, PromptReady
from tests.http.scripted_server import HELLO, TEXT, Serve
from tests.http.test_responses import sdk

LONG = (PromptReady(7), PartStart(0), PartDelta(0, "Hel"), Pause(60), *script_of(HELLO)[2:])
BREAKS = (PromptReady(7), PartStart(0), GenerationFailed("the engine broke"))


def once(client: openai.OpenAI, response_id: str, *statuses: str) -> Response:
    """The response, once it has one of the statuses."""
    deadline_s = time.monotonic() + 20
    while (response := client.responses.retrieve(response_id)).status not in statuses:
        assert time.monotonic() < deadline_s, response
        time.sleep(0.02)
    return response


def test_it_is_made_while_nobody_waits(serve: Serve) -> None:
    served = serve({"m": script_of(HELLO)})
    with sdk(served) as client:
        queued = client.responses.create(model="m", input="hi", background=True)
        assert (queued.status, queued.background, queued.output) == ("queued", True, [])
        response = once(client, queued.id, "completed")
        assert (response.output_text, response.background, response.id) == (TEXT, True, queued.id)
        assert client.responses.cancel(queued.id).status == "completed", "what is over stays as it is"
        again = client.responses.create(model="m", input="more", previous_response_id=queued.id)
    assert again.output_text == TEXT
    assert len(served.backend.requests) == 2


def test_it_can_be_cancelled(serve: Serve) -> None:
    served = serve({"m": LONG})
    with sdk(served) as client:
        queued = client.responses.create(model="m", input="hi", background=True)
        once(client, queued.id, "in_progress")
        with pytest.raises(openai.ConflictError, match="still being made"):
            client.responses.create(model="m", input="more", previous_response_id=queued.id)
        cancelled = client.responses.cancel(queued.id)
        assert cancelled.status == "cancelled"
        assert served.backend.ended.get(timeout=5) == queued.id
        assert client.responses.retrieve(queued.id) == cancelled
        other = client.responses.create(model="m", input="hi", background=True)
        client.responses.delete(other.id)
        assert served.backend.ended.get(timeout=5) == other.id
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(other.id)


def test_a_failure_is_told_to_who_asks(serve: Serve) -> None:
    with sdk(serve({"m": BREAKS})) as client:
        queued = client.responses.create(model="m", input="hi", background=True)
        failed = once(client, queued.id, "failed")
    assert failed.error is not None
    assert (failed.error.code, failed.error.message) == ("server_error", "the engine broke")


def test_one_that_somebody_waits_for_is_not_cancelled_by_its_id(serve: Serve) -> None:
    with sdk(serve({"m": script_of(HELLO)})) as client:
        made = client.responses.create(model="m", input="hi")
        with pytest.raises(openai.BadRequestError, match="not made in the background"):
            client.responses.cancel(made.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.cancel("resp_x")


def test_it_ends_with_the_server(serve: Serve) -> None:
    served = serve({"m": LONG})
    with sdk(served) as client:
        queued = client.responses.create(model="m", input="hi", background=True)
        once(client, queued.id, "in_progress")
    served.stop()
    assert served.backend.ended.get(timeout=10) == queued.id
