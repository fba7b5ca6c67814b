"""Moonshine, the recogniser's network: sound to words (arXiv 2410.15608).

Three convolutions make a frame of every 24 ms, an encoder of ``encoder_layers`` attends to all
of them, a decoder writes one token after the other. There is no padding: a sound of any length is
encoded as it is, and normalised over its whole length. Parameters have the names of the
published checkpoints, so that their weights load as they are.

The network runs as four graphs, which share no weights: ``LowerEncoder`` (whose states are also
the frames that tone is heard from), ``UpperEncoder``, ``CrossStates`` and ``DecoderStep``.
Shapes: B batch, N samples, T frames, H heads, d width of a head, P tokens so far.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.recogniser.shape import STEM, RecogniserShape

ROPE_BASE = 10_000.0


def rotation(positions: Tensor, shape: RecogniserShape) -> tuple[Tensor, Tensor]:
    """Cosines and sines [T, d / 2] of the rotary embedding; 1 and 0 for unchanged pairs."""
    pairs = torch.arange(shape.head_dim // 2, device=positions.device, dtype=torch.float32)
    frequency = ROPE_BASE ** (-2.0 * pairs / shape.rotary_dim)
    frequency = torch.where(pairs < shape.rotary_dim // 2, frequency, torch.zeros_like(pairs))
    angle = positions[:, None].float() * frequency
    return angle.cos(), angle.sin()


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair of neighbouring values of [B, H, T, d] by its position's angle."""
    cos, sin = turn
    even, odd = x.reshape(*x.shape[:-1], x.shape[-1] // 2, 2).unbind(-1)
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)


class Attention(nn.Module):
    """Projections of multi-head attention; which positions attend to which is up to the layer."""

    def __init__(self, shape: RecogniserShape) -> None:
        super().__init__()
        self.shape = shape
        self.q_proj = nn.Linear(shape.dim, shape.dim, bias=False)
        self.k_proj = nn.Linear(shape.dim, shape.dim, bias=False)
        self.v_proj = nn.Linear(shape.dim, shape.dim, bias=False)
        self.o_proj = nn.Linear(shape.dim, shape.dim, bias=False)

    def split(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, H, T, d]."""
        heads = x.reshape(*x.shape[:2], self.shape.heads, self.shape.head_dim)
        return heads.transpose(1, 2)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[B, H, T, d] queries over [B, H, S, d] keys and values, to [B, T, D]."""
        weights = (query @ key.transpose(2, 3) * self.shape.head_dim**-0.5).softmax(-1)
        out: Tensor = self.o_proj((weights @ value).transpose(1, 2).flatten(2))
        return out


