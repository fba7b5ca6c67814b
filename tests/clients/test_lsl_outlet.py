"""``python -m clients lsl`` read back by pylsl, in processes of their own."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import pytest

from tests.support.peers import ENVIRONMENT, Program, client, publisher

pytestmark = pytest.mark.slow

try:
    import pylsl
except (ImportError, RuntimeError) as reason:
    pytest.skip(f"pylsl or its liblsl is missing: {reason}", allow_module_level=True)

CONFIG = """[multicast]
ResolveScope = machine
[lab]
KnownPeers = {{127.0.0.1}}
SessionID = {session}
[log]
level = -2
"""


@pytest.fixture(scope="module")
def lsl_configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This machine only, found without multicast, apart from other people's streams.

    liblsl reads it once per process, at its first use.
    """
    path = tmp_path_factory.mktemp("lsl") / "lsl_api.cfg"
    path.write_text(CONFIG.format(session=f"undertone-test-{os.getpid()}"))
    os.environ["LSLAPICFG"] = str(path)
    return path


def bridge(endpoint: str, configuration: Path) -> Program:
    environment = {**ENVIRONMENT, "LSLAPICFG": str(configuration)}
    return client("lsl", "--scores", endpoint, env=environment)


def test_values_metadata_and_time_arrive(lsl_configuration: Path) -> None:
    script = "subscriber,wait:100,a:0,wait:3000," + "".join(
        f"a:{n},wait:150," for n in range(1, 60)
    )
    began_s = time.monotonic()
    with publisher(script + "hold") as endpoint, bridge(endpoint, lsl_configuration) as outlets:
        outlets.line(lambda line: line.startswith("outlet Undertone a: example 1"))
        (found,) = pylsl.resolve_byprop("name", "Undertone a", 1, 20)
        inlet = pylsl.StreamInlet(found)
        inlet.open_stream(20)
        info = inlet.info(20)
        assert (info.type(), info.nominal_srate()) == ("Sentiment", pylsl.IRREGULAR_RATE)
        labels, channel = [], info.desc().child("channels").child("channel")
        while not channel.empty():
            labels.append((channel.child_value("label"), channel.child_value("unit")))
            channel = channel.next_sibling("channel")
        assert labels[0] == ("valence", "valence")
        assert [name for name, _ in labels[3:6]] == ["weight_audio", "weight_text", "weight_video"]
        model = info.desc().child("model")
        assert (model.child_value("name"), model.child_value("trained")) == ("example", "true")
        assert info.desc().child_value("stream") == "a"

        sample, stamp = inlet.pull_sample(20)
        inlet.close_stream()
    assert sample[:4] == [0.5, -0.5, 1.5, 0.5]
    assert sample[5] == 0.5
    assert all(map(math.isnan, (sample[4], *sample[6:])))
    # LSL's clock on this host is the monotonic one: the stamp is the window's end.
    assert began_s < stamp < time.monotonic()


def test_a_stream_without_a_value_sends_nan(lsl_configuration: Path) -> None:
    script = "subscriber,wait:100," + "".join(f"quiet:{n}:nil,wait:150," for n in range(60))
    with publisher(script + "hold") as endpoint, bridge(endpoint, lsl_configuration) as outlets:
        outlets.line(lambda line: "quiet" in line)
        (found,) = pylsl.resolve_byprop("name", "Undertone quiet", 1, 20)
        inlet = pylsl.StreamInlet(found)
        inlet.open_stream(20)
        sample, _ = inlet.pull_sample(20)
        inlet.close_stream()
    assert all(map(math.isnan, sample[:3]))
