"""Train the kiosk model and write it in Hugging Face's layout. Needs the extra `drupelet[train]` (torch).

    python models/kiosk/train.py --version 1.1 --out models/kiosk/1.1
    python models/kiosk/train.py --version 1.2 --out models/kiosk/1.2 --start models/kiosk/1.1 \\
        --tokenizer models/kiosk/1.1/tokenizer.model

A Llama of about two million parameters in plain torch, with Hugging Face's tensor names and rotary convention
(halves rotated, not pairs), so that the files load anywhere a Llama loads. Both versions share one tokenizer, which
is trained from version 1.2's data when `--tokenizer` names none.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import sentencepiece
import torch
import torch.nn.functional as F
from recipe_data import KINDS, VERSIONS, Example, Recipe, load_recipe, take, training_stream, unseen_set
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
VOCAB_SIZE = 1024
CONTEXT_TOKENS = 512
ROPE_THETA = 10_000.0
NORM_EPS = 1e-5
QUESTION_LOSS_WEIGHT = 0.15  # reading questions is practice for understanding them; answers are the task
EMA_DECAY = 0.998
BATCHES_PER_BUCKET = 24
THREADS = 2
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|user|>\\n' + message['content'] | trim + '<|end|>\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>\\n' + message['content'] | trim + '<|end|>\\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network."""

    hidden: int = 256
    ffn: int = 512
    layers: int = 3
    heads: int = 8
    kv_heads: int = 4

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads


