"""The kiosk's data recipe: phrasings in, seeded question-answer pairs out. Pure Python, no torch.

`phrasings.toml` states what the shop's assistant knows and, as small grammars, how people ask for it. This module
expands the grammars, roughens the result the way a hurried customer types, and splits it:

- *seen*: what a version is trained on. Version 1.1 gets part of the grammar, 1.2 all of it.
- *unseen*: never trained on, by any version. Three kinds, reported apart because they differ in hardness:
  `combo` (known frames, a word combination whose hash is held out), `frame` (whole wrapping sentences held out),
  `held` (whole questions written apart, with words and orders of their own).

A phrasing's identity is its `normal()` form, so that case and punctuation never make a leaked question look new.
"""

from __future__ import annotations

import hashlib
import random
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
VERSIONS = ("1.1", "1.2")
HELD_OUT_ONE_IN = 12  # combinations whose hash is divisible by this are never trained on
UNSEEN_SEED = 20_261
KINDS = ("combo", "frame", "held")
GREEDY_PARENS = re.compile(r"\(([^()]*)\)")
TOO_MANY_TRIES = 50

OPENERS = (
    "hi", "hello", "hey", "excuse me", "sorry", "um", "uh", "quick question", "good morning", "good afternoon",
    "hi there", "pardon", "so", "well", "ok", "one more thing", "oh", "also", "right", "hello there", "erm", "ah",
)  # fmt: skip
CLOSERS = (
    "please", "thanks", "thank you", "here", "today", "cheers", "if i may ask", "by the way", "then", "mate", "btw",
    "exactly", "again", "in this shop", "in your shop", "for me", "actually", "now", "pls",
)  # fmt: skip
SWAPS = (
    ("what is", "what's"), ("where is", "where's"), ("i am", "i'm"), ("do you", "do u"), ("are you", "are u"),
    ("please", "pls"), ("can i", "could i"), ("can i", "may i"), ("can you", "could you"), ("want to", "wanna"),
    ("is there", "is there perhaps"), ("do you have", "have you got"), ("i need", "i really need"), ("the ", "that "),
    ("the ", "your "), ("do not", "don't"), ("cannot", "cant"), ("can't", "cant"), ("i would", "i'd"), ("my ", "our "),
    ("i want", "i would like"), ("shop", "store"), ("where can i", "where do i"), ("how much is", "how much's"),
    ("i ", "we "), ("for", "4"), ("you", "u"), ("i am", "im"), ("what is", "whats"), ("where is", "wheres"),
)  # fmt: skip
SMALL_WORDS = frozenset(
    (
        "a",
        "an",
        "the",
        "do",
        "does",
        "is",
        "are",
        "i",
        "you",
        "to",
        "of",
        "it",
        "your",
        "my",
        "some",
        "any",
        "there",
        "be",
        "can",
        "could",
        "will",
        "would",
        "me",
        "have",
        "for",
        "on",
        "in",
        "at",
    )
)


@dataclass(frozen=True, slots=True)
class Intent:
    """One fact: the exact answer, words it must contain, and the grammars that ask for it."""

    id: str
    answer: str
    keywords: tuple[str, ...]
    ask: tuple[str, ...]
    more: tuple[str, ...]
    held: tuple[str, ...]
    topic: str | None
    clause: str | None


