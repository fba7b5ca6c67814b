"""``python -m engine build``: plans made ahead of time, here or for other machines' GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from engine.backends.protocol import BackendError
from engine.backends.tensorrt import cuda
from engine.backends.tensorrt.api import TensorRT
from engine.backends.tensorrt.cache import PlanCache, default_directory
from engine.backends.tensorrt.library import PlanLibrary
from engine.backends.tensorrt.loading import available, load
from engine.settings import EngineSettings
from models import bundle as bundles


def build_plans(settings: EngineSettings, capabilities: Sequence[str]) -> str:
    """Build every plan of the bundle and return a few lines about them.

    Args:
        settings: bundle, precision, largest batch and directory.
        capabilities: compute capabilities such as ``sm89``; none: this machine's GPU, on which
            the plans are then loaded and compared with ONNX Runtime.

    Raises:
        BackendError: TensorRT is missing, cannot build for a capability, or a plan differs.
    """
    bundle = bundles.open(settings.bundle)
    options = settings.tensorrt
    cache = PlanCache(options.plans_dir or default_directory(), options.foreign_plans)
    api = TensorRT()
    library = PlanLibrary(bundle, api, cache, options.precision, options.max_batch)
    if not capabilities:
        return _build_here(settings, bundle, library)
    known = api.capabilities()
    for capability in capabilities:
        if capability not in known:
            listed = ", ".join(known) or "none: it builds on the GPU itself, without --for"
            raise BackendError(
                f"--for: {api.kind} TensorRT {api.version} builds for {listed}; got {capability!r}"
            )
    lines = []
    with _progress(len(capabilities) * len(library.layouts)) as progress:
        for capability in capabilities:
            for graph in library.layouts:
                progress.update(progress.task_ids[0], description=f"{graph} for {capability}")
                made = library.obtain(graph, capability)
                progress.advance(progress.task_ids[0])
                lines.append(f"{cache.path(made.key)}  {len(made.plan) / 1e6:.1f} MB")
    lines.append("not compared with ONNX Runtime: each GPU does that when it first loads them")
    return "\n".join(lines)


def _build_here(settings: EngineSettings, bundle: bundles.Bundle, library: PlanLibrary) -> str:
    if (reason := available()) is not None:
        hint = ""
        if cuda.missing() is not None and library.api.builds_without_gpu:
            hint = f"; to build for another machine's GPU: --for {','.join(_examples(library.api))}"
        raise BackendError(reason + hint)
    with _progress(len(library.layouts)) as progress:
        task = progress.task_ids[0]
        backend = load(
            bundle,
            settings.tensorrt,
            lambda phase: progress.update(task, description=phase),
            lambda graph: progress.update(task, description=graph, advance=1),
        )
    return (
        f"{len(backend.graphs)} plans in {backend.precision} on {backend.device}, batches up to "
        f"{settings.tensorrt.max_batch}, compared with ONNX Runtime: {library.cache.directory}"
    )


def _examples(api: TensorRT) -> list[str]:
    return [name for name in ("sm86", "sm89", "sm120") if name in api.capabilities()]


def _progress(total: int) -> Progress:
    """A bar on standard error, so that the result on standard output stays clean."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    progress.add_task("plans", total=total)
    return progress
