"""Low-rank updates: merged weights give what the tuned model gave."""

import pytest
import torch
from torch import nn

from models import low_rank
from models.pretrained import PretrainedError


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(6, 8)
        self.layer = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embedding(x)
        for layer in self.layer:
            x = layer(x).relu()
        return x


def test_only_the_blocks_layers_learn_and_merging_gives_the_same_outputs() -> None:
    torch.manual_seed(0)
    plain, tuned = Tiny(), Tiny()
    tuned.load_state_dict(plain.state_dict())
    low_rank.attach(tuned, rank=2)
    inputs = torch.randn(5, 6)
    torch.testing.assert_close(tuned(inputs), plain(inputs))  # no update yet
    learns = [name for name, p in tuned.named_parameters() if p.requires_grad]
    assert learns == ["layer.0.down", "layer.0.up", "layer.1.down", "layer.1.up"]
    optimiser = torch.optim.Adam([p for p in tuned.parameters() if p.requires_grad], 0.05)
    for _ in range(5):
        optimiser.zero_grad()
        tuned(inputs).square().sum().backward()
        optimiser.step()
    assert not torch.allclose(tuned(inputs), plain(inputs), atol=1e-2)
    low_rank.merge(plain, low_rank.updates(tuned), "tiny")
    torch.testing.assert_close(tuned(inputs), plain(inputs), atol=5e-3, rtol=0)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"layer.7.down": torch.zeros(2, 8), "layer.7.up": torch.zeros(8, 2)}, "'layer.7'"),
        ({"layer.0.down": torch.zeros(2, 9), "layer.0.up": torch.zeros(8, 2)}, r"\[8, 9\], got"),
        ({"layer.0.down": torch.zeros(2, 8)}, "'layer.0' is not in it"),
    ],
)
def test_updates_of_another_model_are_refused(
    tensors: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(PretrainedError, match=message):
        low_rank.merge(Tiny(), tensors, "tiny")