class RMSNorm(nn.Module):
    """Scale by the root mean square, then by a learned weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, NORM_EPS)


class Attention(nn.Module):
    """Causal attention with grouped keys and values and rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        kv_width = shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden, shape.hidden, bias=False)
        self.k_proj = nn.Linear(shape.hidden, kv_width, bias=False)
        self.v_proj = nn.Linear(shape.hidden, kv_width, bias=False)
        self.o_proj = nn.Linear(shape.hidden, shape.hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        s = self.shape
        q = rotate(self.q_proj(x).view(batch, length, s.heads, s.head_dim).transpose(1, 2), cos, sin)
        k = rotate(self.k_proj(x).view(batch, length, s.kv_heads, s.head_dim).transpose(1, 2), cos, sin)
        v = self.v_proj(x).view(batch, length, s.kv_heads, s.head_dim).transpose(1, 2)
        k, v = (t.repeat_interleave(s.heads // s.kv_heads, dim=1) for t in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, s.hidden))


class MLP(nn.Module):
    """SwiGLU feed-forward."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.ffn, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.ffn, bias=False)
        self.down_proj = nn.Linear(shape.ffn, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm, with dropout while training."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden)
        self.mlp = MLP(shape)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), cos, sin))
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x)))


class Kiosk(nn.Module):
    """The Llama; attribute names give Hugging Face's tensor names under `model.`."""

    def __init__(self, shape: Shape, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(VOCAB_SIZE, shape.hidden)
        self.layers = nn.ModuleList(Block(shape, dropout) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.hidden)
        inverse = ROPE_THETA ** (-torch.arange(0, shape.head_dim, 2).float() / shape.head_dim)
        angles = torch.arange(CONTEXT_TOKENS).float()[:, None] * inverse[None, :]
        self.register_buffer("cos", torch.cat([angles, angles], dim=-1).cos(), persistent=False)
        self.register_buffer("sin", torch.cat([angles, angles], dim=-1).sin(), persistent=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                deep = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=0.02 / (math.sqrt(2 * shape.layers) if deep else 1.0))

    def forward(self, ids: Tensor) -> Tensor:
        """Return the hidden states, (batch, length, hidden); `logits` turns the wanted ones into scores."""
        length = ids.shape[1]
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, self.cos[:length], self.sin[:length])
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return scores over the vocabulary; output and input embeddings are one matrix."""
        return F.linear(hidden, self.embed_tokens.weight)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary positions the way Hugging Face stores them: the second half pairs with the first."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


# ---- tokens -----------------------------------------------------------------------------------------------------


def train_tokenizer(recipe: Recipe, path: Path, *, seed: int) -> None:
    """Write a SentencePiece BPE model with byte fallback (llama.cpp's server needs it) and no dummy prefix."""
    examples = take(training_stream(recipe, version=VERSIONS[-1], seed=seed), 30_000)
    lines = [example.question for example in examples] + [intent.answer for intent in recipe.intents] * 60
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCAB_SIZE,
        byte_fallback=True,
        user_defined_symbols=[USER, ASSISTANT, END],
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        character_coverage=1.0,
        num_threads=THREADS,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())


def prompt_text(question: str) -> str:
    """Return what the chat template renders for one user turn."""
    return f"{USER}\n{question}{END}\n{ASSISTANT}\n"


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as ids: `ids[:answer_at]` is the prompt, the rest the answer and its end marker."""

    ids: list[int]
    answer_at: int
    kind: str


def encode(tokenizer: sentencepiece.SentencePieceProcessor, examples: list[Example]) -> list[Encoded]:
    """Return every example as token ids."""
    answers = {example.answer: tokenizer.encode(example.answer + END) for example in examples}
    prompts = tokenizer.encode([prompt_text(example.question) for example in examples])
    return [
        Encoded(prompt + answers[example.answer], len(prompt), example.kind)
        for prompt, example in zip(prompts, examples, strict=True)
    ]


def collate(batch: list[Encoded]) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs, targets and loss weights, padded on the right: (batch, length - 1) each."""
    width = max(len(item.ids) for item in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    weights = torch.zeros(len(batch), width)
    for row, item in enumerate(batch):
        ids[row, : len(item.ids)] = torch.tensor(item.ids)
        weights[row, : item.answer_at] = QUESTION_LOSS_WEIGHT
        weights[row, item.answer_at : len(item.ids)] = 1.0
    return ids[:, :-1], ids[:, 1:], weights[:, 1:]


def batches(data: list[Encoded], size: int, rng: random.Random) -> list[list[Encoded]]:
    """Return the data in random batches of similar lengths, so that little is padding."""
    shuffled = rng.sample(data, len(data))
    pool = size * BATCHES_PER_BUCKET
    found: list[list[Encoded]] = []
    for start in range(0, len(shuffled), pool):
        bucket = sorted(shuffled[start : start + pool], key=lambda item: len(item.ids))
        found += [bucket[i : i + size] for i in range(0, len(bucket), size)]
    rng.shuffle(found)
    return found


# ---- training and measuring -------------------------------------------------------------------------------------


@torch.no_grad()
def exact(model: Kiosk, data: list[Encoded]) -> list[bool]:
    """Tell for each example whether greedy decoding gives exactly its answer.

    Greedy decoding follows the answer exactly when, given the answer so far, each next token is the likeliest; so one
    pass over prompt and answer decides it.
    """
    model.eval()
    results: list[bool] = []
    for start in range(0, len(data), 128):
        part = data[start : start + 128]
        inputs, targets, weights = collate(part)
        right = (model.logits(model(inputs)).argmax(-1) == targets) | (weights < 1.0)
        results += right.all(dim=1).tolist()
    return results


def accuracy(model: Kiosk, data: list[Encoded]) -> dict[str, float]:
    """Return the share of exact answers for each kind of phrasing, and over all of them."""
    results = exact(model, data)
    report: dict[str, float] = {}
    for kind in sorted({item.kind for item in data}):
        mine = [ok for ok, item in zip(results, data, strict=True) if item.kind == kind]
        report[kind] = sum(mine) / len(mine)
    return report | {"all": sum(results) / len(results)}


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how hard to train; `seconds_max` ends a run early on a busy machine, with its schedule completed."""

    steps: int
    batch: int
    rate: float
    dropout: float
    seconds_max: float
    seed: int


def train(data: list[Encoded], check: list[Encoded], plan: Plan, *, start: Path | None = None) -> Kiosk:
    """Return the averaged weights after AdamW with warm-up and a cosine that ends on time or on the last step.

    `start` names a version's folder whose weights training goes on from; without it they are drawn from the seed.
    """
    torch.manual_seed(plan.seed)
    rng = random.Random(plan.seed)
    model, average = Kiosk(Shape(), dropout=plan.dropout), Kiosk(Shape())
    if start is not None:
        stored = load_file(start / "model.safetensors")
        model.load_state_dict({name.removeprefix("model."): weight.float() for name, weight in stored.items()})
    average.load_state_dict(model.state_dict())
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98))
    started, step, queue = time.monotonic(), 0, list[list[Encoded]]()
    while True:
        progress = max(step / plan.steps, (time.monotonic() - started) / plan.seconds_max)
        if progress >= 1.0:
            break
        queue = queue or batches(data, plan.batch, rng)
        rate = plan.rate * min(1.0, (step + 1) / 60) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        model.train()
        inputs, targets, weights = collate(queue.pop())
        kept = weights > 0
        scores = model.logits(model(inputs)[kept])
        loss = (F.cross_entropy(scores, targets[kept], reduction="none") * weights[kept]).sum() / weights[kept].sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            decay = min(EMA_DECAY, step / (step + 10))
            for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(weight, 1.0 - decay)
        if step % 150 == 0:
            report = {kind: round(share, 3) for kind, share in accuracy(average, check).items()}
            print(f"step {step} progress {progress:.2f} loss {loss.item():.3f} {report}", flush=True)
    return average


# ---- writing ----------------------------------------------------------------------------------------------------


def save(model: Kiosk, tokenizer_path: Path, out: Path) -> None:
    """Write the model, its tokenizer and their settings in Hugging Face's layout, weights in float16."""
    out.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": weight.half().contiguous() for name, weight in model.state_dict().items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    if tokenizer_path.resolve() != (out / "tokenizer.model").resolve():
        shutil.copyfile(tokenizer_path, out / "tokenizer.model")
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_path))
    end = tokenizer.piece_to_id(END)
    special = {str(tokenizer.piece_to_id(p)): _added(p) for p in ("<unk>", "<s>", "</s>", USER, ASSISTANT, END)}
    _write_json(out / "config.json", _config(model.shape, bos=tokenizer.bos_id(), eos=end))
    _write_json(
        out / "generation_config.json",
        {
            "bos_token_id": tokenizer.bos_id(),
            "eos_token_id": end,
            "pad_token_id": end,
            "do_sample": False,
            "max_new_tokens": 48,
        },
    )
    _write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": False,
            "add_eos_token": False,
            "add_prefix_space": False,
            "legacy": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": CONTEXT_TOKENS,
            "unk_token": "<unk>",
            "bos_token": "<s>",
            "eos_token": END,
            "pad_token": END,
            "added_tokens_decoder": special,
            "chat_template": CHAT_TEMPLATE,
        },
    )