@dataclass(frozen=True, slots=True)
class Frames:
    """Sentences that wrap a topic ("tell me about ...") or a clause ("do you know ..."), by who may see them."""

    topic: tuple[str, ...]
    topic_more: tuple[str, ...]
    topic_held: tuple[str, ...]
    clause: tuple[str, ...]
    clause_more: tuple[str, ...]
    clause_held: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """One question, its intent's id, the exact answer, and the kind of phrasing ("seen" or one of KINDS)."""

    question: str
    intent: str
    answer: str
    kind: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything `phrasings.toml` says."""

    intents: tuple[Intent, ...]
    frames: Frames


def load_recipe(path: Path = HERE / "phrasings.toml") -> Recipe:
    """Read the grammar file; raise KeyError naming the field that an intent lacks."""
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    frames = Frames(**{name: tuple(patterns) for name, patterns in raw["frames"].items()})
    return Recipe(tuple(_intent(entry, raw["family"]) for entry in raw["intent"]), frames)


def _intent(entry: dict[str, Any], families: dict[str, Any]) -> Intent:
    family = families[entry["family"]] if "family" in entry else {}
    item = entry.get("x", "")

    def patterns(field: str) -> tuple[str, ...]:
        return tuple(p.replace("{x}", item) for p in (*family.get(field, ()), *entry.get(field, ())))

    def single(field: str) -> str | None:
        pattern = entry.get(field, family.get(field))
        return None if pattern is None else str(pattern).replace("{x}", item)

    return Intent(
        id=entry["id"],
        answer=entry["answer"],
        keywords=tuple(entry["keywords"]),
        ask=patterns("ask"),
        more=patterns("more"),
        held=patterns("held"),
        topic=single("topic"),
        clause=single("clause"),
    )


def expand(pattern: str, rng: random.Random) -> str:
    """Return one random reading of a pattern, every "(a|b|)" resolved, with single spaces."""
    while "(" in pattern:
        pattern = GREEDY_PARENS.sub(lambda match: rng.choice(match.group(1).split("|")), pattern)
    return " ".join(pattern.replace(" ,", ",").split())


def normal(question: str) -> str:
    """Return the identity of a phrasing: lower case, letters, digits and single spaces only."""
    return " ".join(re.sub(r"[^a-z0-9 ]+", " ", question.lower().replace("'", "")).split())


def is_held_out(question: str) -> bool:
    """Tell whether this combination of words belongs to the unseen set by its hash."""
    digest = hashlib.sha256(normal(question).encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT_ONE_IN == 0


# ---- drawing one phrasing ---------------------------------------------------------------------------------------


def draw_seen(recipe: Recipe, intent: Intent, rng: random.Random, *, version: str) -> str:
    """Return a clean phrasing that `version` may train on."""
    wide = version != "1.1"
    direct = intent.ask + (intent.more if wide else intent.more[::2])
    frames = recipe.frames
    choice = rng.random()
    if intent.topic is not None and choice < 0.17:
        return _wrap(frames.topic + (frames.topic_more if wide else frames.topic_more[::2]), intent.topic, rng)
    if intent.clause is not None and choice < 0.34:
        return _wrap(frames.clause + (frames.clause_more if wide else frames.clause_more[::2]), intent.clause, rng)
    return expand(rng.choice(direct), rng)


def draw_unseen(recipe: Recipe, intent: Intent, rng: random.Random, *, kind: str) -> str | None:
    """Return a clean phrasing no version trains on, or None when the intent has none of this kind."""
    if kind == "held":
        return expand(rng.choice(intent.held), rng)
    if kind == "frame":
        wraps = []
        if intent.topic is not None:
            wraps.append((recipe.frames.topic_held, intent.topic))
        if intent.clause is not None:
            wraps.append((recipe.frames.clause_held, intent.clause))
        return _wrap(*rng.choice(wraps), rng) if wraps else None
    for _ in range(TOO_MANY_TRIES):
        question = draw_seen(recipe, intent, rng, version=VERSIONS[-1])
        if is_held_out(question):
            return question
    return None


def _wrap(frames: tuple[str, ...], inner: str, rng: random.Random) -> str:
    return expand(expand(rng.choice(frames), rng).replace("{t}", inner).replace("{c}", inner), rng)


# ---- roughening -------------------------------------------------------------------------------------------------


def _typo(text: str, rng: random.Random) -> str:
    """Damage one letter of one longer word: swap, drop, double or replace."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) > 3 and word.isalpha()]
    if not long:
        return text
    at = rng.choice(long)
    word, i = words[at], rng.randrange(1, len(words[at]) - 1)
    damage = rng.randrange(4)
    if damage == 0:
        word = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    elif damage == 1:
        word = word[:i] + word[i + 1 :]
    elif damage == 2:
        word = word[:i] + word[i] + word[i:]
    else:
        word = word[:i] + rng.choice("aeiourstnl") + word[i + 1 :]
    words[at] = word
    return " ".join(words)


