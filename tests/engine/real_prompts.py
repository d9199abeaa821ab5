"""Prompts for the starter model: one line to 1,500 tokens; prose, code, digits, many languages; raw and as chats."""

from __future__ import annotations

from mlx_lm.tokenizer_utils import TokenizerWrapper

_RAW = {
    "one word": "The",
    "one line": "The capital of France is",
    "prose": "It was a quiet morning in the harbour. The fishermen had gone out before dawn, and the only sound was",
    "python": "def fibonacci(n: int) -> int:\n    if n < 2:\n        return n\n    return",
    "javascript": "const sum = (numbers) => numbers.reduce((total, number) => ",
    "sql": "SELECT name, COUNT(*) AS orders FROM customers JOIN orders ON",
    "json": '{"name": "Ada", "born": 1815, "languages": ["English", "French"], "city": ',
    "digits": "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19",
    "arithmetic": "12 + 30 = 42\n7 + 8 = 15\n100 + 250 =",
    "german": "Die Hauptstadt von Deutschland ist Berlin. Die Hauptstadt von Österreich ist",
    "french": "Bonjour, je m'appelle Marie et j'habite à Paris. J'aime beaucoup",
    "chinese": "中国的首都是北京。日本的首都是",
    "russian": "Москва — столица России, а Париж — столица",
    "arabic": "عاصمة مصر هي القاهرة، وعاصمة فرنسا هي",
    "symbols": "🌍🌎🌏 → ∑ ≠ ∞ … «quoted» “text” —",
    "blanks": "\n\n\t  A list:\n\n\t  - first\n\n\t  - second\n\n\t  -",
}

_CHATS: dict[str, list[dict[str, str]]] = {
    "chat": [{"role": "user", "content": "What is the capital of France?"}],
    "chat with system": [
        {"role": "system", "content": "You are a terse assistant. Answer in one sentence."},
        {"role": "user", "content": "Why is the sky blue?"},
    ],
    "chat of three turns": [
        {"role": "user", "content": "Name a fruit."},
        {"role": "assistant", "content": "An apple."},
        {"role": "user", "content": "Name another one, and say what colour it has."},
    ],
    "chat about code": [{"role": "user", "content": "Write a Python function that reverses a string."}],
}

_BORDERS = (31, 32, 33, 64)
"""Lengths around the borders of blocks, in tokens."""

_LENGTHS = (1500, 700, 300)
"""Of one text: the shorter ones are beginnings of the longest."""

LONG_ANSWERED = ("digits", "prose", "python", "german")
"""Names of prompts that are answered at length, for tests whose sequences have to outgrow their blocks."""


def build_prompts(tokenizer: TokenizerWrapper) -> dict[str, tuple[int, ...]]:
    """The tokens of every prompt, by name."""
    prompts = {name: tuple(tokenizer.encode(text)) for name, text in _RAW.items()}
    for name, messages in _CHATS.items():
        prompts[name] = tuple(tokenizer.apply_chat_template(messages, add_generation_prompt=True))
    diary = tuple(tokenizer.encode(_diary(200)))
    ledger = tuple(tokenizer.encode(_ledger(200)))
    for length in _BORDERS:
        prompts[f"{length} tokens"] = ledger[100 + length : 100 + 2 * length]
    for length in _LENGTHS:
        prompts[f"{length} tokens"] = diary[:length]
    return prompts


def follow_up(tokenizer: TokenizerWrapper, answered: tuple[int, ...], text: str) -> tuple[int, ...]:
    """The next turn of a chat: all tokens so far, answer included, and what the user says then."""
    turn = f"<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    return answered + tuple(tokenizer.encode(turn))


def _diary(num_days: int) -> str:
    weather = ("rain", "sunshine", "fog", "a light wind", "snow", "thunder", "clear skies")
    deeds = ("repaired the fence", "walked to the lake", "wrote three letters", "baked bread", "read about the stars")
    return " ".join(
        f"Day {day}: there was {weather[day * 3 % 7]}, so we {deeds[day * 2 % 5]} and counted {day * day % 97} birds."
        for day in range(1, num_days)
    )


def _ledger(num_lines: int) -> str:
    goods = ("apples", "nails", "candles", "rope", "paper", "salt")
    return "\n".join(f"{goods[i * 5 % 6]}: {i * 37 % 101} at {i % 9}.{i * 7 % 10}0 each" for i in range(num_lines))