def _added(piece: str) -> dict[str, object]:
    return {
        "content": piece,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "single_word": False,
        "special": True,
    }


def _config(shape: Shape, *, bos: int, eos: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": CONTEXT_TOKENS,
        "rms_norm_eps": NORM_EPS,
        "rope_theta": ROPE_THETA,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "vocab_size": VOCAB_SIZE,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": eos,
        "torch_dtype": "float16",
    }


def _write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Train one version and print its exact-answer shares, seen and unseen, as stored (float16)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", choices=VERSIONS, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, help="an existing tokenizer.model; trained anew without it")
    parser.add_argument("--start", type=Path, help="a version's folder to go on from, as 1.2 goes on from 1.1")
    parser.add_argument("--examples", type=int, default=120_000)
    parser.add_argument("--steps", type=int, default=1_500)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seconds", type=float, default=600.0, help="wall-clock limit of the training loop")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    recipe = load_recipe()
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer_path = args.tokenizer or args.out / "tokenizer.model"
    if args.tokenizer is None:
        train_tokenizer(recipe, tokenizer_path, seed=args.seed)
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_path))
    unseen = encode(tokenizer, unseen_set(recipe))
    stream = training_stream(recipe, version=args.version, seed=args.seed)
    seen = encode(tokenizer, take(stream, args.examples))
    tokens = sum(len(item.ids) for item in seen) / len(seen)
    print(f"{len(seen)} seen, {len(unseen)} unseen ({', '.join(KINDS)}), {tokens:.1f} tokens each", flush=True)
    plan = Plan(args.steps, args.batch, args.rate, args.dropout, args.seconds, args.seed)
    model = train(seen, random.Random(0).sample(unseen, 500), plan, start=args.start)
    stored = model.half().float()
    save(stored, tokenizer_path, args.out)
    print(f"{time.process_time():.0f} CPU seconds in all")
    print("unseen", accuracy(stored, unseen))
    print("seen", accuracy(stored, random.Random(0).sample(seen, 2_000)))


if __name__ == "__main__":
    main()