def _drop_small_word(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    small = [i for i, word in enumerate(words) if word in SMALL_WORDS]
    if len(words) < 4 or not small:
        return text
    del words[rng.choice(small)]
    return " ".join(words)


def _swap(text: str, rng: random.Random) -> str:
    old, new = rng.choice(SWAPS)
    return re.sub(rf"\b{re.escape(old)}(?!\w)", new, text, count=1) if old in text else text


def _keywords_only(text: str) -> str:
    words = [word for word in text.split(" ") if word not in SMALL_WORDS]
    return " ".join(words) if len(words) > 1 else text


def _chance(rng: random.Random, probability: float, change: Callable[[str, random.Random], str], text: str) -> str:
    return change(text, rng) if rng.random() < probability else text


def roughen(question: str, rng: random.Random, *, heavy: bool) -> str:
    """Return the question as somebody might type it. `heavy` also rewords; otherwise openers, typos and case only."""
    text = question
    if heavy:
        for _ in range(3):
            text = _chance(rng, 0.3, _swap, text)
        text = _chance(rng, 0.2, _drop_small_word, text)
        if rng.random() < 0.04:
            text = _keywords_only(text)
    if rng.random() < 0.22:
        text = f"{rng.choice(OPENERS)}{rng.choice((',', ',', '', ' -'))} {text}"
    if rng.random() < 0.16:
        text = f"{text}{rng.choice((',', '', ''))} {rng.choice(CLOSERS)}"
    text = _chance(rng, 0.18, _typo, text)
    return punctuate(text, rng)


def punctuate(text: str, rng: random.Random) -> str:
    """Return the text with some case and some final mark; its `normal()` form stays the same."""
    text += rng.choice(("?", "?", "?", "", "", ".", "!", "??", " ?"))
    style = rng.random()
    if style < 0.5:
        return re.sub(r"\bi\b", "I", text[:1].upper() + text[1:])
    return text.upper() if style > 0.97 else text


# ---- the sets ---------------------------------------------------------------------------------------------------


def unseen_set(recipe: Recipe, *, per_kind: int = 12, seed: int = UNSEEN_SEED) -> list[Example]:
    """Return the held-out questions: up to `per_kind` distinct ones for every intent and kind."""
    rng = random.Random(seed)
    found: list[Example] = []
    for intent in recipe.intents:
        for kind in KINDS:
            texts: set[str] = set()
            for _ in range(per_kind * 4):
                core = draw_unseen(recipe, intent, rng, kind=kind)
                if core is None or len(texts) == per_kind:
                    break
                texts.add(roughen(core, rng, heavy=False))
            found += [Example(text, intent.id, intent.answer, kind) for text in sorted(texts)]
    return found


def training_stream(recipe: Recipe, *, version: str, seed: int) -> Iterator[Example]:
    """Yield seen examples without end, intents in equal shares; nothing unseen or held out is among them."""
    if version not in VERSIONS:
        raise ValueError(f"unknown version {version!r}; known: {', '.join(VERSIONS)}")
    rng = random.Random(f"{version}/{seed}")
    forbidden = {normal(example.question) for example in unseen_set(recipe)}
    order = list(recipe.intents)
    while True:
        rng.shuffle(order)
        for intent in order:
            core = draw_seen(recipe, intent, rng, version=version)
            text = roughen(core, rng, heavy=True) if rng.random() < 0.85 else punctuate(core, rng)
            if is_held_out(core) or is_held_out(text) or normal(text) in forbidden:
                continue
            yield Example(text, intent.id, intent.answer, "seen")


def take(stream: Iterator[Example], count: int) -> list[Example]:
    """Return the stream's next `count` examples."""
    return [next(stream) for _ in range(count)]