class EncoderMlp(nn.Module):
    """Feed-forward with GELU."""

    def __init__(self, shape: RecogniserShape) -> None:
        super().__init__()
        self.fc1 = nn.Linear(shape.dim, shape.feed_forward)
        self.fc2 = nn.Linear(shape.feed_forward, shape.dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to the same."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class DecoderMlp(nn.Module):
    """Feed-forward with a SiLU gate."""

    def __init__(self, shape: RecogniserShape) -> None:
        super().__init__()
        self.fc1 = nn.Linear(shape.dim, 2 * shape.feed_forward)
        self.fc2 = nn.Linear(shape.feed_forward, shape.dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to the same."""
        values, gate = self.fc1(x).chunk(2, dim=-1)
        out: Tensor = self.fc2(F.silu(gate) * values)
        return out


class EncoderLayer(nn.Module):
    """Every frame attends to every frame."""

    def __init__(self, shape: RecogniserShape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = EncoderMlp(shape)
        self.input_layernorm = nn.LayerNorm(shape.dim, bias=False)
        self.post_attention_layernorm = nn.LayerNorm(shape.dim, bias=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """[B, T, D] to the same."""
        own, y = self.self_attn, self.input_layernorm(x)
        query = rotate(own.split(own.q_proj(y)), turn)
        key = rotate(own.split(own.k_proj(y)), turn)
        x = x + own.attend(query, key, own.split(own.v_proj(y)))
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Encoder(nn.Module):
    """Sound to states."""

    def __init__(self, shape: RecogniserShape) -> None:
        super().__init__()
        self.shape = shape
        dim = shape.dim
        (first, first_step), (second, second_step), (third, third_step) = STEM
        self.conv1 = nn.Conv1d(1, dim, first, first_step, bias=False)
        self.conv2 = nn.Conv1d(dim, 2 * dim, second, second_step)
        self.conv3 = nn.Conv1d(2 * dim, dim, third, third_step)
        self.groupnorm = nn.GroupNorm(1, dim)
        self.layers = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.encoder_layers))
        self.layer_norm = nn.LayerNorm(dim, bias=False)

    def stem(self, samples: Tensor) -> Tensor:
        """[B, N] samples at 16 kHz to [B, T, D]."""
        x = self.groupnorm(self.conv1(samples[:, None]).tanh())
        x = F.gelu(self.conv3(F.gelu(self.conv2(x))))
        return x.transpose(1, 2)

    def run(self, x: Tensor, first: int, stop: int) -> Tensor:
        """States [B, T, D] through the layers ``first`` up to ``stop``."""
        turn = rotation(torch.arange(x.shape[1], device=x.device), self.shape)
        for layer in self.layers[first:stop]:
            x = layer(x, turn)
        return x

    def forward(self, samples: Tensor) -> Tensor:
        """[B, N] samples to final states [B, T, D]."""
        states: Tensor = self.layer_norm(self.run(self.stem(samples), 0, len(self.layers)))
        return states


class DecoderLayer(nn.Module):
    """A new token attends to itself and those before it, then to the sound."""

    def __init__(self, shape: RecogniserShape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.encoder_attn = Attention(shape)
        self.mlp = DecoderMlp(shape)
        self.input_layernorm = nn.LayerNorm(shape.dim, bias=False)
        self.post_attention_layernorm = nn.LayerNorm(shape.dim, bias=False)
        self.final_layernorm = nn.LayerNorm(shape.dim, bias=False)

    def cross(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, T, d] of the encoder's states."""
        sound = self.encoder_attn
        return sound.split(sound.k_proj(states)), sound.split(sound.v_proj(states))

    def forward(
        self,
        x: Tensor,
        turn: tuple[Tensor, Tensor],
        past: tuple[Tensor, Tensor],
        sound: list[Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One token [B, 1, D] with its past; also keys and values [B, H, P + 1, d] with it."""
        own, y = self.self_attn, self.input_layernorm(x)
        key = torch.cat((past[0], rotate(own.split(own.k_proj(y)), turn)), dim=2)
        value = torch.cat((past[1], own.split(own.v_proj(y))), dim=2)
        x = x + own.attend(rotate(own.split(own.q_proj(y)), turn), key, value)
        other, y = self.encoder_attn, self.post_attention_layernorm(x)
        x = x + other.attend(other.split(other.q_proj(y)), sound[0], sound[1])
        return x + self.mlp(self.final_layernorm(x)), key, value


class Decoder(nn.Module):
    """Token after token, each with the sound in view."""

    def __init__(self, shape: RecogniserShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.dim)
        self.layers = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.decoder_layers))
        self.norm = nn.LayerNorm(shape.dim, bias=False)


class Recogniser(nn.Module):
    """The whole network; ``encoder`` and ``decoder`` are named as in published checkpoints."""

    def __init__(self, shape: RecogniserShape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape)


class LowerEncoder(nn.Module):
    """Stem and first layers: samples [B, N] to middle states [B, T, D]."""

    def __init__(self, network: Recogniser, layers: int) -> None:
        super().__init__()
        self.encoder = network.encoder
        self.layers = layers

    def forward(self, samples: Tensor) -> Tensor:
        """Encode."""
        return self.encoder.run(self.encoder.stem(samples), 0, self.layers)


class UpperEncoder(nn.Module):
    """The other layers: middle states [B, T, D] to final ones."""

    def __init__(self, network: Recogniser, layers: int) -> None:
        super().__init__()
        self.encoder = network.encoder
        self.layers = layers

    def forward(self, states: Tensor) -> Tensor:
        """Encode on."""
        encoder = self.encoder
        final: Tensor = encoder.layer_norm(encoder.run(states, self.layers, len(encoder.layers)))
        return final


class CrossStates(nn.Module):
    """Final states [B, T, D] to the decoder's keys and values of them [2 L, B, H, T, d]."""

    def __init__(self, network: Recogniser) -> None:
        super().__init__()
        self.layers = network.decoder.layers

    def forward(self, states: Tensor) -> Tensor:
        """Keys and values, layer by layer."""
        found: list[Tensor] = []
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)  # a ModuleList does not know its layers' type
            found += layer.cross(states)
        return torch.stack(found)


class DecoderStep(nn.Module):
    """One token: the cache of the tokens before it in, logits and the longer cache out.

    The embedding's transpose is both the table that tokens are looked up in and the output head,
    so that a graph holds it once.
    """

    def __init__(self, network: Recogniser) -> None:
        super().__init__()
        self.shape = network.shape
        self.layers = network.decoder.layers
        self.norm = network.decoder.norm
        self.head = nn.Parameter(network.decoder.embed_tokens.weight.detach().t().contiguous())

    def forward(self, tokens: Tensor, past: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
        """Run one step.

        Args:
            tokens: [B] ids.
            past: [2 L, B, H, P, d] keys and values of the tokens before; P may be 0.
            sound: [2 L, B, H, T, d] of ``CrossStates``.

        Returns:
            Logits [B, vocabulary] and the cache [2 L, B, H, P + 1, d].
        """
        x = self.head.index_select(1, tokens).t()[:, None]  # [B, 1, D]
        position = torch.full((1,), past.shape[3], dtype=torch.int64, device=x.device)
        turn = rotation(position, self.shape)
        kept: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            keys, values = past[2 * index], past[2 * index + 1]
            x, key, value = layer(x, turn, (keys, values), [sound[2 * index], sound[2 * index + 1]])
            kept += [key, value]
        return self.norm(x)[:, 0] @ self.head, torch.stack(kept)
