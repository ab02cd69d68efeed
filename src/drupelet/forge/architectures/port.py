"""What the converter must know of one model: its tensors, what is done to them, and its settings in GGUF.

An architecture is a subclass of `Decoder` with a config of its own, one file a family, registered by the names that
`config.json` uses. Names in GGUF come from the `gguf` package's own map. Nothing here reads a weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import gguf
import numpy as np
from numpy.typing import NDArray

from drupelet.forge.architectures.config import DecoderConfig, Rope, rope_of
from drupelet.forge.errors import CheckpointBad
from drupelet.forge.shape import ModelShape

Config = TypeVar("Config", bound=DecoderConfig)
Shape = tuple[int, ...]
PLAIN_ROPES = ("default", "linear", "yarn")


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to a tensor's rows on their way into the file."""

    heads: int = 0
    """Heads whose rows are reordered from halves to neighbours; 0 for none."""
    add: float = 0.0
    """Added to every number."""

    @property
    def nothing(self) -> bool:
        """Whether the numbers stay as they are."""
        return self == Change()


class Decoder(Generic[Config]):
    """One model of one architecture, here with the tensors that most of them have."""

    NAMES: ClassVar[tuple[str, ...]]
    """In `architectures` of `config.json`."""
    ARCH: ClassVar[gguf.MODEL_ARCH]
    CONFIG: ClassVar[type[DecoderConfig]]
    ROPES: ClassVar[tuple[str, ...]] = PLAIN_ROPES
    """Kinds of rope scaling that it may have."""
    ACTIVATION: ClassVar[tuple[str, ...]] = ("silu",)
    NESTED: ClassVar[str] = ""
    """The object in `config.json` that describes the text model, where there is more than that."""
    SPACE_PREFIX: ClassVar[bool | None] = None
    """What the tokenizer is told about a space before the first word, if anything."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def arch(self) -> str:
        """The architecture's name in GGUF."""
        return gguf.MODEL_ARCH_NAMES[self.ARCH]

    @property
    def rope(self) -> Rope:
        """Rotary positions of the layers that see everything."""
        return rope_of(self.config)

    @property
    def shape(self) -> ModelShape:
        """Return its sizes."""
        config = self.config
        return ModelShape(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.kv_heads,
            key_width=config.head_width,
            value_width=config.head_width,
            context=config.max_position_embeddings,
            vocab=config.vocab_size,
        )

    def unsupported(self) -> Iterator[str]:
        """Yield what this model has and its architecture here does not."""
        if self.config.quantization_config is not None:
            yield "weights that are quantized already"
        if self.config.hidden_act not in self.ACTIVATION:
            yield f"the activation {self.config.hidden_act[:40]!r}"
        if self.rope.kind not in self.ROPES:
            yield f"rope scaling of type {self.rope.said!r}"
        if self.config.head_width % 2:
            yield f"heads of odd width {self.config.head_width}"

    def contradictions(self) -> Iterator[str]:
        """Yield what in the config cannot be true of any model."""
        config = self.config
        if self.rope.kind in ("linear", "yarn"):
            self.rope.number("factor")
        if config.num_attention_heads % config.kv_heads:
            yield f"{config.num_attention_heads} heads do not divide by {config.kv_heads} key/value heads"
        if config.head_dim is None and config.hidden_size % config.num_attention_heads:
            yield f"hidden_size {config.hidden_size} does not divide by {config.num_attention_heads} heads"
        for name, token in (("bos", config.bos_token_id), *(("eos", token) for token in config.eos_ids)):
            if token is not None and token >= config.vocab_size:
                yield f"the {name} token is {token} and there are only {config.vocab_size}"

    def expected(self) -> dict[str, Shape]:
        """Return name -> shape of every tensor that this model has, in the model's order."""
        config = self.config
        shapes: dict[str, Shape] = {"model.embed_tokens.weight": (config.vocab_size, config.hidden_size)}
        for layer in range(config.num_hidden_layers):
            shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in self.layer().items()}
        shapes |= self.ending()
        if not config.tie_word_embeddings:
            shapes["lm_head.weight"] = (config.vocab_size, config.hidden_size)
        return shapes

    def own_name(self, name: str) -> str | None:
        """Return what this model calls a tensor of the files, or None for one that is not of its text model."""
        # Old checkpoints carry the rotary frequencies, which follow from the config.
        return None if name.endswith(".rotary_emb.inv_freq") else name

    def layer(self) -> dict[str, Shape]:
        """Return name -> shape of one layer's tensors."""
        config = self.config
        hidden, ffn = config.hidden_size, config.intermediate_size
        return {
            "input_layernorm.weight": (hidden,),
            "self_attn.q_proj.weight": (config.query_width, hidden),
            "self_attn.k_proj.weight": (config.key_width, hidden),
            "self_attn.v_proj.weight": (config.key_width, hidden),
            "self_attn.o_proj.weight": (hidden, config.query_width),
            "post_attention_layernorm.weight": (hidden,),
            "mlp.gate_proj.weight": (ffn, hidden),
            "mlp.up_proj.weight": (ffn, hidden),
            "mlp.down_proj.weight": (hidden, ffn),
        }

    def ending(self) -> dict[str, Shape]:
        """Return name -> shape of what follows the last layer, but for the output matrix."""
        return {"model.norm.weight": (self.config.hidden_size,)}

    def names(self) -> dict[str, str]:
        """Return the checkpoint's name -> GGUF's name of every tensor."""
        mapping = gguf.get_tensor_name_map(self.ARCH, self.config.num_hidden_layers)
        found = {name: mapping.get_name(name, try_suffixes=(".weight", ".bias")) for name in self.expected()}
        nameless = next((name for name, known in found.items() if known is None), None)
        if nameless is not None:
            raise CheckpointBad(f"tensor {nameless} has no name in GGUF", where="config.json")
        return {name: str(known) for name, known in found.items()}

    def change(self, source: str) -> Change:
        """Return what is done to the tensor that the checkpoint calls `source`."""
        del source
        return Change()

    def extra(self) -> Mapping[str, NDArray[np.float32]]:
        """Return tensors that follow from the config, by their names in GGUF."""
        return {}

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """Write the settings that the inference engine needs."""
        config = self.config
        writer.add_block_count(config.num_hidden_layers)
        writer.add_context_length(self.shape.context)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.kv_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(self.rope.theta)
        describe_scaling(self.rope, writer)


def describe_head_width(config: DecoderConfig, writer: gguf.GGUFWriter) -> None:
    """Write the width of a head, for architectures where it need not be the hidden size over the heads."""
    writer.add_key_length(config.head_width)
    writer.add_value_length(config.head_width)


def describe_scaling(rope: Rope, writer: gguf.GGUFWriter) -> None:
    """Write how positions are stretched: linearly, or by YaRN with what the checkpoint says of it."""
    if rope.kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope.number("factor"))
    elif rope.kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope.number("factor"))
        writer.add_rope_scaling_orig_ctx_len(int(rope.number("original_max_position_embeddings")))
        for name, add in (
            ("extrapolation_factor", writer.add_rope_scaling_yarn_ext_factor),
            ("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
            ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
            ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
        ):
            if rope.parameters.get(name) is not None:
                add(rope.number(name))
