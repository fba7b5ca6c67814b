"""The paper's text simulation: a language model recognises the speech, its states are the text.

A frozen speech encoder's frames, five by five through an adapter, stand before a prompt; the
model generates, and the states of one layer at each generated token are the simulated text
(facts: paper, Text simulation). Run once per speech segment, never on the scoring path.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.bundle import digest
from models.encoders.transformers_speech import SpeechEncoder
from models.pretrained import PretrainedError, half_on_gpu, hidden_state, load
from models.spec import SAMPLE_RATE_HZ
from models.text_simulation.protocol import SimulatedText
from models.text_simulation.speech import RecogniserSpeech, open_speech

PROMPT = (
    "USER: Transcribe speech to text. Output the transcription directly without redundant "
    "content. Ensure that the output is not duplicated. \n ASSISTANT:"
)


ADAPTER = "adapter.safetensors"
"""Of a bundle: the weights between both models."""
TOKENS_TOGETHER = 16
"""Limits are multiples of this, so that segments of like length are generated together."""


@dataclass(frozen=True)
class LlmSettings:
    """Which models, and how they generate."""

    speech: str
    """Speech encoder by name or path, or the folder of a recogniser; its last layer is used."""
    language_model: str
    adapter: Path | None = None
    """Adapter weights (.safetensors, .pt); None: random, for fitting an adapter."""
    layer: int = -4
    concatenate: int = 5
    adapter_dim: int = 2048
    beams: int = 4
    max_tokens: int = 200
    tokens_per_s: float = 8.0
    """Of speech, at most: the fastest talkers say 6. A model that does not find its end would
    write 200 tokens of its own for half a second of sound."""
    prompt: str = PROMPT
    static_cache: bool | None = None
    """Keys and values in memory of fixed size, so that a step can be compiled; None: on a GPU."""


class FrameConcatenatingAdapter(nn.Module):
    """Speech frames [B, T, D] at 50 Hz to language model embeddings [B, T // k, D']."""

    def __init__(self, inputs: int, hidden: int, outputs: int, concatenate: int) -> None:
        super().__init__()
        self.concatenate = concatenate
        self.linear1 = nn.Linear(inputs * concatenate, hidden)
        self.linear2 = nn.Linear(hidden, outputs)

    def forward(self, frames: Tensor) -> Tensor:
        """Concatenate k frames each, the remainder dropped; Linear, ReLU, Linear."""
        batch, count, width = frames.shape
        groups = count // self.concatenate
        joined = frames[:, : groups * self.concatenate].reshape(
            batch, groups, width * self.concatenate
        )
        embeddings: Tensor = self.linear2(torch.relu(self.linear1(joined)))
        return embeddings

    def load(self, path: Path) -> None:
        """Load weights; keys may carry a prefix, as in SLAM-ASR's checkpoints.

        Raises:
            PretrainedError: unreadable, or keys missing or misshapen.
        """
        state = {key: _find(read_weights(path), key, path) for key in self.state_dict()}
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            raise PretrainedError(f"{path}: {' '.join(str(error).split())}") from None


@dataclass(frozen=True, eq=False)
class LlmModels:
    """The models themselves."""

    speech: SpeechEncoder | RecogniserSpeech
    tokenizer: Any
    language_model: Any


class LlmTextSimulation:
    """Text simulation with a causal language model."""

    def __init__(
        self,
        settings: LlmSettings,
        device: torch.device | None = None,
        models: LlmModels | None = None,
    ) -> None:
        """Load both models, unless they are given; bfloat16 on a GPU, float32 on a CPU.

        Raises:
            PretrainedError: one of them cannot be loaded, or the adapter does not fit.
        """
        best, dtype = half_on_gpu()
        self._device = device or best
        self._dtype = dtype if self._device.type == "cuda" else torch.float32
        self._settings = settings
        models = models or load_models(settings)
        self._speech = models.speech
        self._speech.to(self._device, self._dtype)
        static = settings.static_cache
        on_gpu = self._device.type == "cuda"
        self._cache = _static_cache() if static or (static is None and on_gpu) else {}
        self._tokenizer = models.tokenizer
        self._model = models.language_model.to(self._device, self._dtype).eval()
        self.dim = int(self._model.config.hidden_size)
        self._adapter = FrameConcatenatingAdapter(
            self._speech.spec.dim, settings.adapter_dim, self.dim, settings.concatenate
        )
        if settings.adapter is not None:
            self._adapter.load(settings.adapter)
        self._adapter.to(self._device, self._dtype).eval()

    def files(self, scratch: Path) -> dict[str, Path]:
        """What a bundle holds of it, by name: the adapter, and a recogniser's encoder.

        Args:
            scratch: folder for an adapter that came in torch's own form.
        """
        from safetensors.torch import save_file

        path = self._settings.adapter
        if path is None or path.suffix != ".safetensors":
            state = self._adapter.state_dict().items()
            path = scratch / f"adapter-{digest(path)[:16] if path else 0}.safetensors"
            scratch.mkdir(parents=True, exist_ok=True)
            save_file({name: value.float().cpu().contiguous() for name, value in state}, path)
        graphs = self._speech.files if isinstance(self._speech, RecogniserSpeech) else {}
        return {ADAPTER: path, **graphs}

    @torch.inference_mode()
    def simulate(self, segments: Sequence[NDArray[np.float32]]) -> list[SimulatedText]:
        """Simulate the text of speech segments [N] at 16 kHz, in one batch.

        A segment shorter than one concatenated frame (0.1 s) gives no frames.
        """
        shortest = self._speech.spec.stride * self._settings.concatenate
        long_enough = [i for i, samples in enumerate(segments) if len(samples) >= shortest]
        found = [self._nothing() for _ in segments]
        if not long_enough:
            return found
        prompts = self._prompts([segments[i] for i in long_enough])
        limits = [self.token_limit(len(segments[i])) for i in long_enough]
        for limit in sorted(set(limits)):  # each by its own: a score does not depend on companions
            rows = [row for row, own in enumerate(limits) if own == limit]
            states = self._generate([prompts[row] for row in rows], limit)
            for row, frames in zip(rows, states, strict=True):
                index = long_enough[row]
                seconds = len(segments[index]) / SAMPLE_RATE_HZ
                ends = np.arange(1, len(frames) + 1) / max(1, len(frames)) * seconds
                found[index] = SimulatedText(frames, ends)
        return found

    def token_limit(self, samples: int) -> int:
        """Tokens that so many samples of speech may hold."""
        wanted = samples / SAMPLE_RATE_HZ * self._settings.tokens_per_s / TOKENS_TOGETHER
        return min(self._settings.max_tokens, TOKENS_TOGETHER * max(1, math.ceil(wanted)))

    def _nothing(self) -> SimulatedText:
        return SimulatedText(np.zeros((0, self.dim), np.float32), np.zeros(0))

    def _prompts(self, segments: Sequence[NDArray[np.float32]]) -> list[Tensor]:
        """[S, D] for each segment: the speech's embeddings, then the prompt's."""
        lengths = torch.tensor([len(samples) for samples in segments])
        sound = torch.zeros(len(segments), int(lengths.max()))
        for row, samples in enumerate(segments):
            sound[row, : len(samples)] = torch.from_numpy(samples)
        kept = (torch.arange(sound.shape[1]) < lengths[:, None]).to(self._device)
        frames = self._speech(sound.to(self._device), kept).to(self._dtype)
        tokens = self._tokenizer(self._settings.prompt, return_tensors="pt").input_ids
        prompt = self._model.get_input_embeddings()(tokens.to(self._device))[0]
        counts = (lengths // self._speech.spec.stride).tolist()
        return [
            torch.cat([self._adapter(row[None, :count])[0], prompt])
            for row, count in zip(frames, counts, strict=True)
        ]

    def _generate(self, prompts: Sequence[Tensor], limit: int) -> list[NDArray[np.float32]]:
        """States [T, D] of the generated tokens of each prompt's winning sequence."""
        longest = max(len(prompt) for prompt in prompts)
        batch = torch.zeros(len(prompts), longest, self.dim, device=self._device, dtype=self._dtype)
        mask = torch.zeros(len(prompts), longest, device=self._device, dtype=torch.long)
        for row, prompt in enumerate(prompts):  # left padding: generation continues at the right
            batch[row, longest - len(prompt) :] = prompt
            mask[row, longest - len(prompt) :] = 1
        end = self._tokenizer.eos_token_id
        output = self._model.generate(
            inputs_embeds=batch,
            attention_mask=mask,
            num_beams=self._settings.beams,
            do_sample=False,
            max_new_tokens=limit,
            return_dict_in_generate=True,
            output_hidden_states=True,
            eos_token_id=end,
            pad_token_id=end,
            **self._cache,
        )
        return [self._winning_states(output, row, end) for row in range(len(prompts))]

    def _winning_states(self, output: Any, row: int, end: int | None) -> NDArray[np.float32]:
        """Walk back along the beams of the winning sequence, up to its end of text.

        Step 0 holds the prompt's states and is dropped; step i those of the i-th generated token
        in the row that the (i + 1)-th was generated from.
        """
        tokens = output.sequences[row].tolist()
        count = tokens.index(end) + 1 if end in tokens else len(tokens)
        beams = getattr(output, "beam_indices", None)
        states = []
        for step in range(1, min(count, len(output.hidden_states))):
            source = row if beams is None else int(beams[row, step])
            if source < 0:
                break
            layer = hidden_state(
                output.hidden_states[step], self._settings.layer, self._settings.language_model
            )
            states.append(layer[source, -1])
        if not states:
            return np.zeros((0, self.dim), np.float32)
        # One transfer: one for each token would make the GPU wait each time.
        return np.asarray(torch.stack(states).float().cpu().numpy(), np.float32)


def _static_cache() -> dict[str, Any]:
    """Options of ``generate`` for a static cache, with which it compiles its step on a GPU.

    Not with CUDA graphs, its default: a step's replay would overwrite the states of the last.
    """
    from transformers import CompileConfig

    return {
        "cache_implementation": "static",
        "compile_config": CompileConfig(mode="default", fullgraph=False),
    }


def load_models(settings: LlmSettings) -> LlmModels:
    """The models that the settings name.

    Raises:
        PretrainedError: one of them cannot be loaded.
    """
    speech = open_speech(settings.speech)
    tokenizer, model = load(settings.language_model, "AutoTokenizer", "AutoModelForCausalLM")
    return LlmModels(speech, tokenizer, model)


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """Read a state dict without running code from the file.

    Raises:
        PretrainedError: unreadable, or not a mapping of tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors: dict[str, Tensor] = load_file(path)
            return tensors
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise many kinds
        raise PretrainedError(
            f"{path}: cannot be read as weights ({type(error).__name__})"
        ) from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise PretrainedError(f"{path}: expected a mapping of names to tensors")
    return state


def _find(state: Mapping[str, Tensor], key: str, path: Path) -> Tensor:
    found = [value for name, value in state.items() if name == key or name.endswith(f".{key}")]
    if len(found) != 1:
        raise PretrainedError(f"{path}: expected one tensor named {key}, got {len(found)}")
    return found[0]
