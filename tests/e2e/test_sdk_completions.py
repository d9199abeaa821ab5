"""Text completions and the model list through the official SDK on the starter model."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest
from tokenizers import Tokenizer

from tests.e2e.server_process import ServerProcess

PROMPT = "1 2 3 4 5 6 7 8 9 10"
ANSWER = " 11 12 13"


def test_a_string_and_its_token_ids_are_completed_alike(idle_server: ServerProcess, starter_folder: Path) -> None:
    token_ids = Tokenizer.from_file(str(starter_folder / "tokenizer.json")).encode(PROMPT).ids
    prompts: list[str | list[str] | list[int] | list[list[int]]] = [PROMPT, [PROMPT], token_ids, [token_ids]]
    for prompt in prompts:
        answer = idle_server.sdk.completions.create(model=idle_server.model, prompt=prompt, max_tokens=9, temperature=0)
        assert [choice.text for choice in answer.choices] == [ANSWER]
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(token_ids), 9)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_several_prompts_and_choices_are_numbered_in_order(idle_server: ServerProcess, is_streamed: bool) -> None:
    prompts = [PROMPT, "A B C D E F G H I", PROMPT]
    create = idle_server.sdk.completions.create
    if not is_streamed:
        answer = create(model=idle_server.model, prompt=prompts, max_tokens=4, temperature=0, n=2)
        assert [choice.index for choice in answer.choices] == list(range(6))
        texts = [choice.text for choice in answer.choices]
    else:
        texts = [""] * 6
        for chunk in create(model=idle_server.model, prompt=prompts, max_tokens=4, temperature=0, n=2, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.text
    assert texts[0] == texts[1] == texts[4] == texts[5] == ANSWER[: len(texts[0])]
    assert texts[2] == texts[3] != texts[0]


def test_echo_and_log_probabilities(idle_server: ServerProcess) -> None:
    create = idle_server.sdk.completions.create
    echoed = create(model=idle_server.model, prompt=PROMPT, max_tokens=9, temperature=0, echo=True)
    assert echoed.choices[0].text == PROMPT + ANSWER
    stream = create(model=idle_server.model, prompt=PROMPT, max_tokens=9, temperature=0, echo=True, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == PROMPT + ANSWER
    told = create(model=idle_server.model, prompt=PROMPT, max_tokens=9, temperature=0, logprobs=2)
    logprobs = told.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    assert "".join(logprobs.tokens) == ANSWER
    assert logprobs.text_offset == [sum(map(len, logprobs.tokens[:index])) for index in range(9)]
    assert logprobs.top_logprobs is not None
    assert all(len(top) == 2 for top in logprobs.top_logprobs)


def test_characters_of_several_tokens_arrive_whole(idle_server: ServerProcess) -> None:
    create = idle_server.sdk.completions.create
    prompt = "中国的首都是北京。日本的首都是"
    whole = create(model=idle_server.model, prompt=prompt, max_tokens=16, temperature=0).choices[0].text
    stream = create(model=idle_server.model, prompt=prompt, max_tokens=16, temperature=0, stream=True)
    pieces = [chunk.choices[0].text for chunk in stream if chunk.choices]
    assert "".join(pieces) == whole
    assert not any("\ufffd" in piece for piece in pieces[:-2])


def test_models(idle_server: ServerProcess) -> None:
    client = idle_server.sdk
    assert idle_server.model in [model.id for model in client.models.list()]
    assert client.models.retrieve(idle_server.model).id == idle_server.model
    with pytest.raises(openai.NotFoundError, match=idle_server.model) as unknown:
        client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "Hi"}])
    assert unknown.value.code == "model_not_found"
