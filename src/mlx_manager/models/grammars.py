"""Compiles the grammars of requests for one model's tokenizer, with llguidance, in a thread of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from llguidance import LLMatcher, LLTokenizer
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import Tokenizer

from mlx_manager.engine.grammar import Constraint
from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import Grammar, GrammarKind
from mlx_manager.models.schema_loops import find_loop
from mlx_manager.parsing.grammar import in_known_dialect

_WHITESPACE = r" |\n[ \t]{0,24}"
"""Between the tokens of a JSON text: what serializers and pretty-printers write. Without a bound, a small model that
has nothing to say goes on with white space until its length limit."""
_ANY_OBJECT = '{"type": "object"}'
_NUM_MOST_REASON_CHARACTERS = 500
_LISTING = re.compile(r"^\s*\d+ \| ", re.MULTILINE)
"""How llguidance lists the lines of a grammar behind what is wrong with it."""
Part = tuple[str, str]
"""Whose schema it is, as words that end in a blank, and its text."""


class GrammarCompiler:
    """Turns an `ir.Grammar` into a `Constraint` for the engine.

    The trie of the vocabulary that llguidance walks takes 0.2 s of computing for 49,152 tokens and 2.2 s for 262,144
    (measured on a CPU), in which nothing else of Python's runs, wherever it is built: `prepare` is for a time when
    nothing else wants to. Where the first grammar comes before that, it is built then.
    """

    def __init__(self, tokenizer: TokenizerWrapper, vocabulary_size: int, eos_token_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._vocabulary_size = vocabulary_size
        self._eos_token_ids = eos_token_ids
        self._trie: LLTokenizer | None = None
        self._preparing: Future[LLTokenizer] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grammar-compiler")

    def prepare(self) -> Future[LLTokenizer]:
        """Begin with what the first grammar would have to wait for, once; done where that was built or cannot be."""
        if self._preparing is None:
            self._preparing = self._thread.submit(self._ready_trie, None)
        return self._preparing

    def start(self, grammar: Grammar, parts: Sequence[Part] = ()) -> Future[Constraint]:
        """Compile in the background. The future raises `InvalidRequest`, naming the field and what is wrong.

        `parts` are the schemas of which `grammar` was written here: an error is told of the part that it is about.
        """
        return self._thread.submit(self._compile, grammar, tuple(parts))

    def _compile(self, grammar: Grammar, parts: tuple[Part, ...]) -> Constraint:
        trie = self._ready_trie(grammar.param)
        try:
            source = _source(grammar)
        except (ValueError, RecursionError) as error:
            raise _refusal(grammar, f"it is not JSON: {error}") from None
        schemas = parts or ((("", grammar.text),) if grammar.kind is GrammarKind.JSON_SCHEMA else ())
        for whose, schema in schemas:
            if (reference := find_loop(json.loads(schema))) is not None:
                raise _refusal(grammar, f"{whose}the reference {reference!r} leads only back to itself")
        matcher = _matcher(trie, source)
        if not matcher.is_error():
            return Constraint(matcher, trie.vocab_size)
        for whose, schema in parts:
            alone = _matcher(trie, _source(Grammar(kind=GrammarKind.JSON_SCHEMA, param="", text=schema)))
            if alone.is_error():
                raise _refusal(grammar, whose + alone.get_error())
        reason = matcher.get_error()
        # of a grammar that was written here the lines mean nothing to who sent its parts
        raise _refusal(grammar, _LISTING.split(reason, maxsplit=1)[0] if parts else reason)

    def _ready_trie(self, param: str | None) -> LLTokenizer:
        """The trie, built if it is not there. Called in the compiling thread alone. Raises `InvalidRequest`."""
        if self._trie is None:
            self._trie = self._build_trie(param)
        return self._trie

    def _build_trie(self, param: str | None) -> LLTokenizer:
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer) or not self._eos_token_ids:
            raise InvalidRequest(
                f"{param} cannot be enforced for this model: its tokenizer is not of a kind that grammars are "
                "compiled for. Leave it out.",
                param=param,
            )
        spelled = backend.to_str()
        if backend.padding is not None or backend.truncation is not None:
            own = Tokenizer.from_str(spelled)
            own.no_padding()
            own.no_truncation()
            spelled = own.to_str()
        return LLTokenizer(spelled, n_vocab=self._vocabulary_size, eos_token=sorted(self._eos_token_ids))


def _matcher(trie: LLTokenizer, source: str) -> LLMatcher:
    """With an error where the grammar cannot be compiled, or allows not even a first token."""
    matcher = LLMatcher(trie, source, log_level=0)
    if not matcher.is_error():
        matcher.compute_bitmask()
    return matcher


def _source(grammar: Grammar) -> str:
    """llguidance's own form of the grammar. Raises `ValueError` for a schema that is no JSON."""
    if grammar.kind is GrammarKind.REGEX:
        return LLMatcher.grammar_from_regex(grammar.text)
    if grammar.kind is GrammarKind.LARK:
        return LLMatcher.grammar_from_lark(grammar.text)
    schema = _ANY_OBJECT if grammar.kind is GrammarKind.JSON_OBJECT else grammar.text
    if '"$schema"' in schema:
        schema = json.dumps(in_known_dialect(json.loads(schema)))
    # A schema's own "x-guidance" overrides what is given here.
    return LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_pattern": _WHITESPACE})


def _refusal(grammar: Grammar, reason: str) -> InvalidRequest:
    lines = " ".join(reason.split("<state>", maxsplit=1)[0].split())[:_NUM_MOST_REASON_CHARACTERS]
    return InvalidRequest(f"{grammar.param} cannot be enforced: {lines}", param=grammar.param)
