"""Any transformers encoder-decoder speech model as a recogniser: Moonshine, Whisper; PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.pretrained import PretrainedError, half_on_gpu, load
from models.recogniser.decoding import NOTHING, Transcription, token_limit, transcription
from models.recogniser.shape import FIELD_SAMPLES
from models.spec import SAMPLE_RATE_HZ

Floats = NDArray[np.float32]


class PretrainedRecogniser:
    """Writes down speech with a model by name or path, batched; on the GPU where there is one."""

    def __init__(self, source: str) -> None:
        """Load the model.

        Raises:
            PretrainedError: it cannot be loaded, or is no encoder-decoder speech model.
        """
        self._device, dtype = half_on_gpu()
        self._features, self._tokenizer, model = load(
            source, "AutoFeatureExtractor", "AutoTokenizer", "AutoModelForSpeechSeq2Seq"
        )
        rate = getattr(self._features, "sampling_rate", SAMPLE_RATE_HZ)
        if rate != SAMPLE_RATE_HZ:
            raise PretrainedError(f"{source}: sound: expected {SAMPLE_RATE_HZ} Hz, got {rate}")
        self._model: Any = model.to(self._device, dtype).eval()
        self._dtype = dtype
        self._ends = _ids(self._model.generation_config.eos_token_id)

    def transcribe(self, samples: Floats) -> Transcription:
        """Write down a piece of speech [N] at 16 kHz."""
        return self.transcribe_batch([samples])[0]

    @torch.inference_mode()
    def transcribe_batch(self, pieces: Sequence[Floats]) -> list[Transcription]:
        """Write down pieces of speech [N] at 16 kHz, in one batch."""
        found = [NOTHING] * len(pieces)
        long_enough = [i for i, piece in enumerate(pieces) if len(piece) >= FIELD_SAMPLES]
        if not long_enough:
            return found
        inputs = self._features(
            [pieces[i] for i in long_enough],
            sampling_rate=SAMPLE_RATE_HZ,
            return_tensors="pt",
            return_attention_mask=True,
            **self._padding(),
        )
        tensors = {
            name: value.to(self._device, self._dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        limits = [token_limit(len(pieces[i])) for i in long_enough]
        output = self._model.generate(
            **tensors,
            max_new_tokens=max(limits),
            do_sample=False,
            num_beams=1,
            return_dict_in_generate=True,
            output_scores=True,
        )
        tokens = output.sequences[:, -len(output.scores) :]
        logprobs = torch.stack(
            [
                score.float().log_softmax(-1).gather(1, tokens[:, [step]])[:, 0]
                for step, score in enumerate(output.scores)
            ],
            dim=1,
        )
        for row, index in enumerate(long_enough):
            found[index] = self._read(tokens[row].tolist(), logprobs[row].tolist(), limits[row])
        return found

    def _padding(self) -> dict[str, Any]:
        """Whisper takes 30 s and nothing else; others take what the longest piece needs."""
        whisper = self._model.config.model_type == "whisper"
        return {"padding": "max_length"} if whisper else {"padding": True}

    def _read(self, tokens: Sequence[int], logprobs: Sequence[float], limit: int) -> Transcription:
        stop = next((i for i, token in enumerate(tokens) if token in self._ends), None)
        finished = stop is not None and stop <= limit
        kept = tokens[: limit if stop is None else min(stop, limit)]
        return transcription(self._text, kept, logprobs[: len(kept) + finished], finished)

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text.strip()


def _ids(value: int | Sequence[int] | None) -> frozenset[int]:
    if value is None:
        return frozenset()
    return frozenset([value] if isinstance(value, int) else value)
